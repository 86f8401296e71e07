//! Takeovers of processes that hardly run: a CPU quota of 30 of 100 ms for all of them together,
//! on a machine with five other processes that never sleep. A deadline that fits its step must not
//! take that for a taker that hangs.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use crate::support;
use crate::support::{Kind, Peers, Server, Stage, seed};

const TAKEOVERS: usize = 30;
const OTHERS: usize = 5;
const BINARY: &str = env!("CARGO_BIN_EXE_socket-takeover");

/// A group of processes that get 30 ms of CPU time in each 100 ms; removed when it is dropped.
#[derive(Debug)]
struct Quota(PathBuf);

impl Quota {
    /// None where this user or this machine cannot have one.
    fn new() -> Option<Quota> {
        let name = format!("takeover-test-{}", std::process::id());
        for (root, limits) in [
            (
                "/sys/fs/cgroup/cpu",
                &[
                    ("cpu.cfs_period_us", "100000"),
                    ("cpu.cfs_quota_us", "30000"),
                ][..],
            ),
            ("/sys/fs/cgroup", &[("cpu.max", "30000 100000")]),
        ] {
            let folder = Path::new(root).join(&name);
            if fs::create_dir(&folder).is_err() {
                continue;
            }
            let quota = Quota(folder);
            let set = |(file, value): &(&str, &str)| fs::write(quota.0.join(file), value).is_ok();
            if limits.iter().all(set) {
                return Some(quota);
            }
        }
        None
    }

    fn start(&self, args: &[&str]) -> Server {
        let procs = self.0.join("cgroup.procs");
        let mut command = Command::new("sh");
        command.args(["-c", "echo $$ > \"$0\" && exec \"$@\""]);
        Server::spawn(command.arg(procs).arg(BINARY).args(args))
    }

    /// How often its processes had to wait for the next period.
    fn throttled(&self) -> u64 {
        let stat = fs::read_to_string(self.0.join("cpu.stat")).unwrap_or_default();
        let count = stat
            .lines()
            .find_map(|line| line.strip_prefix("nr_throttled "));
        count.and_then(|count| count.parse().ok()).unwrap_or(0)
    }
}

impl Drop for Quota {
    fn drop(&mut self) {
        let _ = fs::remove_dir(&self.0);
    }
}

/// A process that never sleeps; killed when it is dropped.
#[derive(Debug)]
struct Busy(Child);

impl Busy {
    fn new() -> Busy {
        let mut command = Command::new("sh");
        command
            .args(["-c", "while :; do :; done"])
            .stdin(Stdio::null());
        Busy(command.spawn().expect("a shell"))
    }
}

impl Drop for Busy {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn thirty_takeovers_under_a_quota_on_a_busy_machine_succeed() {
    let Some(quota) = Quota::new() else {
        eprintln!("skipped: no CPU control group can be made here (root, cgroup v1 or v2)");
        return;
    };
    let stage = Stage::new();
    let path = stage.path();
    let path = path.to_str().unwrap();
    let mut server = quota.start(&["-G", "-a", "127.0.0.1", "-p", "0", "-t", path]);
    server.wait_line("Starting Takeover channel on");
    let peers = Peers::connect(server.address(), seed(), &[(Kind::Talking, 1000)]);
    peers.echoes(1);
    let busy: Vec<Busy> = (0..OTHERS).map(|_| Busy::new()).collect();
    for takeover in 1..=TAKEOVERS {
        let taker = quota.start(&["-G", "-T", path]);
        let line = taker
            .log()
            .wait_any(&["Serving on ", "not taken over"], support::BOUND);
        let line = line.unwrap_or_else(|| panic!("takeover {takeover} hangs"));
        assert!(line.contains("Serving on "), "takeover {takeover}: {line}");
        assert_eq!(server.wait_exit(), 0, "takeover {takeover}");
        server = taker;
    }
    drop(busy);
    peers.echoes(1);
    peers.finish().assert_flawless();
    println!(
        "throttled {} times in {TAKEOVERS} takeovers",
        quota.throttled()
    );
    drop(server);
}
