//! Many instances of the service, the *shards*, replaced in a rolling sweep.
//!
//! One process serves as many connections as it may have descriptors, on one thread. Whoever
//! needs more runs several, each with a port and a PATH of its own, and replaces them a few at
//! a time: were something wrong with the new version, the first shard that refuses it ends the
//! sweep, and all others still run the old one.
//!
//! ```text
//!   a folder          NAME.sock    where the shard offers its takeover
//!                     NAME.pid     its pid file, which moves along
//!                     NAME.log     what its generations logged
//!                     NAME.report  what each takeover did, lines of JSON
//! ```
//!
//! | file | |
//! |---|---|
//! | `owner.rs` | the process that serves one, told from any other with its number |
//! | `shard.rs` | one shard: started, replaced, stopped |
//! | `roll.rs` | all of them, so many at once, until one refuses |
//! | `figures.rs` | what a sweep comes to |

mod figures;
mod owner;
mod roll;
mod shard;

pub use figures::Summary;
pub use owner::{NoOwner, Owner};
pub use roll::{Outcome, roll};
pub use shard::{Moved, Refused, Shard, find, start, stop};
