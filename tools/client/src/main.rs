//! Load client.
fn main() {}
