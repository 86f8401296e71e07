//! The joint system: two processes, the kernel between them, clients and bad luck.

use socket_takeover::takeover::donor::State;
use socket_takeover::takeover::taker::{Leaving, State as TakerState};

use crate::donor::{self, DonorProcess};
use crate::kernel::{Broken, Channel, Connection, ITEMS, Kernel, Lease, Luck, Pidfd, Side, Signal};
use crate::scenario::{Budget, Scenario};
use crate::taker::{self, TakerProcess};

/// A process, or how it ended.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) enum Life<P, W> {
    Alive(P),
    Killed,
    Left(W),
}

impl<P, W> Life<P, W> {
    pub(crate) fn alive(&self) -> Option<&P> {
        match self {
            Life::Alive(process) => Some(process),
            Life::Killed | Life::Left(_) => None,
        }
    }

    fn alive_mut(&mut self) -> Option<&mut P> {
        match self {
            Life::Alive(process) => Some(process),
            Life::Killed | Life::Left(_) => None,
        }
    }
}

/// One state of the joint system.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct World {
    pub(crate) donor: Life<DonorProcess, ()>,
    pub(crate) taker: Life<TakerProcess, Leaving>,
    pub(crate) donor_stopped: bool,
    pub(crate) taker_stopped: bool,
    pub(crate) kernel: Kernel,
    pub(crate) budget: Budget,
}

/// What leads from one state to the next.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Step {
    Donor(donor::Move),
    Taker(taker::Move),
    /// The death of the taker has got as far as its pidfd.
    PidfdShows,
    /// A client sends one byte.
    Client(usize),
    Open(usize),
    Close(usize),
    Kill(Side),
    Stop(Side),
    Term(Side),
    /// One more taker connects after the last one has failed.
    NextTaker,
}

/// What can happen next.
#[derive(Debug)]
pub(crate) struct Choices {
    pub(crate) steps: Vec<Step>,
    /// Without a client, a deadline or bad luck nothing more will.
    pub(crate) quiescent: bool,
}

impl World {
    pub(crate) fn start(scenario: &Scenario) -> World {
        let connection = |item| {
            if item < scenario.connections {
                Connection::NEW
            } else {
                Connection::Unborn
            }
        };
        World {
            donor: Life::Alive(DonorProcess::serving(scenario.connections, scenario.mutant)),
            taker: Life::Alive(TakerProcess::connected(scenario.mutant)),
            donor_stopped: false,
            taker_stopped: false,
            kernel: Kernel {
                connections: std::array::from_fn(connection),
                channel: Channel::connected(scenario.capacity, scenario.slots),
                lease: Lease::default(),
                end_in_time: false,
                pidfd: Pidfd::Alive,
                unwanted: [false; ITEMS],
                signal: None,
            },
            budget: scenario.budget,
        }
    }

    /// Everything that can happen next.
    pub(crate) fn choices(&self) -> Choices {
        let mut steps = Vec::new();
        let mut unlucky = Vec::new();
        let mut budget = self.budget;
        if let Some(donor) = self.running_donor() {
            let moves = donor.moves(&self.kernel);
            steps.extend(moves.into_iter().map(Step::Donor));
            if donor.is_attached() && self.kernel.pidfd == Pidfd::Dead {
                steps.push(Step::PidfdShows);
            }
            let moves = donor.unlucky_moves(&self.kernel).into_iter();
            unlucky.extend(moves.map(|choice| (Step::Donor(choice), choice.luck())));
        }
        if let Some(taker) = self.running_taker() {
            steps.extend(taker.moves(&self.kernel).into_iter().map(Step::Taker));
            let moves = taker.unlucky_moves(&self.kernel).into_iter();
            unlucky.extend(moves.map(|choice| (Step::Taker(choice), choice.luck())));
        }
        let quiescent = steps.is_empty();
        steps.extend(possible(unlucky.into_iter().map(|(step, luck)| {
            let affordable = budget.of(luck).is_none_or(|left| *left > 0);
            // Time passes when nothing else does.
            (step, affordable || (quiescent && luck == Luck::Deadline))
        })));
        self.outside_choices(&mut steps);
        Choices { steps, quiescent }
    }

    /// Whether a deadline would still lead on from a quiescent state.
    pub(crate) fn is_armed(&self) -> bool {
        self.running_donor().is_some_and(DonorProcess::is_armed)
            || self.running_taker().is_some_and(TakerProcess::is_armed)
    }

    pub(crate) fn running_donor(&self) -> Option<&DonorProcess> {
        self.donor.alive().filter(|_| !self.donor_stopped)
    }

    pub(crate) fn running_taker(&self) -> Option<&TakerProcess> {
        self.taker.alive().filter(|_| !self.taker_stopped)
    }

    /// What clients, operators and murderers may do.
    fn outside_choices(&self, steps: &mut Vec<Step>) {
        let budget = &self.budget;
        let open = (0..ITEMS).filter(|item| self.kernel.connections[*item].is_open());
        if budget.bytes > 0 && (self.donor.alive().is_some() || self.taker.alive().is_some()) {
            steps.extend(open.clone().map(Step::Client));
        }
        if let Some(donor) = self.running_donor() {
            let works = donor.polls() && donor.is_free() && *donor.state() != State::Drain;
            if budget.opens > 0 && works {
                let unborn = |item: &usize| self.kernel.connections[*item] == Connection::Unborn;
                steps.extend((0..ITEMS).find(unborn).map(Step::Open));
            }
            if budget.closes > 0 && works {
                steps.extend(open.map(Step::Close));
            }
            let next = *donor.state() == State::Idle && !self.kernel.channel.is_pending();
            let term = budget.donor_terms > 0 && donor.is_free();
            let gone = self.taker.alive().is_none();
            steps.extend(possible([
                (Step::Kill(Side::Donor), budget.donor_kills > 0),
                (Step::Stop(Side::Donor), budget.donor_stops > 0),
                (Step::Term(Side::Donor), term),
                (Step::NextTaker, budget.takers > 0 && next && gone),
            ]));
        }
        if self.running_taker().is_some() {
            steps.extend(possible([
                (Step::Kill(Side::Taker), budget.taker_kills > 0),
                (Step::Stop(Side::Taker), budget.taker_stops > 0),
                (Step::Term(Side::Taker), budget.taker_terms > 0),
            ]));
        }
    }

    /// The state after this step, or the rule that the step itself has broken.
    pub(crate) fn after(&self, step: Step, scenario: &Scenario) -> Result<World, Broken> {
        let mut world = self.clone();
        world.take(step, scenario)?;
        world.bury();
        Ok(world)
    }

    fn take(&mut self, step: Step, scenario: &Scenario) -> Result<(), Broken> {
        let budget = &mut self.budget;
        match step {
            Step::Donor(choice) => {
                spend(budget, choice.luck());
                let was_sent = self.kernel.end_in_time;
                if let Some(donor) = self.donor.alive_mut() {
                    donor.make(choice, &mut self.kernel)?;
                }
                self.kernel.end_in_time &= was_sent || self.taker_has_not_given_up();
                self.deliver_signal();
            }
            Step::Taker(choice) => {
                spend(budget, choice.luck());
                if let Some(taker) = self.taker.alive_mut() {
                    taker.make(choice, &mut self.kernel)?;
                }
            }
            Step::PidfdShows => self.kernel.pidfd = Pidfd::Readable,
            Step::Client(item) => {
                budget.bytes -= 1;
                self.arrive(item);
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
            Step::Stop(Side::Donor) => {
                budget.donor_stops -= 1;
                self.donor_stopped = true;
            }
            Step::Stop(Side::Taker) => {
                budget.taker_stops -= 1;
                self.taker_stopped = true;
            }
            Step::Term(Side::Donor) => {
                budget.donor_terms -= 1;
                if let Some(donor) = self.donor.alive_mut() {
                    donor.term();
                }
            }
            Step::Term(Side::Taker) => {
                budget.taker_terms -= 1;
                if let Some(taker) = self.taker.alive_mut() {
                    taker.term_pending = true;
                }
            }
            Step::NextTaker => {
                budget.takers -= 1;
                self.kernel.lease = Lease::default();
                self.kernel.end_in_time = false;
                self.kernel.channel = Channel::connected(scenario.capacity, scenario.slots);
                self.kernel.pidfd = Pidfd::Alive;
                self.taker = Life::Alive(TakerProcess::connected(scenario.mutant));
            }
        }
        Ok(())
    }

    /// Data wakes every set that the connection is registered in, in both processes.
    fn arrive(&mut self, item: usize) {
        if let Connection::Open { sent, .. } = &mut self.kernel.connections[item] {
            *sent += 1;
        }
        let donor = self.donor.alive_mut().map(DonorProcess::items_mut);
        let taker = self.taker.alive_mut().map(TakerProcess::items_mut);
        for items in donor.into_iter().chain(taker) {
            if let Some(held) = &mut items[item] {
                held.edge = true;
            }
        }
    }

    fn taker_has_not_given_up(&self) -> bool {
        let alive = self.taker.alive();
        alive.is_some_and(|taker| taker.state() != TakerState::Gone)
    }

    fn deliver_signal(&mut self) {
        match (self.kernel.signal.take(), &mut self.taker) {
            (Some(Signal::Kill), Life::Alive(_)) => self.taker = Life::Killed,
            (Some(Signal::Term), Life::Alive(taker)) => taker.term_pending = true,
            (None, _) | (Some(_), Life::Killed | Life::Left(_)) => {}
        }
    }

    /// A process that has ended has no state any more; its end of the channel is closed.
    fn bury(&mut self) {
        if self.donor.alive().is_some_and(DonorProcess::has_left) {
            self.donor = Life::Left(());
        }
        if let Some(why) = self.taker.alive().and_then(TakerProcess::leaving) {
            self.taker = Life::Left(why);
        }
        if self.donor.alive().is_none() {
            self.donor_stopped = false;
            self.kernel.channel.close_donor_end();
        }
        if self.taker.alive().is_none() {
            self.taker_stopped = false;
            self.kernel.channel.close_taker_end();
            if self.kernel.pidfd == Pidfd::Alive {
                self.kernel.pidfd = Pidfd::Dead;
            }
        }
    }
}

/// Those that the condition next to them holds for.
pub(crate) fn possible<T>(choices: impl IntoIterator<Item = (T, bool)>) -> impl Iterator<Item = T> {
    let choices = choices.into_iter();
    choices.filter_map(|(choice, possible)| possible.then_some(choice))
}

fn spend(budget: &mut Budget, luck: Luck) {
    if let Some(left) = budget.of(luck) {
        *left = left.saturating_sub(1);
    }
}
