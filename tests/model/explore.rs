//! Breadth first over every state that a scenario can reach. What is found first is found
//! by the fewest steps, so a counterexample is as short as can be.

use std::collections::{HashMap, VecDeque};
use std::fmt;
use std::hash::BuildHasherDefault;

use crate::census::Census;
use crate::mixer::Mixer;
use crate::names::{donor_name, taker_name};
use crate::rules::{Broken, Rule, check_always, check_quiescent};
use crate::scenario::Scenario;
use crate::world::{Step, World};

/// A shortest way to break a rule.
#[derive(Debug)]
pub(crate) struct Counterexample {
    pub(crate) broken: Broken,
    trace: Vec<String>,
}

impl fmt::Display for Counterexample {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (number, line) in self.trace.iter().enumerate() {
            writeln!(f, "{number:3} {line}")?;
        }
        write!(f, "    => {}", self.broken)
    }
}

/// Where a state was first reached from.
struct Visit {
    parent: usize,
    step: Option<Step>,
    depth: usize,
}

/// Visits every state, or stops at the first that breaks a rule.
pub(crate) fn explore(scenario: &Scenario) -> Result<Census, Box<Counterexample>> {
    let start = World::start(scenario);
    let mut census = Census::default();
    let mut visits = vec![Visit {
        parent: 0,
        step: None,
        depth: 0,
    }];
    let mut numbers: HashMap<World, usize, BuildHasherDefault<Mixer>> = HashMap::default();
    numbers.insert(start.clone(), 0);
    let mut queue = VecDeque::from([start]);
    let mut edges: Vec<(usize, usize)> = Vec::new();
    let mut at = 0;
    while let Some(world) = queue.pop_front() {
        census.count(&world, visits[at].depth);
        let found = |broken, last| Box::new(retrace(scenario, &visits, at, last, broken));
        check_always(&world).map_err(|broken| found(broken, None))?;
        let choices = world.choices();
        if choices.quiescent {
            check_quiescent(&world).map_err(|broken| found(broken, None))?;
            census.count_outcome(&world);
        }
        let mut next = Vec::with_capacity(choices.steps.len());
        for step in choices.steps {
            census.count_step(&world, step);
            let after = world.after(step, scenario);
            next.push((step, after.map_err(|broken| found(broken, Some(step)))?));
        }
        for (step, world) in next {
            let number = *numbers.entry(world).or_insert_with_key(|world| {
                queue.push_back(world.clone());
                visits.push(Visit {
                    parent: at,
                    step: Some(step),
                    depth: visits[at].depth + 1,
                });
                visits.len() - 1
            });
            edges.push((at, number));
        }
        at += 1;
    }
    census.steps = edges.len();
    if let Some(at) = on_a_cycle(visits.len(), &edges) {
        let what = "nothing gets on any more, though something always happens";
        let broken = Rule::Progress.broken(what);
        return Err(Box::new(retrace(scenario, &visits, at, None, broken)));
    }
    Ok(census)
}

/// A state that leads back to itself or follows one that does. All luck is bounded, so such
/// a run would be one in which the processes keep each other busy for ever.
fn on_a_cycle(states: usize, edges: &[(usize, usize)]) -> Option<usize> {
    let mut followers = vec![Vec::new(); states];
    let mut leading = vec![0_u32; states];
    for (from, to) in edges {
        followers[*from].push(*to);
        leading[*to] += 1;
    }
    // Kahn's algorithm: take away what nothing leads to until nothing is left.
    let mut free: Vec<usize> = (0..states).filter(|at| leading[*at] == 0).collect();
    while let Some(at) = free.pop() {
        for to in &followers[at] {
            leading[*to] -= 1;
            if leading[*to] == 0 {
                free.push(*to);
            }
        }
    }
    leading.iter().position(|count| *count > 0)
}

/// Walks the way to a state again and writes down what it looks like.
fn retrace(
    scenario: &Scenario,
    visits: &[Visit],
    mut at: usize,
    last: Option<Step>,
    broken: Broken,
) -> Counterexample {
    let mut steps: Vec<Step> = last.into_iter().collect();
    while let Some(step) = visits[at].step {
        steps.push(step);
        at = visits[at].parent;
    }
    let mut world = World::start(scenario);
    let mut trace = Vec::new();
    for step in steps.into_iter().rev() {
        let line = match world.after(step, scenario) {
            Ok(after) => {
                world = after;
                let (donor, taker) = (donor_name(&world.donor), taker_name(&world.taker));
                format!("{:<50} {donor:<14} {taker}", format!("{step:?}"))
            }
            Err(_) => format!("{step:?}"),
        };
        trace.push(line);
    }
    Counterexample { broken, trace }
}
