//! What the two sinks of the log share: a line goes in, and is taken at once or counted as lost.

use std::io;
use std::time::Instant;

use log::Level;

/// What the two sinks share: a line in, or the reason why it was not taken.
pub(super) trait Sink {
    /// Writes one line without waiting.
    ///
    /// # Errors
    /// Whatever kept the line from being taken; it is lost then, and the caller counts it.
    fn send(&mut self, line: &Line<'_>) -> io::Result<()>;
}

/// One line for a sink.
#[derive(Debug, Clone, Copy)]
pub(super) struct Line<'a> {
    pub(super) at: Instant,
    pub(super) level: Level,
    /// Printable, without a line end.
    pub(super) text: &'a str,
}

/// A sink that counts what it loses.
///
/// ```text
///            line lost: count 1           line lost: count on
///   Taking ─────────────────────→ Losing ──┐
///     ↑                             │  ↑───┘
///     └─────────────────────────────┘
///       the count was taken as a line of its own, ahead of the next line
/// ```
#[derive(Debug)]
pub(super) struct Counted<S> {
    pub(super) sink: S,
    /// Lost since a line was last taken.
    unreported: u64,
    /// Lost since the start.
    pub(super) lost: u64,
}

/// A sink began or ceased to lose lines.
#[derive(Debug)]
pub(super) enum Change {
    Back,
    Gone(io::Error),
}

impl<S: Sink> Counted<S> {
    pub(super) fn new(sink: S) -> Self {
        Self {
            sink,
            unreported: 0,
            lost: 0,
        }
    }

    /// Writes a line, or counts it as lost; says if that is a change.
    pub(super) fn write(&mut self, line: &Line<'_>) -> Option<Change> {
        let was_losing = self.unreported > 0;
        let sent = self.report(line.at).and_then(|()| self.sink.send(line));
        if let Err(error) = sent {
            self.unreported += 1;
            self.lost += 1;
            return (!was_losing).then_some(Change::Gone(error));
        }
        was_losing.then_some(Change::Back)
    }

    fn report(&mut self, at: Instant) -> io::Result<()> {
        if self.unreported > 0 {
            let text = format!("log lines lost here: {}", self.unreported);
            self.sink.send(&Line {
                at,
                level: Level::Warn,
                text: &text,
            })?;
            self.unreported = 0;
        }
        Ok(())
    }
}
