//! What the taker's process may do next, and doing it.

use socket_takeover::takeover::taker::{Event, State};

use super::{Op, TakerProcess};
use crate::kernel::{Broken, Down, Holding, Kernel, Luck, due, id};
use crate::mutants::Mutant;

/// What the taker's process may do next.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Move {
    /// Perform the next operation.
    Perform,
    /// Its kernel, or its application, refuses the next operation.
    Glitch,
    Receive,
    /// Receive a batch and not take this item of it.
    Decline(usize),
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
}

impl Move {
    pub(crate) fn luck(self) -> Luck {
        match self {
            Move::Glitch | Move::Unusable => Luck::Glitch,
            Move::Decline(_) => Luck::Decline,
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
            return vec![Move::Perform];
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
        if !kernel.channel.down.is_empty() {
            moves.push(Move::Receive);
        }
        if kernel.channel.is_at_end_for_taker() && !self.told_eof {
            moves.push(Move::Eof);
        }
        moves
    }

    /// What needs somebody to go wrong or to be slow.
    pub(crate) fn unlucky_moves(&self, kernel: &Kernel) -> Vec<Move> {
        match self.ops.front() {
            Some(Op::SayDrained | Op::Validate | Op::SayActive) => vec![Move::Glitch],
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
        if let Some(Down::Items { new, .. }) = kernel.channel.down.front() {
            moves.push(Move::Unusable);
            // The final array is not acknowledged, so there is nothing to decline it by.
            if self.state() == State::Receive {
                moves.extend(new.iter().map(|(item, _)| Move::Decline(*item)));
            }
        }
        // Readiness beats a deadline: what has arrived in time is received first.
        let quiet = kernel.channel.down.is_empty() && !kernel.channel.is_at_end_for_taker();
        if self.armed && (quiet || self.mutant == Mutant::DeadlineBeforeReadiness) {
            moves.push(Move::Deadline);
        }
        moves
    }

    pub(crate) fn make(&mut self, choice: Move, kernel: &mut Kernel) -> Result<(), Broken> {
        match choice {
            Move::Perform => self.perform(kernel),
            Move::Glitch => match self.ops.pop_front() {
                // ACTIVE is best effort.
                Some(Op::SayActive) => {}
                Some(_) | None => self.outcomes.push_back(Event::Unusable),
            },
            Move::Receive => self.receive(None, kernel)?,
            Move::Decline(item) => self.receive(Some(item), kernel)?,
            Move::Unusable => {
                kernel.channel.down.pop_front();
                self.step(Event::Unusable);
            }
            Move::Eof => {
                self.told_eof = true;
                self.step(Event::Eof);
            }
            Move::Deadline => {
                self.armed = false;
                self.step(Event::Deadline);
            }
            Move::Term => self.term(),
            Move::Serve { item, cut_short } => {
                if let Some(held) = &mut self.items[item] {
                    held.serve(&mut kernel.connections[item], cut_short)?;
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

    fn receive(&mut self, decline: Option<usize>, kernel: &mut Kernel) -> Result<(), Broken> {
        let settling = self.state() == State::Settle;
        if self.mutant == Mutant::ClaimWithoutEnd && settling && kernel.lease.is_one() {
            self.step(Event::End);
            return Ok(());
        }
        let Some(record) = kernel.channel.down.pop_front() else {
            return Err("receive from an empty channel".into());
        };
        let event = match record {
            Down::Welcome => Event::Welcome,
            Down::Prepare => Event::Prepare,
            Down::End => Event::End,
            Down::Abort => Event::Abort,
            Down::Closed(closed) => {
                for item in closed {
                    self.items[item] = None;
                }
                self.taken(None)
            }
            Down::Items { new, changed } => {
                for (item, saved) in changed {
                    if let Some(held) = &mut self.items[item] {
                        held.saved = self.mutant.restored(saved);
                    }
                }
                for (item, saved) in new {
                    let connection = kernel.connections[item];
                    let held = Holding::registered(self.mutant.restored(saved), connection);
                    self.declined[item] = decline == Some(item);
                    self.items[item] = (decline != Some(item)).then_some(held);
                }
                self.taken(decline)
            }
        };
        self.step(event);
        Ok(())
    }

    /// The same records mean a batch to acknowledge before PREPARE and a part of the final
    /// array after it.
    fn taken(&self, declined: Option<usize>) -> Event {
        if self.state() == State::Settle {
            return Event::FinalPart;
        }
        Event::Batch {
            sequence: 0,
            declined: declined.into_iter().map(id).collect(),
        }
    }
}
