//! The kernel contract: what the design takes for granted of Linux, each fact as a test named
//! for it. A kernel that behaves differently is seen here, and not as a lost connection.
//!
//! | file | facts about |
//! |---|---|
//! | `channel.rs` | records and descriptors over a Unix socket, K1 to K12 and K18 |
//! | `identity.rs` | who is at the other end, and whether it lives: K14 to K16, K23 to K25 |
//! | `limits.rs` | what runs out: K13, descriptors |
//! | `readiness.rs` | epoll: K19, K20 |
//! | `tcp.rs` | connections with two holders, listeners: K17, K21, K22, K26 |
//! | `role.rs` | processes to do it with: the test binary itself, with a role |
//!
//! The numbers K… are those of the project's list of measured facts. Each test's first line
//! says what stands on the fact. What another uid, a limit or a kill is needed for is done in
//! a process of its own; nothing here changes the test's own process. Where a fact cannot be
//! tried, the test says so and why, and passes.
//!
//! Not here: memfd seals against mappings, and MPTCP told from TCP, which need system calls
//! without a safe wrapper. The unit tests of `takeover/os/descriptor/tcp.rs` have the latter.

mod channel;
mod identity;
mod limits;
mod readiness;
mod role;
mod tcp;

#[path = "../support/mod.rs"]
mod support;

/// Says why a fact was not tried.
fn skip(why: &str) {
    println!("SKIPPED, the fact is not tried here: {why}");
}
