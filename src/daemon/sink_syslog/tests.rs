//! The sink against daemons that are absent, restarted, replaced or stuck. Time is an
//! argument here, so none of it waits; what must not block is run under a watchdog.

use std::fs;
use std::io::{BufRead, BufReader};
use std::os::unix::net::{UnixDatagram, UnixListener, UnixStream};
use std::sync::mpsc;
use std::thread;

use tempfile::TempDir;

use super::*;
use crate::daemon::sink::Counted;

const PATIENCE: Duration = Duration::from_secs(20);

/// A syslog daemon's socket in a folder of its own.
struct Place {
    folder: TempDir,
}

impl Place {
    fn new() -> Self {
        Self {
            folder: tempfile::tempdir().unwrap(),
        }
    }

    fn path(&self) -> PathBuf {
        self.folder.path().join("log")
    }

    fn start_daemon(&self) -> UnixDatagram {
        let socket = UnixDatagram::bind(self.path()).unwrap();
        socket.set_read_timeout(Some(PATIENCE)).unwrap();
        socket
    }

    fn stop_daemon(&self, socket: UnixDatagram) {
        drop(socket);
        fs::remove_file(self.path()).unwrap();
    }

    fn sink(&self) -> Counted<SyslogSink> {
        Counted::new(SyslogSink::at(&self.path(), Facility::LOG_DAEMON))
    }
}

/// The sink's clock: `after(0)` is just after its first try to connect.
struct Clock(Instant);

impl Clock {
    fn start() -> Self {
        Self(Instant::now())
    }

    fn line<'a>(&self, milliseconds: u64, text: &'a str) -> Line<'a> {
        Line {
            at: self.0 + Duration::from_millis(milliseconds),
            level: Level::Info,
            text,
        }
    }
}

fn received(socket: &UnixDatagram) -> String {
    let mut room = [0; 4096];
    let length = socket.recv(&mut room).unwrap();
    let datagram = str::from_utf8(&room[..length]).unwrap();
    let (head, text) = datagram.split_once(": ").unwrap();
    assert!(
        head.ends_with(&format!(">socket-takeover[{}]", process::id())),
        "{head}"
    );
    text.to_owned()
}

fn waiting(socket: &UnixDatagram) -> usize {
    socket.set_nonblocking(true).unwrap();
    let mut count = 0;
    while socket.recv(&mut [0; 4096]).is_ok() {
        count += 1;
    }
    socket.set_nonblocking(false).unwrap();
    count
}

/// Does what must not wait; if it does, the test fails instead of hanging.
fn under_watchdog<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    let (done, finished) = mpsc::channel();
    thread::spawn(move || done.send(work()));
    finished.recv_timeout(PATIENCE).expect("the sink waits")
}

#[test]
fn line_carries_priority_tag_and_pid() {
    let place = Place::new();
    let daemon = place.start_daemon();
    let mut sink = SyslogSink::at(&place.path(), Facility::LOG_LOCAL7);
    for (level, severity) in [
        (Level::Error, 3),
        (Level::Warn, 4),
        (Level::Info, 6),
        (Level::Debug, 7),
        (Level::Trace, 7),
    ] {
        sink.send(&Line {
            at: Instant::now(),
            level,
            text: "a: b",
        })
        .unwrap();
        let mut room = [0; 256];
        let length = daemon.recv(&mut room).unwrap();
        let expected = format!(
            "<{}>socket-takeover[{}]: a: b",
            23 * 8 + severity,
            process::id()
        );
        assert_eq!(str::from_utf8(&room[..length]).unwrap(), expected);
    }
}

#[test]
fn absent_daemon_that_starts_later_is_found() {
    let place = Place::new();
    let mut sink = place.sink();
    let clock = Clock::start();
    let change = sink.write(&clock.line(0, "lost 1"));
    assert!(format!("{change:?}").contains("NotFound"), "{change:?}");
    assert!(sink.write(&clock.line(0, "lost 2")).is_none());

    let daemon = place.start_daemon();
    assert!(sink.write(&clock.line(1_000, "three")).is_some());
    assert_eq!(received(&daemon), "log lines lost here: 2");
    assert_eq!(received(&daemon), "three");
    assert!(sink.write(&clock.line(1_001, "four")).is_none());
    assert_eq!(received(&daemon), "four");
    assert_eq!(sink.lost, 2);
}

#[test]
fn absent_daemon_is_tried_once_a_second() {
    let place = Place::new();
    let mut sink = place.sink();
    let clock = Clock::start();
    sink.write(&clock.line(1_100, "tries, in vain"));
    let daemon = place.start_daemon();
    sink.write(&clock.line(2_099, "does not try"));
    assert_eq!(waiting(&daemon), 0);
    sink.write(&clock.line(2_100, "tries"));
    assert_eq!(waiting(&daemon), 2);
}

#[test]
fn restarted_daemon_gets_the_very_next_line() {
    let place = Place::new();
    let daemon = place.start_daemon();
    let mut sink = place.sink();
    let clock = Clock::start();
    sink.write(&clock.line(0, "one"));
    assert_eq!(received(&daemon), "one");

    place.stop_daemon(daemon);
    let daemon = place.start_daemon();
    assert!(sink.write(&clock.line(1_000, "two")).is_none());
    assert_eq!(received(&daemon), "two");
    assert_eq!(sink.lost, 0);
}

#[test]
fn daemon_restarted_twice_in_a_second_is_found_after_it() {
    let place = Place::new();
    let daemon = place.start_daemon();
    let mut sink = place.sink();
    let clock = Clock::start();
    place.stop_daemon(daemon);
    let daemon = place.start_daemon();
    sink.write(&clock.line(1_000, "one"));
    assert_eq!(received(&daemon), "one");
    place.stop_daemon(daemon);
    let daemon = place.start_daemon();
    sink.write(&clock.line(1_500, "lost"));
    assert_eq!(waiting(&daemon), 0);
    sink.write(&clock.line(2_000, "two"));
    assert_eq!(received(&daemon), "log lines lost here: 1");
    assert_eq!(received(&daemon), "two");
}

#[test]
fn replaced_socket_is_found_by_reopening() {
    let place = Place::new();
    let old = place.start_daemon();
    let mut sink = place.sink();
    let clock = Clock::start();
    // The name goes, the socket behind it stays open and takes lines on.
    fs::remove_file(place.path()).unwrap();
    let new = place.start_daemon();
    sink.write(&clock.line(2_000, "to the old one"));
    assert_eq!(received(&old), "to the old one");
    sink.sink.reopen(Instant::now());
    sink.write(&clock.line(2_001, "to the new one"));
    assert_eq!(received(&new), "to the new one");
}

#[test]
fn stuck_daemon_costs_lines_and_no_time() {
    const LINES: u64 = 5_000;
    let place = Place::new();
    let daemon = place.start_daemon();
    let mut sink = place.sink();
    let clock = Clock::start();

    let (mut sink, clock) = under_watchdog(move || {
        for number in 0..LINES {
            sink.write(&clock.line(number, "a line that nobody reads"));
        }
        (sink, clock)
    });

    let taken = waiting(&daemon) as u64;
    let lost = sink.lost;
    assert!(lost > 0, "nothing filled the queue");
    assert_eq!(taken + lost, LINES);

    sink.write(&clock.line(LINES, "read again"));
    assert_eq!(received(&daemon), format!("log lines lost here: {lost}"));
    assert_eq!(received(&daemon), "read again");
}

#[test]
fn stuck_daemon_that_is_restarted_is_found() {
    let place = Place::new();
    let daemon = place.start_daemon();
    let mut sink = place.sink();
    let clock = Clock::start();
    let (mut sink, clock, number) = under_watchdog(move || {
        let mut number = 0;
        while sink.lost == 0 {
            sink.write(&clock.line(number, "fill"));
            number += 1;
        }
        (sink, clock, number)
    });
    place.stop_daemon(daemon);
    sink.write(&clock.line(number + 1_000, "nobody there"));
    let daemon = place.start_daemon();
    sink.write(&clock.line(number + 2_000, "found"));
    assert_eq!(received(&daemon), "log lines lost here: 2");
    assert_eq!(received(&daemon), "found");
}

/// The next message of a stream, without the NUL at its end.
fn from_stream(stream: &mut BufReader<UnixStream>) -> String {
    let mut message = Vec::new();
    stream.read_until(0, &mut message).unwrap();
    assert_eq!(message.pop(), Some(0), "{message:?}");
    let message = String::from_utf8(message).unwrap();
    message.split_once(": ").unwrap().1.to_owned()
}

fn accepted(listener: &UnixListener) -> BufReader<UnixStream> {
    let (stream, _) = listener.accept().unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    BufReader::new(stream)
}

#[test]
fn stream_socket_gets_messages_that_end_in_nul() {
    let place = Place::new();
    let listener = UnixListener::bind(place.path()).unwrap();
    let mut sink = place.sink();
    let clock = Clock::start();
    assert!(sink.write(&clock.line(0, "one")).is_none());
    assert!(sink.write(&clock.line(0, "two")).is_none());
    let mut daemon = accepted(&listener);
    assert_eq!(from_stream(&mut daemon), "one");
    assert_eq!(from_stream(&mut daemon), "two");
    // Restarted, as a daemon for datagrams.
    drop((daemon, listener));
    fs::remove_file(place.path()).unwrap();
    let daemon = place.start_daemon();
    assert!(sink.write(&clock.line(1_000, "three")).is_none());
    assert_eq!(received(&daemon), "three");
    assert_eq!(sink.lost, 0);
}

/// So long that the kernel takes it in parts, unlike any line of the service.
fn numbered(number: u64) -> String {
    format!("{number:06} {}", "x".repeat(150_000))
}

/// Lines to a stream that nobody reads, until one is cut and others are lost.
fn stuck_stream(mut sink: Counted<SyslogSink>, clock: Clock) -> (Counted<SyslogSink>, Clock, u64) {
    under_watchdog(move || {
        let mut number = 0;
        while sink.lost < 10 {
            sink.write(&clock.line(number, &numbered(number)));
            number += 1;
        }
        assert!(sink.sink.cut.is_some());
        (sink, clock, number)
    })
}

#[test]
fn stuck_stream_costs_lines_and_no_time_and_tears_none() {
    let place = Place::new();
    let listener = UnixListener::bind(place.path()).unwrap();
    let (sink, clock) = (place.sink(), Clock::start());
    let mut daemon = accepted(&listener);
    let (mut sink, clock, count) = stuck_stream(sink, clock);
    let mut expected = 0;
    while expected < count - sink.lost - 1 {
        assert_eq!(from_stream(&mut daemon), numbered(expected));
        expected += 1;
    }
    // There is room: the one that was cut goes on where it was.
    assert!(sink.write(&clock.line(count, "read again")).is_some());
    assert_eq!(from_stream(&mut daemon), numbered(expected));
    assert_eq!(from_stream(&mut daemon), "log lines lost here: 10");
    assert_eq!(from_stream(&mut daemon), "read again");
}

#[test]
fn message_that_a_stream_has_taken_in_part_goes_to_the_next_daemon_as_a_whole() {
    let place = Place::new();
    let listener = UnixListener::bind(place.path()).unwrap();
    let (sink, clock) = (place.sink(), Clock::start());
    let daemon = accepted(&listener);
    let (mut sink, clock, count) = stuck_stream(sink, clock);
    let cut = numbered(count - sink.lost - 1);
    drop((daemon, listener));
    fs::remove_file(place.path()).unwrap();
    let daemon = place.start_daemon();
    assert!(sink.write(&clock.line(count + 1_000, "new")).is_some());
    let mut room = vec![0; 200_000];
    let length = daemon.recv(&mut room).unwrap();
    let whole = str::from_utf8(&room[..length]).unwrap();
    assert!(whole.ends_with(&cut), "{length}");
    assert_eq!(received(&daemon), "log lines lost here: 10");
    assert_eq!(received(&daemon), "new");
}

#[test]
fn stream_whose_queue_of_connections_is_full_is_not_waited_for() {
    let place = Place::new();
    let listener = UnixListener::bind(place.path()).unwrap();
    nix::sys::socket::listen(&listener, nix::sys::socket::Backlog::new(0).unwrap()).unwrap();
    let _first = UnixStream::connect(place.path()).unwrap();
    let path = place.path();
    let mut sink = under_watchdog(move || {
        let mut sink = Counted::new(SyslogSink::at(&path, Facility::LOG_DAEMON));
        let change = sink.write(&Clock::start().line(0, "lost"));
        assert!(format!("{change:?}").contains("WouldBlock"), "{change:?}");
        sink
    });
    drop(accepted(&listener));
    assert!(sink.write(&Clock::start().line(1_000, "found")).is_some());
    let mut daemon = accepted(&listener);
    assert_eq!(from_stream(&mut daemon), "log lines lost here: 1");
    assert_eq!(from_stream(&mut daemon), "found");
}
