//! A takeover between two real processes, or between one and a side that the test plays: each
//! error, each limit, each place and each release.
//!
//! | file | what it is about |
//! |---|---|
//! | `active.rs` | ACTIVE that cannot be sent at once |
//! | `callers.rs` | callers that are too many, or no takers |
//! | `corners.rs` | the corners of TCP in every state |
//! | `donor.rs` | donors that die, stop, refuse or send what is wrong |
//! | `failpoint.rs` | failpoints are in no service but the tests' own |
//! | `faults.rs` | a system call that fails, at one exact call |
//! | `golden_wire.rs` | the first release, byte by byte |
//! | `hostile.rs` | other users that mean no good |
//! | `hostile_takers.rs` | takers of our own user that mean no good |
//! | `killed.rs` | takers that are killed at every record |
//! | `limits.rs` | descriptors, buffers, queues, memory |
//! | `names.rs` | PATH vanishes |
//! | `path.rs` | what may be in the place of PATH |
//! | `places.rs` | process 1, another network namespace |
//! | `positions.rs` | states that are not where their sockets are |
//! | `processes.rs` | other users, identity and limits of the channel |
//! | `silent.rs` | a new owner that says nothing |
//! | `starved.rs` | processes that hardly run |
//! | `state_versions.rs` | releases with different states |
//! | `syscall_budget.rs` | system calls of a message, an item, a freeze |
//! | `taker.rs` | takers that do not do what they should |
//! | `versions.rs` | releases that do not speak the same |
//! | `wire.rs` | records that are wrong |

#[path = "../support/mod.rs"]
mod support;

mod active;
mod callers;
mod corners;
mod donor;
mod failpoint;
mod faults;
mod golden_wire;
mod hostile;
mod hostile_takers;
mod killed;
mod limits;
mod names;
mod path;
mod places;
mod positions;
mod processes;
mod silent;
mod starved;
mod state_versions;
mod syscall_budget;
mod taker;
mod versions;
mod wire;
