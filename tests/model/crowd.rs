//! A takeover of more items than an exploration can hold, walked at random: what belongs to
//! batches, the window and the rounds of a preload shows only here.
//!
//! The walk has no faults. It knows for each item how often it was changed, and what the
//! taker has been told of that; when END is sent the two must agree.

mod walk;

use socket_takeover::takeover::internal::donor::Cause;
use socket_takeover::takeover::internal::preload::{BATCH, ROUNDS};

use walk::{Crowd, Habits, Outlook};

fn habits(churn: u64) -> Habits {
    Habits {
        items: 400,
        slots: usize::MAX,
        churn,
        declined_in: 50,
        close_in: 10,
        hot: u64::MAX,
    }
}

#[test]
fn idle_crowd_is_known_before_the_freeze() {
    for seed in 0..20 {
        println!("seed {seed}");
        let crowd = Crowd::new(seed, habits(0)).walk().assert_handed_over();
        assert_eq!(crowd.in_freeze, 0);
    }
}

#[test]
fn busy_crowd_leaves_little_for_the_freeze() {
    for seed in 0..20 {
        println!("seed {seed}");
        let crowd = Crowd::new(seed, habits(2)).walk().assert_handed_over();
        println!(
            "{} rounds, {} in the freeze",
            crowd.rounds + 1,
            crowd.in_freeze
        );
        assert!(crowd.in_freeze <= 2 * BATCH);
    }
}

#[test]
fn frantic_crowd_does_not_preload_for_ever() {
    for seed in 0..20 {
        println!("seed {seed}");
        let crowd = Crowd::new(seed, habits(60)).walk().assert_handed_over();
        assert!(crowd.rounds < ROUNDS);
    }
}

/// Every step something is closed that the taker has.
#[test]
fn constant_closing_does_not_keep_items_back() {
    for seed in 0..20 {
        println!("seed {seed}");
        let closing = Habits {
            items: 20 * BATCH as u64,
            close_in: 3,
            ..habits(3)
        };
        let crowd = Crowd::new(seed, closing).walk().assert_handed_over();
        println!(
            "{} rounds, {} in the freeze",
            crowd.rounds + 1,
            crowd.in_freeze
        );
        assert!(crowd.in_freeze <= 2 * BATCH);
    }
}

/// More items than go in a window change between any two steps, and the others only now and
/// then.
#[test]
fn hot_items_do_not_keep_the_others_for_the_freeze() {
    for seed in 0..20 {
        println!("seed {seed}");
        let hot = Habits {
            items: 20 * BATCH as u64,
            hot: BATCH as u64,
            close_in: 1000,
            ..habits(400)
        };
        let mut crowd = Crowd::new(seed, hot);
        // While it was sent the first time, every item changed.
        crowd.warm_up();
        let crowd = crowd.walk().assert_handed_over();
        println!(
            "{} rounds, {} in the freeze",
            crowd.rounds + 1,
            crowd.in_freeze
        );
        assert!(crowd.in_freeze <= 2 * BATCH);
    }
}

#[test]
fn crowd_beyond_the_slots_stays() {
    for seed in 0..20 {
        println!("seed {seed}");
        let short = Habits {
            slots: 390,
            declined_in: u64::MAX,
            ..habits(1)
        };
        let crowd = Crowd::new(seed, short).walk();
        assert_eq!(crowd.outlook, Outlook::RolledBack(Cause::FdLimit));
    }
}
