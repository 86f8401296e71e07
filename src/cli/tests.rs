//! What is accepted and what comes out of it. What is refused is tested with the real
//! binary (tests/service/cli.rs), except for what no process can be given.

use super::*;

fn parsed(line: &str) -> Result<Command, Usage> {
    parse(
        &line
            .split_whitespace()
            .map(OsString::from)
            .collect::<Vec<_>>(),
    )
}

fn options(line: &str) -> Options {
    match parsed(line) {
        Ok(Command::Run(options)) => *options,
        other => panic!("{line}: {other:?}"),
    }
}

fn refusal(args: &[&str]) -> String {
    parse(&args.iter().map(OsString::from).collect::<Vec<_>>())
        .unwrap_err()
        .to_string()
}

#[test]
fn cold_start_with_defaults() {
    let options = options("-a 127.0.0.1 -p 1234");
    assert_eq!(
        options.role,
        Role::Serve {
            listen: "127.0.0.1:1234".parse().unwrap(),
            backlog: 4096,
            idle_timeout: None,
            path: None,
        }
    );
    assert_eq!(options.deadlines, Deadlines::default());
    assert_eq!(options.syslog.unwrap() as u8, Facility::LOG_DAEMON as u8);
    assert_eq!(options.level, LevelFilter::Info);
    assert_eq!(options.pid_file, None);
    assert!(!options.daemon && !options.console && !options.check_positions);
}

#[test]
fn cold_start_with_everything_in_each_spelling() {
    let short = "-a ::1 -p 0 -b 7 -i 30 -t /run/x -d -P /run/p -S local3 -l -vv \
                 --deadline hello=1 --deadline preload=2 --deadline freeze=3 --deadline end=5 \
                 --deadline claim=4 --deadline drain=3600000";
    let long = "--listen-address=::1 --listen-port=0 --listen-backlog=7 --idle-timeout=30 \
                --takeover-path=/run/x --daemon --pid-file=/run/p --log-facility=3 \
                --log-console --verbose --verbose --deadline=drain=3600000 \
                --deadline=claim=4 --deadline=freeze=3 --deadline=end=5 --deadline=preload=2 --deadline=hello=1";
    let apart = "--listen-address ::1 --listen-port 0 --listen-backlog 7 --idle-timeout 30 \
                 --takeover-path /run/x -dl -P/run/p -Slocal3 -v -v -v --deadline hello=1 \
                 --deadline preload=2 --deadline freeze=3 --deadline end=5 --deadline claim=4 \
                 --deadline drain=3600000";
    for line in [short, long, apart] {
        let options = options(line);
        assert_eq!(
            options.role,
            Role::Serve {
                listen: "[::1]:0".parse().unwrap(),
                backlog: 7,
                idle_timeout: Some(Duration::from_secs(30)),
                path: Some(TakeoverPath::new("/run/x").unwrap()),
            }
        );
        assert_eq!(
            options.deadlines,
            Deadlines {
                hello: Duration::from_millis(1),
                preload: Duration::from_millis(2),
                freeze: Duration::from_millis(3),
                end: Duration::from_millis(5),
                claim: Duration::from_millis(4),
                drain: Duration::from_secs(3600),
            }
        );
        assert_eq!(options.syslog.unwrap() as u8, Facility::LOG_LOCAL3 as u8);
        assert_eq!(options.level, LevelFilter::Trace);
        assert_eq!(options.pid_file, Some(PathBuf::from("/run/p")));
        assert!(options.daemon && options.console);
    }
}

#[test]
fn takeover_with_what_it_may_choose() {
    let options = options("-T /run/x -d -P /run/p -S 0 -v --deadline freeze=500 --check-positions");
    assert!(options.check_positions);
    assert_eq!(
        options.role,
        Role::TakeOver {
            path: TakeoverPath::new("/run/x").unwrap()
        }
    );
    assert_eq!(options.deadlines.freeze, Duration::from_millis(500));
    assert_eq!(options.level, LevelFilter::Debug);
}

#[test]
fn limits_of_values_are_accepted() {
    options("-a 0.0.0.0 -p 65535 -b 1 -i 1 --deadline hello=1");
    options(&format!(
        "-a :: -p 00080 -b {} -i 604800 --deadline hello=3600000",
        i32::MAX
    ));
    options(&format!("-T /{}", "x".repeat(106)));
    // A name in the abstract space would have no permissions: it is a plain file here.
    options("-T @x");
}

#[test]
fn relative_paths_are_accepted() {
    for line in [
        "-a :: -p 0 -t x.sock -P x.pid",
        "-d -a :: -p 0 -t x.sock -P x.pid",
    ] {
        assert_eq!(options(line).pid_file, Some(PathBuf::from("x.pid")));
    }
}

#[test]
fn no_syslog_is_accepted_where_there_is_a_console() {
    assert!(options("-a :: -p 0 -G").syslog.is_none());
    assert!(options("-a :: -p 0 -G -d -l").syslog.is_none());
}

#[test]
fn help_and_version_win_over_what_is_missing() {
    assert!(matches!(parsed("-h"), Ok(Command::Help)));
    assert!(matches!(
        parsed("-T /x -a :: --help operand"),
        Ok(Command::Help)
    ));
    assert!(matches!(parsed("-V"), Ok(Command::Version)));
    assert!(parsed("-h --no-such-option").is_err());
}

#[test]
fn help_lists_every_option_and_step() {
    let help = help();
    for word in [
        "-a, --listen-address ADDRESS",
        "-p, --listen-port PORT",
        "-b, --listen-backlog COUNT",
        "-i, --idle-timeout SEC",
        "-t, --takeover-path PATH",
        "-T, --takeover PATH",
        "--deadline STEP=MS",
        "-d, --daemon",
        "-P, --pid-file FILE",
        "-S, --log-facility NAME",
        "-G, --no-syslog",
        "-l, --log-console",
        "-v, --verbose",
        "-V, --version",
        "-h, --help",
        "hello=2000",
        "preload=30000",
        "freeze=1000",
        "end=100",
        "claim=50",
        "drain=600000",
    ] {
        assert!(help.contains(word), "{word} in\n{help}");
    }
}

#[test]
fn examples_of_the_help_are_accepted() {
    let help = help();
    let examples: Vec<_> = help
        .lines()
        .filter_map(|line| line.strip_prefix("    socket-takeover "))
        .collect();
    assert_eq!(examples.len(), 6);
    for example in examples {
        options(example);
    }
}

#[test]
fn version_names_release_and_formats() {
    let version = version(3, 4);
    assert!(version.starts_with(concat!("socket-takeover ", env!("CARGO_PKG_VERSION"))));
    assert!(version.ends_with("\nwire version 3, state version 4\n"));
}

#[test]
fn nul_in_a_name_is_refused() {
    assert!(refusal(&["-T", "/run/a\0b"]).contains("NUL"));
    assert!(refusal(&["-a", "::", "-p", "0", "-P", "/run/a\0b"]).contains("NUL"));
}

#[test]
fn refusal_shows_control_characters_escaped() {
    for args in [
        ["-a", "1\n2\x1b[2J"],
        ["-T", "/a\nb/"],
        ["--deadline", "a\nb"],
        ["-\n", ""],
    ] {
        let line = refusal(&args);
        assert!(!line.chars().any(char::is_control), "{line:?}");
    }
}
