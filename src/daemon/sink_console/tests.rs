//! The sink against readers that are slow, stuck, gone, or the journal.

use std::io::{BufRead, BufReader, Read};
use std::net::{TcpListener, TcpStream};
use std::os::unix::net::UnixStream;
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use nix::fcntl::{FcntlArg, OFlag, fcntl};

use super::*;
use crate::daemon::sink::Counted;

const PATIENCE: Duration = Duration::from_secs(20);

fn line(level: Level, text: &str) -> Line<'_> {
    Line {
        at: Instant::now(),
        level,
        text,
    }
}

fn flags(fd: impl AsFd) -> OFlag {
    OFlag::from_bits_retain(fcntl(fd, FcntlArg::F_GETFL).unwrap())
}

fn numbered(number: u64) -> String {
    format!("{number:06} {}", "x".repeat(1_500))
}

/// Numbered lines to a reader that does not read, until a good many are lost, under a
/// watchdog; how many there were.
fn fill(stream: OwnedFd) -> (Counted<ConsoleSink>, u64) {
    let (done, finished) = mpsc::channel();
    thread::spawn(move || {
        let mut sink = Counted::new(ConsoleSink::on(stream));
        let mut count = 0;
        while sink.lost < 100 {
            sink.write(&line(Level::Info, &numbered(count)));
            count += 1;
        }
        done.send((sink, count)).unwrap();
    });
    finished.recv_timeout(PATIENCE).expect("the sink waits")
}

/// Reads what a filled sink wrote, and adds a line when there is room again: every line is
/// there as a whole, or part of a report at its place.
fn assert_whole_lines(
    mut sink: Counted<ConsoleSink>,
    filled: u64,
    reader: impl Read + Send + 'static,
) {
    let (tell, told) = mpsc::channel();
    let reading = thread::spawn(move || {
        let mut lines = Vec::new();
        for line in BufReader::new(reader).lines() {
            lines.push(line.unwrap());
            let _ = tell.send(());
        }
        lines
    });
    let mut count = filled;
    loop {
        told.recv_timeout(PATIENCE).expect("nothing to read");
        let change = sink.write(&line(Level::Info, &numbered(count)));
        count += 1;
        if change.is_some() {
            break;
        }
    }
    drop(sink);
    let mut expected = 0;
    for line in reading.join().unwrap() {
        match line.strip_prefix("warning: log lines lost here: ") {
            Some(lost) => expected += lost.parse::<u64>().unwrap(),
            None => {
                assert_eq!(line, numbered(expected));
                expected += 1;
            }
        }
    }
    assert_eq!(expected, count);
}

#[test]
fn line_says_what_it_is_only_if_it_is_bad() {
    let (mut reader, writer) = io::pipe().unwrap();
    let mut sink = ConsoleSink::on(writer.into());
    for level in [
        Level::Error,
        Level::Warn,
        Level::Info,
        Level::Debug,
        Level::Trace,
    ] {
        sink.send(&line(level, "text")).unwrap();
    }
    drop(sink);
    let mut all = String::new();
    reader.read_to_string(&mut all).unwrap();
    assert_eq!(all, "error: text\nwarning: text\ntext\ntext\ntext\n");
}

#[test]
fn line_for_the_journal_carries_its_level() {
    let (mut reader, writer) = UnixStream::pair().unwrap();
    let mut sink = ConsoleSink::on(writer.into());
    sink.journal = true;
    for level in [
        Level::Error,
        Level::Warn,
        Level::Info,
        Level::Debug,
        Level::Trace,
    ] {
        sink.send(&line(level, "text")).unwrap();
    }
    drop(sink);
    let mut all = String::new();
    reader.read_to_string(&mut all).unwrap();
    assert_eq!(all, "<3>text\n<4>text\n<6>text\n<7>text\n<7>text\n");
}

#[test]
fn stuck_pipe_costs_lines_and_no_time() {
    let (reader, writer) = io::pipe().unwrap();
    let shell = writer.try_clone().unwrap();
    let (sink, filled) = fill(writer.into());
    assert!(matches!(sink.sink.way, Way::Own(_)));
    assert!(
        !flags(&shell).contains(OFlag::O_NONBLOCK),
        "everybody's flag was changed"
    );
    drop(shell);
    assert_whole_lines(sink, filled, reader);
}

#[test]
fn stuck_unix_socket_costs_lines_and_no_time() {
    let (reader, writer) = UnixStream::pair().unwrap();
    let shell = writer.try_clone().unwrap();
    let (sink, filled) = fill(writer.into());
    assert!(matches!(sink.sink.way, Way::Socket(_)));
    assert!(
        !flags(&shell).contains(OFlag::O_NONBLOCK),
        "everybody's flag was changed"
    );
    drop(shell);
    assert_whole_lines(sink, filled, reader);
}

#[test]
fn line_cut_by_a_full_tcp_socket_is_completed_later() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let writer = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    let (reader, _) = listener.accept().unwrap();
    let (sink, filled) = fill(writer.into());
    assert_whole_lines(sink, filled, reader);
}

#[test]
fn stuck_pipe_that_cannot_be_opened_anew_costs_no_time() {
    let (reader, writer) = io::pipe().unwrap();
    let (done, finished) = mpsc::channel();
    thread::spawn(move || {
        let mut sink = Counted::new(ConsoleSink {
            way: Way::Aside(Writer::new(writer, Some(lost_here))),
            journal: false,
            rest: Vec::new(),
        });
        while sink.sink.lost_behind() < 100 {
            sink.write(&line(Level::Info, &"x".repeat(1_500)));
        }
        assert!(!sink.sink.is_idle());
        sink.sink.flush(Instant::now());
        done.send(()).unwrap();
    });
    finished.recv_timeout(PATIENCE).expect("the sink waits");
    drop(reader);
}

#[test]
fn reader_that_went_away_is_an_error_and_no_more() {
    let (reader, writer) = io::pipe().unwrap();
    let mut sink = ConsoleSink::on(writer.into());
    drop(reader);
    let error = sink.send(&line(Level::Info, "x")).unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::BrokenPipe);
}

#[test]
fn file_is_shared_line_by_line_with_other_writers() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("log");
    let mut shell = File::create(&path).unwrap();
    let mut sink = ConsoleSink::on(shell.try_clone().unwrap().into());
    sink.send(&line(Level::Info, "ours 1")).unwrap();
    sink.flush(Instant::now() + PATIENCE);
    shell.write_all(b"theirs\n").unwrap();
    sink.send(&line(Level::Info, "ours 2")).unwrap();
    sink.flush(Instant::now() + PATIENCE);
    let all = std::fs::read_to_string(&path).unwrap();
    assert_eq!(all, "ours 1\ntheirs\nours 2\n");
}
