//! What the donor's process may do next, and doing it.

use socket_takeover::takeover::internal::donor::{Action, Cause, Donor, Event, Outcome, State};

use super::DonorProcess;
use crate::kernel::{Declining, Down, ITEMS, Kernel, Luck, Pidfd, Up, due, id};
use crate::mutants::Mutant;
use crate::rules::{Broken, Rule};
use crate::world::possible;

/// What the donor's process may do next.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Move {
    /// Perform the next action.
    Perform,
    /// Its kernel, or its application, refuses the next action.
    Glitch,
    Accept,
    /// Another taker has called while this one is served.
    Busy,
    Receive,
    /// Receive a HELLO that does not fit.
    Refuse,
    Eof,
    Died,
    Deadline,
    Term,
    Writable,
    /// Say what is not true.
    Lie(Lie),
    /// A turn of the reactor gets to this item.
    Serve {
        item: usize,
        cut_short: bool,
    },
    /// The last turn gets to the next ready item, or to its end.
    Sweep {
        cut_short: bool,
    },
    /// The last client of a drain has gone.
    Emptied,
}

/// What a donor could say at the wrong time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Lie {
    Welcome,
    Refuse,
    Prepare,
    End,
    Abort,
}

impl Lie {
    const ALL: [Lie; 5] = [
        Lie::Welcome,
        Lie::Refuse,
        Lie::Prepare,
        Lie::End,
        Lie::Abort,
    ];

    fn record(self) -> Down {
        match self {
            Lie::Welcome => Down::Welcome,
            Lie::Refuse => Down::Refuse,
            Lie::Prepare => Down::Prepare,
            Lie::End => Down::FalseEnd,
            Lie::Abort => Down::Abort,
        }
    }
}

impl Move {
    pub(crate) fn luck(self) -> Luck {
        match self {
            Move::Glitch => Luck::Glitch,
            Move::Deadline => Luck::Deadline,
            Move::Refuse => Luck::Refusal,
            Move::Lie(_) => Luck::Lie,
            Move::Serve { cut_short, .. } | Move::Sweep { cut_short } if cut_short => {
                Luck::CutShort
            }
            Move::Perform
            | Move::Accept
            | Move::Busy
            | Move::Receive
            | Move::Eof
            | Move::Died
            | Move::Term
            | Move::Writable
            | Move::Serve { .. }
            | Move::Sweep { .. }
            | Move::Emptied => Luck::Good,
        }
    }
}

impl DonorProcess {
    /// Everything that happens by itself sooner or later, but for deadlines.
    pub(crate) fn moves(&self, kernel: &Kernel) -> Vec<Move> {
        if !self.is_free() {
            return vec![Move::Perform];
        }
        let mut moves = Vec::new();
        let channel = &kernel.line.channel;
        if self.term_pending {
            moves.push(Move::Term);
        }
        if !self.attached && channel.is_pending() && !self.machine.is_busy() {
            moves.push(Move::Accept);
        }
        if self.attached {
            let deaf = self.mutant == Mutant::ResetIsTheEnd && channel.is_reset_for_donor();
            let at_end = (channel.is_at_end_for_donor() || deaf) && !self.told_eof;
            // What the taker has said before is read first.
            let silent = channel.up.is_empty() || self.mutant == Mutant::DeathBeforeLastWords;
            let dead = kernel.line.pidfd == Pidfd::Readable && !self.told_died && silent;
            let writable = self.blocked && channel.is_open() && channel.has_room();
            moves.extend(possible([
                (Move::Receive, !channel.up.is_empty()),
                (Move::Eof, at_end),
                (Move::Died, dead),
                (Move::Writable, writable),
            ]));
        }
        moves.extend(self.due().map(|item| Move::Serve {
            item,
            cut_short: false,
        }));
        if self.sweep.is_some() {
            moves.push(Move::Sweep { cut_short: false });
        }
        moves
    }

    /// What needs somebody to go wrong, to be slow or to go away.
    pub(crate) fn unlucky_moves(&self, kernel: &Kernel) -> Vec<Move> {
        match self.actions.front() {
            Some(
                Action::Welcome
                | Action::Prepare
                | Action::Send(_)
                | Action::Grant
                | Action::End
                | Action::Revoke
                | Action::Kill,
            ) => return vec![Move::Glitch],
            Some(_) => return Vec::new(),
            None => {}
        }
        let long = |item: &usize| kernel.connections[*item].unread() > 1;
        let mut moves = Vec::new();
        moves.extend(self.due().filter(long).map(|item| Move::Serve {
            item,
            cut_short: true,
        }));
        if self.next_to_sweep().as_ref().is_some_and(long) {
            moves.push(Move::Sweep { cut_short: true });
        }
        if self.armed.is_some() {
            moves.push(Move::Deadline);
        }
        if *self.state() == State::Drain {
            moves.push(Move::Emptied);
        }
        if self.attached {
            let hello = matches!(kernel.line.channel.up.front(), Some(Up::Hello { .. }));
            let first = *self.state() == State::AcceptChannel;
            moves.extend((hello && first).then_some(Move::Refuse));
            if kernel.line.channel.is_open() {
                moves.extend(Lie::ALL.map(Move::Lie));
            }
        }
        moves
    }

    /// Items that the reactor may get to now.
    fn due(&self) -> impl Iterator<Item = usize> {
        due(&self.items).filter(|_| self.polls)
    }

    /// Makes one move, and what follows from it unseen.
    pub(crate) fn make(&mut self, choice: Move, kernel: &mut Kernel) -> Result<(), Broken> {
        match choice {
            Move::Perform => self.perform(kernel)?,
            Move::Glitch => match self.actions.pop_front() {
                Some(Action::Kill) => kernel.line.kill_failed = true,
                Some(Action::Revoke) => self.report(Event::Did(Outcome::Unread)),
                _ => self.report(Event::Failure(Cause::Resources)),
            },
            Move::Accept => self.accept(),
            Move::Busy => self.turn_away()?,
            Move::Term => self.term(),
            Move::Lie(lie) => {
                kernel.line.lied = true;
                self.post(lie.record(), kernel, true);
            }
            Move::Refuse => {
                kernel.line.channel.up.pop_front();
                self.refuse(Cause::Protocol, kernel);
            }
            Move::Receive => {
                let said = kernel.line.channel.up.pop_front();
                let said = said.expect("only offered if something is there");
                self.hear(said, kernel);
            }
            Move::Eof if !kernel.line.channel.up.is_empty() => {
                let what = "the donor takes a channel for ended that has records";
                return Err(Rule::HeardOut.broken(what));
            }
            Move::Eof => {
                self.told_eof = true;
                self.feed(Event::Failure(Cause::Eof));
            }
            Move::Died => {
                self.told_died = true;
                self.feed(Event::Failure(Cause::Died));
            }
            Move::Deadline => {
                self.armed = None;
                let silence = self.mutant == Mutant::SilenceIsLife && self.waits_for_owner();
                self.feed(match silence {
                    true => Event::Active,
                    false => Event::Failure(Cause::Deadline),
                });
            }
            Move::Writable if self.outbox.is_empty() => {
                self.blocked = false;
                self.feed(Event::Writable);
            }
            Move::Writable => {
                self.flush(kernel);
                self.blocked = !self.outbox.is_empty();
                if !self.blocked {
                    self.feed(Event::Writable);
                }
            }
            Move::Serve { item, cut_short } => self.serve(item, cut_short, kernel)?,
            Move::Sweep { cut_short } => self.sweep_on(cut_short, kernel)?,
            Move::Emptied => {
                self.end_clients(&[], kernel);
                self.feed(Event::Did(Outcome::Emptied));
            }
        }
        self.go_on();
        Ok(())
    }

    fn accept(&mut self) {
        self.attached = true;
        self.told_active = false;
        self.told_eof = false;
        self.told_died = false;
        if self.mutant == Mutant::BusyNotChecked {
            self.machine = Donor::limited(self.limits);
        }
        self.feed(Event::Caller);
    }

    /// Whoever calls now is told BUSY; the machine would not let it change anything either.
    fn turn_away(&mut self) -> Result<(), Broken> {
        let before = self.machine.clone();
        let (after, actions) = before.clone().step(Event::Caller);
        if after != before || !actions.is_empty() {
            return Err(Rule::Busy.broken("a second caller changes something"));
        }
        Ok(())
    }

    fn refuse(&mut self, cause: Cause, kernel: &mut Kernel) {
        self.post(Down::Refuse, kernel, false);
        self.feed(Event::Failure(cause));
    }

    fn hear(&mut self, said: Up, kernel: &mut Kernel) {
        let event = match said {
            Up::Hello { slots } if *self.state() == State::AcceptChannel => {
                if self.items.iter().flatten().count() > slots {
                    return self.refuse(Cause::FdLimit, kernel);
                }
                Event::Fits { slots }
            }
            Up::Hello { .. } => Event::Failure(Cause::Protocol),
            Up::Ack { declined, how } => {
                self.hear_of_declined(declined, how, kernel);
                Event::Ack { number: 0 }
            }
            Up::Drained => Event::Drained,
            Up::Active => {
                self.told_active = true;
                Event::Active
            }
            Up::Fail => Event::Failure(Cause::Failed),
        };
        self.feed(event);
    }

    fn serve(&mut self, item: usize, cut_short: bool, kernel: &mut Kernel) -> Result<(), Broken> {
        let Some(held) = self.items[item] else {
            return Ok(());
        };
        match held.served(&mut kernel.connections[item], cut_short)? {
            Some(held) => self.items[item] = Some(held),
            None => {
                self.let_go(item);
                return Ok(());
            }
        }
        if self.mutant != Mutant::UntrackedDirty {
            self.note_held(item, kernel);
        }
        Ok(())
    }

    /// What is declined, and what need not be offered any more: that is noted anew, since it
    /// was noted when it was wanted, as far as was known.
    fn hear_of_declined(
        &mut self,
        declined: Vec<usize>,
        how: Option<Declining>,
        kernel: &mut Kernel,
    ) {
        if declined.is_empty() || *self.state() == State::Idle {
            return;
        }
        let items = declined.iter().copied().map(id).collect();
        let kinds = Vec::new();
        self.step(Event::Declined { items, kinds });
        for item in &declined {
            self.declined[*item] = true;
        }
        if matches!(how, Some(Declining::Kind | Declining::Linked)) {
            self.unwanted = true;
            let held = (0..ITEMS).filter(|item| self.items[*item].is_some());
            if self.mutant != Mutant::UnwantedOffered {
                let held: Vec<_> = held.collect();
                held.into_iter()
                    .for_each(|item| self.note_held(item, kernel));
            }
        }
    }

    fn next_to_sweep(&self) -> Option<usize> {
        (self.sweep?..ITEMS).find(|item| self.items[*item].is_some_and(|held| held.edge))
    }

    fn sweep_on(&mut self, cut_short: bool, kernel: &mut Kernel) -> Result<(), Broken> {
        match self.next_to_sweep() {
            Some(item) if self.mutant != Mutant::NoFinalSweep => {
                self.sweep = Some(item + 1);
                self.serve(item, cut_short, kernel)
            }
            Some(_) | None => {
                self.sweep = None;
                self.polls = false;
                self.report(Event::Did(Outcome::Held));
                Ok(())
            }
        }
    }
}
