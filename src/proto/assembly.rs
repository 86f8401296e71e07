//! One item's state, put together from the parts that came.
//!
//! ```text
//!            part of several                       the last part
//!   empty ─────────────────────▶ collecting ─────────────────────▶ empty, state handed out
//!     │ ▲                          │      │
//!     └─┘ state of one part:       └──────┘ a part that continues it
//!         handed out as it is
//! ```
//!
//! Parts of one state follow each other without gap, overlap or another item between them;
//! anything else is an error and empties the assembly. Memory grows with the bytes that have
//! come, never with those announced, and never beyond [`MAX_STATE`].

use std::fmt;

use super::records::Part;
use super::wire::MAX_STATE;

/// See the file's own description.
#[derive(Debug, Default)]
pub struct Assembly {
    /// What has come of `open`; when that is `None`, the buffer of the state handed out last.
    bytes: Vec<u8>,
    open: Option<Open>,
}

/// A state of which the first part has come and the last has not.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Open {
    id: u64,
    total: u32,
    run: bool,
}

/// The whole state of one item.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct State<'a> {
    /// The item.
    pub id: u64,
    /// See [`Part::run`].
    pub run: bool,
    /// What its owner saved.
    pub bytes: &'a [u8],
}

impl Assembly {
    /// An empty one.
    #[must_use]
    pub fn new() -> Self {
        Assembly::default()
    }

    /// Adds the next part. Returns the state if that was its last.
    ///
    /// # Errors
    /// [`AssemblyError`] if it is not the next part; the assembly is empty then.
    pub fn add<'a>(&'a mut self, part: &Part<'a>) -> Result<Option<State<'a>>, AssemblyError> {
        let this = Open {
            id: part.id,
            total: part.total,
            run: part.run,
        };
        let have = match self.open.take() {
            Some(open) if open != this => return Err(open.contradicted_by(this)),
            Some(_) => self.bytes.len(),
            None => {
                self.bytes.clear();
                0
            }
        };
        let id = part.id;
        if part.offset as usize != have {
            return Err(AssemblyError::Offset {
                id,
                expected: have,
                found: part.offset,
            });
        }
        let end = have + part.bytes.len();
        let total = part.total as usize;
        if end > total || total > MAX_STATE {
            return Err(AssemblyError::Total(id));
        }
        let run = part.run;
        if end == total && have == 0 {
            return Ok(Some(State {
                id,
                run,
                bytes: part.bytes,
            }));
        }
        self.bytes.extend_from_slice(part.bytes);
        if end == total {
            return Ok(Some(State {
                id,
                run,
                bytes: &self.bytes,
            }));
        }
        self.open = Some(this);
        Ok(None)
    }

    /// The item whose state is not complete. There must be none at the end of a batch.
    #[must_use]
    pub fn unfinished(&self) -> Option<u64> {
        self.open.map(|open| open.id)
    }
}

impl Open {
    fn contradicted_by(self, other: Open) -> AssemblyError {
        if other.id != self.id {
            AssemblyError::Interrupted {
                id: self.id,
                by: other.id,
            }
        } else if other.total != self.total {
            AssemblyError::Total(self.id)
        } else {
            AssemblyError::Run(self.id)
        }
    }
}

/// Why a part is not the next one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AssemblyError {
    /// Another item's part came before the state was complete.
    Interrupted {
        /// The incomplete one.
        id: u64,
        /// The other one.
        by: u64,
    },
    /// It leaves a gap or overlaps.
    Offset {
        /// The item.
        id: u64,
        /// Bytes that have come.
        expected: usize,
        /// Where the part claims to begin.
        found: u32,
    },
    /// The parts of this item do not agree on its size, or it is beyond [`MAX_STATE`].
    Total(u64),
    /// The parts of this item do not agree on whether it is to be run.
    Run(u64),
}

impl AssemblyError {
    /// The item whose state is broken.
    #[must_use]
    pub fn id(&self) -> u64 {
        match *self {
            AssemblyError::Interrupted { id, .. }
            | AssemblyError::Offset { id, .. }
            | AssemblyError::Total(id)
            | AssemblyError::Run(id) => id,
        }
    }
}

impl fmt::Display for AssemblyError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            AssemblyError::Interrupted { id, by } => {
                write!(
                    f,
                    "state of item {id:#x} is interrupted by that of item {by:#x}"
                )
            }
            AssemblyError::Offset {
                id,
                expected,
                found,
            } => {
                write!(
                    f,
                    "state of item {id:#x} goes on at {found} and not at {expected}"
                )
            }
            AssemblyError::Total(id) => {
                write!(f, "state of item {id:#x} has no steady or too large a size")
            }
            AssemblyError::Run(id) => write!(f, "state of item {id:#x} changes its run flag"),
        }
    }
}

impl std::error::Error for AssemblyError {}
