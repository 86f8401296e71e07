//! What only shows between processes: death, other users, limits.
//!
//! Each test starts this program again for a part of it: [`part`] does nothing unless the
//! environment names one. Parts for another user need root and are skipped without it.

use std::fs::{self, File, Permissions};
use std::io::{BufRead, BufReader, ErrorKind, PipeReader, Read, pipe};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::{PermissionsExt, chown};
use std::os::unix::process::CommandExt;
use std::process::{Child, ChildStdout, Command, Stdio};
use std::thread;

use crate::support::apart::test_name;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use nix::sys::socket::{
    AddressFamily, Backlog, SockFlag, SockType, UnixAddr, bind, listen, socket,
};
use nix::unistd::geteuid;
use socket_takeover::event::RESERVE;
use socket_takeover::takeover::internal::channel::{Channel, Fault, Got, Sent};
use socket_takeover::takeover::internal::identity::{Identity, IdentityError};
use socket_takeover::takeover::internal::limits;
use socket_takeover::takeover::internal::offer::{Offer, Replace};
use socket_takeover::takeover::internal::path::connect;
use socket_takeover::takeover::{ConnectError, Probe, TakeoverPath, probe};
use tempfile::TempDir;

const PART: &str = "TEST_PART";
const PATH: &str = "TEST_PATH";
/// A user that nothing on a system belongs to.
const STRANGER: u32 = 12345;

/// The other process's part in a test.
#[test]
fn part() {
    match std::env::var(PART).as_deref() {
        Err(_) => {}
        Ok("donor") => donor(),
        Ok("stranger is kept out") => stranger_is_kept_out(),
        Ok("stranger calls") => stranger_calls(),
        Ok("stranger listens") => stranger_listens(),
        Ok("unmapped user calls") => unmapped_user_calls(),
        Ok("limits") => limits_in_a_process_of_our_own(),
        Ok("few slots") => fds_lost_at_the_limit(),
        Ok("in flight") => crowded_by_fds_in_flight(),
        Ok(other) => panic!("no part {other:?}"),
    }
}

/// A folder that every user can look into, and this program.
struct Stage {
    folder: TempDir,
    path: TakeoverPath,
    program: File,
}

impl Stage {
    fn new() -> Stage {
        let folder = tempfile::tempdir().unwrap();
        fs::set_permissions(folder.path(), Permissions::from_mode(0o755)).unwrap();
        let path = TakeoverPath::new(folder.path().join("offer")).unwrap();
        let program = File::open(std::env::current_exe().unwrap()).unwrap();
        Stage {
            folder,
            path,
            program,
        }
    }

    /// By descriptor, as the way to the program may be barred for other users.
    fn command(&self, part: &str) -> Command {
        let mut command = Command::new(format!("/proc/self/fd/{}", self.program.as_raw_fd()));
        self.direct(&mut command, part);
        command
    }

    fn direct(&self, command: &mut Command, part: &str) {
        command
            .args(["--exact", &test_name!("part"), "--nocapture"])
            .env(PART, part)
            .env(PATH, self.path.as_path())
            .current_dir("/");
    }

    /// Runs a part to its end.
    #[track_caller]
    fn play(&self, part: &str) {
        assert!(self.command(part).status().unwrap().success());
    }
}

fn path_from_environment() -> TakeoverPath {
    TakeoverPath::new(std::env::var_os(PATH).unwrap()).unwrap()
}

/// Starts a part whose cues are waited for.
fn start(command: &mut Command) -> (Child, BufReader<ChildStdout>) {
    let mut child = command.stdout(Stdio::piped()).spawn().unwrap();
    let output = BufReader::new(child.stdout.take().unwrap());
    (child, output)
}

/// Reads what a part says until it says `cue`.
#[track_caller]
fn await_cue(output: &mut BufReader<ChildStdout>, cue: &str) {
    let mut line = String::new();
    while !line.contains(cue) {
        line.clear();
        assert_ne!(
            output.read_line(&mut line).unwrap(),
            0,
            "ended before {cue:?}"
        );
    }
}

#[track_caller]
fn await_readable(fd: impl AsFd) {
    let mut wanted = [PollFd::new(fd.as_fd(), PollFlags::POLLIN)];
    assert_eq!(poll(&mut wanted, PollTimeout::from(10_000u16)).unwrap(), 1);
}

fn is_root() -> bool {
    if !geteuid().is_root() {
        eprintln!("skipped: needs root to play another user");
    }
    geteuid().is_root()
}

#[track_caller]
fn assert_all_closed(mut end: PipeReader) {
    // Times out, rather than hangs, if a copy is still open.
    await_hang_up(end.as_fd());
    assert_eq!(end.read(&mut [0]).unwrap(), 0);
}

#[track_caller]
fn await_hang_up(end: BorrowedFd<'_>) {
    let mut wanted = [PollFd::new(end, PollFlags::empty())];
    assert_eq!(poll(&mut wanted, PollTimeout::from(10_000u16)).unwrap(), 1);
}

#[test]
fn killed_donors_records_outlive_it() {
    let stage = Stage::new();
    let (mut child, mut output) = start(&mut stage.command("donor"));
    await_cue(&mut output, "offered");
    let (mut taker, donor) = connect(&stage.path).unwrap();
    assert_eq!(donor.pid(), child.id());
    assert!(!donor.is_dead());
    assert_eq!(taker.send(b"left unread", &[]).unwrap(), Sent::Done);
    await_cue(&mut output, "sent");

    donor.kill().unwrap();
    await_readable(donor.pidfd().unwrap());
    assert!(donor.is_dead());
    child.wait().unwrap();
    assert!(donor.is_dead());
    let gone = donor.kill().unwrap_err();
    assert_eq!(gone.raw_os_error(), Some(libc::ESRCH));

    let (mut buffer, mut fds) = ([0; 16], Vec::new());
    assert!(matches!(taker.recv(&mut buffer, &mut fds), Got::Record(3)));
    assert_eq!(fds.len(), 1);
    assert!(matches!(taker.recv(&mut buffer, &mut fds), Got::Record(4)));
    assert!(matches!(taker.recv(&mut buffer, &mut fds), Got::End));
    assert!(taker.was_reset());
    assert_eq!(probe(&stage.path).unwrap(), Probe::Stale);
}

fn donor() {
    let mut offer = Offer::bind(&path_from_environment()).unwrap();
    offer.publish(Replace::Stale).unwrap();
    println!("offered");
    await_readable(&offer);
    let channel = offer.accept().unwrap().unwrap();
    assert_eq!(channel.send(b"one", &[offer.as_fd()]).unwrap(), Sent::Done);
    assert_eq!(channel.send(b"last", &[]).unwrap(), Sent::Done);
    println!("sent");
    loop {
        thread::park(); // Until killed.
    }
}

#[test]
fn donor_started_again_after_each_kill_finds_its_path_free() {
    let stage = Stage::new();
    for _ in 0..10 {
        let (mut child, mut output) = start(&mut stage.command("donor"));
        await_cue(&mut output, "offered");
        child.kill().unwrap();
        child.wait().unwrap();
    }
}

#[test]
fn caller_of_another_user_is_found_out() {
    if !is_root() {
        return;
    }
    let stage = Stage::new();
    let mut offer = Offer::bind(&stage.path).unwrap();
    offer.publish(Replace::Stale).unwrap();
    // Mode 0600 keeps strangers out.
    let mut command = stage.command("stranger is kept out");
    command.uid(STRANGER).gid(STRANGER);
    assert!(command.status().unwrap().success());
    assert!(offer.accept().unwrap().is_none());
    // Where it was loosened, the credentials do.
    let mut command = stage.command("stranger calls");
    command.uid(STRANGER).gid(STRANGER);
    fs::set_permissions(stage.path.as_path(), Permissions::from_mode(0o666)).unwrap();
    let mut child = command.spawn().unwrap();
    await_readable(&offer);
    let caller = offer.accept().unwrap().unwrap();
    let Err(IdentityError::Untrusted { pid, uid }) = Identity::of(&caller) else {
        panic!("a stranger is trusted");
    };
    assert_eq!((pid, uid), (child.id(), STRANGER));
    drop(caller);
    assert!(child.wait().unwrap().success());
}

fn stranger_is_kept_out() {
    let refusal = connect(&path_from_environment()).map(drop).unwrap_err();
    let ConnectError::Other(error) = refusal else {
        panic!("{refusal}");
    };
    assert_eq!(error.kind(), ErrorKind::PermissionDenied);
}

fn stranger_calls() {
    let (mut channel, donor) = connect(&path_from_environment()).unwrap();
    assert_eq!(donor.uid(), 0);
    await_readable(&channel);
    let got = channel.recv(&mut [0; 16], &mut Vec::new());
    assert!(matches!(got, Got::End), "told {got:?}");
}

#[test]
fn listener_of_another_user_behind_our_own_file_is_found_out() {
    if !is_root() {
        return;
    }
    let stage = Stage::new();
    let unheard = bound_socket(&stage);
    let mut command = stage.command("stranger listens");
    command.uid(STRANGER).gid(STRANGER).stdin(unheard);
    let (mut child, mut output) = start(&mut command);
    await_cue(&mut output, "listening");
    let refusal = connect(&stage.path).map(drop).unwrap_err();
    assert!(
        matches!(
            refusal,
            ConnectError::NoDonor(Probe::Foreign { uid: STRANGER })
        ),
        "{refusal}"
    );
    child.kill().unwrap();
    child.wait().unwrap();
}

fn stranger_listens() {
    listen(&std::io::stdin(), Backlog::new(4).unwrap()).unwrap();
    println!("listening");
    loop {
        thread::park(); // Until killed.
    }
}

fn bound_socket(stage: &Stage) -> OwnedFd {
    let kind = SockType::SeqPacket;
    let unheard = socket(AddressFamily::Unix, kind, SockFlag::empty(), None).unwrap();
    let address = UnixAddr::new(stage.path.as_path()).unwrap();
    bind(unheard.as_raw_fd(), &address).unwrap();
    unheard
}

#[test]
fn file_of_another_user_is_neither_called_nor_replaced() {
    if !is_root() {
        return;
    }
    let stage = Stage::new();
    drop(bound_socket(&stage));
    chown(stage.path.as_path(), Some(STRANGER), None).unwrap();
    assert_eq!(
        probe(&stage.path).unwrap(),
        Probe::Foreign { uid: STRANGER }
    );
    let refusal = connect(&stage.path).map(drop).unwrap_err();
    assert!(
        matches!(
            refusal,
            ConnectError::NoDonor(Probe::Foreign { uid: STRANGER })
        ),
        "{refusal}"
    );
    let mut offer = Offer::bind(&stage.path).unwrap();
    offer.publish(Replace::Stale).unwrap_err();
    offer.publish(Replace::Live).unwrap_err();
    chown(stage.folder.path(), Some(STRANGER), None).unwrap();
    assert!(stage.path.is_exposed());
}

#[test]
fn owner_that_a_user_namespace_hides_is_not_trusted() {
    if !is_root() {
        return;
    }
    let stage = Stage::new();
    let mut offer = Offer::bind(&stage.path).unwrap();
    offer.publish(Replace::Stale).unwrap();
    // Without a map the process and the file both seem to be the overflow uid's.
    let mut command = Command::new("unshare");
    command.arg("--user").arg(std::env::current_exe().unwrap());
    stage.direct(&mut command, "unmapped user calls");
    match command.status() {
        Ok(status) => assert!(status.success()),
        Err(error) => eprintln!("skipped, no unshare(1): {error}"),
    }
    assert!(offer.accept().unwrap().is_none());
}

fn unmapped_user_calls() {
    let refusal = connect(&path_from_environment()).map(drop).unwrap_err();
    assert!(
        matches!(
            refusal,
            ConnectError::NoDonor(Probe::Foreign { uid: 65534 })
        ),
        "{refusal}"
    );
}

#[test]
fn limits_are_raised_counted_and_prepared_for() {
    Stage::new().play("limits");
}

fn limits_in_a_process_of_our_own() {
    let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE).unwrap();
    let hard = hard.min(4096);
    setrlimit(Resource::RLIMIT_NOFILE, 100, hard).unwrap();
    let raised = limits::raise_nofile();
    let hard = usize::try_from(hard).unwrap();
    assert_eq!((raised.soft, raised.hard), (hard, hard));

    let free = limits::free_slots().unwrap();
    assert!(free > hard - RESERVE && free < hard, "{free} of {hard}");
    let files: Vec<File> = (0..50).map(|_| File::open("/dev/null").unwrap()).collect();
    assert_eq!(limits::free_slots().unwrap(), free - files.len());

    limits::size_table(500).unwrap();
    let size = table_size();
    assert!(size >= 500 + files.len(), "{size}");
    assert_eq!(limits::free_slots().unwrap(), free - files.len());
    limits::size_table(usize::MAX).unwrap();
    assert!(table_size() >= hard, "{}", table_size());

    let _rest: Vec<File> = (0..).map_while(|_| File::open("/dev/null").ok()).collect();
    assert_eq!(limits::free_slots().unwrap(), 0);
    let error = limits::size_table(1).unwrap_err();
    assert_eq!(error.raw_os_error(), Some(libc::EMFILE));
    setrlimit(Resource::RLIMIT_NOFILE, 10, hard as u64).unwrap();
    assert_eq!(limits::free_slots().unwrap(), 0);
}

/// Entries that the descriptor table has room for.
fn table_size() -> usize {
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("FDSize:"));
    line.unwrap().trim().parse().unwrap()
}

#[test]
fn record_with_more_fds_than_free_slots_is_broken_and_leaks_none() {
    Stage::new().play("few slots");
}

fn fds_lost_at_the_limit() {
    const FREE: usize = 11;
    let (near, mut far) = Channel::pair().unwrap();
    let (end, write) = pipe().unwrap();
    let (soft, hard) = getrlimit(Resource::RLIMIT_NOFILE).unwrap();
    let open = usize::try_from(soft).unwrap() - limits::free_slots().unwrap();
    setrlimit(Resource::RLIMIT_NOFILE, (open + FREE) as u64, hard).unwrap();
    assert_eq!(limits::free_slots().unwrap(), FREE);
    let mut fds = Vec::new();
    for _ in 0..1000 {
        let sent = near.send(b"x", &[write.as_fd(); 50]).unwrap();
        assert_eq!(sent, Sent::Done);
        let got = far.recv(&mut [0; 8], &mut fds);
        assert!(matches!(got, Got::Broken(Fault::FdsLost)), "{got:?}");
        assert_eq!(limits::free_slots().unwrap(), FREE);
    }
    // As many as there is room for arrive.
    let sent = near.send(b"x", &[write.as_fd(); FREE]).unwrap();
    assert_eq!(sent, Sent::Done);
    assert!(matches!(far.recv(&mut [0; 8], &mut fds), Got::Record(1)));
    assert_eq!(fds.len(), FREE);
    drop((fds, write));
    assert_all_closed(end);
}

#[test]
fn sender_with_too_many_fds_in_flight_is_crowded_until_they_are_taken() {
    if !is_root() {
        return;
    }
    // Root is exempt, and the count is the user's: a user of its own for this test.
    let stage = Stage::new();
    let mut command = stage.command("in flight");
    let status = command.uid(STRANGER + 1).gid(STRANGER + 1).status();
    assert!(status.unwrap().success());
}

fn crowded_by_fds_in_flight() {
    let (near, mut far) = Channel::pair().unwrap();
    let (_end, write) = pipe().unwrap();
    let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE).unwrap();
    setrlimit(Resource::RLIMIT_NOFILE, 64, hard).unwrap();
    let batch = [write.as_fd(); 20];
    let mut sent = 0;
    loop {
        match near.send(b"x", &batch).unwrap() {
            Sent::Done => sent += 1,
            Sent::NoBuffers => break,
            Sent::Blocked => panic!("blocked after {sent}"),
        }
        assert!(sent < 10);
    }
    let mut fds = Vec::new();
    for _ in 0..sent {
        assert!(matches!(far.recv(&mut [0; 8], &mut fds), Got::Record(1)));
        assert_eq!(fds.len(), batch.len());
    }
    drop(fds);
    assert_eq!(near.send(b"x", &batch).unwrap(), Sent::Done);
}
