//! `examples/opaque_fds`: a tun device, a timerfd and a memfd, in a network namespace of the
//! test's own.

use std::fs;
use std::net::UdpSocket;
use std::os::unix::fs::MetadataExt;
use std::process::Command;

use crate::example::{Datagrams, Example, TAKEOVERS};
use crate::support::Server;
use nix::net::if_::if_nametoindex;
use nix::sched::{CloneFlags, unshare};

const INTERFACE: &str = "reflector";
/// When the alarm rings: in the midst of the takeovers, or after them if they are quick.
const ALARM_MS: u32 = 60;

/// Moves this thread, and what it starts from here on, into a network of its own.
fn own_network() -> Result<(), String> {
    unshare(CloneFlags::CLONE_NEWNET).map_err(|error| format!("no network namespace: {error}"))?;
    fs::metadata("/dev/net/tun").map_err(|error| format!("/dev/net/tun: {error}"))?;
    ip("link set lo up")
}

fn ip(words: &str) -> Result<(), String> {
    match Command::new("ip").args(words.split(' ')).status() {
        Ok(status) if status.success() => Ok(()),
        Ok(status) => Err(format!("ip {words}: {status}")),
        Err(error) => Err(format!("ip: {error}")),
    }
}

/// How many packets the line that contains `what` says there were.
fn packets(server: &Server, what: &str) -> u64 {
    let line = server.wait_line(what);
    let count = line
        .rsplit_once("Some(")
        .and_then(|(_, rest)| rest.split_once(')'));
    count
        .and_then(|(count, _)| count.parse().ok())
        .expect("a number of packets")
}

/// The number of the file behind the process's "table", if it has it open.
fn table(server: &Server) -> Option<u64> {
    let is_table = |fd: &&(i32, String)| fd.1.starts_with("/memfd:table");
    let (number, _) = server.fds().iter().find(is_table).cloned()?;
    Some(
        fs::metadata(format!("/proc/{}/fd/{number}", server.pid()))
            .ok()?
            .ino(),
    )
}

#[test]
fn five_takeovers_under_load_keep_interface_memory_and_alarm() {
    if let Err(reason) = own_network() {
        println!("skipped: {reason}");
        return;
    }
    let example = Example::new("opaque_fds");
    let mut server = example.serve(&[INTERFACE, &ALARM_MS.to_string()]);
    ip(&format!("addr add 10.99.0.1/24 dev {INTERFACE}")).unwrap();
    ip(&format!("link set {INTERFACE} up")).unwrap();
    let index = if_nametoindex(INTERFACE).unwrap();
    let memory = table(&server);
    assert!(memory.is_some());

    let socket = UdpSocket::bind("10.99.0.1:0").unwrap();
    let ask = |number: u64| (number, number.to_be_bytes().to_vec());
    let load = Datagrams::through(socket, "10.99.0.2:7".parse().unwrap(), ask, |answer| {
        answer
            .try_into()
            .map(u64::from_be_bytes)
            .map_err(|_| format!("{answer:?}"))
    });
    let mut logs = vec![server.log().clone()];
    for _ in 1..TAKEOVERS {
        server = example.replace(&mut server);
        logs.push(server.log().clone());
        assert_eq!(if_nametoindex(INTERFACE), Ok(index), "another interface");
        assert_eq!(table(&server), memory, "another memory");
        load.progress.wait_for_more(100);
    }
    let answered = load.finish();
    println!("{answered} packets");
    server = example.replace(&mut server);
    logs.push(server.log().clone());
    assert_eq!(packets(&server, "taken over from "), answered);

    // Whoever has it rings; the last owner has it if nobody has rung yet.
    if logs.iter().all(|log| log.count("alarm: ") == 0) {
        server.wait_line("alarm: ");
    }
    let rings: Vec<String> = logs
        .iter()
        .flat_map(|log| log.lines())
        .filter(|line| line.starts_with("alarm: "))
        .collect();
    let [ring] = &rings[..] else {
        panic!("rung {} times: {rings:?}", rings.len());
    };
    println!("{ring}");
    let late: i64 = ring.split(' ').nth(1).unwrap().parse().unwrap();
    assert!((0..2_000_000).contains(&late), "{ring}");
}
