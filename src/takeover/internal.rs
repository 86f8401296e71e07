//! What the service, the tools and the tests of this repository need and an application does not.
//!
//! Nothing here is promised: it may change with each release.

pub use crate::event::refuse_itself;

/// See `takeover/identity.rs`.
pub mod identity {
    pub use crate::takeover::identity::{is_trusted, ready_within};
}

/// See `takeover/limits.rs`.
pub mod limits {
    pub use crate::takeover::limits::{RESERVE, free_slots, size_table};
}

/// See `procfs.rs`.
pub mod procfs {
    pub use crate::procfs::explain;
}

/// See `takeover/rendezvous.rs`.
pub mod rendezvous {
    pub use crate::takeover::rendezvous::other_listener;
}

/// See `takeover/scm.rs`.
pub mod scm {
    pub use crate::takeover::scm::{Received, recv};
}

/// See `takeover/validate.rs`.
pub mod validate {
    pub use crate::takeover::validate::{CLOSE_WAIT, CLOSING, LAST_ACK, LISTEN, describe_tcp};
}
