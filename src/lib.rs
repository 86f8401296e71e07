//! A single-threaded event loop and a live takeover of running daemons.

pub mod event;
pub mod proto;
pub mod sys;
pub mod takeover;
