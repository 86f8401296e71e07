//! What is common to both sinks, and how one speaks of the other.

use std::io::{self, BufRead, BufReader, PipeReader};
use std::os::unix::net::UnixDatagram;

use super::*;

/// A log with a console that the test reads, and syslog at `path`.
fn logging(level: LevelFilter, path: Option<&Path>) -> (Logging, BufReader<PipeReader>) {
    let (reader, writer) = io::pipe().unwrap();
    let syslog = path.map(|path| SyslogSink::at(path, Facility::LOG_USER));
    let logging = Logging::new(ConsoleSink::on(writer.into()), level, syslog);
    (logging, BufReader::new(reader))
}

fn say(logging: &Logging, level: Level, text: &str) {
    let text = escaped(text);
    logging.sinks().write(&Line {
        at: Instant::now(),
        level,
        text: &text,
    });
}

fn next(reader: &mut BufReader<PipeReader>) -> String {
    let mut line = String::new();
    reader.read_line(&mut line).unwrap();
    line
}

#[test]
fn control_characters_are_escaped() {
    assert_eq!(escaped("plain ü ✓ \\n"), "plain ü ✓ \\n");
    assert_eq!(escaped("a\nb\r\tc\0"), "a\\nb\\r\\tc\\u{0}");
    assert_eq!(escaped("\x1b[2J\u{7f}\u{9b}"), "\\u{1b}[2J\\u{7f}\\u{9b}");
}

#[test]
fn long_text_is_cut_at_a_character() {
    let limit = "x".repeat(TEXT_BYTES);
    assert_eq!(escaped(&limit), limit);
    assert_eq!(escaped(&format!("{limit}x")), format!("{limit}…"));
    for text in [
        "ü".repeat(5_000),
        "\n".repeat(5_000),
        format!("x{}", "✓".repeat(5_000)),
    ] {
        let line = escaped(&text);
        assert!(line.len() <= TEXT_BYTES + '…'.len_utf8());
        assert!(line.len() > TEXT_BYTES - 10);
        assert!(line.ends_with('…'));
    }
}

#[test]
fn syslog_that_is_missing_is_one_warning_on_the_console() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("log");
    let (log, mut console) = logging(LevelFilter::Info, Some(&path));
    say(&log, Level::Info, "one");
    say(&log, Level::Info, "two");
    assert_eq!(
        log.lost(),
        Lost {
            console: 0,
            syslog: 2
        }
    );

    let daemon = UnixDatagram::bind(&path).unwrap();
    log.reopen();
    say(&log, Level::Info, "three");
    drop(log);
    assert_eq!(next(&mut console), "one\n");
    let warning = next(&mut console);
    assert!(
        warning.starts_with("warning: syslog takes no lines (No such file"),
        "{warning}"
    );
    assert_eq!(next(&mut console), "two\n");
    assert_eq!(next(&mut console), "three\n");
    assert_eq!(next(&mut console), "syslog takes lines again\n");
    assert_eq!(next(&mut console), "");
    for expected in ["log lines lost here: 2", "three"] {
        let mut room = [0; 256];
        let length = daemon.recv(&mut room).unwrap();
        let datagram = str::from_utf8(&room[..length]).unwrap();
        assert!(datagram.ends_with(&format!(": {expected}")), "{datagram}");
    }
}

#[test]
fn console_of_a_starting_daemon_gets_warnings_only() {
    let (log, mut console) = logging(LevelFilter::Warn, None);
    say(&log, Level::Info, "no");
    say(&log, Level::Warn, "w");
    say(&log, Level::Error, "e");
    drop(log);
    assert_eq!(next(&mut console), "warning: w\n");
    assert_eq!(next(&mut console), "error: e\n");
    assert_eq!(next(&mut console), "");
}

#[test]
fn record_whose_arguments_log_themselves_does_not_deadlock() {
    struct Chatty<'a>(&'a Logging);
    impl std::fmt::Display for Chatty<'_> {
        fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
            say(self.0, Level::Info, "inner");
            f.write_str("outer")
        }
    }
    let (log, mut console) = logging(LevelFilter::Info, None);
    // Without an installed logger the facade's limit is Off; errors pass by setting it.
    log::set_max_level(LevelFilter::Info);
    log.log(
        &Record::builder()
            .level(Level::Info)
            .args(format_args!("{}", Chatty(&log)))
            .build(),
    );
    drop(log);
    assert_eq!(next(&mut console), "inner\n");
    assert_eq!(next(&mut console), "outer\n");
}
