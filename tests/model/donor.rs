//! The donor's process: the real machine, and around it what its driver does, one action at
//! a time.

mod actions;
mod moves;

pub(crate) use moves::Move;

use std::collections::VecDeque;

use socket_takeover::takeover::internal::donor::{Action, Donor, Event, State, Step};
use socket_takeover::takeover::internal::ledger::Presence;
use socket_takeover::takeover::internal::preload::Limits;

use crate::kernel::{Connection, Down, Holding, Holdings, ITEMS, Kernel, Saved, id};
use crate::mutants::Mutant;
use crate::scenario::Scenario;

/// A process that serves and is taken over from.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct DonorProcess {
    mutant: Mutant,
    limits: Limits,
    machine: Donor,
    actions: VecDeque<Action>,
    outcomes: VecDeque<Event>,
    items: Holdings,
    /// The items' epoll set is polled.
    polls: bool,
    /// Between WELCOME and the end of the attempt.
    tracks: bool,
    /// What was opened, dispatched or closed and not told the machine yet.
    changed: [Option<Presence>; ITEMS],
    /// The last turn is under way and has this item before it.
    sweep: Option<usize>,
    /// The channel was accepted.
    attached: bool,
    armed: Option<Step>,
    /// What the present taker is known to have declined. All items here are of one kind.
    declined: [bool; ITEMS],
    /// It takes no more of this kind, or nothing that is linked to what it has declined.
    unwanted: bool,
    /// What it was offered.
    offered: [bool; ITEMS],
    /// Records without descriptors that wait for room.
    outbox: VecDeque<Down>,
    /// A record did not fit; the channel is watched for room.
    blocked: bool,
    told_eof: bool,
    told_died: bool,
    /// The taker has said ACTIVE: what became of it after that is not the donor's business.
    told_active: bool,
    /// SIGTERM waits for the next turn.
    pub(crate) term_pending: bool,
    /// SIGTERMs that have been handled.
    terms: u8,
    /// The SIGTERM waits for the outcome and has not been passed on to a new owner yet.
    owes_term: bool,
    has_left: bool,
}

impl DonorProcess {
    /// An idle donor that has just started.
    pub(crate) fn serving(scenario: &Scenario) -> DonorProcess {
        let fresh = Holding::registered(Saved::FRESH, Connection::NEW);
        let open = |item| (item < scenario.connections).then_some(fresh);
        DonorProcess::owning(std::array::from_fn(open), scenario)
    }

    /// An idle donor that has taken over.
    pub(crate) fn owning(items: Holdings, scenario: &Scenario) -> DonorProcess {
        DonorProcess {
            mutant: scenario.mutant,
            limits: scenario.limits,
            machine: Donor::limited(scenario.limits),
            actions: VecDeque::new(),
            outcomes: VecDeque::new(),
            items,
            polls: true,
            tracks: false,
            changed: [None; ITEMS],
            sweep: None,
            attached: false,
            armed: None,
            declined: [false; ITEMS],
            unwanted: false,
            offered: [false; ITEMS],
            outbox: VecDeque::new(),
            blocked: false,
            told_eof: false,
            told_died: false,
            told_active: false,
            term_pending: false,
            terms: 0,
            owes_term: false,
            has_left: false,
        }
    }

    pub(crate) fn state(&self) -> &State {
        self.machine.state()
    }

    pub(crate) fn items(&self) -> &Holdings {
        &self.items
    }

    pub(crate) fn items_mut(&mut self) -> &mut Holdings {
        &mut self.items
    }

    pub(crate) fn polls(&self) -> bool {
        self.polls
    }

    pub(crate) fn is_busy(&self) -> bool {
        self.machine.is_busy()
    }

    pub(crate) fn is_attached(&self) -> bool {
        self.attached
    }

    pub(crate) fn was_termed(&self) -> bool {
        self.terms > 0
    }

    pub(crate) fn has_left(&self) -> bool {
        self.has_left
    }

    /// A deadline would lead on. To look once more at a new owner that is silent does not.
    pub(crate) fn is_armed(&self) -> bool {
        self.armed.is_some() && !self.waits_for_owner()
    }

    /// The taker owns and has not said that it serves.
    pub(crate) fn waits_for_owner(&self) -> bool {
        matches!(self.state(), State::AwaitActive(_))
    }

    pub(crate) fn armed(&self) -> Option<Step> {
        self.armed
    }

    pub(crate) fn next_action(&self) -> Option<&Action> {
        self.actions.front()
    }

    /// SIGTERM reaches the donor between two of its turns.
    fn term(&mut self) {
        self.term_pending = false;
        self.terms += 1;
        let (machine, actions) = std::mem::take(&mut self.machine).term();
        let actions = self.mutant.term_actions(actions);
        self.machine = machine;
        self.owes_term = matches!(actions[..], [] | [Action::Revoke]);
        self.actions.extend(actions);
        self.go_on();
    }

    /// All actions are performed; the reactor may go to the next event.
    pub(crate) fn is_free(&self) -> bool {
        self.actions.is_empty()
    }

    /// The application accepts a new connection.
    pub(crate) fn open(&mut self, item: usize, kernel: &mut Kernel) {
        kernel.connections[item] = Connection::NEW;
        self.items[item] = Some(Holding::registered(Saved::FRESH, Connection::NEW));
        self.note_held(item, kernel);
    }

    /// The application ends a connection.
    pub(crate) fn close(&mut self, item: usize, kernel: &mut Kernel) {
        kernel.connections[item] = Connection::Ended;
        self.let_go(item);
    }

    fn let_go(&mut self, item: usize) {
        self.items[item] = None;
        self.changed[item] = None;
        if self.mutant != Mutant::ClosedNotTold {
            self.note(item, Presence::Gone);
        }
    }

    /// It was opened or used. If the taker has declined one of its kind before it came, that
    /// is told however often it is used.
    fn note_held(&mut self, item: usize, kernel: &mut Kernel) {
        if !self.tracks {
            return;
        }
        let presence = if self.unwanted {
            Presence::Unwanted
        } else {
            Presence::Held
        };
        kernel.withheld[item] |= self.unwanted && !self.offered[item];
        self.note(item, presence);
    }

    fn note(&mut self, item: usize, presence: Presence) {
        if self.tracks {
            self.changed[item] = Some(presence);
        }
    }

    /// Outcomes are for the machine only when the whole list is performed.
    fn report(&mut self, outcome: Event) {
        if self.mutant == Mutant::OutcomeToldAtOnce {
            return self.feed(outcome);
        }
        self.outcomes.push_back(outcome);
    }

    /// Neither a deadline armed nor an outcome told the machine is visible to anybody else,
    /// so they need no step of their own.
    fn go_on(&mut self) {
        loop {
            match self.actions.front() {
                Some(Action::Arm(step)) => self.armed = Some(*step),
                Some(Action::Disarm) => self.armed = None,
                Some(_) => return,
                None => {
                    let Some(outcome) = self.outcomes.pop_front() else {
                        return;
                    };
                    self.feed(outcome);
                    continue;
                }
            }
            self.actions.pop_front();
        }
    }

    /// What changed is always told before what happened.
    fn feed(&mut self, event: Event) {
        let changed: Vec<_> = (0..ITEMS)
            .filter_map(|item| Some((id(item), self.changed[item].take()?)))
            .collect();
        let news = (!changed.is_empty()).then_some(Event::Changed(changed));
        let mut events: Vec<_> = news.into_iter().chain([event]).collect();
        if self.mutant == Mutant::ChangedToldLate {
            events.reverse();
        }
        events.into_iter().for_each(|event| self.step(event));
    }

    fn step(&mut self, event: Event) {
        let (machine, actions) = std::mem::take(&mut self.machine).step(event);
        self.actions
            .extend(self.mutant.donor_actions(actions, &machine));
        self.machine = machine;
    }
}
