//! What became of the clients of a test.

use std::fmt;
use std::time::Duration;

use super::peer::MESSAGE;

/// Most faults that are kept in words.
const SHOWN: usize = 20;

/// The sum of what all clients have seen.
#[derive(Debug, Clone, Default)]
pub struct Verdict {
    /// Connections that were made.
    pub connections: u64,
    /// Bytes that came back, each compared with what was sent.
    pub checked: u64,
    /// The longest time that a client which waits for each answer has waited for one.
    pub longest: Duration,
    /// The latest that the clients themselves were for what they meant to do: as long a wait
    /// can be the machine's.
    pub late: Duration,
    /// What went wrong, however it did: a wrong, missing or surplus byte, a refused, reset or
    /// ended connection.
    pub faults: u64,
    /// Those of the faults that are a wrong or surplus byte: nothing that a connection which
    /// is lost with its server could explain.
    pub wrong: u64,
    /// The first of them, in words.
    pub shown: Vec<String>,
}

impl Verdict {
    /// This and what other clients have seen.
    pub fn and(mut self, other: Verdict) -> Verdict {
        self.connections += other.connections;
        self.checked += other.checked;
        self.longest = self.longest.max(other.longest);
        self.late = self.late.max(other.late);
        self.faults += other.faults;
        self.wrong += other.wrong;
        self.shown.extend(other.shown);
        self.shown.truncate(SHOWN);
        self
    }

    /// The connections and messages that a server which has served them all has counted.
    pub fn counted(&self) -> [u64; 2] {
        [self.connections, self.checked / MESSAGE]
    }

    pub(super) fn fault(&mut self, what: String) {
        self.faults += 1;
        if self.shown.len() < SHOWN {
            self.shown.push(what);
        }
    }

    /// # Panics
    /// If one client noticed anything.
    #[track_caller]
    pub fn assert_flawless(&self) {
        assert!(self.faults == 0, "{self}");
    }
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} faults; {} connections, {} bytes checked, longest wait {:.3} ms",
            self.faults,
            self.connections,
            self.checked,
            self.longest.as_secs_f64() * 1e3,
        )?;
        for fault in &self.shown {
            write!(f, "\n    {fault}")?;
        }
        Ok(())
    }
}
