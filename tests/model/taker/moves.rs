//! What the taker's process may do next, and doing it.

use socket_takeover::takeover::internal::taker::{Event, State};

use super::{Op, TakerProcess};
use crate::kernel::{
    Connection, Declining, Down, Holding, ITEMS, Kernel, Luck, Saved, Up, due, id,
};
use crate::mutants::Mutant;
use crate::rules::Broken;
use crate::world::possible;

/// What the taker's process may do next.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Move {
    /// Perform the next operation.
    Perform,
    /// Its kernel, or its application, refuses the next operation.
    Glitch,
    Receive,
    /// Receive a batch and not take this item of it.
    Decline(usize, Declining),
    /// Receive what its application cannot use.
    Unusable,
    Eof,
    Deadline,
    Term,
    /// A turn of the reactor gets to this item.
    Serve {
        item: usize,
        cut_short: bool,
    },
    /// Say what is not true.
    Lie(Lie),
}

/// What a taker could say at the wrong time. It lies about no item: one that says it has
/// closed a copy and serves it can do so without any word, as whoever has a descriptor can.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Lie {
    Hello,
    Ack,
    Drained,
    Fail,
    Active,
    /// Hang up without a word of ACTIVE.
    Silence,
}

impl Lie {
    const ALL: [Lie; 5] = [Lie::Hello, Lie::Ack, Lie::Drained, Lie::Fail, Lie::Active];

    fn record(self) -> Option<Up> {
        Some(match self {
            Lie::Hello => Up::Hello { slots: ITEMS },
            Lie::Ack => Up::Ack {
                declined: Vec::new(),
                how: None,
            },
            Lie::Drained => Up::Drained,
            Lie::Fail => Up::Fail,
            Lie::Active => Up::Active,
            Lie::Silence => return None,
        })
    }
}

impl Move {
    pub(crate) fn luck(self) -> Luck {
        match self {
            Move::Glitch | Move::Unusable => Luck::Glitch,
            Move::Decline(..) => Luck::Decline,
            Move::Lie(_) => Luck::Lie,
            Move::Deadline => Luck::Deadline,
            Move::Serve { cut_short, .. } if cut_short => Luck::CutShort,
            Move::Perform | Move::Receive | Move::Eof | Move::Term | Move::Serve { .. } => {
                Luck::Good
            }
        }
    }
}

impl TakerProcess {
    /// Everything that happens by itself sooner or later, but for deadlines.
    pub(crate) fn moves(&self, kernel: &Kernel) -> Vec<Move> {
        if !self.is_free() {
            let untold = self.ops.front() == Some(&Op::SayActive);
            let leaves = self.mutant == Mutant::LeavesUntold && untold && self.term_pending;
            return possible([(Move::Perform, true), (Move::Term, leaves)]).collect();
        }
        let mut moves = Vec::new();
        if self.term_pending {
            moves.push(Move::Term);
        }
        if self.polls {
            moves.extend(due(&self.items).map(|item| Move::Serve {
                item,
                cut_short: false,
            }));
            return moves;
        }
        if !kernel.line.channel.down.is_empty() {
            moves.push(Move::Receive);
        }
        let channel = &kernel.line.channel;
        let deaf = self.mutant == Mutant::ResetIsTheEnd && channel.is_reset_for_taker();
        if (channel.is_at_end_for_taker() || deaf) && !self.told_eof {
            moves.push(Move::Eof);
        }
        moves
    }

    /// What needs somebody to go wrong or to be slow.
    pub(crate) fn unlucky_moves(&self, kernel: &Kernel) -> Vec<Move> {
        match self.ops.front() {
            Some(Op::SayDrained | Op::Validate) => vec![Move::Glitch],
            Some(Op::SayActive) => vec![Move::Glitch, Move::Lie(Lie::Silence)],
            Some(_) => Vec::new(),
            None if self.polls => {
                let long = |item: &usize| kernel.connections[*item].unread() > 1;
                let serve = |item| Move::Serve {
                    item,
                    cut_short: true,
                };
                due(&self.items).filter(long).map(serve).collect()
            }
            None => self.unlucky_moves_on_channel(kernel),
        }
    }

    fn unlucky_moves_on_channel(&self, kernel: &Kernel) -> Vec<Move> {
        let mut moves = Vec::new();
        if let Some(Down::Items { new, .. }) = kernel.line.channel.down.front() {
            moves.push(Move::Unusable);
            // The final array is not acknowledged, so there is nothing to decline it by.
            if self.state() == State::Receive {
                let ways = |(item, _): &(usize, Saved)| {
                    let item = *item;
                    Declining::ALL.map(|how| Move::Decline(item, how))
                };
                moves.extend(new.iter().flat_map(ways));
            }
        }
        // Readiness beats a deadline: what has arrived in time is received first.
        let quiet =
            kernel.line.channel.down.is_empty() && !kernel.line.channel.is_at_end_for_taker();
        if self.armed.is_some() && (quiet || self.mutant == Mutant::DeadlineBeforeReadiness) {
            moves.push(Move::Deadline);
        }
        if kernel.line.channel.is_open() && self.state() != State::Gone {
            moves.extend(Lie::ALL.map(Move::Lie));
        }
        moves
    }

    pub(crate) fn make(&mut self, choice: Move, kernel: &mut Kernel) -> Result<(), Broken> {
        match choice {
            Move::Perform => self.perform(kernel),
            Move::Glitch => match self.ops.pop_front() {
                // It is said later, and nobody takes over before it is.
                Some(Op::SayActive) if self.mutant != Mutant::ActiveGivenUp => {
                    self.ops.push_front(Op::SayActive);
                }
                Some(Op::SayActive) => {}
                Some(_) | None => {
                    kernel.line.unusable = true;
                    self.outcomes.push_back(Event::Unusable);
                }
            },
            Move::Lie(lie) => {
                kernel.line.lied = true;
                match lie.record() {
                    Some(record) => kernel.line.channel.say(record),
                    None => drop(self.ops.pop_front()),
                }
            }
            Move::Receive => self.receive(None, kernel)?,
            Move::Decline(item, how) => self.receive(Some((item, how)), kernel)?,
            Move::Unusable => {
                kernel.line.unusable = true;
                kernel.line.channel.down.pop_front();
                self.step(Event::Unusable);
            }
            Move::Eof => {
                self.told_eof = true;
                self.step(Event::Eof);
            }
            Move::Deadline => {
                self.armed = None;
                self.step(Event::Deadline);
            }
            Move::Term => self.term(),
            Move::Serve { item, cut_short } => {
                if let Some(held) = self.items[item] {
                    let connection = &mut kernel.connections[item];
                    self.items[item] = held.served(connection, cut_short)?;
                }
            }
        }
        while self.is_free()
            && let Some(outcome) = self.outcomes.pop_front()
        {
            self.step(outcome);
        }
        Ok(())
    }

    fn receive(
        &mut self,
        decline: Option<(usize, Declining)>,
        kernel: &mut Kernel,
    ) -> Result<(), Broken> {
        let settling = self.state() == State::Settle;
        if self.mutant == Mutant::ClaimWithoutEnd && settling && kernel.line.lease.is_one() {
            self.step(Event::End);
            return Ok(());
        }
        let record = kernel.line.channel.down.pop_front();
        let event = match record.expect("only offered if something is there") {
            Down::Welcome => Event::Welcome,
            Down::Refuse => Event::Refused,
            Down::Prepare => Event::Prepare,
            Down::End => Event::End,
            Down::FalseEnd => {
                self.disagrees = self.mutant != Mutant::EndNotCompared;
                Event::End
            }
            Down::Abort => Event::Abort,
            Down::Closed(closed) => {
                for item in closed {
                    self.items[item] = None;
                    self.declined[item] = false;
                }
                self.taken(Vec::new())
            }
            Down::Items { new, changed } => {
                for (item, saved) in changed {
                    if let Some(held) = &mut self.items[item] {
                        let was_dead = held.saved.run && !kernel.connections[item].is_open();
                        held.saved = self.mutant.restored(saved);
                        held.saved.run |= was_dead;
                    }
                }
                self.take(&new, decline, kernel)
            }
        };
        self.step(event);
        Ok(())
    }

    /// Takes new items, but for those it declines.
    fn take(
        &mut self,
        new: &[(usize, Saved)],
        decline: Option<(usize, Declining)>,
        kernel: &Kernel,
    ) -> Event {
        let settling = self.state() == State::Settle;
        let mut declined = Vec::new();
        for &(item, saved) in new {
            let connection = kernel.connections[item];
            let dead = connection == Connection::Reset;
            let named = decline.filter(|(which, _)| *which == item);
            self.how = named.map_or(self.how, |(_, how)| Some(how));
            let unlike = matches!(self.how, Some(Declining::Kind | Declining::Linked));
            if (dead && self.mutant == Mutant::DeadPeerRefused) || (unlike && settling) {
                return Event::Unusable;
            }
            if named.is_some() || unlike {
                declined.push(item);
                continue;
            }
            // Its event may be discarded before the claim, and no other follows.
            let saved = Saved {
                run: saved.run || dead,
                ..self.mutant.restored(saved)
            };
            self.items[item] = Some(Holding::registered(saved, connection));
        }
        if matches!(decline, Some((_, Declining::Linked))) {
            let held = (0..ITEMS).filter(|item| self.items[*item].is_some());
            declined.extend(held);
        }
        for item in &declined {
            self.declined[*item] = true;
            self.items[*item] = None;
        }
        self.taken(declined)
    }

    /// The same records mean a batch to acknowledge before PREPARE and a part of the final
    /// array after it.
    fn taken(&self, declined: Vec<usize>) -> Event {
        if self.state() == State::Settle {
            return Event::FinalPart;
        }
        Event::Batch {
            sequence: 0,
            declined: declined.into_iter().map(id).collect(),
        }
    }
}
