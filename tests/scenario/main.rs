//! The service as a whole, with real clients that check every byte.
//!
//! | file | what it is about |
//! |---|---|
//! | `address.rs` | forms of an address |
//! | `chain.rs` | many takeovers, many peers |
//! | `churn.rs` | connections that come and go |
//! | `daemon.rs` | from a terminal to a daemon |
//! | `foreign.rs` | socat and a Python checker as clients |
//! | `readme.rs` | the scenario of the original |
//! | `report.rs` | both sides say the same |
//! | `stop.rs` | signals and limits |
//! | `streams.rs` | what is under way on a connection |
//! | `sweep.rs` | several instances, one after the other |
//! | `time.rs` | what is measured over many generations |
//! | `writes.rs` | reports, logs and disks that hang |

#[path = "../support/mod.rs"]
mod support;

mod address;
mod chain;
mod churn;
mod daemon;
mod foreign;
mod readme;
mod report;
mod stop;
mod streams;
mod sweep;
mod time;
mod writes;
