//! PATH may vanish while the service runs: a cleaner of old files, a script, a runtime folder that
//! is made anew. The owner makes it anew where that harms nobody, and says so once; the next
//! takeover succeeds.

use std::fs::{self, Permissions};
use std::io::Read;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::fs::{FileTypeExt, PermissionsExt, chown, symlink};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use crate::support::apart::test_name;
use crate::support::apart::{self, Program, STRANGER, as_user, is_root, open_folder};
use crate::support::{BOUND, Client, Scene, Server, Stage, wait_readable};
use nix::sys::signal::Signal;
use nix::sys::socket::{
    AddressFamily, Backlog, SockFlag, SockType, UnixAddr, accept, bind, listen, socket,
};
use nix::unistd::geteuid;
use socket_takeover::event::Cx;
use socket_takeover::takeover::internal::path::connect;
use socket_takeover::takeover::{
    Application, Arrival, ConnectError, Description, Item, Moment, Probe, Rejection, SavedState,
    Start, Takeover, TakeoverPath,
};

const BINARY: &str = env!("CARGO_BIN_EXE_socket-takeover");
const ANEW: &str = "was gone and is offered again";

/// Another process's part in a test.
#[test]
fn part() {
    match apart::played() {
        Some((part, path)) if part == "serves in another root" => serves_in_another_root(&path),
        Some((part, _)) => panic!("no part {part:?}"),
        None => {}
    }
}

/// Until somebody listens there.
#[track_caller]
fn wait_reachable(path: &Path) {
    let path = TakeoverPath::new(path).unwrap();
    let end = Instant::now() + BOUND;
    loop {
        match connect(&path) {
            Ok(_) | Err(ConnectError::Busy) => return,
            Err(ConnectError::NoDonor(Probe::Free | Probe::Stale)) if Instant::now() < end => {
                std::thread::yield_now()
            }
            Err(error) => panic!("{error}"),
        }
    }
}

fn seqpacket(path: &Path) -> OwnedFd {
    let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
    let rival = socket(AddressFamily::Unix, SockType::SeqPacket, flags, None).unwrap();
    bind(rival.as_raw_fd(), &UnixAddr::new(path).unwrap()).unwrap();
    listen(&rival, Backlog::new(16).unwrap()).unwrap();
    rival
}

/// A service at `folder/takeover`, which its folder belongs to alone.
fn serve_in(stage: &Stage, folder: &str) -> Server {
    fs::create_dir(stage.file(folder)).unwrap();
    let path = stage.file(folder).join("takeover");
    let path = path.to_str().unwrap();
    let donor = Server::start(&["-G", "-a", "127.0.0.1", "-p", "0", "-t", path]);
    donor.wait_line("Starting Takeover channel on");
    donor
}

#[test]
fn removed_name_is_made_anew() {
    let mut scene = Scene::new(&[]);
    for nth in 1..=3 {
        fs::remove_file(scene.stage.path()).unwrap();
        scene.donor.wait_nth_line(ANEW, nth);
    }
    let mut owner = scene.stage.replace(&mut scene.donor, &[]);
    // A successor looks after its name as well.
    fs::remove_file(scene.stage.path()).unwrap();
    owner.wait_line(ANEW);
    scene.donor = scene.stage.replace(&mut owner, &[]);
    scene.end();
}

#[test]
fn taker_that_comes_before_a_removed_name_is_made_anew_finds_it() {
    let mut scene = Scene::new(&[]);
    fs::remove_file(scene.stage.path()).unwrap();
    scene.donor = scene.stage.replace(&mut scene.donor, &[]);
    scene.end();
}

#[test]
fn folder_that_was_removed_and_made_anew_has_the_name_again() {
    let stage = Stage::new();
    let mut donor = serve_in(&stage, "run");
    let mut client = Client::connect(donor.address());
    fs::remove_dir_all(stage.file("run")).unwrap();
    donor.wait_line("its folder is gone");
    fs::create_dir(stage.file("run")).unwrap();
    donor.wait_line(ANEW);
    let taker = Server::take_over(&stage.file("run/takeover"), &[]);
    taker.wait_line("Serving on ");
    assert_eq!(donor.wait_exit(), 0);
    client.talk();
    assert_eq!(donor.log().count("its folder is gone"), 1);
}

#[test]
fn folder_that_was_moved_away_and_back_is_as_before() {
    let stage = Stage::new();
    let donor = serve_in(&stage, "run");
    fs::rename(stage.file("run"), stage.file("aside")).unwrap();
    donor.wait_line("its folder is gone");
    fs::rename(stage.file("aside"), stage.file("run")).unwrap();
    donor.wait_line("takeovers are possible again");
    wait_reachable(&stage.file("run/takeover"));
    assert_eq!(donor.log().count(ANEW), 0);
}

/// Callers follow it, so the owner does.
#[test]
fn symbolic_link_in_the_way_to_the_folder_that_leads_elsewhere_is_followed() {
    let stage = Stage::new();
    for folder in ["one", "two"] {
        fs::create_dir(stage.file(folder)).unwrap();
    }
    symlink("one", stage.file("run")).unwrap();
    let path = stage.file("run/takeover");
    let args = ["-G", "-a", "127.0.0.1", "-p", "0", "-t"];
    let mut donor = Server::spawn(Command::new(BINARY).args(args).arg(&path));
    donor.wait_line("Starting Takeover channel on");
    symlink("two", stage.file("other")).unwrap();
    fs::rename(stage.file("other"), stage.file("run")).unwrap();
    donor.wait_line(ANEW);
    let taker = Server::take_over(&path, &[]);
    taker.wait_line("Serving on ");
    assert_eq!(donor.wait_exit(), 0);
    let there = fs::symlink_metadata(stage.file("two/takeover")).unwrap();
    assert!(there.file_type().is_socket());
}

#[test]
fn stale_socket_in_the_place_of_the_name_is_replaced() {
    let scene = Scene::new(&[]);
    drop(seqpacket(&scene.stage.file("stale")));
    fs::rename(scene.stage.file("stale"), scene.stage.path()).unwrap();
    scene.donor.wait_line(ANEW);
    scene.end();
}

#[test]
fn living_socket_in_the_place_of_the_name_is_left_alone() {
    let scene = Scene::new(&[]);
    let rival = seqpacket(&scene.stage.file("rival"));
    fs::rename(scene.stage.file("rival"), scene.stage.path()).unwrap();
    scene
        .donor
        .wait_line("in the place of ours, and is left alone");
    let callers = std::iter::from_fn(|| accept(rival.as_raw_fd()).ok());
    assert_eq!(callers.count(), 1, "it is called once");
    let looks = Duration::from_millis(2500);
    assert!(
        !wait_readable(&rival, looks).unwrap(),
        "and not at each look"
    );
    assert_eq!(scene.donor.log().count("left alone"), 1);
    fs::remove_file(scene.stage.path()).unwrap();
    scene.donor.wait_line(ANEW);
    scene.end();
}

#[test]
fn regular_file_in_the_place_of_the_name_is_left_alone() {
    let scene = Scene::new(&[]);
    fs::write(scene.stage.file("file"), "precious").unwrap();
    fs::rename(scene.stage.file("file"), scene.stage.path()).unwrap();
    scene.donor.wait_line("is a regular file");
    assert_eq!(fs::read(scene.stage.path()).unwrap(), b"precious");
    fs::remove_file(scene.stage.path()).unwrap();
    scene.donor.wait_line(ANEW);
    scene.end();
}

#[test]
fn name_in_a_folder_that_everybody_may_write_to_is_not_made_anew() {
    let scene = Scene::new(&[]);
    let path = scene.stage.path();
    open_folder(&path, 0o777);
    fs::remove_file(&path).unwrap();
    scene.donor.wait_line("so it is not made anew there");
    assert!(!path.exists());

    // The service lives, so a cold start is not what is advised.
    let mut taker = scene.stage.take_over(&[]);
    assert_eq!(taker.wait_exit(), 69);
    let port = scene.donor.address().port();
    let pid = scene.donor.pid();
    taker.wait_line(&format!(
        "yet it may run: pid {pid} (socket-takeover), which listens on port {port}"
    ));
    assert_eq!(taker.log().count("start the service without -T"), 0);

    open_folder(&path, 0o700);
    scene.donor.wait_line(ANEW);
    assert_eq!(scene.donor.log().count("is not made anew there"), 1);
    scene.end();
}

#[test]
fn cold_start_is_advised_after_two_seconds_without_a_donor() {
    let stage = Stage::new();
    let begun = Instant::now();
    let mut taker = stage.take_over(&[]);
    assert_eq!(taker.wait_exit(), 69);
    taker.wait_line("there is no such file; start the service without -T");
    assert!(begun.elapsed() >= Duration::from_secs(2));
}

/// Holds the lock on PATH.lock until it is dropped.
struct Locked(Child);

impl Locked {
    fn at(path: &Path) -> Locked {
        let mut locked = Locked::queued(path);
        locked.wait();
        locked
    }

    /// It has the lock as soon as the present holder lets go.
    fn queued(path: &Path) -> Locked {
        let mut lock = path.as_os_str().to_owned();
        lock.push(".lock");
        let child = Command::new("flock")
            .arg(lock)
            .args(["sh", "-c", "echo yes; cat"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("flock(1) runs");
        Locked(child)
    }

    fn wait(&mut self) {
        let said = self.0.stdout.as_mut().unwrap();
        said.read_exact(&mut [0; 3]).unwrap();
    }
}

/// Until the process waits for a lock (`/proc/locks` marks it with an arrow, proc_locks(5)).
fn wait_queued(pid: u32) {
    let waits = |line: &str| line.contains("->") && line.contains(&format!(" {pid} "));
    let end = Instant::now() + BOUND;
    while !fs::read_to_string("/proc/locks")
        .unwrap()
        .lines()
        .any(waits)
    {
        assert!(Instant::now() < end, "it does not wait");
        thread::yield_now();
    }
}

impl Drop for Locked {
    fn drop(&mut self) {
        drop(self.0.stdin.take());
        let _ = self.0.wait();
    }
}

#[test]
fn holder_of_the_lock_is_named_when_a_name_cannot_be_made_anew() {
    let scene = Scene::new(&[]);
    let locked = Locked::at(&scene.stage.path());
    fs::remove_file(scene.stage.path()).unwrap();
    let pid = locked.0.id();
    let line = scene
        .donor
        .wait_line("no further takeover is possible for now");
    assert!(
        line.contains(&format!("PATH.lock is locked by pid {pid} (flock)")),
        "{line}"
    );
    scene.peers.echoes(4);
    drop(locked);
    scene.donor.wait_line(ANEW);
    scene.end();
}

#[test]
fn holder_of_the_lock_is_named_when_a_plain_start_fails() {
    let stage = Stage::new();
    let locked = Locked::at(&stage.path());
    let mut server = stage.start(&[]);
    assert_eq!(server.wait_exit(), 1);
    server.wait_line(&format!("locked by pid {} (flock)", locked.0.id()));
}

/// Its successor has died and the lock is another's: its own name is at PATH, and it answers.
#[test]
fn orphan_that_cannot_lock_path_is_reachable_by_the_name_that_it_has() {
    let scene = Scene::new(&[]);
    let mut taker = scene.stage.take_over_failing("taker.claim.after:stop", &[]);
    taker.wait_stopped();
    // The taker has it since PREPARE, and its death is the end of that.
    let mut locked = Locked::queued(&scene.stage.path());
    wait_queued(locked.0.id());
    taker.signal(Signal::SIGKILL);
    locked.wait();
    taker.wait_exit();
    scene.donor.wait_line("died right after it took over");
    wait_reachable(&scene.stage.path());
    scene.donor.wait_line("it said nothing");
    drop(locked);
    let mut donor = scene.donor;
    scene.stage.replace(&mut donor, &[]);
}

#[test]
fn umask_takes_nothing_from_the_modes() {
    let stage = Stage::new();
    let path = stage.path();
    let user = is_root().then_some(STRANGER); // Root may do without rights.
    chown(path.parent().unwrap(), user, user).unwrap();
    let program = Program::at(Path::new(BINARY));
    let run = |args: &[&str]| {
        let mut command = Command::new("sh");
        command
            .args([
                "-c",
                "umask 0777; exec \"$0\" \"$@\"",
                &program.name(),
                "-G",
            ])
            .args(args)
            .arg(&path);
        match user {
            Some(user) => Server::spawn(as_user(&mut command, user)),
            None => Server::spawn(&mut command),
        }
    };
    let mut donor = run(&["-a", "127.0.0.1", "-p", "0", "-t"]);
    donor.wait_line("Starting Takeover channel on");
    for file in [path.clone(), stage.file("takeover.lock")] {
        let mode = fs::symlink_metadata(&file).unwrap().permissions().mode();
        assert_eq!(mode & 0o7777, 0o600, "{}", file.display());
    }
    // Made by an earlier release, it has taken our rights away.
    fs::set_permissions(stage.file("takeover.lock"), Permissions::from_mode(0o000)).unwrap();
    let taker = run(&["-T"]);
    taker.wait_line("Serving on ");
    assert_eq!(donor.wait_exit(), 0);
}

/// With a mount namespace of its own, in which `script` comes first. None if there can be none.
fn mounting(script: &str) -> Option<Command> {
    let alone: &[&str] = match geteuid().is_root() {
        true => &["--mount"],
        false => &["--user", "--map-root-user", "--mount"],
    };
    let command = |script: &str| {
        let mut command = Command::new("unshare");
        let script = format!("{script} && exec \"$@\"");
        command.args(alone).args(["sh", "-c", &script, "sh"]);
        command
    };
    let probe = command(script).arg("true").stderr(Stdio::null()).status();
    if probe.is_ok_and(|status| status.success()) {
        return Some(command(script));
    }
    eprintln!("skipped: no mount namespace for this user, or no unshare(1)");
    None
}

#[test]
fn missing_proc_is_named() {
    let stage = Stage::new();
    let path = stage.path();
    let path = path.to_str().unwrap();
    let live = stage.file("live");
    let _live = seqpacket(&live);
    for args in [
        &["-G", "-a", "127.0.0.1", "-p", "0", "-t", path][..],
        &["-G", "-l", "-d", "-a", "127.0.0.1", "-p", "0"],
        &["-G", "-T", live.to_str().unwrap()],
    ] {
        let Some(mut command) = mounting("mount -t tmpfs none /proc") else {
            return;
        };
        let mut server = Server::spawn(command.arg(BINARY).args(args));
        assert_eq!(server.wait_exit(), 1, "{args:?}");
        server.wait_line("/proc is not mounted");
    }
}

/// It serves nothing but its name.
#[derive(Debug, Default)]
struct Bare(Takeover);

impl Application for Bare {
    const NAME: &'static str = "bare";

    fn takeover(&mut self) -> &mut Takeover {
        &mut self.0
    }

    fn describe(&mut self, _: &mut Cx<Bare>, _: Item) -> Result<Description, String> {
        Err("there is none".to_owned())
    }

    fn save(&mut self, _: &mut Cx<Bare>, _: Item, _: &mut Vec<u8>) -> bool {
        false
    }

    fn restore(&mut self, _: &mut Cx<Bare>, _: Arrival<'_>) -> Result<Item, Rejection> {
        Err(Rejection::Invalid("there is none".to_owned()))
    }

    fn update(&mut self, _: &mut Cx<Bare>, _: Item, _: SavedState<'_>) -> Result<(), String> {
        Ok(())
    }

    fn forget(&mut self, _: &mut Cx<Bare>, _: Item) {}

    fn moment(&mut self, cx: &mut Cx<Bare>, moment: Moment) {
        if matches!(moment, Moment::Stop | Moment::Exit) {
            cx.stop();
        }
    }
}

fn serves_in_another_root(path: &Path) {
    let start = Start::offer(TakeoverPath::new(path).unwrap());
    let mut reactor = start.reactor().unwrap();
    let mut app = Bare::default();
    start.begin(&mut app, reactor.cx()).unwrap();
    std::os::unix::fs::chroot(path.with_extension("root")).unwrap();
    std::env::set_current_dir("/").unwrap();
    eprintln!("serves");
    reactor.run(&mut app).unwrap();
}

/// It looks where its callers do, and not in the tree that it sees itself.
#[test]
fn owner_in_another_root_makes_its_name_anew_in_the_folder_of_its_start() {
    if !is_root() {
        return;
    }
    let stage = Stage::new();
    let root = stage.path().with_extension("root");
    fs::create_dir_all(root.join("proc")).unwrap();
    let script = format!("mount --rbind /proc {}", root.join("proc").display());
    if mounting(&script).is_none() {
        return;
    }
    let before = [
        "unshare",
        "--mount",
        "sh",
        "-c",
        &format!("{script} && exec \"$@\""),
        "sh",
    ];
    let program = Program::this();
    let mut owner = Server::spawn(&mut program.part(
        &before,
        &test_name!("part"),
        "serves in another root",
        &stage.path(),
    ));
    owner.wait_line("serves");
    fs::remove_file(stage.path()).unwrap();
    wait_reachable(&stage.path());
    owner.signal(Signal::SIGKILL);
    owner.wait_exit();
}
