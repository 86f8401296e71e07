//! The timer set against a sorted list.

use std::time::Duration;

use proptest::prelude::*;

use super::*;

const fn at(ns: u64) -> Time {
    Time::from_ns(ns)
}

/// Somewhere in the wheel.
const FAR: Time = at(3_600_000_000_000);

/// Takes all that is due, as the reactor does.
fn fire(timers: &mut Timers<u32>, now: Time) -> Vec<u32> {
    let mut fired = Vec::new();
    for _ in 0..timers.expire(now) {
        if let Some(expired) = timers.pop_expired() {
            timers.disarm(expired.key);
            fired.extend(timers.value(expired.key));
        }
    }
    fired
}

#[test]
fn equal_deadlines_fire_in_arming_order() {
    let mut timers = Timers::new(Time::ZERO);
    let first = timers.add(at(5), 1);
    timers.add(at(9), 2);
    timers.add(at(9), 3);
    // Pushed to the time of the others after them, so it comes after them.
    timers.arm(first, at(9));
    assert_eq!(timers.next_due(), Some(at(9)));
    assert_eq!(fire(&mut timers, at(8)), []);
    assert_eq!(fire(&mut timers, at(9)), [2, 3, 1]);
}

#[test]
fn expired_then_rearmed_fires_at_the_new_time_only() {
    let mut timers = Timers::new(Time::ZERO);
    let key = timers.add(at(1), 7);
    assert_eq!(timers.expire(at(1)), 1);
    timers.arm(key, at(10));
    assert_eq!(timers.pop_expired(), None);
    assert_eq!(timers.next_due(), Some(at(10)));
    assert_eq!(fire(&mut timers, at(10)), [7]);
    assert_eq!(timers.next_due(), None);
}

#[test]
fn expired_then_removed_does_not_fire() {
    let mut timers = Timers::new(Time::ZERO);
    let key = timers.add(at(1), 7);
    timers.expire(at(1));
    assert_eq!(timers.next_due(), Some(Time::ZERO));
    assert_eq!(timers.remove(key), Some(7));
    assert_eq!(timers.next_due(), None);
    assert_eq!(timers.pop_expired(), None);
    assert!(!timers.arm(key, at(5)));
}

#[test]
fn expired_then_put_back_is_due_at_once_and_still_armed() {
    let mut timers = Timers::new(Time::ZERO);
    let key = timers.add(at(3), 7);
    timers.expire(at(4));
    let expired = timers.pop_expired().unwrap();
    timers.put_back(expired);
    assert_eq!(timers.due(key), Some(at(3)));
    assert_eq!(timers.next_due(), Some(Time::ZERO));
    assert_eq!(fire(&mut timers, at(4)), [7]);
}

#[test]
fn cleared_set_refuses_old_keys_of_slots_used_again() {
    let mut timers = Timers::new(Time::ZERO);
    let old = timers.add(at(1), 1);
    let kept = timers.add(FAR, 9);
    timers.retain(|&value| value == 9);
    let new = timers.add(at(2), 2);
    assert!(!timers.disarm(old) && timers.remove(old).is_none());
    assert_eq!(timers.due(new), Some(at(2)));
    assert_eq!(fire(&mut timers, at(9)), [2]);
    assert_eq!(timers.due(kept), Some(FAR));
}

#[test]
fn near_ones_pushed_later_or_cancelled_leave_few_marks() {
    let mut timers = Timers::new(Time::ZERO);
    let keys: Vec<Key> = (0..1000).map(|n| timers.add(at(1000 + n), 0)).collect();
    for round in 0..100 {
        for &key in &keys {
            timers.arm(key, at(10_000 + round));
        }
    }
    assert_eq!(timers.near.len(), 1000, "pushing later places no mark");
    for round in 0..100 {
        for &key in &keys {
            timers.arm(key, at(900 - round));
        }
    }
    assert!(timers.near.len() <= 2001, "{}", timers.near.len());
    for key in keys {
        timers.remove(key);
    }
    assert!(timers.near.len() <= SMALL, "{}", timers.near.len());
}

#[test]
fn next_deadline_after_the_earliest_has_gone_is_exact_among_few() {
    let mut timers = Timers::new(Time::ZERO);
    let keys: Vec<Key> = (0..EXACT as u64)
        .map(|n| timers.add(FAR + Duration::from_nanos(n), 0))
        .collect();
    assert_eq!(timers.next_due(), Some(FAR));
    timers.remove(keys[0]);
    assert_eq!(timers.next_due(), Some(FAR + Duration::from_nanos(1)));
    timers.arm(keys[1], FAR + Duration::from_secs(3600));
    assert_eq!(timers.next_due(), Some(FAR + Duration::from_nanos(2)));
    timers.disarm(keys[2]);
    assert_eq!(timers.next_due(), Some(FAR + Duration::from_nanos(3)));
}

#[test]
fn next_deadline_after_the_earliest_has_gone_is_told_too_early_once_among_many() {
    let mut timers = Timers::new(Time::ZERO);
    let first = timers.add(FAR, 1);
    for n in 1..=2 * EXACT as u64 {
        timers.add(FAR + Duration::from_millis(2 * n), 0);
    }
    timers.remove(first);
    assert_eq!(timers.next_due(), Some(FAR));
    assert_eq!(fire(&mut timers, FAR), []);
    assert_eq!(timers.next_due(), Some(FAR + Duration::from_millis(2)));
}

#[test]
fn times_at_every_distance_fire_in_order() {
    let mut timers = Timers::new(Time::ZERO);
    let times = || (0..64).flat_map(|bit| [1 << bit, (1 << bit) + 1, (1 << bit) | 1 << (bit / 2)]);
    for (value, time) in times().enumerate() {
        timers.add(at(time), value as u32);
    }
    timers.add(Time::MAX, 1000);
    let mut expected: Vec<(u64, u32)> = times().zip(0..).collect();
    expected.sort_unstable();
    expected.push((u64::MAX, 1000));
    for (time, value) in expected {
        // Several of the same time fire together.
        if timers.expired.is_empty() {
            assert_eq!(timers.next_due(), Some(at(time)));
            assert!(timers.expire(at(time - 1)) == 0, "never early");
            timers.expire(at(time));
        }
        let expired = timers.pop_expired().unwrap();
        timers.disarm(expired.key);
        assert_eq!(timers.value(expired.key), Some(&value));
    }
    assert_eq!(timers.next_due(), None);
}

#[derive(Debug, Clone)]
enum Step {
    Add(u64),
    Arm(prop::sample::Index, u64),
    PushLater(prop::sample::Index, u64),
    Disarm(prop::sample::Index),
    Remove(prop::sample::Index),
    Fire(u64),
    /// Lets time pass, then does something to a deadline that is due but was not run.
    ExpireThen(u64, Box<Step>),
}

/// A span of any size: equal ones and ties are as likely as a different level of the wheel.
fn span() -> impl Strategy<Value = u64> {
    prop_oneof![
        2 => 0..50u64,
        2 => (0..200u64).prop_map(|ticks| ticks << 20),
        1 => (0..45u32, 0..3u64).prop_map(|(bits, more)| (1 << bits) + more),
    ]
}

fn change() -> impl Strategy<Value = Step> {
    type Index = prop::sample::Index;
    prop_oneof![
        3 => span().prop_map(Step::Add),
        3 => (any::<Index>(), span()).prop_map(|(which, by)| Step::Arm(which, by)),
        3 => (any::<Index>(), span()).prop_map(|(which, by)| Step::PushLater(which, by)),
        1 => any::<Index>().prop_map(Step::Disarm),
        2 => any::<Index>().prop_map(Step::Remove),
    ]
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        6 => change(),
        2 => span().prop_map(Step::Fire),
        1 => (span(), change()).prop_map(|(by, step)| Step::ExpireThen(by, Box::new(step))),
    ]
}

/// When it is due, and the number of that arming.
type Armed = Option<(Time, u64)>;

/// What the set should be: each deadline with its time and the number of its arming.
#[derive(Debug, Default)]
struct Model {
    now: u64,
    armings: u64,
    deadlines: Vec<(Key, u32, Armed)>,
}

impl Model {
    fn armed(&mut self, time: u64) -> Armed {
        self.armings += 1;
        Some((at(time), self.armings))
    }

    fn apply(&mut self, timers: &mut Timers<u32>, step: Step) {
        let index = |which: prop::sample::Index, model: &Model| {
            (!model.deadlines.is_empty()).then(|| which.index(model.deadlines.len()))
        };
        match step {
            Step::Add(by) => {
                let (time, value) = (self.now + by, self.armings as u32);
                let armed = self.armed(time);
                self.deadlines
                    .push((timers.add(at(time), value), value, armed));
            }
            Step::Arm(which, by) => {
                if let Some(which) = index(which, self) {
                    let armed = self.armed(self.now + by);
                    self.deadlines[which].2 = armed;
                    assert!(timers.arm(self.deadlines[which].0, at(self.now + by)));
                }
            }
            Step::PushLater(which, by) => {
                if let Some(which) = index(which, self) {
                    let from = self.deadlines[which].2.map_or(at(self.now), |(at, _)| at);
                    let time = (from + Duration::from_nanos(by)).as_ns();
                    let armed = self.armed(time);
                    self.deadlines[which].2 = armed;
                    assert!(timers.arm(self.deadlines[which].0, at(time)));
                }
            }
            Step::Disarm(which) => {
                if let Some(which) = index(which, self) {
                    self.deadlines[which].2 = None;
                    assert!(timers.disarm(self.deadlines[which].0));
                }
            }
            Step::Remove(which) => {
                if let Some(which) = index(which, self) {
                    let (key, value, _) = self.deadlines.remove(which);
                    assert_eq!(timers.remove(key), Some(value));
                    assert_eq!(timers.remove(key), None);
                }
            }
            Step::Fire(by) => {
                self.now += by;
                assert_eq!(fire(timers, at(self.now)), self.fire());
            }
            Step::ExpireThen(by, step) => {
                self.now += by;
                timers.expire(at(self.now));
                self.apply(timers, *step);
                // What expired first fires first, whatever was armed meanwhile.
                let (mut fired, mut expected) = (fire(timers, at(self.now)), self.fire());
                fired.sort_unstable();
                expected.sort_unstable();
                assert_eq!(fired, expected);
            }
        }
    }

    fn fire(&mut self) -> Vec<u32> {
        let mut due: Vec<((Time, u64), u32)> = Vec::new();
        for (_, value, armed) in &mut self.deadlines {
            if let Some((time, arming)) = armed.take_if(|(time, _)| *time <= at(self.now)) {
                due.push(((time, arming), *value));
            }
        }
        due.sort_unstable();
        due.into_iter().map(|(_, value)| value).collect()
    }

    fn check(&self, timers: &mut Timers<u32>) {
        let mut first: Option<Time> = None;
        for (key, _, armed) in &self.deadlines {
            let due = armed.map(|(time, _)| time);
            assert_eq!(timers.due(*key), due);
            first = first.into_iter().chain(due).min();
        }
        let told = timers.next_due();
        if self.deadlines.len() <= EXACT {
            assert_eq!(told, first);
        } else {
            assert_eq!(told.is_some(), first.is_some());
            assert!(told <= first, "{told:?} is too late for {first:?}");
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_history_fires_like_a_sorted_list(steps in prop::collection::vec(step(), 1..200)) {
        let mut timers = Timers::new(Time::ZERO);
        let mut model = Model::default();
        for step in steps {
            model.apply(&mut timers, step);
            model.check(&mut timers);
        }
    }
}
