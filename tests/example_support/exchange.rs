//! Conversations over TCP.

/// A conversation.
#[derive(Debug)]
pub struct Exchange;
