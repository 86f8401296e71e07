//! Taking a step.

use std::mem::swap;

use super::{Life, Other, Past, Step, World};
use crate::donor::{self, DonorProcess};
use crate::kernel::{Connection, ITEMS, Line, Luck, Pidfd, Side, Signal};
use crate::mutants::Mutant;
use crate::rules::Broken;
use crate::scenario::{Budget, Scenario};
use crate::taker::{self, TakerProcess};
use socket_takeover::takeover::internal::taker::State as TakerState;

impl World {
    /// The state after this step, or the rule that the step itself has broken.
    pub(crate) fn after(&self, step: Step, scenario: &Scenario) -> Result<World, Broken> {
        let mut world = self.clone();
        world.take(step, scenario)?;
        world.bury();
        Ok(world)
    }

    /// Looks at the other taker as the present one.
    pub(super) fn as_other<R>(&mut self, look: impl FnOnce(&mut World) -> R) -> R {
        let mut other = self.other.take();
        self.swap_other(other.as_deref_mut());
        let result = look(self);
        self.swap_other(other.as_deref_mut());
        self.other = other;
        result
    }

    /// A copy in which the other taker is the present one.
    pub(super) fn view_of_other(&self) -> World {
        let mut view = self.clone();
        let mut other = view.other.take();
        view.swap_other(other.as_deref_mut());
        view
    }

    /// A copy in which the donor before is the present one.
    pub(super) fn view_of_past(&self) -> World {
        let mut view = self.clone();
        let mut past = view.past.take();
        view.swap_past(past.as_deref_mut());
        view
    }

    fn swap_other(&mut self, other: Option<&mut Other>) {
        if let Some(other) = other {
            swap(&mut self.taker, &mut other.taker);
            swap(&mut self.taker_stopped, &mut other.stopped);
            swap(&mut self.kernel.line, &mut other.line);
        }
    }

    /// Looks at the donor before as the present one. What is its taker there is none here.
    pub(super) fn as_past<R>(&mut self, look: impl FnOnce(&mut World) -> R) -> R {
        let mut past = self.past.take();
        self.swap_past(past.as_deref_mut());
        let result = look(self);
        self.swap_past(past.as_deref_mut());
        self.past = past;
        result
    }

    fn swap_past(&mut self, past: Option<&mut Past>) {
        if let Some(past) = past {
            swap(&mut self.donor, &mut past.donor);
            swap(&mut self.donor_stopped, &mut past.stopped);
            swap(&mut self.kernel.line, &mut past.line);
        }
    }

    fn take(&mut self, step: Step, scenario: &Scenario) -> Result<(), Broken> {
        let budget = &mut self.budget;
        match step {
            Step::Donor(choice) => {
                spend(budget, choice.luck());
                self.move_donor(choice)?;
                self.deliver_signal();
            }
            Step::Past(choice) => {
                spend(budget, choice.luck());
                self.as_past(|view| view.move_donor(choice))?;
                self.deliver_signal_of_past();
            }
            Step::Taker(choice) => {
                spend(budget, choice.luck());
                self.move_taker(choice)?;
            }
            Step::Other(choice) => {
                spend(budget, choice.luck());
                self.as_other(|view| view.move_taker(choice))?;
            }
            Step::PidfdShows => self.kernel.line.pidfd = Pidfd::Readable,
            Step::PastPidfdShows => {
                self.as_past(|view| view.kernel.line.pidfd = Pidfd::Readable);
            }
            Step::Client(item) => {
                budget.bytes -= 1;
                if let Connection::Open { sent, .. } = &mut self.kernel.connections[item] {
                    *sent += 1;
                }
                self.wake(item);
            }
            Step::Reset(item) => {
                budget.resets -= 1;
                self.kernel.connections[item] = Connection::Reset;
                self.wake(item);
            }
            Step::Open(item) => {
                budget.opens -= 1;
                if let Some(donor) = self.donor.alive_mut() {
                    donor.open(item, &mut self.kernel);
                }
            }
            Step::Close(item) => {
                budget.closes -= 1;
                if let Some(donor) = self.donor.alive_mut() {
                    donor.close(item, &mut self.kernel);
                }
            }
            Step::Kill(Side::Donor) => {
                budget.donor_kills -= 1;
                self.donor = Life::Killed;
            }
            Step::Kill(Side::Taker) => {
                budget.taker_kills -= 1;
                self.taker = Life::Killed;
            }
            Step::KillPast => {
                budget.donor_kills -= 1;
                self.as_past(|view| view.donor = Life::Killed);
            }
            Step::Stop(Side::Donor) => {
                budget.donor_stops -= 1;
                self.donor_stopped = true;
            }
            Step::Stop(Side::Taker) => {
                budget.taker_stops -= 1;
                self.taker_stopped = true;
            }
            Step::Cont(Side::Donor) => {
                budget.conts -= 1;
                self.donor_stopped = false;
            }
            Step::Cont(Side::Taker) => {
                budget.conts -= 1;
                self.taker_stopped = false;
            }
            Step::ContPast => {
                budget.conts -= 1;
                self.as_past(|view| view.donor_stopped = false);
            }
            Step::Term(Side::Donor) => {
                budget.donor_terms -= 1;
                if let Some(donor) = self.donor.alive_mut() {
                    donor.term_pending = true;
                }
            }
            Step::Term(Side::Taker) => {
                budget.taker_terms -= 1;
                if let Some(taker) = self.taker.alive_mut() {
                    taker.term_pending = true;
                }
            }
            Step::Call => {
                budget.takers -= 1;
                self.call(scenario);
            }
            Step::Answer => self.answer(scenario)?,
            Step::Chain => {
                budget.chains -= 1;
                self.chain(scenario);
            }
        }
        Ok(())
    }

    fn move_donor(&mut self, choice: donor::Move) -> Result<(), Broken> {
        let was_sent = self.kernel.line.end_in_time;
        if let Some(donor) = self.donor.alive_mut() {
            donor.make(choice, &mut self.kernel)?;
        }
        let waits = |taker: &TakerProcess| taker.state() != TakerState::Gone;
        let in_time = self.taker.alive().is_some_and(waits);
        self.kernel.line.end_in_time &= was_sent || in_time;
        Ok(())
    }

    fn move_taker(&mut self, choice: taker::Move) -> Result<(), Broken> {
        match self.taker.alive_mut() {
            Some(taker) => taker.make(choice, &mut self.kernel),
            None => Ok(()),
        }
    }

    /// Data wakes every set that the connection is registered in, in all processes.
    fn wake(&mut self, item: usize) {
        let other = self.other.as_mut().and_then(|one| one.taker.alive_mut());
        let past = self.past.as_mut().and_then(|one| one.donor.alive_mut());
        let donors = [self.donor.alive_mut(), past].into_iter().flatten();
        let takers = [self.taker.alive_mut(), other].into_iter().flatten();
        let items = donors.map(DonorProcess::items_mut);
        for items in items.chain(takers.map(TakerProcess::items_mut)) {
            if let Some(held) = &mut items[item] {
                held.edge = true;
            }
        }
    }

    fn call(&mut self, scenario: &Scenario) {
        let mut line = Line::connected(scenario.capacity, scenario.slots);
        let taker = Life::Alive(TakerProcess::connected(scenario.mutant));
        if self.taker.alive().is_none() && !self.kernel.line.channel.is_pending() {
            // Of the one before nothing is left.
            if scenario.mutant == Mutant::LeaseUsedAgain {
                line.lease = self.kernel.line.lease.clone();
            }
            self.taker = taker;
            self.taker_stopped = false;
            self.kernel.line = line;
            return;
        }
        self.other = Some(Box::new(Other {
            taker,
            stopped: false,
            line,
        }));
    }

    fn answer(&mut self, scenario: &Scenario) -> Result<(), Broken> {
        let Some(donor) = self.donor.alive() else {
            return Ok(());
        };
        let busy = donor.is_busy() && scenario.mutant != Mutant::BusyNotChecked;
        if busy {
            self.move_donor(donor::Move::Busy)?;
            self.as_other(|view| view.kernel.line.channel.refuse());
            return Ok(());
        }
        let mut other = self.other.take();
        self.swap_other(other.as_deref_mut());
        self.other = other;
        self.move_donor(donor::Move::Accept)
    }

    fn chain(&mut self, scenario: &Scenario) {
        let line = Line::connected(scenario.capacity, scenario.slots);
        let next = Life::Alive(TakerProcess::connected(scenario.mutant));
        let Life::Alive(heir) = std::mem::replace(&mut self.taker, next) else {
            return;
        };
        for item in 0..ITEMS {
            let exists = self.kernel.connections[item].exists();
            self.kernel.strayed[item] = exists && heir.items()[item].is_none();
        }
        let mut donor = DonorProcess::owning(*heir.items(), scenario);
        donor.term_pending = heir.term_pending;
        self.past = Some(Box::new(Past {
            donor: std::mem::replace(&mut self.donor, Life::Alive(donor)),
            stopped: std::mem::replace(&mut self.donor_stopped, self.taker_stopped),
            line: std::mem::replace(&mut self.kernel.line, line),
        }));
        self.taker_stopped = false;
        self.kernel.withheld = [false; ITEMS];
    }

    fn deliver_signal(&mut self) {
        match (self.kernel.line.signal.take(), &mut self.taker) {
            (Some(Signal::Kill), Life::Alive(_)) => self.taker = Life::Killed,
            (Some(Signal::Term), Life::Alive(taker)) => taker.term_pending = true,
            (None, _) | (Some(_), Life::Killed | Life::Left(_)) => {}
        }
    }

    /// Its taker is the present donor.
    fn deliver_signal_of_past(&mut self) {
        let signal = self.as_past(|view| view.kernel.line.signal.take());
        if let (Some(_), Life::Alive(donor)) = (signal, &mut self.donor) {
            donor.term_pending = true;
        }
    }

    /// A process that has ended has no state any more; its end of the channel is closed.
    fn bury(&mut self) {
        self.bury_donor();
        if self.past.is_some() {
            self.as_past(World::bury_donor);
            let heir_is_dead = self.donor.alive().is_none();
            self.as_past(|view| {
                if heir_is_dead && view.kernel.line.pidfd == Pidfd::Alive {
                    view.kernel.line.pidfd = Pidfd::Dead;
                }
            });
            self.past = self.past.take().filter(|past| past.donor.alive().is_some());
        }
        self.bury_taker();
        if self.other.is_some() {
            self.as_other(|view| {
                view.bury_donor();
                view.bury_taker();
            });
            self.other = self
                .other
                .take()
                .filter(|other| other.taker.alive().is_some() || other.line.channel.is_pending());
        }
    }

    fn bury_donor(&mut self) {
        if self.donor.alive().is_some_and(DonorProcess::has_left) {
            self.donor = Life::Left(());
        }
        if self.donor.alive().is_none() {
            self.donor_stopped = false;
            self.kernel.line.channel.close_donor_end();
        }
    }

    fn bury_taker(&mut self) {
        if let Some(why) = self.taker.alive().and_then(TakerProcess::leaving) {
            self.taker = Life::Left(why);
        }
        if self.taker.alive().is_none() {
            self.taker_stopped = false;
            self.kernel.line.channel.close_taker_end();
            if self.kernel.line.pidfd == Pidfd::Alive {
                self.kernel.line.pidfd = Pidfd::Dead;
            }
        }
    }
}

fn spend(budget: &mut Budget, luck: Luck) {
    if let Some(left) = budget.of(luck) {
        *left = left.saturating_sub(1);
    }
}
