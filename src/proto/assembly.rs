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
//! The parts of one state follow each other without a gap, an overlap or another item between them.
//! Anything else is an error and empties the assembly. Memory grows with the bytes that have come,
//! never with those that were announced, and never beyond [`MAX_STATE`].

use std::fmt;

use super::records::Part;
use super::wire::MAX_STATE;

/// Puts together the parts of one item's state, which come one after the other.
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

    /// Adds the next part. Returns the state if that was its last part.
    ///
    /// # Errors
    /// [`AssemblyError`] if it is not the next part; the assembly is empty then.
    pub fn add<'a>(&'a mut self, part: &Part<'a>) -> Result<Option<State<'a>>, AssemblyError> {
        let Part {
            id,
            offset,
            total,
            run,
            bytes,
        } = *part;
        let this = Open { id, total, run };
        let have = match self.open.take() {
            Some(open) if open != this => return Err(open.contradicted_by(this)),
            Some(_) => self.bytes.len(),
            None => {
                self.bytes.clear();
                0
            }
        };
        if offset as usize != have {
            return Err(AssemblyError::Offset {
                id,
                expected: have,
                found: offset,
            });
        }
        let (end, total) = (have + bytes.len(), total as usize);
        if end > total || total > MAX_STATE {
            return Err(AssemblyError::Total(id));
        }
        if end == total && have == 0 {
            return Ok(Some(State { id, run, bytes }));
        }
        self.bytes.extend_from_slice(bytes);
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

    /// The item whose state is not complete. At the end of a batch there must be none.
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
        /// The item whose state is incomplete.
        id: u64,
        /// The item whose part came.
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

#[cfg(test)]
mod tests {
    use super::*;

    const PART: Part<'static> = Part {
        id: 1,
        offset: 0,
        total: 4,
        run: false,
        bytes: b"ab",
    };
    const REST: Part<'static> = Part {
        offset: 2,
        bytes: b"cd",
        ..PART
    };
    const OTHER: Part<'static> = Part {
        id: 2,
        offset: 0,
        total: 1,
        run: true,
        bytes: b"x",
    };

    /// An assembly that has seen the first half of a state.
    fn half() -> Assembly {
        let mut assembly = Assembly::new();
        assert_eq!(assembly.add(&PART), Ok(None));
        assert_eq!(assembly.unfinished(), Some(1));
        assembly
    }

    #[track_caller]
    fn assert_takes_a_state(assembly: &mut Assembly) {
        assert_eq!(assembly.unfinished(), None);
        assert_eq!(assembly.add(&PART), Ok(None));
        let state = State {
            id: 1,
            run: false,
            bytes: b"abcd",
        };
        assert_eq!(assembly.add(&REST), Ok(Some(state)));
        assert_eq!(assembly.unfinished(), None);
    }

    #[test]
    fn state_of_one_part_is_not_copied() {
        let mut assembly = Assembly::new();
        let state = assembly.add(&OTHER).unwrap().unwrap();
        assert_eq!(
            state,
            State {
                id: 2,
                run: true,
                bytes: b"x"
            }
        );
        assert_eq!(state.bytes.as_ptr(), OTHER.bytes.as_ptr());
        assert_eq!(assembly.bytes.capacity(), 0);
    }

    #[test]
    fn state_without_bytes_is_complete_at_once() {
        let empty = Part {
            total: 0,
            bytes: b"",
            ..PART
        };
        let state = State {
            id: 1,
            run: false,
            bytes: b"",
        };
        assert_eq!(Assembly::new().add(&empty), Ok(Some(state)));
    }

    #[test]
    fn states_one_after_the_other_are_kept_apart() {
        let mut assembly = Assembly::new();
        assert_takes_a_state(&mut assembly);
        assert!(assembly.add(&OTHER).unwrap().is_some());
        assert_takes_a_state(&mut assembly);
    }

    #[test]
    fn part_that_is_not_the_next_is_refused_and_forgotten() {
        let cases = [
            (OTHER, AssemblyError::Interrupted { id: 1, by: 2 }),
            (
                PART,
                AssemblyError::Offset {
                    id: 1,
                    expected: 2,
                    found: 0,
                },
            ),
            (
                Part { offset: 1, ..REST },
                AssemblyError::Offset {
                    id: 1,
                    expected: 2,
                    found: 1,
                },
            ),
            (
                Part { offset: 3, ..REST },
                AssemblyError::Offset {
                    id: 1,
                    expected: 2,
                    found: 3,
                },
            ),
            (Part { total: 5, ..REST }, AssemblyError::Total(1)),
            (
                Part {
                    bytes: b"cde",
                    ..REST
                },
                AssemblyError::Total(1),
            ),
            (Part { run: true, ..REST }, AssemblyError::Run(1)),
        ];
        for (part, error) in cases {
            let mut assembly = half();
            assert_eq!(assembly.add(&part), Err(error));
            assert_eq!(error.id(), 1);
            assert_takes_a_state(&mut assembly);
        }
    }

    #[test]
    fn first_part_beyond_the_beginning_is_refused() {
        let error = AssemblyError::Offset {
            id: 1,
            expected: 0,
            found: 2,
        };
        assert_eq!(Assembly::new().add(&REST), Err(error));
    }

    #[test]
    fn memory_follows_what_came_and_not_what_was_announced() {
        let mut assembly = Assembly::new();
        let announced = Part {
            total: MAX_STATE as u32,
            ..PART
        };
        assert_eq!(assembly.add(&announced), Ok(None));
        assert!(assembly.bytes.capacity() < 64);
        let beyond = Part {
            total: MAX_STATE as u32 + 1,
            ..PART
        };
        assert_eq!(Assembly::new().add(&beyond), Err(AssemblyError::Total(1)));
    }
}
