//! What others wait to hear: the file of reports, and the process that waits for the end of the
//! start.
//!
//! ```text
//!   outcome of a takeover ──▶ a line for the report ──┐ queued
//!   start is over ──▶ readiness ── when the files are idle, or soon ──▶ the starter's exit code
//! ```
//!
//! Threads write the files (see [`daemon`](crate::daemon)), so nothing here waits for a disk. A
//! timer looks after them. When the starter has returned, log, report and pid file say what the
//! start has to say, unless a disk hangs. The timer does not travel in a takeover, and sleeps
//! during a hold. On the way out, when nobody is served any more, the process waits for what is
//! still to be written, but not for long.

use std::time::{Duration, Instant};

use socket_takeover::event::{Class, Cx, Time};
use socket_takeover::sys;
use socket_takeover::takeover::Moment;

use super::Server;
use crate::daemon::pidfile::PidFile;
use crate::daemon::report::ReportFile;

/// How soon a timer looks after lines that wait. Each further look comes after twice the time.
const SOON: Duration = Duration::from_millis(1);
const SELDOM: Duration = Duration::from_secs(1);

/// How long the starter, and later the end of the process, waits for lines to a file that may hang.
const PATIENCE: Duration = Duration::from_millis(100);

impl Server {
    /// Reports the outcome of a takeover, if there is one.
    pub(super) fn report(&mut self, cx: &mut Cx<Server>, moment: &Moment) {
        if let (Some(file), Some((outcome, report))) = (&mut self.report, moment.outcome()) {
            file.add(outcome, report);
            self.look_after_lines(cx);
        }
    }

    /// The start is over and went well.
    pub(super) fn is_ready(&mut self, cx: &mut Cx<Server>) {
        // A process that is woken late answers late, and until we have heard that somebody shut the
        // listener down its clients are refused. Not asked for earlier: a taker in the preload has
        // time, and its donor has clients.
        if let Err(error) = sys::ask_for_shorter_slices() {
            log::debug!("time slices: {error}");
        }
        if self.files_are_idle() {
            self.tell_starter(0);
        } else if self.readiness.is_some() {
            self.ready_since = Some(Time::now());
            self.look_after_lines(cx);
        }
    }

    fn look_after_lines(&mut self, cx: &mut Cx<Server>) {
        let mut pause = SOON;
        if let Some(timer) = self.lines.take() {
            cx.cancel(timer);
        }
        let timer = cx.timer(
            Class::Local,
            "lines",
            cx.now() + pause,
            move |server: &mut Server, cx| {
                let again = server.look(cx.now());
                pause = SELDOM.min(pause * 2);
                again.then(|| cx.now() + pause)
            },
        );
        self.lines = Some(timer);
    }

    /// Says what there is to say. Returns false if there is no more to come.
    fn look(&mut self, now: Time) -> bool {
        if let Some(report) = &mut self.report {
            report.say_news();
        }
        let idle = self.files_are_idle();
        let waited = self.ready_since.map(|since| now.since(since));
        if waited.is_some_and(|waited| idle || waited > PATIENCE) {
            self.ready_since = None;
            self.tell_starter(0);
        }
        !idle
    }

    /// Whether log, report and pid file say everything that they are to say.
    fn files_are_idle(&self) -> bool {
        self.logging.is_idle()
            && self.report.as_ref().is_none_or(ReportFile::is_idle)
            && self.pid_file.as_ref().is_none_or(PidFile::is_idle)
    }

    fn tell_starter(&mut self, code: u8) {
        if let Some(readiness) = self.readiness.take() {
            readiness.report(code);
            self.logging.start_is_over();
        }
    }

    /// Does what is left to do on the way out, and returns the exit code.
    pub(super) fn shut_down(&mut self) -> u8 {
        self.remove_pid_file();
        let end = Instant::now() + PATIENCE;
        if let Some(report) = &mut self.report {
            report.flush(end);
            report.say_news();
        }
        self.logging.flush_until(end);
        self.tell_starter(self.exit);
        self.exit
    }
}
