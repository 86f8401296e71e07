//! Each example taken over five times under load, and what an embedding application can rely on.
//!
//! | file | what it is about |
//! |---|---|
//! | `diameter_watchdog.rs` | messages byte by byte |
//! | `embedding.rs` | donor and taker on two reactors in one process |
//! | `embedding_kinds.rs` | one item of every kind |
//! | `gtp_path.rs` | no echo is lost, none takes it for a restart |
//! | `nested_loop.rs` | inside another loop |
//! | `opaque_fds.rs` | tun, timerfd, memfd |
//! | `tcp_relay.rs` | two connections a client |
//! | `example.rs` | an example as a process, and load |

#[path = "../support/mod.rs"]
mod support;

mod example;

mod diameter_watchdog;
mod embedding;
mod embedding_kinds;
mod gtp_path;
mod nested_loop;
mod opaque_fds;
mod tcp_relay;
