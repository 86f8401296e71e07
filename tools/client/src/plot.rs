//! A picture of runs: what was seen over time, a panel for each, all on the same axes.
//!
//! ```text
//!   title                                    legend
//!   1 s    ┌──────────────────────────────────────┐   latency, log scale: p50, p99, worst
//!   1 ms   │   ▒ preload ▒│ freeze                │   the service's phases as bands
//!   10 µs  └──────────────────────────────────────┘
//!   answers a second ▁▂▃▂▁                            the strip below
//!   | |                                               what was lost, reset, refused
//! ```
//!
//! It is one self-contained SVG without scripts, for light and dark surroundings
//! (`prefers-color-scheme`). Reading and drawing are apart: [`seen`] makes the runs out of what
//! `--trace` and the service's `--report` wrote, [`svg`] makes the picture out of them.

use std::io::{Write, stdout};

use crate::Failure;
use crate::cli::Picture;

pub mod seen;
pub mod svg;

/// Draws what is asked for.
///
/// # Errors
/// A file that cannot be read, or is not what it should be, by name.
pub fn draw(picture: &Picture) -> Result<(), Failure> {
    let unusable = |file: &std::path::Path, what: String| {
        Failure::Usage(format!("{}: {what}", file.display()))
    };
    let mut takeovers = Vec::new();
    for file in &picture.reports {
        let text = std::fs::read_to_string(file).map_err(|error| error.to_string());
        let found = text.and_then(|text| seen::takeovers(&text));
        takeovers.extend(found.map_err(|what| unusable(file, what))?);
    }
    let mut runs = Vec::new();
    for panel in &picture.panels {
        let file = &panel.trace;
        let text = std::fs::read_to_string(file).map_err(|error| error.to_string());
        let run = text.and_then(|text| seen::run(&text, &panel.title, &takeovers));
        runs.push(run.map_err(|what| unusable(file, what))?);
    }
    let text = svg::picture(&runs);
    let written = match &picture.out {
        Some(path) => std::fs::write(path, text),
        None => stdout().lock().write_all(text.as_bytes()),
    };
    written.map_err(|error| Failure::Failed(format!("the picture: {error}")))
}
