//! Donor and taker.

pub mod channel;
pub mod donor;
pub mod identity;
pub mod lease;
pub mod ledger;
pub mod limits;
pub mod rendezvous;
pub mod scm;
pub mod taker;
pub mod validate;
