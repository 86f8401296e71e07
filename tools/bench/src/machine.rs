//! The machine: what a figure depends on, and what this program asks of it.

use std::{fs, io};

use nix::sched::{CpuSet, sched_setaffinity};
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use nix::sys::utsname::uname;
use nix::unistd::Pid;
use takeover_say::say;

/// The facts as a table.
pub(crate) fn print_facts() -> io::Result<()> {
    let kernel = uname().map_or_else(
        |error| error.to_string(),
        |names| names.release().to_string_lossy().into_owned(),
    );
    say!("| | |\n|---|---|")?;
    say!("| kernel | {kernel} |")?;
    say!("| CPUs | {} |", cpus())?;
    say!("| compiler | {} |", env!("BENCH_RUSTC"))?;
    say!("| other load at the start | {} |", load_average())
}

/// The load averages of 1, 5 and 15 minutes (proc(5), loadavg).
pub(crate) fn load_average() -> String {
    let text = fs::read_to_string("/proc/loadavg").unwrap_or_default();
    let averages: Vec<&str> = text.split_whitespace().take(3).collect();
    averages.join(", ")
}

/// Pins this thread, and what it starts from here on; false if there is no such CPU for us.
pub(crate) fn pin(cpu: usize) -> bool {
    let mut set = CpuSet::new();
    set.set(cpu)
        .and_then(|()| sched_setaffinity(Pid::from_raw(0), &set))
        .is_ok()
}

/// Raises the limit of open files as far as it goes, for what is started from here on too;
/// how many there may be.
pub(crate) fn raise_open_files() -> usize {
    let (soft, hard) = getrlimit(Resource::RLIMIT_NOFILE).unwrap_or((1024, 1024));
    // What the soft limit allows still goes, should it be forbidden to raise it.
    let raised = setrlimit(Resource::RLIMIT_NOFILE, hard, hard).is_ok();
    usize::try_from(if raised { hard } else { soft }).unwrap_or(usize::MAX)
}

fn cpus() -> String {
    let text = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let count = text
        .lines()
        .filter(|line| line.starts_with("processor"))
        .count();
    let model = text
        .lines()
        .find_map(|line| line.strip_prefix("model name")?.split_once(": "));
    let model = model.map_or("of a model that is not named", |(_, model)| model);
    format!("{count} × {model}")
}
