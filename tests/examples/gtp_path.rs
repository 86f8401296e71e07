//! `examples/gtp_path.rs`: no echo is lost by a takeover, and no peer takes it for a restart.

use std::net::UdpSocket;
use std::thread;
use std::time::{Duration, Instant};

use crate::example::{Datagrams, Example, addresses};
use crate::support;
use crate::support::Server;
use crate::support::side::{At, FakeTaker};
use nix::sys::signal::Signal;

/// GTP-U, whose Recovery is 0 whatever the counter.
fn user_plane(server: &Server) -> Datagrams {
    version_1(addresses(server)[0], 0)
}

fn version_1(to: std::net::SocketAddr, recovery: u8) -> Datagrams {
    let ask = |number: u64| {
        let [.., high, low] = number.to_be_bytes();
        let key = number & 0xffff;
        (key, vec![0x32, 1, 0, 4, 0, 0, 0, 0, high, low, 0, 0])
    };
    Datagrams::start(to, ask, move |answer| match *answer {
        [0x32, 2, 0, 6, 0, 0, 0, 0, high, low, 0, 0, 14, counter] if counter == recovery => {
            Ok(u64::from(u16::from_be_bytes([high, low])))
        }
        _ => Err(format!("version 1, recovery {recovery}: {answer:?}")),
    })
}

fn version_2(server: &Server, recovery: u8) -> Datagrams {
    let ask = |number: u64| {
        let [.., high, middle, low] = number.to_be_bytes();
        let recovery = [3, 0, 1, 0, 200];
        let header = [0x40, 1, 0, 9, high, middle, low, 0];
        (number & 0xff_ffff, [&header[..], &recovery].concat())
    };
    Datagrams::start(addresses(server)[1], ask, move |answer| match *answer {
        [0x40, 2, 0, 9, high, middle, low, 0, 3, 0, 1, 0, counter] if counter == recovery => {
            Ok(u64::from(u32::from_be_bytes([0, high, middle, low])))
        }
        _ => Err(format!("version 2, recovery {recovery}: {answer:?}")),
    })
}

#[test]
fn five_takeovers_under_load_lose_no_echo_and_keep_the_counter() {
    let example = Example::new("gtp_path");
    let file = example.stage.file("recovery");
    std::fs::write(&file, "41\n").expect("a file");
    let args = [file.to_str().unwrap(), "127.0.0.1:0", "127.0.0.1:0"];

    let server = example.serve(&args);
    let control = addresses(&server)[1];
    let loads = [
        user_plane(&server),
        version_1(control, 42),
        version_2(&server, 42),
    ];
    let mut server = example.replace_often(server, &loads[2].progress);
    for load in loads {
        println!("{} echoes", load.finish());
    }

    server.signal(Signal::SIGKILL);
    assert_eq!(server.wait_exit(), 128 + 9);
    let server = example.serve(&args);
    server.wait_line("recovery 43");
    let load = version_2(&server, 43);
    load.progress.wait_for_more(10);
    load.finish();
}

#[test]
fn second_cold_start_by_mistake_is_no_restart() {
    let example = Example::new("gtp_path");
    let file = example.stage.file("recovery");
    let args = [file.to_str().unwrap(), "127.0.0.1:0", "127.0.0.1:0"];
    let server = example.serve(&args);
    let load = version_2(&server, 1);
    let control = addresses(&server)[1].to_string();

    let mistake = [file.to_str().unwrap(), "127.0.0.1:0", &control];
    let mut second = example.cold_start(&mistake);
    assert_eq!(second.wait_exit(), 1);
    // Nor one whose ports are free: PATH is looked at before anything is opened.
    let mut third = example.cold_start(&args);
    assert_eq!(third.wait_exit(), 1);
    assert_eq!(std::fs::read_to_string(&file).unwrap(), "1");
    load.progress.wait_for_more(10);
    load.finish();
}

#[test]
fn start_that_cannot_be_says_so_by_its_exit_code() {
    let example = Example::new("gtp_path");
    assert_eq!(example.take_over().wait_exit(), 69);
    assert_eq!(example.cold_start(&[""; 0]).wait_exit(), 2);
}

/// A successor that hangs within the freeze costs datagrams, and no more than arrive until the
/// deadlines `end` and `claim` have passed.
#[test]
fn hung_taker_costs_no_more_datagrams_than_arrive_in_its_deadlines() {
    /// Datagrams in each millisecond.
    const RATE: u64 = 5;
    const ROLLED_BACK: &str = "serving on, not taken over";
    let said = |server: &Server| {
        let lines = server.log().lines();
        lines.iter().any(|line| line.contains(ROLLED_BACK))
    };
    let example = Example::new("gtp_path");
    let file = example.stage.file("recovery");
    let args = [file.to_str().unwrap(), "127.0.0.1:0", "127.0.0.1:0"];
    let server = example.serve(&args);
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    socket.connect(addresses(&server)[0]).unwrap();
    socket.set_nonblocking(true).unwrap();

    // It has END, and never claims.
    let path = example.stage.path();
    let hung = thread::spawn(move || {
        let mut taker = FakeTaker::at(&path, At::AwaitClaim);
        assert!(taker.side.await_abort());
    });
    let begun = Instant::now();
    let (mut sent, mut answered) = (0u64, 0u64);
    let mut since_rollback = 0;
    // Past the rollback there are a hundred more, to see that it serves.
    while since_rollback < 100 {
        assert!(begun.elapsed() < support::BOUND, "no rollback");
        let due = begun.elapsed().as_millis() as u64 * RATE;
        while sent < due {
            let [.., high, low] = sent.to_be_bytes();
            socket
                .send(&[0x32, 1, 0, 4, 0, 0, 0, 0, high, low, 0, 0])
                .unwrap();
            sent += 1;
            since_rollback += u64::from(said(&server));
        }
        while socket.recv(&mut [0; 64]).is_ok() {
            answered += 1;
        }
        thread::yield_now();
    }
    let last = Instant::now() + Duration::from_millis(200);
    while Instant::now() < last && answered < sent {
        answered += u64::from(socket.recv(&mut [0; 64]).is_ok());
    }
    let line = server.wait_line(ROLLED_BACK);
    let freeze = line.split("freeze_ms=").nth(1).unwrap();
    let freeze: f64 = freeze.split(' ').next().unwrap().parse().unwrap();
    let lost = sent - answered;
    println!("{lost} of {sent} lost in a freeze of {freeze} ms");
    assert!(
        lost <= (freeze * RATE as f64) as u64 + 1,
        "{lost} lost, {line}"
    );
    hung.join().unwrap();
}
