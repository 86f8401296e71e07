//! What the service, the tools and the tests of this repository need and an application does not.
//!
//! Nothing here is promised: it may change with each release.

pub use crate::event::refuse_itself;
pub use crate::procfs;
pub use crate::takeover::core::{donor, ledger, preload, taker};
pub use crate::takeover::os::{
    channel, descriptor, identity, lease, limits, offer, path, positions, scm,
};
