//! The joint system: the processes, the kernel between them, clients and bad luck.
//!
//! ```text
//!   past ──line──▶ (donor)      a donor that was taken over from and has not left, when its
//!                               successor is taken over from in its turn
//!            donor ──line──▶ taker                the present attempt
//!            donor ──line──▶ other                one more taker: a caller that waits or was
//!                                                 told BUSY, or one of the attempt before
//! ```
//!
//! A step of `past` or `other` is that of a donor or taker in a view of the world in which
//! it is the present one; see [`World::as_past`] and [`World::as_other`].

mod steps;

use socket_takeover::takeover::internal::donor::State;
use socket_takeover::takeover::internal::taker::{Leaving, State as TakerState};

use crate::donor::{self, DonorProcess};
use crate::kernel::{Connection, Holdings, ITEMS, Kernel, Line, Luck, Pidfd, Side};
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

/// One more taker.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct Other {
    pub(crate) taker: Life<TakerProcess, Leaving>,
    pub(crate) stopped: bool,
    pub(crate) line: Line,
}

/// The donor before the present one.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct Past {
    pub(crate) donor: Life<DonorProcess, ()>,
    pub(crate) stopped: bool,
    pub(crate) line: Line,
}

/// One state of the joint system.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct World {
    pub(crate) donor: Life<DonorProcess, ()>,
    pub(crate) taker: Life<TakerProcess, Leaving>,
    pub(crate) donor_stopped: bool,
    pub(crate) taker_stopped: bool,
    pub(crate) kernel: Kernel,
    pub(crate) other: Option<Box<Other>>,
    pub(crate) past: Option<Box<Past>>,
    pub(crate) budget: Budget,
}

/// What leads from one state to the next.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Step {
    Donor(donor::Move),
    Taker(taker::Move),
    Other(taker::Move),
    Past(donor::Move),
    /// The death of the taker has got as far as its pidfd.
    PidfdShows,
    PastPidfdShows,
    /// A client sends one byte.
    Client(usize),
    /// A client resets its connection.
    Reset(usize),
    Open(usize),
    Close(usize),
    Kill(Side),
    Stop(Side),
    Cont(Side),
    Term(Side),
    KillPast,
    ContPast,
    /// One more taker connects.
    Call,
    /// The donor gets to it: it is the next, or told BUSY.
    Answer,
    /// The taker is the owner, and one more connects to be its successor.
    Chain,
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
            donor: Life::Alive(DonorProcess::serving(scenario)),
            taker: Life::Alive(TakerProcess::connected(scenario.mutant)),
            donor_stopped: false,
            taker_stopped: false,
            kernel: Kernel {
                connections: std::array::from_fn(connection),
                line: Line::connected(scenario.capacity, scenario.slots),
                withheld: [false; ITEMS],
                strayed: [false; ITEMS],
            },
            other: None,
            past: None,
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
            if donor.is_attached() && self.kernel.line.pidfd == Pidfd::Dead {
                steps.push(Step::PidfdShows);
            }
            let waits = |other: &Other| other.line.channel.is_pending();
            if donor.is_free() && self.other.as_deref().is_some_and(waits) {
                steps.push(Step::Answer);
            }
            let moves = donor.unlucky_moves(&self.kernel).into_iter();
            unlucky.extend(moves.map(|choice| (Step::Donor(choice), choice.luck())));
        }
        if let Some(taker) = self.running_taker() {
            steps.extend(taker.moves(&self.kernel).into_iter().map(Step::Taker));
            let moves = taker.unlucky_moves(&self.kernel).into_iter();
            unlucky.extend(moves.map(|choice| (Step::Taker(choice), choice.luck())));
        }
        self.choices_of_other(&mut steps, &mut unlucky);
        self.choices_of_past(&mut steps, &mut unlucky);
        let quiescent = steps.is_empty();
        steps.extend(possible(unlucky.into_iter().map(|(step, luck)| {
            let affordable = budget.of(luck).is_none_or(|left| *left > 0);
            // Time passes when nothing else does. To look once more leads to the same state.
            let passes = quiescent && luck == Luck::Deadline && !self.only_looks(step);
            (step, affordable || passes)
        })));
        self.outside_choices(&mut steps);
        Choices { steps, quiescent }
    }

    fn choices_of_other(&self, steps: &mut Vec<Step>, unlucky: &mut Vec<(Step, Luck)>) {
        if self.running_other().is_none() {
            return;
        }
        let view = self.view_of_other();
        if let Some(taker) = view.running_taker() {
            steps.extend(taker.moves(&view.kernel).into_iter().map(Step::Other));
            let moves = taker.unlucky_moves(&view.kernel).into_iter();
            unlucky.extend(moves.map(|choice| (Step::Other(choice), choice.luck())));
        }
    }

    fn choices_of_past(&self, steps: &mut Vec<Step>, unlucky: &mut Vec<(Step, Luck)>) {
        if self.running_past().is_none() {
            return;
        }
        let view = self.view_of_past();
        if let Some(donor) = view.running_donor() {
            steps.extend(donor.moves(&view.kernel).into_iter().map(Step::Past));
            if donor.is_attached() && view.kernel.line.pidfd == Pidfd::Dead {
                steps.push(Step::PastPidfdShows);
            }
            let moves = donor.unlucky_moves(&view.kernel).into_iter();
            unlucky.extend(moves.map(|choice| (Step::Past(choice), choice.luck())));
        }
    }

    /// Whether a step is a donor's next look at an owner that is silent.
    fn only_looks(&self, step: Step) -> bool {
        match step {
            Step::Donor(_) => self
                .donor
                .alive()
                .is_some_and(DonorProcess::waits_for_owner),
            Step::Past(_) => {
                let past = self.past.as_ref().and_then(|past| past.donor.alive());
                past.is_some_and(DonorProcess::waits_for_owner)
            }
            _ => false,
        }
    }

    /// Whether a deadline would still lead on from a quiescent state.
    pub(crate) fn is_armed(&self) -> bool {
        self.running_donor().is_some_and(DonorProcess::is_armed)
            || self.running_past().is_some_and(DonorProcess::is_armed)
            || self.running_taker().is_some_and(TakerProcess::is_armed)
            || self.running_other().is_some_and(TakerProcess::is_armed)
    }

    pub(crate) fn running_donor(&self) -> Option<&DonorProcess> {
        self.donor.alive().filter(|_| !self.donor_stopped)
    }

    pub(crate) fn running_taker(&self) -> Option<&TakerProcess> {
        self.taker.alive().filter(|_| !self.taker_stopped)
    }

    pub(crate) fn running_other(&self) -> Option<&TakerProcess> {
        let other = self.other.as_ref().filter(|other| !other.stopped)?;
        other.taker.alive()
    }

    pub(crate) fn running_past(&self) -> Option<&DonorProcess> {
        let past = self.past.as_ref().filter(|past| !past.stopped)?;
        past.donor.alive()
    }

    /// Who lives, whether it polls its items, and what it has of them.
    pub(crate) fn processes(&self) -> impl Iterator<Item = (&'static str, bool, &Holdings)> {
        let past = self.past.as_ref().and_then(|past| past.donor.alive());
        let other = self.other.as_ref().and_then(|other| other.taker.alive());
        listed(past, self.donor.alive(), self.taker.alive(), other)
    }

    /// The same of those that are not stopped.
    pub(crate) fn running(&self) -> impl Iterator<Item = (&'static str, bool, &Holdings)> {
        let (donor, taker) = (self.running_donor(), self.running_taker());
        listed(self.running_past(), donor, taker, self.running_other())
    }

    /// What clients, operators and murderers may do.
    fn outside_choices(&self, steps: &mut Vec<Step>) {
        let budget = &self.budget;
        let open = (0..ITEMS).filter(|item| self.kernel.connections[*item].is_open());
        if self.processes().next().is_some() {
            if budget.bytes > 0 {
                steps.extend(open.clone().map(Step::Client));
            }
            if budget.resets > 0 {
                steps.extend(open.clone().map(Step::Reset));
            }
        }
        if let Some(donor) = self.running_donor() {
            let works = donor.polls() && donor.is_free() && *donor.state() != State::Drain;
            if budget.opens > 0 && works {
                let unborn = |item: &usize| self.kernel.connections[*item] == Connection::Unborn;
                steps.extend((0..ITEMS).find(unborn).map(Step::Open));
            }
            if budget.closes > 0 && works {
                let ours = |item: &usize| donor.items()[*item].is_some();
                steps.extend(open.filter(ours).map(Step::Close));
            }
        }
        let stopped = self.donor_stopped;
        if let Some(donor) = self.donor.alive() {
            let term = budget.donor_terms > 0 && !donor.term_pending;
            steps.extend(possible([
                (Step::Kill(Side::Donor), budget.donor_kills > 0),
                (Step::Stop(Side::Donor), budget.donor_stops > 0 && !stopped),
                (Step::Cont(Side::Donor), budget.conts > 0 && stopped),
                (Step::Term(Side::Donor), term),
                (Step::Call, budget.takers > 0 && self.may_call(donor)),
            ]));
        }
        let stopped = self.taker_stopped;
        if let Some(taker) = self.taker.alive() {
            let chain = budget.chains > 0 && taker.has_succeeded() && self.other.is_none();
            steps.extend(possible([
                (Step::Kill(Side::Taker), budget.taker_kills > 0),
                (Step::Stop(Side::Taker), budget.taker_stops > 0 && !stopped),
                (Step::Cont(Side::Taker), budget.conts > 0 && stopped),
                (Step::Term(Side::Taker), budget.taker_terms > 0),
                (Step::Chain, chain),
            ]));
        }
        if let Some(past) = &self.past {
            steps.extend(possible([
                (Step::KillPast, budget.donor_kills > 0),
                (Step::ContPast, budget.conts > 0 && past.stopped),
            ]));
        }
    }

    /// PATH leads to this donor as long as no taker is active, and there is room for one more
    /// process here.
    fn may_call(&self, donor: &DonorProcess) -> bool {
        let leads = !matches!(donor.state(), State::Drain | State::Done);
        let active = |taker: &TakerProcess| taker.state() == TakerState::Active;
        leads && self.other.is_none() && !self.taker.alive().is_some_and(active)
    }
}

type Listed<'a> = (&'static str, bool, &'a Holdings);

fn listed<'a>(
    past: Option<&'a DonorProcess>,
    donor: Option<&'a DonorProcess>,
    taker: Option<&'a TakerProcess>,
    other: Option<&'a TakerProcess>,
) -> impl Iterator<Item = Listed<'a>> {
    let of_donor = |who, one: &'a DonorProcess| (who, one.polls(), one.items());
    let of_taker = |who, one: &'a TakerProcess| (who, one.polls(), one.items());
    [
        past.map(|one| of_donor("donor before", one)),
        donor.map(|one| of_donor("donor", one)),
        taker.map(|one| of_taker("taker", one)),
        other.map(|one| of_taker("other taker", one)),
    ]
    .into_iter()
    .flatten()
}

/// Those that the condition next to them holds for.
pub(crate) fn possible<T>(choices: impl IntoIterator<Item = (T, bool)>) -> impl Iterator<Item = T> {
    let choices = choices.into_iter();
    choices.filter_map(|(choice, possible)| possible.then_some(choice))
}
