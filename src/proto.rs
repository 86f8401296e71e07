//! Wire formats and pure sessions: bytes in, bytes out; no socket, no clock, no descriptor.
//!
//! | file | open it for |
//! |---|---|
//! | [`wire`] (`wire.rs`) | what never changes: limits, header, extensions, versions, errors |
//! | [`records`] (`records.rs`) | what donor and taker say to each other: the table of records, writing and reading one |
//! | `records/from_donor.rs` | WELCOME, REFUSE, CLOSED, END, ABORT |
//! | `records/items.rs`, `records/state.rs` | ITEMS: what each item is; STATE: its state, in parts |
//! | `records/from_taker.rs` | HELLO, ACK, FAIL, ACTIVE |
//! | `records/list.rs` | reading and writing a record that is a list |
//! | `records/reason.rs` | the text of a record that refuses or gives up |
//! | `records/codes.rs` | kinds of items, reasons to refuse, to give up, to decline |
//! | [`assembly`] (`assembly.rs`) | one item's state, put together from its parts |
//! | [`digest`] (`digest.rs`) | the checksum of the final array |
//! | [`sequence`] (`sequence.rs`) | the echo protocol of the service, and how the state of one connection is saved and restored |
//! | `cursor.rs` | integers and byte runs: taken from a slice, appended to a vector |
//!
//! Everything that comes from the other side is checked here, once. A record that decodes is valid.
//! Any other one becomes an error value, never a panic. No length is believed before the bytes that
//! it announces have been counted.

pub mod assembly;
mod cursor;
pub mod digest;
pub mod records;
pub mod sequence;
pub mod wire;
