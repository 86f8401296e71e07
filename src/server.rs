//! Listener, peers and takeover on one reactor.

use crate::cli::Options;
use crate::daemon::daemonize::Readiness;
use crate::daemon::logging::Logging;
use crate::daemon::pidfile::PidFile;

/// Runs the service until it stops or has handed over, and returns its exit code.
pub fn run(
    options: Options,
    log: &'static Logging,
    readiness: Option<Readiness>,
    pid_file: Option<PidFile>,
) -> u8 {
    let _ = (options, log);
    log::error!("this build cannot serve yet");
    if let Some(pid_file) = pid_file
        && let Err(error) = pid_file.remove()
    {
        log::warn!("pid file: {error}");
    }
    if let Some(readiness) = readiness {
        readiness.report(1);
    }
    1
}
