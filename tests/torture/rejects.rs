//! Attempts that come to nothing, one after the other, against one donor whose clients check
//! every byte. Whatever was tried and in whatever state it ended, the donor holds what it held
//! before: descriptors and their flags, memory, and the options of every socket, which it shares
//! with the copies that went out and were closed.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::os::fd::{AsFd, BorrowedFd};

use nix::fcntl::{FcntlArg, fcntl};
use nix::sys::socket::{getsockopt, sockopt};
use socket_takeover::event::Time;
use socket_takeover::proto::records::{Active, Hello, ItemKind, Record, RefuseCode};
use socket_takeover::proto::wire::MUST_UNDERSTAND;
use socket_takeover::takeover::internal::descriptor;
use socket_takeover::takeover::internal::lease::Verdict;

use crate::options::Options;
use crate::support::side::{At, FakeTaker, encoded};
use crate::support::{PATIENT, Random, Scene};

const SHORT: usize = 300;
const FULL: usize = 10_000;
/// How often, in attempts, descriptors and clients are looked at.
const LOOK: usize = 20;
/// How often, in attempts, a long run says where it is.
const SAY: usize = 1000;
/// Attempts after which a donor's memory is what it will be: buffers have grown, lines of the
/// log were formatted.
const WARM: usize = 200;
/// How much it may differ from then on, in KiB.
const MEMORY: u64 = 1024;

/// Why an attempt comes to nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Cause {
    /// The taker closes the channel.
    Leaves(At),
    /// It says FAIL.
    Fails(At),
    /// It says what is no record.
    Junk(At),
    /// It sends descriptors, which a taker never does.
    Fds(At),
    /// It says ACTIVE and has not claimed.
    Lies(At),
    /// HELLO is not for this donor.
    Unfit(RefuseReason),
    /// It declines the listener.
    DeclinesListener,
    /// It acknowledges a batch twice.
    AcksTwice,
    /// It calls while another one is served.
    Busy,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum RefuseReason {
    Version,
    Features,
    Slots,
    Clock,
}

fn causes() -> Vec<Cause> {
    let mut causes = vec![Cause::DeclinesListener, Cause::AcksTwice, Cause::Busy];
    for at in At::ALL {
        causes.extend([
            Cause::Leaves(at),
            Cause::Fails(at),
            Cause::Junk(at),
            Cause::Fds(at),
            Cause::Lies(at),
        ]);
    }
    for reason in [
        RefuseReason::Version,
        RefuseReason::Features,
        RefuseReason::Slots,
        RefuseReason::Clock,
    ] {
        causes.push(Cause::Unfit(reason));
    }
    causes
}

pub(crate) fn run(options: &Options) -> Result<(), String> {
    let times = options.times(SHORT, FULL);
    let mut random = Random::new(options.seed);
    let causes: Vec<Cause> = causes()
        .into_iter()
        .filter(|cause| options.wants(&format!("{cause:?}")))
        .collect();
    if causes.is_empty() {
        return Err("no cause has this name".into());
    }
    let scene = Scene::new(&PATIENT);
    let sockets = options_of_sockets(&scene);
    let flags = flags(&scene);
    let mut memory = None;
    let mut counts = BTreeMap::<Cause, usize>::new();
    for number in 0..times {
        // Each once, then as chance will have it.
        let cause = match causes.get(number) {
            Some(cause) => *cause,
            None => causes[random.within(0..causes.len() as u64) as usize],
        };
        attempt(&scene, cause, &mut random).map_err(|why| format!("{number}, {cause:?}: {why}"))?;
        FakeTaker::await_idle(&scene.stage.path());
        scene.donor.wait_fds(|fds| fds == scene.fds);
        *counts.entry(cause).or_default() += 1;
        if number % LOOK == 0 {
            scene.peers.echoes(4);
        }
        if number + 1 == WARM.min(times / 2) {
            memory = Some(resident(&scene)?);
        }
        if (number + 1) % SAY == 0 {
            show!("{} of {times}: {} KiB", number + 1, resident(&scene)?);
        }
    }
    for (cause, count) in &counts {
        show!("  {:<40} {count:>6}", format!("{cause:?}"));
    }
    let before = memory.ok_or("too few attempts to say anything")?;
    let after = resident(&scene)?;
    show!("{times} attempts; resident memory {before} KiB, {after} KiB in the end");
    if after.abs_diff(before) > MEMORY {
        return Err(format!(
            "the donor's memory went from {before} to {after} KiB"
        ));
    }
    same("flags of descriptors", &flags, &self::flags(&scene))?;
    same("options of sockets", &sockets, &options_of_sockets(&scene))?;
    let refused = scene.donor.log().count("takeover failed, we serve on");
    show!("{refused} of them came as far as a takeover that failed");
    scene.end();
    Ok(())
}

/// One attempt, over when this returns: what the donor has said was what it should.
fn attempt(scene: &Scene, cause: Cause, random: &mut Random) -> Result<(), String> {
    let path = scene.stage.path();
    match cause {
        Cause::Leaves(at) => {
            drop(FakeTaker::at(&path, at));
            Ok(())
        }
        Cause::Fails(at) => {
            let mut taker = FakeTaker::at(&path, at);
            taker.fail();
            is_given_up(taker, at)
        }
        Cause::Junk(at) => {
            let taker = FakeTaker::at(&path, at);
            let length = random.within(1..4096) as usize;
            let junk: Vec<u8> = (0..length).map(|_| random.bits() as u8).collect();
            let sent = taker.side.throw(&junk, &[]);
            let _ = sent.map_err(|error| error.to_string())?;
            is_given_up(taker, at)
        }
        Cause::Fds(at) => {
            let taker = FakeTaker::at(&path, at);
            let file = File::open("/dev/null").map_err(|error| error.to_string())?;
            let count = random.within(1..4) as usize;
            let drained = encoded(&Record::Drained);
            match taker.side.throw(&drained, &vec![file.as_fd(); count]) {
                Ok(_) => is_given_up(taker, at),
                // SO_PASSRIGHTS: nothing was sent, and it leaves.
                Err(error) if error.raw_os_error() == Some(libc::EPERM) => Ok(()),
                Err(error) => Err(error.to_string()),
            }
        }
        Cause::Lies(at) => {
            let mut taker = FakeTaker::at(&path, at);
            taker.side.say(&Record::Active(Active::default()));
            is_given_up(taker, at)
        }
        Cause::Unfit(reason) => {
            let mut taker = FakeTaker::connect(&path);
            let good = FakeTaker::hello();
            let (hello, code) = match reason {
                RefuseReason::Version => (
                    Hello {
                        min: 200,
                        max: 300,
                        ..good
                    },
                    RefuseCode::Version,
                ),
                RefuseReason::Features => {
                    taker.side.extension = Some(MUST_UNDERSTAND | 0x777);
                    (good, RefuseCode::Features)
                }
                RefuseReason::Slots => (
                    Hello {
                        free_slots: random.within(0..Scene::PEERS as u64),
                        ..good
                    },
                    RefuseCode::Slots,
                ),
                RefuseReason::Clock => (
                    Hello {
                        now_ns: Time::now().as_ns() / 2,
                        ..good
                    },
                    RefuseCode::Clock,
                ),
            };
            taker.side.say(&Record::Hello(hello));
            match taker.refusal() {
                said if said == code => Ok(()),
                other => Err(format!("REFUSE({other})")),
            }
        }
        Cause::DeclinesListener => {
            let mut taker = FakeTaker::connect(&path);
            taker.begin();
            let batch = taker.batch().ok_or("no batch")?;
            let listener: Vec<u64> = taker
                .copies
                .iter()
                .filter(|(_, copy)| copy.kind == ItemKind::Listener)
                .map(|(id, _)| *id)
                .collect();
            taker.ack_without(&batch, &listener);
            is_given_up(taker, At::FirstBatch)
        }
        Cause::AcksTwice => {
            let mut taker = FakeTaker::connect(&path);
            taker.begin();
            let batch = taker.batch().ok_or("no batch")?;
            taker.ack(&batch);
            taker.ack(&batch);
            is_given_up(taker, At::FirstBatch)
        }
        Cause::Busy => {
            let first = FakeTaker::at(&path, At::FirstBatch);
            let mut second = FakeTaker::connect(&path);
            let refusal = second.refusal();
            drop(first);
            match refusal {
                RefuseCode::Busy => Ok(()),
                other => Err(format!("REFUSE({other})")),
            }
        }
    }
}

/// The donor says so, and the lease is its own. The taker is dropped at once: one that stays is
/// killed.
fn is_given_up(mut taker: FakeTaker, at: At) -> Result<(), String> {
    if at == At::AcceptChannel {
        return match taker.side.hear() {
            None => Ok(()),
            Some(heard) => Err(format!("{:?} to one who is no taker", heard.record())),
        };
    }
    if !taker.side.await_abort() {
        return Err("no ABORT".into());
    }
    match taker.claim() {
        Verdict::Lost => Ok(()),
        Verdict::Won => Err("the lease could be claimed".into()),
    }
}

/// Resident memory of the donor's own, in KiB (proc_pid_status(5)).
fn resident(scene: &Scene) -> Result<u64, String> {
    let path = format!("/proc/{}/status", scene.donor.pid());
    let status = fs::read_to_string(path).map_err(|error| error.to_string())?;
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix("RssAnon:"));
    let kib = line.and_then(|line| line.split_whitespace().next()?.parse().ok());
    kib.ok_or_else(|| "no RssAnon".into())
}

/// What `/proc/PID/fdinfo` says of each descriptor's flags, O_CLOEXEC among them.
fn flags(scene: &Scene) -> BTreeMap<String, String> {
    let line = |number: i32| {
        let info = fs::read_to_string(format!("/proc/{}/fdinfo/{number}", scene.donor.pid()));
        let info = info.expect("it is open");
        let flags = info.lines().find(|line| line.starts_with("flags:"));
        flags.expect("it has flags").to_owned()
    };
    let all = scene.fds.iter();
    all.map(|(number, name)| (format!("{number} {name}"), line(*number)))
        .collect()
}

/// The options of listener and peers, by cookie, read from copies that a taker was sent.
fn options_of_sockets(scene: &Scene) -> BTreeMap<String, String> {
    let mut taker = FakeTaker::at(&scene.stage.path(), At::HoldPeers);
    let copies = std::mem::take(&mut taker.copies);
    let sockets = copies.values().filter_map(|copy| copy.fd.as_ref());
    let all = sockets.map(|fd| {
        let cookie = descriptor::cookie(fd.as_fd());
        (cookie.to_string(), options_of(fd.as_fd()))
    });
    let all = all.collect();
    drop((copies, taker));
    FakeTaker::await_idle(&scene.stage.path());
    scene.donor.wait_fds(|fds| fds == scene.fds);
    all
}

/// All that a taker could set and that does not change with the traffic.
fn options_of(fd: BorrowedFd<'_>) -> String {
    macro_rules! say {
        ($($option:ident)*) => {
            [$(format!("{}={:?}", stringify!($option), getsockopt(&fd, sockopt::$option))),*]
        };
    }
    let options = say!(
        AcceptConn Broadcast DontRoute Ipv4Tos KeepAlive Linger OobInline Priority ReceiveTimeout
        ReuseAddr ReusePort SendTimeout SockType TcpKeepCount TcpKeepIdle TcpKeepInterval
        TcpMaxSeg TcpNoDelay TcpUserTimeout
    );
    let flags = fcntl(fd, FcntlArg::F_GETFL);
    format!("{} F_GETFL={flags:?}", options.join(" "))
}

fn same(
    what: &str,
    before: &BTreeMap<String, String>,
    after: &BTreeMap<String, String>,
) -> Result<(), String> {
    show!("{what}: {} compared", before.len());
    let differs = before
        .iter()
        .find(|(key, value)| after.get(*key) != Some(*value));
    match differs {
        Some((key, value)) => Err(format!("{what}: {key}: {value}, then {:?}", after.get(key))),
        None if before.len() != after.len() => Err(format!("{what}: some are new")),
        None => Ok(()),
    }
}
