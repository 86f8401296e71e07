//! What the donor's driver does for each action.

use socket_takeover::takeover::internal::donor::{Action, Cause, Event, Outcome};
use socket_takeover::takeover::internal::ledger::{Batch, ItemId, Presence};

use super::DonorProcess;
use crate::kernel::{Connection, Down, Holding, ITEMS, Kernel, Pidfd, Side, Signal, id, slot};
use crate::mutants::Mutant;
use crate::rules::{Broken, Rule};

impl DonorProcess {
    /// Performs the next action.
    pub(super) fn perform(&mut self, kernel: &mut Kernel) -> Result<(), Broken> {
        let action = self.actions.pop_front().expect("there is one to perform");
        let open = kernel.line.channel.is_open();
        let sends = matches!(action, Action::Send(_) | Action::End);
        let full = sends && open && !self.flush(kernel);
        let line = &mut kernel.line;
        let taken = line.lease.winner() == Some(Side::Taker);
        match action {
            Action::Arm(_) | Action::Disarm => unreachable!("done by go_on"),
            // The taker has gone, and so has all that it could have had.
            Action::Welcome if !open => self.report(Event::Failure(Cause::Eof)),
            Action::Welcome => {
                line.channel.tell(Down::Welcome);
                kernel.withheld = [false; ITEMS];
                self.declined = [false; ITEMS];
                self.offered = [false; ITEMS];
                self.unwanted = false;
                self.tracks = true;
                let held = (0..ITEMS).filter(|item| self.items[*item].is_some());
                let all = held.map(|item| (id(item), Presence::Held)).collect();
                self.report(Event::Changed(all));
            }
            Action::Prepare => self.post(Down::Prepare, kernel, true),
            // EPIPE is no verdict: the channel is read to its end, and that is reported.
            Action::Send(_) | Action::End if !open => {}
            Action::Send(_) | Action::End if full => {
                self.blocked = true;
                self.report(Event::Did(Outcome::Blocked));
            }
            Action::Send(batch) => {
                let record = self.record(&batch)?;
                if let Batch::Items { new, .. } = &batch {
                    new.iter().for_each(|id| self.offered[slot(*id)] = true);
                }
                kernel.line.channel.tell(record);
                self.report(Event::Did(Outcome::Sent { batch, number: 0 }));
            }
            Action::End if line.end_sent => {
                return Err(Rule::OneEnd.broken("END is said twice"));
            }
            Action::End => {
                line.channel.tell(Down::End);
                line.end_sent = true;
                line.end_in_time = true;
                self.report(Event::Did(Outcome::EndSent));
            }
            Action::Hold => self.sweep = Some(0),
            Action::Grant if self.mutant == Mutant::GrantAfterEnd && !self.has_sent_end() => {
                self.report(Event::Did(Outcome::Granted));
            }
            Action::Grant => {
                line.lease.grant()?;
                self.report(Event::Did(Outcome::Granted));
            }
            Action::Revoke => {
                let verdict = self.mutant.verdict(self.machine.state());
                let won = verdict.unwrap_or_else(|| line.lease.read(Side::Donor));
                let dead = line.pidfd == Pidfd::Readable;
                let lost = Outcome::Lost { dead };
                self.report(Event::Did(if won { Outcome::Won } else { lost }));
            }
            // Says so, to the log and to the application.
            Action::Wait => {}
            Action::Resume(cause) => self.resume(cause, kernel)?,
            Action::Abort(_) => self.post(Down::Abort, kernel, false),
            Action::Kill if taken => {
                return Err(Rule::OwnerIsNotKilled.broken("the owner is killed"));
            }
            Action::Kill => line.signal = Some(Signal::Kill),
            Action::HangUp => self.hang_up(kernel),
            Action::Orphan(declined) => self.orphan(&declined, kernel)?,
            Action::Release(declined) => self.release(&declined, kernel)?,
            Action::PassTerm => {
                self.owes_term = false;
                line.signal = Some(Signal::Term);
            }
            Action::Stop if self.terms == 0 => {
                return Err(Rule::Term.broken("the donor stops unasked"));
            }
            Action::Stop if line.lease.is_one() => {
                let what = "the donor stops, and the lease that it leaves can be claimed";
                return Err(Rule::Term.broken(what));
            }
            Action::Exit if !taken => {
                let what = "the donor leaves its peers to nobody";
                return Err(Rule::ReleaseAfterClaim.broken(what));
            }
            Action::Exit if self.owes_term => {
                return Err(Rule::Term.broken("a SIGTERM is lost"));
            }
            Action::Stop | Action::Exit => self.has_left = true,
        }
        Ok(())
    }

    /// Sends a record now, or when there is room.
    pub(super) fn post(&mut self, record: Down, kernel: &mut Kernel, waits: bool) {
        self.outbox.push_back(record);
        self.blocked |= !self.flush(kernel) && waits;
    }

    /// Sends what waits; whether there is room for more then.
    pub(super) fn flush(&mut self, kernel: &mut Kernel) -> bool {
        while kernel.line.channel.has_room()
            && let Some(record) = self.outbox.pop_front()
        {
            kernel.line.channel.tell(record);
        }
        self.outbox.is_empty() && kernel.line.channel.has_room()
    }

    fn record(&self, batch: &Batch) -> Result<Down, Broken> {
        let save = |ids: &[ItemId]| {
            let one = |id: &ItemId| Some((slot(*id), self.items[slot(*id)]?.saved));
            let saved = ids.iter().map(one).collect::<Option<Vec<_>>>();
            let what = "a batch names an item that is closed";
            saved.ok_or_else(|| Rule::TakerHasTheRest.broken(what))
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

    fn resume(&mut self, cause: Cause, kernel: &Kernel) -> Result<(), Broken> {
        if cause == Cause::Protocol && !kernel.line.lied {
            let what = "an honest taker is called strange";
            return Err(Rule::NoBlame.broken(what));
        }
        self.sweep = None;
        self.polls = true;
        self.tracks = false;
        self.changed = [None; ITEMS];
        Ok(())
    }

    fn hang_up(&mut self, kernel: &mut Kernel) {
        kernel.line.channel.close_donor_end();
        self.attached = false;
        self.outbox.clear();
        self.blocked = false;
    }

    fn orphan(&mut self, declined: &[ItemId], kernel: &mut Kernel) -> Result<(), Broken> {
        let line = &kernel.line;
        if line.pidfd != Pidfd::Readable || !line.channel.has_no_taker() {
            let what = "the new owner is given up, and is not known to be dead";
            return Err(Rule::NotOthersPeers.broken(what));
        }
        if self.told_active {
            let what = "peers are ended that the new owner may have handed over";
            return Err(Rule::NotOthersPeers.broken(what));
        }
        for item in 0..ITEMS {
            let stays = self.declined[item] || kernel.withheld[item];
            if stays && self.items[item].is_some() && !declined.contains(&id(item)) {
                let what = format!("item {item} is ended for an owner that it never had");
                return Err(Rule::NotOthersPeers.broken(what));
            }
        }
        self.end_clients(declined, kernel);
        self.hang_up(kernel);
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
        if kernel.line.lease.winner() != Some(Side::Taker) {
            let what = "the donor releases peers that it owns";
            return Err(Rule::ReleaseAfterClaim.broken(what));
        }
        if !self.told_active && self.terms < 2 {
            let what = "the donor lets go, and has not heard that the new owner serves";
            return Err(Rule::HeldUntilActive.broken(what));
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
