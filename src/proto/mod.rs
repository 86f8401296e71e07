//! Wire formats and pure sessions.
