//! What the donor's process may do next, and doing it.

use socket_takeover::takeover::donor::{Action, Cause, Event, Outcome, State};
use socket_takeover::takeover::ledger::ItemId;

use super::DonorProcess;
use crate::kernel::{Broken, ITEMS, Kernel, Luck, Pidfd, Side, Up, due, id};
use crate::mutants::Mutant;
use crate::world::possible;

/// What the donor's process may do next.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Move {
    /// Perform the next action.
    Perform,
    /// Its kernel, or its application, refuses the next action.
    Glitch,
    Accept,
    Receive,
    Eof,
    Died,
    Deadline,
    Writable,
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

impl Move {
    pub(crate) fn luck(self) -> Luck {
        match self {
            Move::Glitch => Luck::Glitch,
            Move::Deadline => Luck::Deadline,
            Move::Serve { cut_short, .. } | Move::Sweep { cut_short } if cut_short => {
                Luck::CutShort
            }
            Move::Perform
            | Move::Accept
            | Move::Receive
            | Move::Eof
            | Move::Died
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
        let channel = &kernel.channel;
        if !self.attached && channel.is_pending() && !self.machine.is_busy() {
            moves.push(Move::Accept);
        }
        if self.attached {
            let at_end = channel.is_at_end_for_donor() && !self.told_eof;
            // What the taker has said before is read first.
            let silent = channel.up.is_empty();
            let dead = kernel.pidfd == Pidfd::Readable && !self.told_died && silent;
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
                Action::Welcome | Action::Prepare | Action::Send(_) | Action::Grant | Action::End,
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
        let overlooks = self.mutant == Mutant::DeadlineBeforePidfd;
        if self.armed.is_some() && (overlooks || !self.is_about_to_hear_of_death(kernel)) {
            moves.push(Move::Deadline);
        }
        if *self.state() == State::Drain {
            moves.push(Move::Emptied);
        }
        moves
    }

    /// Items that the reactor may get to now.
    fn due(&self) -> impl Iterator<Item = usize> {
        due(&self.items).filter(|_| self.polls)
    }

    /// The driver looks at the pidfd before it lets this one deadline pass: a death must not
    /// be overlooked just because the donor itself was stopped for a while.
    fn is_about_to_hear_of_death(&self, kernel: &Kernel) -> bool {
        let bereaved = matches!(self.state(), State::Bereaved(_));
        bereaved && kernel.pidfd != Pidfd::Alive && !self.told_died
    }

    /// Makes one move, and what follows from it unseen.
    pub(crate) fn make(&mut self, choice: Move, kernel: &mut Kernel) -> Result<(), Broken> {
        match choice {
            Move::Perform => self.perform(kernel)?,
            Move::Glitch => {
                self.actions.pop_front();
                self.report(Event::Failure(Cause::Resources));
            }
            Move::Accept => {
                self.attached = true;
                self.told_active = false;
                self.feed(Event::Caller);
            }
            Move::Receive => {
                let event = match kernel.channel.up.pop_front() {
                    Some(Up::Hello { slots }) => Event::Fits { slots },
                    Some(Up::Ack { declined }) => Event::Ack {
                        declined: self.hear_of_declined(declined),
                    },
                    Some(Up::Drained) => Event::Drained,
                    Some(Up::Active) => {
                        self.told_active = true;
                        Event::Active
                    }
                    Some(Up::Fail) => Event::Failure(Cause::Failed),
                    None => return Err("receive from an empty channel".into()),
                };
                self.feed(event);
            }
            Move::Eof => {
                self.told_eof = true;
                self.feed(Event::Failure(Cause::Eof));
            }
            Move::Died => {
                self.told_died = true;
                let taken = kernel.lease.winner() == Some(Side::Taker);
                self.bereft |= taken && !self.told_active;
                self.feed(Event::Failure(Cause::Died));
            }
            Move::Deadline => {
                self.armed = None;
                self.bereft |= self.is_about_to_hear_of_death(kernel);
                self.feed(Event::Failure(Cause::Deadline));
            }
            Move::Writable => {
                self.blocked = false;
                self.feed(Event::Writable);
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

    fn serve(&mut self, item: usize, cut_short: bool, kernel: &mut Kernel) -> Result<(), Broken> {
        if let Some(held) = &mut self.items[item] {
            held.serve(&mut kernel.connections[item], cut_short)?;
        }
        if self.mutant != Mutant::UntrackedDirty {
            self.note_held(item, kernel);
        }
        Ok(())
    }

    fn hear_of_declined(&mut self, declined: Vec<usize>) -> Vec<ItemId> {
        declined.iter().for_each(|item| self.declined[*item] = true);
        declined.into_iter().map(id).collect()
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
