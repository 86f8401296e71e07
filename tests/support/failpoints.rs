//! The service with failpoints: another build of it, in a folder of its own.
//!
//! Cargo has one set of features a package. Were this one switched on for the tests, the service
//! that `cargo test --release` leaves in `target/release` would have failpoints too, and somebody
//! might install it. So the first test that wants one has cargo build it; later ones find it.

use std::env;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

/// The service without failpoints, as `cargo build` makes it.
pub const PLAIN: &str = env!("CARGO_BIN_EXE_socket-takeover");

/// Where the service with failpoints is.
///
/// # Panics
/// If it cannot be built.
pub fn service() -> &'static Path {
    static SERVICE: OnceLock<PathBuf> = OnceLock::new();
    SERVICE.get_or_init(build)
}

fn build() -> PathBuf {
    // Beside the folder of the profile, so that it follows CARGO_TARGET_DIR.
    let target = Path::new(PLAIN).ancestors().nth(2).expect("target/PROFILE");
    let target = target.join("failpoints");
    let cargo = env::var_os("CARGO").unwrap_or_else(|| env!("CARGO").into());
    let mut command = Command::new(cargo);
    command
        .args(["build", "--quiet", "--bin", "socket-takeover"])
        .args(["--features", "failpoints", "--manifest-path"])
        .arg(concat!(env!("CARGO_MANIFEST_DIR"), "/Cargo.toml"))
        .arg("--target-dir")
        .arg(&target);
    let profile = match cfg!(debug_assertions) {
        true => "debug",
        false => {
            command.arg("--release");
            "release"
        }
    };
    let status = command.status().expect("cargo runs");
    assert!(status.success(), "the service with failpoints: {status}");
    target.join(profile).join("socket-takeover")
}
