//! The taker's process: the real machine, and around it what its driver does, cut into the
//! smallest steps that the donor, a client or a SIGKILL can fall between.

mod moves;

pub(crate) use moves::Move;

use std::collections::VecDeque;

use socket_takeover::takeover::internal::taker::{Action, Event, Leaving, State, Step, Taker};

use crate::kernel::{Declining, Holdings, ITEMS, Kernel, Side, Up, slot};
use crate::mutants::Mutant;

/// What one action of the machine means to the world.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) enum Op {
    Ack(Vec<usize>),
    DiscardEdges,
    SayDrained,
    Validate,
    Claim,
    Serve,
    SayActive,
    SayFail,
    CloseCopies,
    CloseChannel,
    Exit(Leaving),
}

/// A process that takes over.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct TakerProcess {
    mutant: Mutant,
    machine: Taker,
    ops: VecDeque<Op>,
    outcomes: VecDeque<Event>,
    items: Holdings,
    declined: [bool; ITEMS],
    /// Why it has declined something, if it bears on what comes later.
    how: Option<Declining>,
    polls: bool,
    armed: Option<Step>,
    told_eof: bool,
    /// END does not speak of what came before it.
    disagrees: bool,
    /// SIGTERM waits for the next turn.
    pub(crate) term_pending: bool,
    /// Its process ends, and this is why.
    leaving: Option<Leaving>,
}

impl TakerProcess {
    /// A taker that has connected and sent its HELLO.
    pub(crate) fn connected(mutant: Mutant) -> TakerProcess {
        let (machine, actions) = Taker::start();
        let mut taker = TakerProcess {
            mutant,
            machine,
            ops: VecDeque::new(),
            outcomes: VecDeque::new(),
            items: [None; ITEMS],
            declined: [false; ITEMS],
            how: None,
            polls: false,
            armed: None,
            told_eof: false,
            disagrees: false,
            term_pending: false,
            leaving: None,
        };
        taker.plan(actions);
        taker
    }

    pub(crate) fn state(&self) -> State {
        self.machine.state()
    }

    pub(crate) fn items(&self) -> &Holdings {
        &self.items
    }

    pub(crate) fn items_mut(&mut self) -> &mut Holdings {
        &mut self.items
    }

    pub(crate) fn has_declined(&self, item: usize) -> bool {
        self.declined[item]
    }

    pub(crate) fn polls(&self) -> bool {
        self.polls
    }

    pub(crate) fn leaving(&self) -> Option<Leaving> {
        self.leaving
    }

    pub(crate) fn is_armed(&self) -> bool {
        self.armed.is_some()
    }

    pub(crate) fn armed(&self) -> Option<Step> {
        self.armed
    }

    pub(crate) fn next_op(&self) -> Option<&Op> {
        self.ops.front()
    }

    /// It owns, serves, has said so, and offers to be taken over.
    pub(crate) fn has_succeeded(&self) -> bool {
        self.polls && (self.is_free() || self.mutant == Mutant::TakenOverUntold)
    }

    fn is_free(&self) -> bool {
        self.ops.is_empty()
    }

    fn step(&mut self, event: Event) {
        for event in self.mutant.taker_events(self.state(), event) {
            let (machine, actions) = self.machine.clone().step(event);
            self.machine = machine;
            self.plan(actions);
        }
    }

    fn term(&mut self) {
        self.term_pending = false;
        if self.state() == State::Active {
            // The service is told to stop as on any other day.
            self.ops.clear();
            self.leaving = Some(Leaving::Stopping);
            return;
        }
        let (machine, actions) = self.machine.clone().term();
        self.machine = machine;
        self.plan(actions);
    }

    fn plan(&mut self, actions: Vec<Action>) {
        for action in actions {
            match action {
                // Nobody else can see it.
                Action::Arm(step) => self.armed = Some(step),
                Action::Ack { declined, .. } => {
                    let declined = declined.iter().map(|id| slot(*id)).collect();
                    self.ops.push_back(Op::Ack(declined));
                }
                Action::Settle => self.ops.extend(self.mutant.settling()),
                Action::Validate => self.ops.push_back(Op::Validate),
                Action::Claim => self.ops.push_back(Op::Claim),
                Action::Activate => {
                    self.armed = None;
                    let ops = [Op::Serve, Op::SayActive, Op::CloseChannel];
                    self.ops.extend(ops);
                }
                Action::Fail => self.ops.push_back(Op::SayFail),
                Action::Leave(why) => {
                    self.armed = None;
                    self.ops.extend(self.mutant.leaving());
                    self.ops.push_back(Op::Exit(why));
                }
            }
        }
    }

    fn perform(&mut self, kernel: &mut Kernel) {
        let Some(op) = self.ops.pop_front() else {
            return;
        };
        let line = &mut kernel.line;
        match op {
            Op::Ack(declined) => {
                let how = self.how.filter(|_| !declined.is_empty());
                line.channel.say(Up::Ack { declined, how });
            }
            Op::DiscardEdges => self
                .items
                .iter_mut()
                .flatten()
                .for_each(|held| held.edge = false),
            Op::SayDrained => line.channel.say(Up::Drained),
            Op::Validate if self.disagrees => self.outcomes.push_back(Event::Unusable),
            Op::Validate => self.outcomes.push_back(Event::Valid),
            Op::Claim => {
                let won = line.lease.read(Side::Taker) || self.mutant == Mutant::ClaimWithoutOne;
                let outcome = if won { Event::Won } else { Event::Lost };
                self.outcomes.push_back(outcome);
            }
            Op::Serve => self.polls = true,
            Op::SayActive => line.channel.say(Up::Active),
            Op::SayFail => line.channel.say(Up::Fail),
            Op::CloseCopies => self.items = [None; ITEMS],
            Op::CloseChannel => line.channel.close_taker_end(),
            Op::Exit(why) => self.leaving = Some(why),
        }
    }
}
