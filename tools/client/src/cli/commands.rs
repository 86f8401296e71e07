//! What the program does beside putting load on a server: `join` and `plot`.

use std::path::PathBuf;

use lexopt::{Arg, Parser};

use super::{Request, file, one_line};

/// What to draw.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Picture {
    /// One panel each, in this order.
    pub panels: Vec<Panel>,
    /// The service's reports of its takeovers.
    pub reports: Vec<PathBuf>,
    /// The picture; none for stdout.
    pub out: Option<PathBuf>,
}

/// One run in a picture.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Panel {
    /// What `--trace` made.
    pub trace: PathBuf,
    /// What stands above it.
    pub title: String,
}

pub(super) fn join(mut parser: Parser) -> Result<Request, String> {
    let (mut files, mut json) = (Vec::new(), false);
    while let Some(argument) = parser.next().map_err(one_line)? {
        match argument {
            Arg::Short('h') | Arg::Long("help") => return Ok(Request::Help),
            Arg::Long("json") => json = true,
            Arg::Value(file) => files.push(PathBuf::from(file)),
            Arg::Short(_) | Arg::Long(_) => return Err(one_line(argument.unexpected())),
        }
    }
    if files.is_empty() {
        return Err("join which runs? name the files that --save made (see --help)".into());
    }
    Ok(Request::Join { files, json })
}

pub(super) fn plot(mut parser: Parser) -> Result<Request, String> {
    let mut picture = Picture::default();
    let mut title = None;
    while let Some(argument) = parser.next().map_err(one_line)? {
        match argument {
            Arg::Short('h') | Arg::Long("help") => return Ok(Request::Help),
            Arg::Long("title") => {
                let text = parser.value().map_err(one_line)?;
                title = Some(text.to_string_lossy().into_owned());
            }
            Arg::Long("report") => picture.reports.push(file(&mut parser)?),
            Arg::Short('o') | Arg::Long("out") => picture.out = Some(file(&mut parser)?),
            Arg::Value(trace) => {
                let trace = PathBuf::from(trace);
                let title = title.take();
                let title = title.unwrap_or_else(|| trace.display().to_string());
                picture.panels.push(Panel { trace, title });
            }
            Arg::Short(_) | Arg::Long(_) => return Err(one_line(argument.unexpected())),
        }
    }
    if picture.panels.is_empty() {
        return Err("plot what? name the files that --trace made (see --help)".into());
    }
    Ok(Request::Plot(picture))
}
