//! The service by itself: command line, log, files, listener, and the original program.
//!
//! | file | what it is about |
//! |---|---|
//! | `cli.rs` | the command line |
//! | `daemon.rs` | what is checked before the fork |
//! | `listener.rs` | accept that fails, a listener that was shut down |
//! | `original.rs` | the original C program taken over |
//! | `syslog.rs` | a real `/dev/log` |

#[path = "../support/mod.rs"]
mod support;

mod cli;
mod daemon;
mod listener;
mod original;
mod syslog;
