//! A running process hands everything to its successor, in one atomic step.
//!
//! ```text
//!   application ──▶ drive ──┬─▶ donor, taker      pure state machines, what to do when
//!   (items, save,           ├─▶ ledger            what the taker knows of each item
//!    restore)               ├─▶ channel, scm      records and descriptors between the two
//!                           ├─▶ lease             who owns: the one commit point
//!                           └─▶ rendezvous, identity, validate, limits
//! ```
//!
//! An application implements [`Application`] and calls [`Takeover::offer`] on a cold start
//! or [`Takeover::take_over`] as a successor; [`Application::moment`] tells it what came of
//! it.

mod application;
pub mod channel;
pub mod donor;
mod drive;
mod error;
pub mod identity;
pub mod kinds;
pub mod lease;
pub mod ledger;
pub mod limits;
mod moment;
pub mod rendezvous;
mod report;
pub mod scm;
mod start;
pub mod taker;
pub mod validate;

pub use crate::proto::records::{DeclineCode, ItemKind};
pub use application::{Application, Arrival, Description, Item, Rejection, SavedState};
pub use drive::{Deadlines, Ending, Takeover};
pub use error::{Error, Exit};
pub use moment::Moment;
pub use rendezvous::TakeoverPath;
pub use report::{Report, Tally, Times};
pub use start::Start;
