//! The load client: many connections to a server of the sequence protocol, every byte of
//! which is judged.
//!
//! Pure, without socket or clock: [`message`], [`check`] (what the answers mean), [`due_times`]
//! (when each message was due), [`pace`] (when a connection sends what), [`plan`] (who does
//! what), [`tally`] (the sums), [`cause`] (whose fault an error is), [`cli`], [`report`], [`join`] (several runs in one verdict)
//! and [`plot`] (a picture of some). Joined to the world: [`timers`], [`console`], [`trace`]
//! (what is written down on the way, by [`ink`]), [`shared`] (what all share), [`answers`] and [`conn`] (one
//! connection), [`dial`], [`connections`] (all connections) and [`run`](mod@run) (the loop).

use std::fmt;

pub mod answers;
pub mod cause;
pub mod check;
pub mod cli;
pub mod conn;
pub mod connections;
pub mod console;
pub mod dial;
pub mod due_times;
pub mod ink;
pub mod join;
pub mod message;
pub mod pace;
pub mod plan;
pub mod plot;
pub mod report;
pub mod run;
pub mod shared;
pub mod tally;
pub mod timers;
pub mod trace;

/// Why there is no verdict. The text is one line: what, why, what to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Failure {
    /// The command line asks for something that cannot be.
    Usage(String),
    /// Not one connection came up.
    NoServer(String),
    /// This side of the network failed.
    Failed(String),
    /// This machine has no room for the load: nothing was measured.
    Unable(String),
}

impl Failure {
    /// The exit code that tells it.
    #[must_use]
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::Failed(_) => 1,
            Self::Usage(_) => 2,
            Self::NoServer(_) => 69,
            Self::Unable(_) => report::UNABLE,
        }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Usage(line) | Self::NoServer(line) | Self::Failed(line) | Self::Unable(line) => {
                f.write_str(line)
            }
        }
    }
}

impl std::error::Error for Failure {}
