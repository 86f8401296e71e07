//! stub
pub mod check;
pub mod cli;
pub mod dues;
pub mod pace;
pub mod plan;
