//! Runs a command as if the kernel were older: see the library.

use std::env;
use std::os::unix::process::CommandExt;
use std::process::{Command, ExitCode};

use as_kernel::{Version, act};

const HELP: &str = "\
Usage: as-kernel VERSION COMMAND…

Runs COMMAND as if the kernel were older, such as 5.4: calls and socket options that came later
fail as they did there. Beside that, COMMAND gains no privileges by setuid programs. AS_KERNEL in
its environment tells the version.

  cargo run -p as-kernel -- 6.4 cargo test --test takeover

Exit code: that of COMMAND, 127 if it cannot be run; 2 for a wrong call, 1 if the kernel has no
seccomp.
";

fn main() -> ExitCode {
    let mut words = env::args_os().skip(1);
    let Some(first) = words.next() else {
        return wrong("it wants a version and a command");
    };
    if first == "-h" || first == "--help" {
        print!("{HELP}");
        return ExitCode::SUCCESS;
    }
    let Some(version) = first.to_str().and_then(Version::parse) else {
        return wrong(&format!("{first:?} is no version such as 5.4"));
    };
    let Some(program) = words.next() else {
        return wrong("it wants a command");
    };
    if let Err(error) = act(version) {
        eprintln!("as-kernel: {error}");
        return ExitCode::FAILURE;
    }
    let mut command = Command::new(&program);
    let error = command
        .args(words)
        .env("AS_KERNEL", version.to_string())
        .exec();
    eprintln!("as-kernel: {}: {error}", program.display());
    ExitCode::from(127)
}

fn wrong(what: &str) -> ExitCode {
    eprintln!("as-kernel: {what}; see --help");
    ExitCode::from(2)
}
