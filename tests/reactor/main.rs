//! What a reactor promises, a scenario for each promise.
//!
//! Counting allocations and forking take a process of their own: `reactor_steady.rs`,
//! `reactor_fork.rs`.
//!
//! | file | what it is about |
//! |---|---|
//! | `children.rs` | child processes as a source |
//! | `clock.rs` | the manual clock, and what runs by it |
//! | `connect.rs` | a connection that comes back to itself |
//! | `contract.rs` | sources: edges, budgets, handles, order |
//! | `drain.rs` | ending in order |
//! | `figures.rs` | statistics, budgets, hooks |
//! | `history.rs` | any history: no byte is left unread |
//! | `interest.rs` | what a source is watched for |
//! | `liveness.rs` | timers to the microsecond |
//! | `process.rs` | no descriptors left, unforeseen answers of the kernel |
//! | `promises.rs` | each promise of the documentation has its tests |
//! | `release.rs` | changes are known, what is released is gone |
//! | `signals.rs` | signals as a source |
//! | `takeover.rs` | hold, resume, settle |
//! | `timing.rs` | timers, I/O deadlines, deferred calls |
//! | `waker.rs` | waking from other threads |
//! | `common.rs` | what they share |
//! | `world.rs` | the state of most of them |

#[path = "../support/mod.rs"]
mod support;

mod common;

mod children;
mod clock;
mod connect;
mod contract;
mod drain;
mod figures;
mod history;
mod interest;
mod liveness;
mod process;
mod promises;
mod release;
mod signals;
mod takeover;
mod timing;
mod waker;
mod world;
