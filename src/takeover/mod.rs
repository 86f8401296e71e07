//! The takeover.
