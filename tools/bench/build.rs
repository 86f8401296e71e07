//! Tells the program which compiler has built it: part of what a figure depends on.

use std::env::var_os;
use std::process::Command;

fn main() {
    let compiler = var_os("RUSTC").unwrap_or_else(|| "rustc".into());
    let said = Command::new(compiler).arg("--version").output();
    let version = said.map_or_else(
        |_| "of an unknown version".into(),
        |said| String::from_utf8_lossy(&said.stdout).trim().to_owned(),
    );
    println!("cargo::rustc-env=BENCH_RUSTC={version}");
    println!("cargo::rerun-if-changed=build.rs");
}
