//! A single-threaded event loop and a live takeover: a running daemon hands its listener,
//! every connection, its state and its timers to a successor in one atomic step, and no
//! client notices.
//!
//! ```text
//!   the service (binary): server, cli, daemon
//!        │            │             │
//!        ▼            ▼             ▼
//!   takeover ──▶   event         proto        donor, taker and ledger: no room below them
//!        │            │             │         (no socket, clock or descriptor)
//!        └────────────┴──▶ sys      └── no I/O
//! ```
//!
//! | room | knows | does not know |
//! |---|---|---|
//! | [`event`] | descriptors, time | any protocol |
//! | [`proto`] | bytes | I/O, the reactor |
//! | [`takeover`] | both, by its drivers | what an application's items mean |
//! | [`sys`] | the kernel's calls without a safe wrapper | everything else |
//!
//! The arrows are kept by `tests/architecture.rs`. `unsafe` is in [`sys`] and
//! [`takeover::scm`], nowhere else.
//!
//! To embed it: read [`takeover`], which begins with a whole daemon of one screen, and
//! [`event`] for the loop.

pub mod event;
pub mod proto;
pub mod sys;
pub mod takeover;
