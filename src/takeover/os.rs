//! What talks to the kernel for a takeover, and decides nothing: each file knows one thing that
//! the kernel does, and gives it a name.
//!
//! | file | |
//! |---|---|
//! | `path.rs` | PATH: its name, what is there, a connection to the donor |
//! | `path/entry.rs` | the file behind a name, and a call to it |
//! | `folder.rs` | the folder of PATH: the one that was opened, and the one that callers find |
//! | `offer.rs` | the socket that listens, and how it gets the name PATH in one step |
//! | `lock.rs` | PATH.lock, and the process that has it |
//! | `standing.rs` | what has become of a published name, and making it anew |
//! | `identity.rs` | the process at the other end of a channel, and whether it still lives |
//! | `channel.rs` | records and descriptors between donor and taker |
//! | `scm.rs` | one sendmsg(2), one recvmsg(2); `unsafe` |
//! | `lease.rs` | the eventfd that decides who owns |
//! | `descriptor.rs` | whether a descriptor is what its record says: the table of kinds |
//! | `descriptor/tcp.rs` | what is asked of a TCP socket |
//! | `descriptor/travel.rs` | which descriptors cannot travel |
//! | `positions.rs` | where the owner of a TCP connection is in its two streams |
//! | `limits.rs` | how many descriptors this process may have, and room for them |
//!
//! Of the rest of the takeover it knows nothing: no state machine, no application, no reactor.

pub mod channel;
pub mod descriptor;
pub(crate) mod folder;
pub mod identity;
pub mod lease;
pub mod limits;
mod lock;
pub mod offer;
pub mod path;
pub mod positions;
pub mod scm;
pub(crate) mod standing;

#[cfg(test)]
mod tests;
