//! Donor and taker.

pub mod donor;
pub mod ledger;
pub mod taker;
