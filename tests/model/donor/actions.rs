//! What the donor's driver does for each action.

use socket_takeover::takeover::donor::{Action, Cause, Event, Outcome};
use socket_takeover::takeover::ledger::{Batch, ItemId, Presence};

use super::DonorProcess;
use crate::kernel::{
    Broken, Connection, Down, Holding, ITEMS, Kernel, Pidfd, Side, Signal, id, slot,
};
use crate::mutants::Mutant;

impl DonorProcess {
    /// Performs the next action.
    pub(super) fn perform(&mut self, kernel: &mut Kernel) -> Result<(), Broken> {
        let Some(action) = self.actions.pop_front() else {
            return Err("nothing to perform".into());
        };
        let room = kernel.channel.has_room();
        let open = kernel.channel.is_open();
        match action {
            Action::Arm(_) | Action::Disarm => unreachable!("done by go_on"),
            Action::Welcome => {
                kernel.unwanted = [false; ITEMS];
                self.declined = [false; ITEMS];
                self.tracks = true;
                kernel.channel.tell(Down::Welcome);
                let held = (0..ITEMS).filter(|item| self.items[*item].is_some());
                let all = held.map(|item| (id(item), Presence::Held)).collect();
                self.report(Event::Changed(all));
            }
            Action::Prepare if open && !room => return Err("PREPARE does not fit".into()),
            Action::Prepare => kernel.channel.tell(Down::Prepare),
            // EPIPE is no verdict: the channel is read to its end, and that is reported.
            Action::Send(_) | Action::End if !open => {}
            Action::Send(_) | Action::End if !room => {
                self.blocked = true;
                self.report(Event::Did(Outcome::Blocked));
            }
            Action::Send(batch) => {
                kernel.channel.tell(self.record(&batch)?);
                self.report(Event::Did(Outcome::Sent(batch)));
            }
            Action::End => {
                kernel.channel.tell(Down::End);
                kernel.end_in_time = true;
                self.report(Event::Did(Outcome::EndSent));
            }
            Action::Hold => self.sweep = Some(0),
            Action::Grant if self.mutant == Mutant::GrantAfterEnd && !self.has_sent_end() => {
                self.report(Event::Did(Outcome::Granted));
            }
            Action::Grant => {
                kernel.lease.grant()?;
                self.report(Event::Did(Outcome::Granted));
            }
            Action::Revoke => {
                let verdict = self.mutant.verdict(self.state());
                let won = verdict.unwrap_or_else(|| kernel.lease.read(Side::Donor));
                let dead = kernel.pidfd == Pidfd::Readable;
                self.bereft |= !won && dead && !self.told_active;
                let lost = Outcome::Lost { dead };
                self.report(Event::Did(if won { Outcome::Won } else { lost }));
            }
            Action::Resume(cause) => self.resume(cause)?,
            Action::Abort(_) if room => kernel.channel.tell(Down::Abort),
            Action::Abort(_) => {}
            Action::Kill if kernel.lease.winner() == Some(Side::Taker) => {
                return Err("the owner is killed".into());
            }
            Action::Kill => kernel.signal = Some(Signal::Kill),
            Action::HangUp => self.hang_up(kernel),
            Action::Orphan(declined) => self.orphan(&declined, kernel)?,
            Action::Release(declined) => self.release(&declined, kernel)?,
            Action::PassTerm => {
                self.owes_term = false;
                kernel.signal = Some(Signal::Term);
            }
            Action::Stop if !self.termed => return Err("the donor stops unasked".into()),
            Action::Exit if kernel.lease.winner() != Some(Side::Taker) => {
                return Err("the donor leaves its peers to nobody".into());
            }
            Action::Exit if self.owes_term => return Err("a SIGTERM is lost".into()),
            Action::Stop | Action::Exit => self.has_left = true,
        }
        Ok(())
    }

    fn record(&self, batch: &Batch) -> Result<Down, Broken> {
        let save = |ids: &[ItemId]| {
            let one = |id: &ItemId| Some((slot(*id), self.items[slot(*id)]?.saved));
            let saved = ids.iter().map(one).collect::<Option<Vec<_>>>();
            saved.ok_or_else(|| Broken::from("a batch names an item that is closed"))
        };
        Ok(match batch {
            Batch::Closed(ids) => Down::Closed(ids.iter().map(|id| slot(*id)).collect()),
            Batch::Items { new, changed } => Down::Items {
                new: save(new)?,
                changed: save(changed)?,
            },
        })
    }

    fn has_sent_end(&self) -> bool {
        self.outcomes.contains(&Event::Did(Outcome::EndSent))
    }

    fn resume(&mut self, cause: Cause) -> Result<(), Broken> {
        if cause == Cause::Strange {
            return Err("an honest taker is called strange".into());
        }
        self.sweep = None;
        self.polls = true;
        self.tracks = false;
        self.changed = [None; ITEMS];
        Ok(())
    }

    fn hang_up(&mut self, kernel: &mut Kernel) {
        kernel.channel.close_donor_end();
        self.attached = false;
        self.blocked = false;
        self.told_eof = false;
        self.told_died = false;
        self.bereft = false;
    }

    fn orphan(&mut self, declined: &[ItemId], kernel: &mut Kernel) -> Result<(), Broken> {
        if self.told_active {
            return Err("peers are ended that the new owner may have handed over".into());
        }
        for item in 0..ITEMS {
            let stays = self.declined[item] || kernel.unwanted[item];
            if stays && self.items[item].is_some() && !declined.contains(&id(item)) {
                return Err(format!(
                    "item {item} is ended for an owner that it never had"
                ));
            }
        }
        self.end_clients(declined, kernel);
        self.polls = true;
        self.tracks = false;
        Ok(())
    }

    /// The application ends every connection but these.
    pub(super) fn end_clients(&mut self, kept: &[ItemId], kernel: &mut Kernel) {
        for item in (0..ITEMS).filter(|item| !kept.contains(&id(*item))) {
            if self.items[item].take().is_some() {
                kernel.connections[item] = Connection::Ended;
            }
        }
    }

    fn release(&mut self, declined: &[ItemId], kernel: &Kernel) -> Result<(), Broken> {
        if kernel.lease.winner() != Some(Side::Taker) {
            return Err("the donor releases peers that it owns".into());
        }
        if self.bereft {
            return Err("the donor leaves though it knows that the new owner is dead".into());
        }
        for (item, held) in self.items.iter_mut().enumerate() {
            *held = held
                .filter(|_| declined.contains(&id(item)))
                .map(|held| Holding::registered(held.saved, kernel.connections[item]));
        }
        self.polls = true;
        self.tracks = false;
        Ok(())
    }
}
