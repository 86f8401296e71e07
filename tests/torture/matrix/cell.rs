//! One cell: a fault in a state, and how long the two sides wait in it.

use super::table::{End, Faults, Outcome, ROWS, Row, Scene, Side};

/// What the victim does to itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Action {
    Kill,
    Panic,
    Exit,
    Stop,
    Term,
}

impl Action {
    const ALL: [Action; 5] = [
        Action::Kill,
        Action::Panic,
        Action::Exit,
        Action::Stop,
        Action::Term,
    ];

    fn name(self) -> &'static str {
        match self {
            Action::Kill => "kill",
            Action::Panic => "panic",
            Action::Exit => "exit",
            Action::Stop => "stop",
            Action::Term => "term",
        }
    }

    /// The exit code that it makes, if it ends the process.
    pub(super) fn code(self) -> Option<i32> {
        match self {
            Action::Kill => Some(128 + libc::SIGKILL),
            Action::Panic => Some(101),
            Action::Exit => Some(99),
            Action::Stop | Action::Term => None,
        }
    }
}

/// See the file's own description.
#[derive(Debug, Clone, Copy)]
pub(super) struct Cell {
    pub(super) row: &'static Row,
    pub(super) after: bool,
    pub(super) action: Action,
}

impl Cell {
    /// Every cell of the table.
    pub(super) fn all() -> Vec<Cell> {
        let mut cells = Vec::new();
        for row in ROWS {
            for after in [false, true] {
                for action in Action::ALL {
                    cells.push(Cell { row, after, action });
                }
            }
        }
        cells
    }

    /// What the service is told: `donor.grant.before:kill`.
    pub(super) fn failpoint(&self) -> String {
        let side = match self.row.side {
            Side::Donor => "donor",
            Side::Taker => "taker",
        };
        let when = if self.after { "after" } else { "before" };
        let (state, action) = (self.row.state, self.action.name());
        format!("{side}.{state}.{when}:{action}")
    }

    pub(super) fn name(&self) -> String {
        match self.row.scene {
            Scene::Plain => self.failpoint(),
            scene => format!("{} {scene:?}", self.failpoint()),
        }
    }

    fn faults(&self) -> &'static Faults {
        if self.after {
            &self.row.after
        } else {
            &self.row.before
        }
    }

    /// The outcome that is as good as the expected one.
    pub(super) fn or(&self) -> Option<Outcome> {
        let or = self.faults().or;
        or.filter(|_| self.action == Action::Term)
    }

    pub(super) fn expected(&self) -> Outcome {
        let faults = self.faults();
        let mut outcome = match self.action {
            Action::Kill | Action::Panic | Action::Exit => faults.dies,
            Action::Stop => faults.sleeps,
            Action::Term => faults.term,
        };
        if let Some(code) = self.action.code() {
            for end in [&mut outcome.donor, &mut outcome.taker] {
                if *end == End::Fault {
                    *end = End::Exit(code);
                }
            }
        }
        outcome
    }

    /// The failpoint of the other side, where the scene needs one.
    pub(super) fn helper(&self) -> Option<&'static str> {
        match self.row.scene {
            Scene::Plain | Scene::Declined => None,
            Scene::TakerKilled => Some("taker.receive.before:kill"),
            Scene::TakerSleeps => Some("taker.receive.before:stop"),
            Scene::TakerSleepsLate => Some("taker.claim.before:stop"),
            Scene::OwnerPanics => Some("taker.active.after:panic"),
            Scene::OwnerSleeps => Some("taker.active.before:stop"),
            Scene::DonorSleeps => Some("donor.hold-peers.after:stop"),
        }
    }

    /// The deadline that has to pass, in milliseconds; all others are so long that even a busy
    /// machine keeps them. The taker's follow from the donor's, but for its HELLO.
    pub(super) fn deadlines(&self) -> Vec<String> {
        let stops = self.action == Action::Stop;
        let short: &[(&str, u32)] = match (self.row.scene, self.row.side, self.row.state) {
            (Scene::TakerSleeps, ..) => &[("preload", 600)],
            (Scene::TakerSleepsLate | Scene::OwnerSleeps, ..) => &[("claim", 500)],
            _ if !stops => &[],
            (_, Side::Donor, "accept-channel" | "preload" | "hold-peers") => &[
                ("hello", 500),
                ("preload", 600),
                ("freeze", 500),
                ("claim", 500),
            ],
            (_, Side::Donor, _) => &[("freeze", 500), ("end", 500), ("claim", 500)],
            (_, Side::Taker, "hello" | "receive") => &[("preload", 600)],
            (_, Side::Taker, "settle") => &[("freeze", 600), ("claim", 500)],
            (_, Side::Taker, _) => &[("claim", 500)],
        };
        let mut options = Vec::new();
        for step in ["hello", "preload", "freeze", "end", "claim"] {
            let short = short.iter().find(|(name, _)| *name == step);
            let millis = short.map_or(LONG, |(_, millis)| *millis);
            options.extend(["--deadline".to_owned(), format!("{step}={millis}")]);
        }
        options
    }
}

/// Milliseconds that no step takes.
const LONG: u32 = 25_000;
