//! The thread's pen against a file that takes part of what it is given, and the whole against
//! files that fail or hang.

use std::fs::OpenOptions;
use std::io::{BufRead, BufReader, PipeReader, Write};
use std::time::Duration;

use nix::fcntl::{FcntlArg, fcntl};

use super::*;

const PATIENCE: Duration = Duration::from_secs(20);

fn note(lost: u64) -> String {
    format!("lost: {lost}\n")
}

fn entry(gap: u64, line: &str) -> Entry {
    Entry {
        gap,
        line: format!("{line}\n").into_bytes(),
    }
}

fn soon() -> Instant {
    Instant::now() + PATIENCE
}

/// Takes as many bytes as it is given room for, then fails.
#[derive(Default)]
struct Disk {
    text: Vec<u8>,
    room: usize,
}

impl Write for Disk {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let taken = bytes.len().min(self.room - self.text.len());
        self.text.extend_from_slice(&bytes[..taken]);
        match taken {
            0 => Err(io::ErrorKind::StorageFull.into()),
            some => Ok(some),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[test]
fn line_that_is_cut_is_counted_and_the_next_begins_on_its_own() {
    for room in 0..4 {
        let mut disk = Disk {
            room,
            ..Disk::default()
        };
        let mut pen = Pen::new(Some(note));
        assert!(pen.write(&mut disk, &entry(0, "one")).is_err());
        assert!(pen.write(&mut disk, &entry(2, "two")).is_err());
        disk.room = 100;
        pen.write(&mut disk, &entry(0, "three")).unwrap();
        pen.write(&mut disk, &entry(0, "four")).unwrap();
        let text = String::from_utf8(disk.text).unwrap();
        let begun = &"one"[..room];
        let torn = if room > 0 { "\n" } else { "" };
        assert_eq!(text, format!("{begun}{torn}lost: 4\nthree\nfour\n"));
    }
}

/// A pipe that nobody reads yet.
fn stuck(note: Option<Note>) -> (Writer, BufReader<PipeReader>) {
    let (reader, writer) = io::pipe().unwrap();
    (
        Writer::new(writer.try_clone().unwrap(), note),
        BufReader::new(reader),
    )
}

/// A pipe that nobody reads yet, and in which there is no room: one line has it all.
fn full(note: Option<Note>) -> (Writer, BufReader<PipeReader>) {
    let (reader, mut writer) = io::pipe().unwrap();
    let size = fcntl(&writer, FcntlArg::F_GETPIPE_SZ).unwrap();
    let mut line = vec![b'x'; usize::try_from(size).unwrap()];
    *line.last_mut().unwrap() = b'\n';
    writer.write_all(&line).unwrap();
    (Writer::new(writer, note), BufReader::new(reader))
}

#[test]
fn file_that_hangs_costs_no_time_and_bounded_memory() {
    let (mut writer, mut reader) = full(Some(note));
    let line = |number: u64| format!("{number:06} {}\n", "x".repeat(1_000)).into_bytes();
    let mut count = 0;
    while writer.lost() < 100 {
        writer.push(line(count));
        count += 1;
    }
    assert!(!writer.is_idle());
    writer.flush(Instant::now());
    assert!(writer.shared.lock().bytes <= ROOM);
    assert!(matches!(writer.news(), Some(News::Losing(_))));
    assert!(writer.news().is_none());
    // Read on, it goes on, and says where the gap is.
    let mut expected = 0;
    let mut text = String::new();
    reader.read_line(&mut text).unwrap();
    while expected < count {
        text.clear();
        reader.read_line(&mut text).unwrap();
        match text.trim_end().strip_prefix("lost: ") {
            Some(lost) => expected += lost.parse::<u64>().unwrap(),
            None => {
                assert_eq!(text.as_bytes(), line(expected));
                expected += 1;
            }
        }
        if expected == count - 100 {
            // All that waited is out: there is room for a line behind the gap.
            writer.push(line(count));
            count += 1;
        }
    }
    writer.flush(soon());
    assert!(writer.is_idle());
    assert!(matches!(writer.news(), Some(News::Back(100))));
    assert!(writer.news().is_none());
}

#[test]
fn full_device_is_told_once_with_its_error() {
    let full = OpenOptions::new().write(true).open("/dev/full").unwrap();
    let mut writer = Writer::new(full, None);
    for _ in 0..3 {
        writer.push(b"line\n".to_vec());
    }
    writer.flush(soon());
    assert_eq!(writer.lost(), 3);
    let news = writer.news();
    assert!(
        matches!(&news, Some(News::Losing(error)) if error.raw_os_error() == Some(libc::ENOSPC)),
        "{news:?}"
    );
    assert!(writer.news().is_none());
}

#[test]
fn lines_that_wait_when_it_is_dropped_are_written() {
    let (mut writer, reader) = stuck(None);
    for number in 0..1_000 {
        writer.push(format!("{number} {}\n", "x".repeat(200)).into_bytes());
    }
    drop(writer);
    let lines = reader.lines().take(1_000);
    assert_eq!(lines.filter(|line| line.is_ok()).count(), 1_000);
}

#[test]
fn nothing_waits_in_a_fresh_one() {
    let (writer, _reader) = stuck(None);
    writer.flush(Instant::now());
    assert!(writer.is_idle());
    assert!(!writer.started);
}
