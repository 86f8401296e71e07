//! The original C program is taken over, again and again: how many clients are damaged?
//!
//! Each run is a new original with so many clients of one kind, replaced by this service, which
//! is replaced by itself at the end. At last the same is done by a taker that simply starts to
//! read, as the original's own successor does: it must fail, or the whole table proves nothing.
//!
//! | clients | at the moment of the takeover |
//! |---|---|
//! | silent | a thread of the original waits for each of them |
//! | talking | wait for each answer, then say the next |
//! | pipelining | send bursts, cut anywhere |
//! | half | have said half a message, and the other half while the taker waits |
//! | new | silent, and more connect while it waits, and afterwards |
//! | burst | silent, and then say eight messages at once |
//! | untraced | as talking, and the taker may not trace the original: it has its array alone |

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Instant;

use socket_takeover::sys::unread_bytes;

use crate::options::Options;
use crate::support::{BOUND, Kind, Peers, Random, Server, Stage, Verdict, figure, original};

const COUNTS: [usize; 4] = [1, 40, 250, 251];
/// For every test run.
const SHORT: [usize; 2] = [1, 40];
const CLIENTS: [&str; 7] = [
    "silent",
    "talking",
    "pipelining",
    "half",
    "new",
    "burst",
    "untraced",
];
/// What waits for clients is ended by the test, not by the clock.
const PATIENT: [&str; 2] = ["--deadline", "freeze=60000"];
/// Connections that come while the taker waits, and as many afterwards.
const NEW: usize = 10;
const BURST: usize = 8;

/// What came of the runs of one row.
#[derive(Default)]
struct Row {
    runs: usize,
    clients: usize,
    damaged: usize,
    freezes: Vec<f64>,
}

pub(crate) fn run(options: &Options) -> Result<(), String> {
    let times = options.times(1, 20);
    let mut random = Random::new(options.seed);
    let mut damaged = 0;
    show!(
        "{:>16} {:>5} {:>8} {:>8}   freeze ms: median, longest",
        "clients",
        "runs",
        "in all",
        "damaged"
    );
    for clients in CLIENTS {
        let counts = if options.short { &SHORT[..] } else { &COUNTS };
        for &count in counts {
            let name = format!("{clients} {count}");
            if options.wants(&name) {
                let row = repeat(times, |row| ours(clients, count, random.bits(), row));
                damaged += row.damaged;
                show(&name, &row);
            }
        }
    }
    for (name, naive) in [
        ("naive burst 40", naive_burst as fn(&mut Row)),
        ("naive half 40", naive_half),
    ] {
        if options.wants(name) {
            let row = repeat(times, naive);
            show(name, &row);
            if name.contains("half") && row.damaged != row.clients {
                return Err("a taker that simply reads does no damage: nothing is proven".into());
            }
        }
    }
    match damaged {
        0 => Ok(()),
        damaged => Err(format!("{damaged} clients were damaged")),
    }
}

fn repeat(times: usize, mut once: impl FnMut(&mut Row)) -> Row {
    let mut row = Row::default();
    for _ in 0..times {
        once(&mut row);
        row.runs += 1;
    }
    row
}

fn show(name: &str, row: &Row) {
    let mut freezes = row.freezes.clone();
    freezes.sort_by(f64::total_cmp);
    let freeze = match freezes.last() {
        Some(longest) => format!("{:.1}, {longest:.1}", freezes[freezes.len() / 2]),
        None => "-".into(),
    };
    show!(
        "{name:>16} {:>5} {:>8} {:>8}   {freeze}",
        row.runs,
        row.clients,
        row.damaged
    );
}

fn ours(clients: &str, count: usize, seed: u64, row: &mut Row) {
    let stage = Stage::new();
    let mut old = stage.original();
    let to = old.address();
    let verdicts = match clients {
        "silent" => steady(&stage, &mut old, Kind::Idle, count, seed, row),
        "talking" => steady(&stage, &mut old, Kind::Talking, count, seed, row),
        "pipelining" => steady(&stage, &mut old, Kind::Pipelining, count, seed, row),
        "untraced" => untraced(&stage, &mut old, count, seed, row),
        "half" => half(&stage, &mut old, count, seed, row),
        "new" => new(&stage, &mut old, count, seed, row),
        _ => {
            let clients = bursting(to, count);
            let _taker = upgrade(&stage, &mut old, row);
            row.clients += count;
            row.damaged += damaged(clients);
            Vec::new()
        }
    };
    for verdict in verdicts {
        row.clients += verdict.connections as usize;
        row.damaged += verdict.faults as usize;
        if verdict.faults > 0 {
            show!("{clients} {count}, seed {seed}: {verdict}");
        }
    }
}

fn steady(
    stage: &Stage,
    old: &mut Server,
    kind: Kind,
    count: usize,
    seed: u64,
    row: &mut Row,
) -> Vec<Verdict> {
    let peers = Peers::connect(old.address(), seed, &[(kind, count)]);
    peers.echoes(8);
    let mut taker = upgrade(stage, old, row);
    peers.echoes(8);
    let _next = stage.replace(&mut taker, &[]);
    peers.echoes(8);
    vec![peers.finish()]
}

fn untraced(
    stage: &Stage,
    old: &mut Server,
    count: usize,
    seed: u64,
    row: &mut Row,
) -> Vec<Verdict> {
    let peers = Peers::connect(old.address(), seed, &[(Kind::Talking, count)]);
    peers.echoes(8);
    let path = stage.path();
    let words = ["-G", "-T", path.to_str().unwrap(), PATIENT[0], PATIENT[1]];
    let taker = Server::start_with("pidfd_getfd:error=EPERM", &words);
    let _taker = is_upgraded(old, taker, row);
    peers.echoes(8);
    vec![peers.finish()]
}

fn half(stage: &Stage, old: &mut Server, count: usize, seed: u64, row: &mut Row) -> Vec<Verdict> {
    let peers = Peers::connect(old.address(), seed, &[(Kind::HalfSent, count)]);
    peers.say(6);
    let taker = stage.take_over(&PATIENT);
    // It waits, or has found no thread that had read its half.
    taker.wait_line("Peers are ");
    peers.say(2);
    let mut taker = is_upgraded(old, taker, row);
    peers.say(2);
    let _next = stage.replace(&mut taker, &[]);
    peers.say(2);
    vec![peers.finish()]
}

fn new(stage: &Stage, old: &mut Server, count: usize, seed: u64, row: &mut Row) -> Vec<Verdict> {
    let kinds = [(Kind::HalfSent, 1), (Kind::Idle, count - 1)];
    let peers = Peers::connect(old.address(), seed, &kinds);
    peers.say(6);
    let taker = stage.take_over(&PATIENT);
    taker.wait_line("Peers are ");
    let kinds = [(Kind::Talking, NEW / 2), (Kind::Idle, NEW / 2)];
    let during = Peers::connect(old.address(), !seed, &kinds);
    during.echoes(8);
    peers.say(2);
    let taker = is_upgraded(old, taker, row);
    let after = Peers::connect(taker.address(), seed ^ 1, &[(Kind::Talking, NEW)]);
    during.echoes(8);
    after.echoes(8);
    vec![peers.finish(), during.finish(), after.finish()]
}

/// Clients that have had one answer, so that a thread waits for each.
fn bursting(to: SocketAddr, count: usize) -> Vec<TcpStream> {
    let client = |_| {
        let mut client = TcpStream::connect(to).expect("it listens");
        client.set_read_timeout(Some(BOUND / 6)).unwrap();
        client.set_nodelay(true).unwrap();
        client.write_all(&[0; 4]).unwrap();
        client.read_exact(&mut [0; 4]).unwrap();
        client
    };
    (0..count).map(client).collect()
}

/// How many of them do not get back what they say now.
fn damaged(mut clients: Vec<TcpStream>) -> usize {
    let said: Vec<u8> = (1..=BURST as u32).flat_map(u32::to_be_bytes).collect();
    let mut damaged = vec![false; clients.len()];
    for (client, damaged) in clients.iter_mut().zip(&mut damaged) {
        *damaged |= client.write_all(&said).is_err();
    }
    for (client, damaged) in clients.iter_mut().zip(&mut damaged) {
        let mut heard = vec![0; said.len()];
        *damaged |= client.read_exact(&mut heard).is_err() || heard != said;
    }
    damaged.into_iter().filter(|damaged| *damaged).count()
}

fn upgrade(stage: &Stage, old: &mut Server, row: &mut Row) -> Server {
    is_upgraded(old, stage.take_over(&PATIENT), row)
}

fn is_upgraded(old: &mut Server, taker: Server, row: &mut Row) -> Server {
    taker.wait_line("Serving on ");
    row.freezes
        .push(figure(&taker.wait_line("taken over from"), "freeze_ms"));
    assert_eq!(old.wait_exit(), 128 + libc::SIGKILL);
    taker
}

/// Both read, and it is the kernel's choice who gets what: damage as it comes.
fn naive_burst(row: &mut Row) {
    let stage = Stage::new();
    let old = stage.original();
    let clients = bursting(old.address(), 40);
    original::read_on(original::call(&stage.path()));
    row.clients += clients.len();
    row.damaged += damaged(clients);
}

/// The original has half a message of each, and is not scheduled for a moment.
fn naive_half(row: &mut Row) {
    let stage = Stage::new();
    let old = stage.original();
    let mut clients = bursting(old.address(), 40);
    for client in &mut clients {
        client.write_all(&[1, 2]).unwrap();
    }
    let fds = original::call(&stage.path());
    let end = Instant::now() + BOUND;
    while fds[1..].iter().any(|fd| unread_bytes(fd).unwrap() > 0) {
        assert!(Instant::now() < end, "the original does not read");
        std::thread::yield_now();
    }
    old.stop();
    original::read_on(fds);
    for client in &mut clients {
        client.write_all(&[3, 4, 5, 6, 7, 8]).unwrap();
    }
    for client in &mut clients {
        let mut heard = [0; 4];
        client.read_exact(&mut heard).unwrap();
        row.clients += 1;
        row.damaged += usize::from(heard != [1, 2, 3, 4]);
    }
}
