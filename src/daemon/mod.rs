//! What a service needs around its event loop, and an embedder does not.
//!
//! - [`daemonize`]: leave the terminal, and tell it how the start went
//! - [`pidfile`]: the process id in a locked file that follows the owner
//! - [`report`]: what each takeover did, as lines of JSON in a file
//! - [`logging`]: the `log` facade over the two sinks, neither of which can stop the loop:
//!   [`sink_syslog`] and [`sink_console`]
//!
//! Their order at a start: pid file opened and locked, report opened, daemonized, log opened, pid written.
//! What fails before the fork is said on the terminal by the process that was started
//! there; the log is opened after it because a syslog line carries the process id.

pub mod daemonize;
pub mod logging;
pub mod pidfile;
pub mod report;
mod sink_console;
mod sink_syslog;
