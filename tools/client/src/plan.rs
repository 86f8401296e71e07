//! Who does what and when: the whole run as a pure function of options and seed.
//!
//! A run has *slots*, one a connection; a connection opened by churn takes the place of
//! another in its slot and goes on with that slot's role.

use std::net::IpAddr;
use std::time::Duration;

use crate::cli::{Load, Options};
use crate::pace::{Pace, Rhythm, Role};

/// The interval between two messages of a connection when no rate is given.
const DEFAULT_INTERVAL: Duration = Duration::from_millis(100);

/// The plan of a run.
#[derive(Debug)]
pub struct Plan {
    seed: u64,
    slots: Vec<Slot>,
    sources: Vec<IpAddr>,
    rhythm: Rhythm,
}

#[derive(Debug)]
struct Slot {
    role: Role,
    /// When the first message is due, in nanoseconds after the start.
    offset: u64,
}

impl Plan {
    /// Draws roles and spreads the first messages evenly over one interval, so that the
    /// load of many connections is smooth from the first moment on.
    #[must_use]
    pub fn new(options: &Options, seed: u64) -> Self {
        let roles = roles(options, seed);
        let senders = roles.iter().filter(|&&role| role != Role::Idle).count();
        let interval = interval(options.load, senders);
        let mut rank = 0;
        let slots = roles.into_iter().map(|role| {
            let offset = (u128::from(interval) * rank / senders.max(1) as u128) as u64;
            rank += u128::from(role != Role::Idle);
            Slot { role, offset }
        });
        Self {
            seed,
            slots: slots.collect(),
            sources: options.sources.clone(),
            rhythm: Rhythm {
                interval: (options.load != Load::Closed).then_some(interval),
                depth: options.depth,
                split: options.split,
            },
        }
    }

    /// How many slots there are.
    #[must_use]
    pub fn slots(&self) -> usize {
        self.slots.len()
    }

    /// The role of every connection in a slot.
    #[must_use]
    pub fn role(&self, slot: usize) -> Role {
        self.slots[slot].role
    }

    /// The local address to connect from; `None` leaves it to the kernel.
    #[must_use]
    pub fn source(&self, slot: usize) -> Option<IpAddr> {
        let index = slot.checked_rem(self.sources.len())?;
        Some(self.sources[index])
    }

    /// The sending plan of the `life`-th connection in a slot. Its random choices depend on
    /// seed, slot and life only, never on what other connections do.
    #[must_use]
    pub fn pace(&self, slot: usize, life: u32) -> Pace {
        let Slot { role, offset } = self.slots[slot];
        let random = fastrand::Rng::with_seed(mix(self.seed, slot as u64, u64::from(life)));
        Pace::new(role, self.rhythm, offset, random)
    }
}

fn roles(options: &Options, seed: u64) -> Vec<Role> {
    let count = |share: f64| (share / 100.0 * options.connections as f64).round() as usize;
    let shares = options.shares;
    let mut roles = Vec::with_capacity(options.connections);
    for (role, share) in [
        (Role::Idle, shares.idle),
        (Role::Half, shares.half),
        (Role::Unread, shares.unread),
    ] {
        // Three shares rounded up may be one more than there is.
        let room = options.connections - roles.len();
        roles.extend(std::iter::repeat_n(role, count(share).min(room)));
    }
    roles.resize(options.connections, Role::Steady);
    fastrand::Rng::with_seed(seed).shuffle(&mut roles);
    roles
}

/// Nanoseconds between two messages of one connection.
fn interval(load: Load, senders: usize) -> u64 {
    match load {
        Load::Open { rate: Some(rate) } => ((senders as f64 / rate * 1e9) as u64).max(1),
        Load::Open { rate: None } | Load::Closed => DEFAULT_INTERVAL.as_nanos() as u64,
    }
}

/// Three numbers into one seed, so that near ones give unlike seeds (the finalizer of
/// `SplitMix64`, once for each).
fn mix(seed: u64, slot: u64, life: u64) -> u64 {
    [seed, slot, life].into_iter().fold(0, |state, part| {
        let mut z = (state ^ part).wrapping_add(0x9e37_79b9_7f4a_7c15);
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::{Request, parse};

    fn plan(words: &str, seed: u64) -> Plan {
        let words = format!("-a 127.0.0.1 -p 1 {words}");
        let words: Vec<_> = words.split_whitespace().map(Into::into).collect();
        match parse(words) {
            Ok(Request::Run(options)) => Plan::new(&options, seed),
            other => panic!("{other:?}"),
        }
    }

    fn count(plan: &Plan, role: Role) -> usize {
        (0..plan.slots())
            .filter(|&slot| plan.role(slot) == role)
            .count()
    }

    #[test]
    fn shares_are_exact_and_the_rest_is_steady() {
        let plan = plan("-c 1000 --idle 50 --half 12.5 --unread 0.1", 1);
        let counts =
            [Role::Idle, Role::Half, Role::Unread, Role::Steady].map(|role| count(&plan, role));
        assert_eq!(counts, [500, 125, 1, 374]);
    }

    #[test]
    fn shares_that_round_up_never_exceed_the_connections() {
        let plan = plan("-c 3 --idle 50 --half 50", 1);
        assert_eq!(plan.slots(), 3);
        assert_eq!((count(&plan, Role::Idle), count(&plan, Role::Half)), (2, 1));
    }

    #[test]
    fn same_seed_gives_the_same_roles_and_another_seed_others() {
        let roles = |seed| {
            let plan = plan("-c 200 --idle 50", seed);
            (0..200).map(|slot| plan.role(slot)).collect::<Vec<_>>()
        };
        assert_eq!(roles(7), roles(7));
        assert_ne!(roles(7), roles(8));
    }

    #[test]
    fn rate_is_shared_by_those_who_send_and_spread_evenly() {
        let plan = plan("-c 10 --idle 50 -R 100", 3);
        // 5 senders at 100/s: each 50 ms, one of them every 10 ms.
        assert_eq!(plan.rhythm.interval, Some(50_000_000));
        let senders = plan.slots.iter().filter(|slot| slot.role != Role::Idle);
        let offsets: Vec<u64> = senders.map(|slot| slot.offset).collect();
        assert_eq!(offsets, [0, 10_000_000, 20_000_000, 30_000_000, 40_000_000]);
    }

    #[test]
    fn closed_loop_has_no_interval_and_all_idle_divides_by_nothing() {
        assert_eq!(plan("--closed", 1).rhythm.interval, None);
        assert_eq!(count(&plan("-c 4 --idle 100 -R 5", 1), Role::Idle), 4);
    }

    #[test]
    fn sources_are_used_in_turn() {
        let plan = plan("-c 4 --sources 3", 1);
        let sources: Vec<_> = (0..4)
            .map(|slot| plan.source(slot).unwrap().to_string())
            .collect();
        assert_eq!(
            sources,
            ["127.0.0.1", "127.0.0.2", "127.0.0.3", "127.0.0.1"]
        );
        assert_eq!(self::plan("", 1).source(0), None);
    }
}
