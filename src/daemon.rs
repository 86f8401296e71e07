//! What a service needs around its event loop, and an embedder does not.
//!
//! | file | open it for |
//! |---|---|
//! | [`daemonize`] (`daemonize.rs`) | leaving the terminal, and telling it how the start went |
//! | [`pidfile`] (`pidfile.rs`) | the process id in a locked file that follows the owner; its errors are in `pidfile/error.rs` |
//! | [`report`] (`report.rs`) | what each takeover did, as lines of JSON in a file |
//! | [`logging`] (`logging.rs`) | the `log` facade over the two sinks, and what was lost |
//! | [`sink`] (`sink.rs`) | what the two sinks share: one line in, and what was lost |
//! | [`sink_syslog`] (`sink_syslog.rs`) | lines to the local syslog daemon |
//! | [`sink_console`] (`sink_console.rs`) | lines to stderr |
//! | [`writer`] (`writer.rs`) | lines to a file that may stall, written by a thread |
//! | [`aside`] (`aside.rs`) | other work that may stall, done by a thread |
//!
//! At a start they come in this order: pid file opened and locked, report opened, daemonized, log
//! opened, pid written. Errors before the fork are told on the terminal, by the process that was
//! started there. The log is opened after the fork, because a syslog line carries the process id.
//! The first line that needs a thread starts it, after the forks.
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
//! On the way out the two threads are given 100 ms for what still waits. Signals that a write may
//! raise are ignored from the first line of `main` on.

pub mod aside;
pub mod daemonize;
pub mod logging;
pub mod pidfile;
pub mod report;
mod sink;
mod sink_console;
mod sink_syslog;
mod writer;
