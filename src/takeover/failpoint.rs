//! Failpoints: a process can be told to die, stop, be stopped, panic or leave as soon as one
//! side of a takeover has entered a state. For tests alone, behind the feature `failpoints`;
//! without it a [`Failpoint`] is nothing, and neither are the calls. What `cargo build` and
//! `cargo test` leave in `target` has none: tests that want one build it in a folder of its own.
//!
//! ```text
//!   TAKEOVER_FAILPOINT = donor.await-claim.before:kill
//!                          │        │        │     └ kill, stop, term: SIGKILL, SIGSTOP, SIGTERM
//!                          │        │        │       to itself; panic; exit: at once, with 99
//!                          │        │        └ before the state's actions are performed; after:
//!                          │        │          before their outcomes lead on
//!                          │        └ a State of donor.rs or taker.rs
//!                          └ or taker
//! ```
//!
//! It is hit once, when the state is entered for the first time, and says so on stderr. The
//! state in which a side begins counts as entered only by a taker; a donor has to come back
//! to it.

pub(super) use point::{Failpoint, check};

/// Which side a process plays.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Side {
    Donor,
    Taker,
}

#[cfg(not(any(test, feature = "failpoints")))]
mod point {
    use super::Side;
    use crate::takeover::Error;

    #[derive(Debug)]
    pub(in crate::takeover) struct Failpoint;

    impl Failpoint {
        pub(in crate::takeover) fn of(_: Side) -> Failpoint {
            Failpoint
        }

        pub(in crate::takeover) fn before(&mut self, _: &'static str) {}

        pub(in crate::takeover) fn after(&mut self) {}
    }

    pub(in crate::takeover) fn check() -> Result<(), Error> {
        Ok(())
    }
}

#[cfg(any(test, feature = "failpoints"))]
mod point {
    use std::env;
    use std::io::{self, Write};
    use std::process;

    use nix::sys::signal::{Signal, raise};

    use super::Side;
    use crate::takeover::Error;
    use crate::takeover::core::{donor, taker};

    const VARIABLE: &str = "TAKEOVER_FAILPOINT";
    /// Exit code of `exit`, which nothing else has.
    const EXIT: i32 = 99;

    /// See the file's own description.
    #[derive(Debug)]
    pub(in crate::takeover) struct Failpoint {
        /// None once it was hit.
        plan: Option<Plan>,
        /// Where the side is.
        state: &'static str,
        /// It has come there just now.
        entered: bool,
    }

    #[derive(Debug, Clone, PartialEq, Eq)]
    struct Plan {
        text: String,
        side: Side,
        state: String,
        after: bool,
        action: Action,
    }

    #[derive(Debug, Clone, Copy, PartialEq, Eq)]
    enum Action {
        Raise(Signal),
        Panic,
        Exit,
    }

    impl Failpoint {
        /// Asks the environment, once.
        pub(in crate::takeover) fn of(side: Side) -> Failpoint {
            Failpoint {
                plan: plan().unwrap_or(None).filter(|plan| plan.side == side),
                state: match side {
                    Side::Donor => donor::State::Idle.name(),
                    Side::Taker => "",
                },
                entered: false,
            }
        }

        /// The side is in `state` now, and is about to perform its actions.
        pub(in crate::takeover) fn before(&mut self, state: &'static str) {
            self.entered = std::mem::replace(&mut self.state, state) != state;
            self.hit(false);
        }

        /// It has performed them.
        pub(in crate::takeover) fn after(&mut self) {
            self.hit(true);
            self.entered = false;
        }

        fn hit(&mut self, after: bool) {
            let (state, entered) = (self.state, self.entered);
            let is_it = |plan: &mut Plan| entered && plan.after == after && plan.state == state;
            if let Some(plan) = self.plan.take_if(is_it) {
                let _ = writeln!(io::stderr(), "failpoint {}", plan.text);
                plan.action.perform();
            }
        }
    }

    impl Action {
        fn perform(self) {
            match self {
                Action::Raise(signal) => raise(signal).expect("a process may signal itself"),
                Action::Panic => panic!("{VARIABLE} says so"),
                Action::Exit => process::exit(EXIT),
            }
        }
    }

    /// Whether the environment names a failpoint that there is.
    pub(in crate::takeover) fn check() -> Result<(), Error> {
        plan().map(|_| ()).map_err(Error::usage)
    }

    fn plan() -> Result<Option<Plan>, String> {
        match env::var(VARIABLE) {
            Ok(text) => parse(&text).map(Some),
            Err(env::VarError::NotPresent) => Ok(None),
            Err(env::VarError::NotUnicode(_)) => Err(format!("{VARIABLE} is not UTF-8")),
        }
    }

    fn parse(text: &str) -> Result<Plan, String> {
        let wrong = |what: &str| {
            format!(
                "{VARIABLE}={text:?}: {what}; say SIDE.STATE.WHEN:ACTION, as \
                 donor.await-claim.before:kill"
            )
        };
        let (place, action) = text.split_once(':').ok_or_else(|| wrong("no action"))?;
        let [side, state, when] = place.split('.').collect::<Vec<_>>()[..] else {
            return Err(wrong("no place"));
        };
        let (side, states) = match side {
            "donor" => (Side::Donor, donor::State::NAMES.as_slice()),
            "taker" => (Side::Taker, taker::State::NAMES.as_slice()),
            _ => return Err(wrong("the side is neither donor nor taker")),
        };
        if !states.contains(&state) {
            return Err(wrong(&format!("the states are {}", states.join(", "))));
        }
        let after = match when {
            "before" => false,
            "after" => true,
            _ => return Err(wrong("it is before or after")),
        };
        let action = match action {
            "kill" => Action::Raise(Signal::SIGKILL),
            "stop" => Action::Raise(Signal::SIGSTOP),
            "term" => Action::Raise(Signal::SIGTERM),
            "panic" => Action::Panic,
            "exit" => Action::Exit,
            _ => return Err(wrong("the actions are kill, stop, term, panic, exit")),
        };
        Ok(Plan {
            text: text.to_owned(),
            side,
            state: state.to_owned(),
            after,
            action,
        })
    }

    #[cfg(test)]
    mod tests {
        use super::*;

        #[test]
        fn every_state_of_both_sides_has_a_place() {
            for (side, states) in [
                ("donor", donor::State::NAMES.as_slice()),
                ("taker", taker::State::NAMES.as_slice()),
            ] {
                for state in states {
                    let plan = parse(&format!("{side}.{state}.after:term")).unwrap();
                    assert_eq!(plan.state, *state);
                    assert!(plan.after);
                }
            }
        }

        #[test]
        fn anything_else_is_told_in_one_line() {
            for text in [
                "",
                "kill",
                "donor:kill",
                "donor.grant:kill",
                "donor.grant.before",
                "donor.grant.before:die",
                "donor.grant.now:kill",
                "donor.claim.before:kill",
                "taker.grant.before:kill",
                "peer.grant.before:kill",
                "donor.grant.before.after:kill",
            ] {
                let why = parse(text).unwrap_err();
                assert!(why.contains(text) && !why.contains('\n'), "{why}");
            }
        }
    }
}
