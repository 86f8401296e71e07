//! The core of a takeover: what donor and taker do when, without a socket, a clock or a
//! descriptor. To be read in one sitting, in this order:
//!
//! | file | |
//! |---|---|
//! | `donor.rs` | the donor: its diagram, its two rules, its arrows |
//! | `donor/alphabet.rs` | its events, actions, deadlines and causes |
//! | `donor/state.rs` | its states |
//! | `donor/term.rs` | what a SIGTERM means in each of them |
//! | `preload.rs` | the rounds in which copies go out while the donor serves |
//! | `ledger.rs` | all that the taker knows, and what it still has to be told |
//! | `taker.rs` | the taker |
//!
//! Both machines are functions from a state and an event to a state and actions. `tests/model` runs
//! them, joined to a small world, through every order of steps that is possible.

pub mod donor;
pub mod ledger;
pub mod preload;
pub mod taker;
