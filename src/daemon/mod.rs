//! What a service needs around its event loop, and an embedder does not.
//!
//! - [`daemonize`]: leave the terminal, and tell it how the start went
//! - [`pidfile`]: the process id in a locked file that follows the owner
//! - [`report`]: what each takeover did, as lines of JSON in a file
//! - [`logging`]: the `log` facade over the two sinks, neither of which can stop the loop:
//!   [`sink_syslog`] and [`sink_console`]; [`sink`] is what they share
//! - [`writer`]: lines to a file that may stall, by a thread: those of the report, and of a
//!   console that is a file
//! - [`aside`]: other work that may stall, done by a thread
//!
//! Their order at a start: pid file opened and locked, report opened, daemonized, log opened, pid
//! written. What fails before the fork is said on the terminal by the process that was started
//! there; the log is opened after it because a syslog line carries the process id. A thread is
//! started by the first line that needs one, behind the forks.
//!
//! # Where we write
//! Nothing that is written here can stop the loop, end the process or prevent a takeover:
//!
//! | to | a reader or disk that hangs | an error, also EFBIG and ENOSPC | nobody reads any more |
//! |---|---|---|---|
//! | stderr: pipe, terminal, socket | line lost, counted | line lost, counted | the same (EPIPE) |
//! | stderr: a file | its thread waits; 1 MiB of lines, then lost, counted | line lost, counted, and noted in the file | |
//! | syslog, datagrams or a stream | line lost, counted | lost, counted, connected anew each second | the same |
//! | the report | its thread waits; 1 MiB, then lost, counted, one warning | line lost, counted, one warning | waits in the FIFO |
//! | the pid file | a thread waits; a warning | a warning | |
//!
//! On the way out what waits in the two threads is given 100 ms. Signals that a write may raise
//! are ignored from the first line of `main` on.

pub mod aside;
pub mod daemonize;
pub mod logging;
pub mod pidfile;
pub mod report;
mod sink;
mod sink_console;
mod sink_syslog;
mod writer;
