//! Wire formats and pure sessions: bytes in, bytes out; no socket, no clock, no descriptor.
//!
//! - [`sequence`]: the echo protocol that the service speaks with its peers, and how the
//!   state of one connection is saved and restored
//! - [`records`]: what donor and taker say to each other over the channel, on top of
//!   [`wire`], the part that never changes: limits, header, errors
//! - [`assembly`]: one item's state, put together from its parts
//! - [`digest`]: the checksum of the final array
//!
//! Everything that comes from the other side is checked here, once. What decodes is valid;
//! what is not ends in an error value, never in a panic, and no length is believed before
//! the bytes that it speaks of have been counted.

pub mod assembly;
mod cursor;
pub mod digest;
pub mod records;
pub mod sequence;
pub mod wire;
