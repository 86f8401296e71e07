//! What the fuzz targets and `tests/fuzzed.rs` call, so that both exercise the same code.
//!
//! | target | entry | what it is let loose on |
//! |---|---|---|
//! | `decode_record` | [`record::decode`] | the decoder and what is built on it, without I/O |
//! | `hear_donor` | [`donor::hear`] | a donor with items: the product's own reactor, channel and states |
//! | `hear_taker` | [`taker::hear`] | a taker: the same, and its intake of items and state |
//!
//! The two conversations are no copy of the product's logic without its I/O but the product,
//! in this process: what they find is real, and what they leave open is seen as a descriptor.

pub mod app;
pub mod donor;
pub mod made;
pub mod record;
pub mod script;
pub mod taker;
