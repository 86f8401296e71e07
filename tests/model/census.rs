//! What an exploration has come across: states, steps, and how it all ended.

use std::collections::{BTreeMap, HashSet};
use std::fmt;
use std::hash::{BuildHasherDefault, Hash, Hasher};

use crate::donor;
use crate::mixer::Mixer;
use crate::names::{DONOR_NAMES, TAKER_NAMES, action_name, donor_name, op_name, taker_name};
use crate::taker;
use crate::world::{Life, Step, World};

/// Something that happened: what, and what the donor and the taker were at.
#[derive(Debug, Clone, Copy)]
struct Happening(&'static str, &'static str, &'static str);

/// By where the names are: millions of them are looked up.
impl PartialEq for Happening {
    fn eq(&self, other: &Happening) -> bool {
        self.place() == other.place()
    }
}

impl Eq for Happening {}

impl Hash for Happening {
    fn hash<H: Hasher>(&self, state: &mut H) {
        let (what, donor, taker) = self.place();
        state.write_usize(what);
        state.write_usize(donor);
        state.write_usize(taker);
    }
}

impl Happening {
    fn place(&self) -> (usize, usize, usize) {
        let Happening(what, donor, taker) = self;
        let place = |name: &str| name.as_ptr() as usize;
        (place(what), place(donor), place(taker))
    }
}

/// How many states there are, by what donor and taker are at; and what led on from them.
#[derive(Debug, Default, Clone)]
pub(crate) struct Census {
    pub(crate) states: usize,
    pub(crate) steps: usize,
    /// Steps from the start to the farthest state.
    pub(crate) depth: usize,
    pairs: BTreeMap<(&'static str, &'static str), usize>,
    happenings: HashSet<Happening, BuildHasherDefault<Mixer>>,
    outcomes: BTreeMap<(&'static str, String), usize>,
}

impl fmt::Display for Census {
    /// A table: a line for what the donor is at, a column for what the taker is at.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Census {
            states,
            steps,
            depth,
            ..
        } = self;
        let count = |names: &[&str], seen: &dyn Fn(&str) -> bool| {
            names.iter().filter(|name| seen(name)).count()
        };
        let donors = count(&DONOR_NAMES, &|name| self.has_donor(name));
        let takers = count(&TAKER_NAMES, &|name| self.has_taker(name));
        writeln!(
            f,
            "{states} states, {steps} steps, depth {depth}; {donors} of {} donor and {takers} of \
             {} taker states",
            DONOR_NAMES.len(),
            TAKER_NAMES.len()
        )?;
        write!(f, "{:14}", "")?;
        for taker in TAKER_NAMES {
            write!(f, "{taker:>9}")?;
        }
        for donor in DONOR_NAMES {
            write!(f, "\n{donor:14}")?;
            for taker in TAKER_NAMES {
                write!(f, "{:9}", self.of(donor, taker))?;
            }
        }
        write!(f, "\nin the end:")?;
        for ((donor, taker), count) in &self.outcomes {
            write!(f, "\n{count:9} donor {donor}, taker {taker}")?;
        }
        Ok(())
    }
}

impl Census {
    /// How many states there are with the donor at this and the taker at that.
    pub(crate) fn of(&self, donor: &str, taker: &str) -> usize {
        self.pairs.get(&(donor, taker)).copied().unwrap_or(0)
    }

    pub(crate) fn has_donor(&self, donor: &str) -> bool {
        self.pairs.keys().any(|pair| pair.0 == donor)
    }

    pub(crate) fn has_taker(&self, taker: &str) -> bool {
        self.pairs.keys().any(|pair| pair.1 == taker)
    }

    /// Whether this happened at all.
    pub(crate) fn saw(&self, what: &str) -> bool {
        self.happenings.iter().any(|one| one.0 == what)
    }

    /// Whether this happened while the donor was at `donor`.
    pub(crate) fn saw_at_donor(&self, what: &str, donor: &str) -> bool {
        self.happenings
            .iter()
            .any(|one| one.0 == what && one.1 == donor)
    }

    /// Whether this happened while the taker was at `taker`.
    pub(crate) fn saw_at_taker(&self, what: &str, taker: &str) -> bool {
        self.happenings
            .iter()
            .any(|one| one.0 == what && one.2 == taker)
    }

    /// Adds what another exploration has come across.
    pub(crate) fn add(&mut self, other: &Census) {
        self.states += other.states;
        self.steps += other.steps;
        self.depth = self.depth.max(other.depth);
        for (pair, count) in &other.pairs {
            *self.pairs.entry(*pair).or_default() += count;
        }
        self.happenings.extend(other.happenings.iter().copied());
        for (outcome, count) in &other.outcomes {
            *self.outcomes.entry(outcome.clone()).or_default() += count;
        }
    }

    pub(crate) fn count(&mut self, world: &World, depth: usize) {
        self.states += 1;
        self.depth = self.depth.max(depth);
        let pair = (donor_name(&world.donor), taker_name(&world.taker));
        *self.pairs.entry(pair).or_default() += 1;
    }

    pub(crate) fn count_step(&mut self, world: &World, step: Step) {
        let pair = (donor_name(&world.donor), taker_name(&world.taker));
        self.happenings
            .insert(Happening(name(world, step), pair.0, pair.1));
    }

    /// Counts a state from which nothing leads on by itself.
    pub(crate) fn count_outcome(&mut self, world: &World) {
        if world.is_armed() {
            return;
        }
        let donor = match &world.donor {
            Life::Alive(_) if world.donor_stopped => "stopped",
            Life::Alive(_) => "serves",
            Life::Killed => "killed",
            Life::Left(()) => "left",
        };
        let taker = match &world.taker {
            Life::Alive(_) if world.taker_stopped => "stopped".to_owned(),
            Life::Alive(_) => "serves".to_owned(),
            Life::Killed => "killed".to_owned(),
            Life::Left(why) => format!("left: {why:?}"),
        };
        *self.outcomes.entry((donor, taker)).or_default() += 1;
    }
}

/// What a step is called; an action and a deadline bear their own names.
fn name(world: &World, step: Step) -> &'static str {
    match step {
        Step::Donor(choice) => match choice {
            donor::Move::Perform => {
                let donor = world.donor.alive();
                action_name(donor.and_then(|one| one.next_action()).expect("it is next"))
            }
            donor::Move::Deadline => {
                let armed = world.donor.alive().and_then(|one| one.armed());
                crate::names::deadline_name(armed.expect("it is armed"))
            }
            choice => crate::names::move_of_donor(choice),
        },
        Step::Taker(choice) => match choice {
            taker::Move::Perform => {
                let taker = world.taker.alive();
                op_name(taker.and_then(|one| one.next_op()).expect("it is next"))
            }
            taker::Move::Deadline => {
                let armed = world.taker.alive().and_then(|one| one.armed());
                crate::names::deadline_of_taker(armed.expect("it is armed"))
            }
            choice => crate::names::move_of_taker(choice),
        },
        Step::Other(_) => "other taker",
        Step::Past(_) => "donor before",
        step => crate::names::outside(step),
    }
}
