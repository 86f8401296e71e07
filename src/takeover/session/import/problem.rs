//! Why a takeover cannot go on for its taker: what the donor is told, and the log.

use std::fmt;

use crate::proto::records::FailCode;

/// Why the takeover cannot go on.
#[derive(Debug)]
pub(in crate::takeover::session) struct Problem {
    pub(in crate::takeover::session) code: FailCode,
    pub(in crate::takeover::session) what: String,
    /// The item that it is about.
    pub(in crate::takeover::session) item: Option<u64>,
}

impl Problem {
    pub(in crate::takeover::session) fn new(code: FailCode, what: String) -> Problem {
        Problem {
            code,
            what,
            item: None,
        }
    }

    pub(in crate::takeover::session) fn of(
        code: FailCode,
        item: u64,
        what: impl fmt::Display,
    ) -> Problem {
        Problem {
            code,
            what: what.to_string(),
            item: Some(item),
        }
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.code, self.what)?;
        if let Some(item) = self.item {
            write!(f, " (item {item:#x})")?;
        }
        Ok(())
    }
}
