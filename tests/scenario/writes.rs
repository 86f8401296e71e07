//! Where the service writes cannot hurt it: a report or a log that hangs, is full, too large or
//! frozen costs lines. Clients notice nothing of that, nor does a takeover that is under way.

use std::fs::{self, File, OpenOptions};
use std::io::{ErrorKind, Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::support;
use crate::support::apart::in_own_mounts;
use crate::support::apart::test_name;
use crate::support::{Client, Kind, Log, Peers, Server, Stage, seed, wait_text, wait_until};
use nix::sys::signal::Signal;
use nix::sys::stat::Mode;
use nix::unistd::{geteuid, mkfifo};

const SERVICE: &str = env!("CARGO_BIN_EXE_socket-takeover");
/// A file may not become longer than that.
const LIMIT: usize = 8_192;

fn utf8(path: &Path) -> &str {
    path.to_str().unwrap()
}

fn peers(of: std::net::SocketAddr) -> Peers {
    let peers = Peers::connect(of, seed(), &[(Kind::Talking, 20), (Kind::Idle, 5)]);
    peers.echoes(4);
    peers
}

fn append(file: &Path) -> File {
    let mut options = OpenOptions::new();
    options.append(true).create(true).open(file).unwrap()
}

/// A service whose stderr is a file.
struct Filed {
    server: Server,
    log: PathBuf,
}

impl Filed {
    fn start(before: &[&str], log: PathBuf, args: &[&str]) -> Filed {
        let stderr = append(&log);
        let words = [before, &[SERVICE, "-G"], args].concat();
        let server = Server::spawn_to(Command::new(words[0]).args(&words[1..]), stderr);
        Filed { server, log }
    }

    fn address(&self) -> std::net::SocketAddr {
        let line = wait_text(&self.log, "Starting TCP server on [127.0.0.1]:");
        let (_, port) = line.split_once("]:").unwrap();
        let (port, _) = port.split_once(' ').unwrap();
        ([127, 0, 0, 1], port.parse().unwrap()).into()
    }
}

/// A FIFO whose reader has opened it, does not read, and has let it fill up.
fn full_fifo(path: &Path) -> File {
    mkfifo(path, Mode::S_IRWXU).unwrap();
    let mut options = OpenOptions::new();
    options.read(true).write(true);
    let mut fifo = options
        .custom_flags(libc::O_NONBLOCK)
        .open(path)
        .expect("it is ours");
    loop {
        match fifo.write(&[b'\n'; 4_096]) {
            Ok(_) => {}
            Err(error) if error.kind() == ErrorKind::WouldBlock => return fifo,
            Err(error) => panic!("{error}"),
        }
    }
}

#[test]
fn report_to_a_fifo_whose_reader_hangs_costs_nothing_but_lines() {
    let stage = Stage::new();
    let report = stage.file("report");
    let mut reader = full_fifo(&report);
    let option = ["--report", utf8(&report)];
    let mut donor = stage.serve(&option);
    let peers = peers(donor.address());
    let mut second = stage.replace(&mut donor, &option);
    peers.echoes(8);
    // Also one that comes to nothing.
    let path = stage.path();
    let args = ["-G", "-T", utf8(&path), option[0], option[1]];
    let mut refused = Server::start_limited(30, &args);
    assert_eq!(refused.wait_exit(), 75);
    peers.echoes(8);
    let third = stage.replace(&mut second, &option);
    peers.echoes(8);
    peers.finish().assert_flawless();
    // Read at last, it has what a process that still runs had to say.
    let wanted = format!("\"pid\":{},", third.pid());
    let mut said = String::new();
    let mut room = [0; 4_096];
    wait_until(|| {
        if let Ok(length) = reader.read(&mut room) {
            said.push_str(&String::from_utf8_lossy(&room[..length]));
        }
        let own = |line: &str| line.contains(&wanted) || line.contains("\"active\"");
        said.lines().any(own)
    });
}

#[test]
fn report_to_a_full_device_is_one_warning_on_each_side() {
    let stage = Stage::new();
    let option = ["--report", "/dev/full"];
    let mut donor = stage.serve(&option);
    let peers = peers(donor.address());
    let mut taker = stage.replace(&mut donor, &option);
    for server in [&donor, &taker] {
        let line = server.wait_line("report file \"/dev/full\": ");
        assert!(
            line.contains("No space left") && line.contains("counted"),
            "{line}"
        );
    }
    peers.finish().assert_flawless();
    taker.retire();
    let lines = taker.log().lines();
    let last = lines.iter().rfind(|line| line.contains(" accepted, "));
    assert!(last.unwrap().ends_with("of reports: 1"), "{lines:#?}");
    assert_eq!(taker.log().count("report file"), 1);
}

#[test]
fn files_at_their_size_limit_cost_lines_and_no_process() {
    let stage = Stage::new();
    let report = stage.file("report");
    // The soft limit alone, so that it can be raised again.
    let limit = format!("--fsize={LIMIT}:");
    let before = ["prlimit", limit.as_str()];
    let (path, option) = (stage.path(), ["--report", utf8(&report)]);
    let listen = ["-v", "-a", "127.0.0.1", "-p", "0", "-t", utf8(&path)];
    let mut donor = Filed::start(
        &before,
        stage.file("donor"),
        &[&listen, &option[..]].concat(),
    );
    let peers = peers(donor.address());
    wait_until(|| path.exists());
    for file in [&donor.log, &report] {
        let free = LIMIT - fs::metadata(file).map_or(0, |about| about.len() as usize) - 100;
        let fill = format!("{}\n", " ".repeat(free - 1));
        append(file).write_all(fill.as_bytes()).unwrap();
    }
    let log = stage.file("taker");
    append(&log)
        .write_all(format!("{}\n", " ".repeat(LIMIT - 1)).as_bytes())
        .unwrap();
    let take = ["-v", "-T", utf8(&path)];
    let mut taker = Filed::start(&before, log, &[&take, &option[..]].concat());
    assert_eq!(donor.server.wait_exit(), 0);
    peers.echoes(8);
    assert!(taker.server.is_running());
    for file in [&donor.log, &taker.log, &report] {
        assert_eq!(fs::metadata(file).unwrap().len(), LIMIT as u64);
    }
    // With room again the file says itself how much is missing in it.
    let pid = taker.server.pid().to_string();
    let lift = Command::new("prlimit")
        .args(["--pid", &pid, "--fsize=unlimited:"])
        .status();
    assert!(lift.unwrap().success());
    Client::connect(donor.address()).talk();
    wait_text(&taker.log, "log lines lost here: ");
    let text = fs::read_to_string(&taker.log).unwrap();
    let lost: usize = text.lines().filter_map(lost_here).sum();
    let said = text.lines().filter(|line| !line.trim().is_empty()).count();
    // Taking over, serving, taken over, and a line for each of the peers.
    assert!(lost >= 3 + 25 && said >= 2, "{lost} {text}");
    peers.finish().assert_flawless();
}

fn lost_here(line: &str) -> Option<usize> {
    line.split_once("log lines lost here: ")?.1.parse().ok()
}

#[test]
fn words_before_the_start_that_meet_the_limit_leave_the_exit_code() {
    let stage = Stage::new();
    let file = stage.file("full");
    let run = |args: &[&str]| {
        let mut command = Command::new("prlimit");
        command.args(["--fsize=0", SERVICE]).args(args);
        let status = command
            .stdin(Stdio::null())
            .stdout(append(&file))
            .stderr(append(&file))
            .status();
        status.unwrap().code()
    };
    assert_eq!(run(&["--no-such-option"]), Some(2));
    assert_eq!(run(&["--help"]), Some(1));
    let pid_file = stage.file("pid");
    let serve = ["-a", "127.0.0.1", "-p", "0", "-G", "-P", utf8(&pid_file)];
    assert_eq!(run(&serve), Some(1), "no byte of a pid file can be written");
    assert_eq!(run(&["-G", "-T", utf8(&stage.path())]), Some(69));
}

/// A service in the background of a terminal whose background may not write (`stty tostop`).
#[test]
fn terminal_that_stops_its_background_stops_no_service() {
    support::need("script");
    let script = format!(
        "set -m; stty tostop; {SERVICE} -G -a 127.0.0.1 -p 0 & \
         echo service $! .; cat"
    );
    let mut command = Command::new("script");
    command.args(["-qec", &script, "/dev/null"]);
    let mut terminal = command
        .env("SHELL", "/bin/bash")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let log = Log::of(terminal.stdout.take().unwrap());
    let line = log.wait("service ", 1, support::BOUND).unwrap();
    let pid: i32 = line.split(' ').nth(1).unwrap().parse().unwrap();
    let said = log.wait("Starting TCP server", 1, support::BOUND);
    let pid = nix::unistd::Pid::from_raw(pid);
    nix::sys::signal::kill(pid, Signal::SIGKILL).unwrap();
    // The end of its input ends the shell.
    drop(terminal.stdin.take());
    terminal.wait().unwrap();
    assert!(said.is_some(), "{:?}", log.lines());
}

/// Makes a file system that can be frozen, at `$0`.
const EXT4: &str = "truncate -s 16M $0.img; mkfs.ext4 -q $0.img; mount -o loop $0.img $0";

/// A folder on a file system of our own. Inside a mount namespace.
struct Disk {
    at: PathBuf,
    frozen: bool,
}

impl Disk {
    /// `None`, with a word about it, where there is no such file system to be had.
    fn mount(at: PathBuf, how: &str) -> Option<Disk> {
        fs::create_dir(&at).unwrap();
        let script = Command::new("sh").args(["-ec", how]).arg(&at).status();
        if !script.is_ok_and(|status| status.success()) {
            eprintln!("skipped: cannot do {how:?} here");
            return None;
        }
        Some(Disk { at, frozen: false })
    }

    fn file(&self, name: &str) -> PathBuf {
        self.at.join(name)
    }

    fn freeze(&mut self) {
        self.fsfreeze("--freeze");
        self.frozen = true;
    }

    fn thaw(&mut self) {
        self.frozen = false;
        self.fsfreeze("--unfreeze");
    }

    fn fsfreeze(&self, what: &str) {
        let mut command = Command::new("fsfreeze");
        assert!(command.arg(what).arg(&self.at).status().unwrap().success());
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        // Nobody who writes there can end before.
        if self.frozen {
            self.thaw();
        }
    }
}

#[test]
fn log_and_report_on_a_full_disk_cost_lines() {
    if !in_own_mounts(&test_name!("log_and_report_on_a_full_disk_cost_lines")) {
        return;
    }
    let stage = Stage::new();
    let how = "mount -t tmpfs -o size=64k none $0";
    let Some(disk) = Disk::mount(stage.file("disk"), how) else {
        return;
    };
    let (report, path) = (disk.file("report"), stage.path());
    let option = ["--report", utf8(&report)];
    let listen = ["-v", "-a", "127.0.0.1", "-p", "0", "-t", utf8(&path)];
    let args = [&listen, &option[..]].concat();
    let mut donor = Filed::start(&["env"], disk.file("donor"), &args);
    let peers = peers(donor.address());
    wait_until(|| path.exists());
    let ballast = disk.file("ballast");
    let mut filler = File::create(&ballast).unwrap();
    while filler.write_all(&[0; 512]).is_ok() {}
    let take = [&["-v", "-T", utf8(&path)], &option[..]].concat();
    let mut taker = Filed::start(&["env"], disk.file("taker"), &take);
    assert_eq!(donor.server.wait_exit(), 0);
    peers.echoes(8);
    assert!(taker.server.is_running());
    fs::remove_file(&ballast).unwrap();
    drop(filler);
    Client::connect(donor.address()).talk();
    wait_text(&taker.log, "log lines lost here: ");
    // The next takeover is in the report.
    let next = Filed::start(&["env"], disk.file("next"), &take);
    assert_eq!(taker.server.wait_exit(), 0);
    wait_text(&report, &format!("\"pid\":{},", next.server.pid()));
    peers.finish().assert_flawless();
}

/// Log, report and pid file are on a disk of which a snapshot is being taken: whoever writes
/// there waits, and not even SIGKILL reaches them.
#[test]
fn takeover_on_a_frozen_disk_is_noticed_by_nobody() {
    if !geteuid().is_root() {
        return eprintln!("skipped: needs root to mount a disk");
    }
    if !in_own_mounts(&test_name!(
        "takeover_on_a_frozen_disk_is_noticed_by_nobody"
    )) {
        return;
    }
    let stage = Stage::new();
    let Some(disk) = Disk::mount(stage.file("disk"), EXT4) else {
        return;
    };
    let (report, pid_file, path) = (disk.file("report"), disk.file("pid"), stage.path());
    let option = ["-v", "--report", utf8(&report), "-P", utf8(&pid_file)];
    let listen = ["-a", "127.0.0.1", "-p", "0", "-t", utf8(&path)];
    let args = [&listen, &option[..]].concat();
    let mut donor = Filed::start(&["env"], disk.file("donor"), &args);
    let address = donor.address();
    let peers = peers(address);
    wait_until(|| path.exists());
    // A shell that made it now would wait for the disk.
    append(&disk.file("taker"));
    let taker_log = File::options().append(true).open(disk.file("taker"));
    let taker_log = taker_log.unwrap();
    // Thawed before the two processes are waited for, come what may.
    let mut disk = disk;
    disk.freeze();

    // Each logs a line, which is stuck.
    Client::connect(address).talk();
    peers.echoes(8);
    let words = [&["-G", "-T", utf8(&path)], &option[..]].concat();
    let mut taker = Server::spawn_to(Command::new(SERVICE).args(words), taker_log);
    // Its main thread has ended; the one that writes cannot.
    let stat = format!("/proc/{}/stat", donor.server.pid());
    wait_until(|| fs::read_to_string(&stat).unwrap().contains(") Z "));
    peers.echoes(8);
    Client::connect(address).talk();
    assert!(taker.is_running());
    assert_eq!(fs::metadata(&report).unwrap().len(), 0, "it is frozen");

    disk.thaw();
    assert_eq!(donor.server.wait_exit(), 0);
    wait_text(&disk.file("taker"), "Serving on ");
    wait_text(&report, "\"active\"");
    let pid = taker.pid().to_string();
    wait_until(|| fs::read_to_string(&pid_file).unwrap().trim() == pid);
    peers.finish().assert_flawless();
}

/// It cannot end before its disk answers, but nobody has to wait for that.
#[test]
fn owner_that_is_killed_while_its_log_is_frozen_lets_go_of_connections_and_port() {
    if !geteuid().is_root() {
        return eprintln!("skipped: needs root to mount a disk");
    }
    let name = "owner_that_is_killed_while_its_log_is_frozen_lets_go_of_connections_and_port";
    if !in_own_mounts(&test_name!(name)) {
        return;
    }
    let stage = Stage::new();
    let Some(disk) = Disk::mount(stage.file("disk"), EXT4) else {
        return;
    };
    let listen = ["-v", "-a", "127.0.0.1", "-p", "0"];
    let mut owner = Filed::start(&["env"], disk.file("owner"), &listen);
    let address = owner.address();
    let mut client = Client::connect(address);
    client.talk();
    // Thawed before the process is waited for, come what may.
    let mut disk = disk;
    disk.freeze();
    // It says that another one has come.
    Client::connect(address).talk();
    let task = format!("/proc/{}/task", owner.server.pid());
    let is_stuck =
        |task: &Path| fs::read_to_string(task.join("stat")).is_ok_and(|stat| stat.contains(") D "));
    wait_until(|| {
        let mut tasks = fs::read_dir(&task).unwrap();
        tasks.any(|task| is_stuck(&task.unwrap().path()))
    });
    owner.server.signal(Signal::SIGKILL);
    client.ended();
    // Its descriptors are closed one after the other.
    wait_until(|| std::net::TcpStream::connect(address).is_err());
    let port = address.port().to_string();
    let next = Server::start(&["-G", "-a", "127.0.0.1", "-p", &port]);
    next.wait_line("Starting TCP server");
    Client::connect(address).talk();
    disk.thaw();
    assert_eq!(owner.server.wait_exit(), 128 + 9);
}
