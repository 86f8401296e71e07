use super::*;

fn parse_words(words: &str) -> Result<Request, String> {
    let words: Vec<OsString> = words.split_whitespace().map(OsString::from).collect();
    parse(words)
}

fn options(words: &str) -> Options {
    match parse_words(&format!("-a 127.0.0.1 -p 1234 {words}")) {
        Ok(Request::Run(options)) => *options,
        other => panic!("{words}: {other:?}"),
    }
}

fn error(words: &str) -> String {
    match parse_words(words) {
        Err(line) => line,
        Ok(other) => panic!("{words}: {other:?}"),
    }
}

#[test]
fn address_and_port_alone_are_the_originals_client() {
    let options = options("");
    assert_eq!(options.target, "127.0.0.1:1234".parse().unwrap());
    assert_eq!((options.connections, options.depth), (1, OPEN_DEPTH));
    assert_eq!(options.load, Load::Open { rate: None });
    assert_eq!(options.duration, None);
    assert_eq!(options.drain_timeout, Duration::from_secs(5));
}

#[test]
fn both_spellings_of_a_value_mean_the_same() {
    let spaced = options("--connections 5 --max-gap 1.5 --source 127.0.0.1,127.0.0.9");
    let joined = options("--connections=5 --max-gap=1.5 --source=127.0.0.1,127.0.0.9");
    assert_eq!(spaced, joined);
    assert_eq!(spaced.max_gap, Some(Duration::from_micros(1500)));
    assert_eq!(spaced.sources.len(), 2);
    assert_eq!(options("-c5 -D3"), options("-c 5 --depth=3"));
}

#[test]
fn closed_loop_has_depth_one_unless_told() {
    assert_eq!(options("--closed").depth, 1);
    assert_eq!(options("--closed -D 16").depth, 16);
    assert_eq!(options("--closed").load, Load::Closed);
}

#[test]
fn sources_count_up_from_the_first_loopback_address() {
    let expected: Vec<IpAddr> = ["127.0.0.1", "127.0.0.2", "127.0.0.3"]
        .iter()
        .map(|it| it.parse().unwrap())
        .collect();
    assert_eq!(options("--sources 3").sources, expected);
}

#[test]
fn help_and_version_win_over_what_is_missing() {
    assert!(matches!(parse_words("--help"), Ok(Request::Help)));
    assert!(matches!(parse_words("-h"), Ok(Request::Help)));
    assert!(matches!(parse_words("-V"), Ok(Request::Version)));
}

#[test]
fn help_names_every_flag_that_the_parser_takes() {
    let source = concat!(include_str!("../cli.rs"), include_str!("commands.rs"));
    let longs = source
        .split("Arg::Long(\"")
        .skip(1)
        .filter_map(|rest| rest.split('"').next());
    let mut count = 0;
    for long in longs {
        assert!(HELP.contains(&format!("--{long}")), "--{long}");
        count += 1;
    }
    assert!(count > 20, "{count}");
}

#[test]
fn bad_input_is_one_line_that_names_flag_and_remedy() {
    for (words, parts) in [
        ("", ["-a ADDRESS", "-p PORT"]),
        ("-a 127.0.0.1", ["-a ADDRESS", "-p PORT"]),
        (
            "-a nowhere -p 1",
            ["-a/--address \"nowhere\"", "127.0.0.1 or ::1"],
        ),
        ("-a ::1 -p 0", ["-p/--port \"0\"", "1 to 65535"]),
        ("-a ::1 -p 65536", ["-p/--port", "1 to 65535"]),
        ("-a ::1 -p 1 -c 0", ["-c/--connections \"0\"", "from 1"]),
        ("-a ::1 -p 1 -c 1.5", ["-c/--connections", "whole number"]),
        ("-a ::1 -p 1 -D 0", ["-D/--depth", "from 1"]),
        ("-a ::1 -p 1 -R 0", ["-R/--rate", "a second"]),
        ("-a ::1 -p 1 -R 1e9", ["-R/--rate", "or --closed"]),
        ("join", ["join which", "--save"]),
        ("plot --report x", ["plot what", "--trace"]),
        ("-a ::1 -p 1 -R nan", ["-R/--rate", "a second"]),
        ("-a ::1 -p 1 -d -1", ["-d/--duration", "seconds"]),
        ("-a ::1 -p 1 -d inf", ["-d/--duration", "seconds"]),
        ("-a ::1 -p 1 --max-gap x", ["--max-gap", "milliseconds"]),
        ("-a ::1 -p 1 --idle 101", ["--idle", "0 to 100"]),
        (
            "-a ::1 -p 1 --idle 50 --half 51",
            ["add up to 101", "lower"],
        ),
        ("-a ::1 -p 1 --closed -R 5", ["--closed and -R", "drop one"]),
        (
            "-a ::1 -p 1 --source 127.0.0.1",
            ["--source 127.0.0.1", "same family"],
        ),
        ("-a ::1 -p 1 --source a,b", ["--source", "list of IP"]),
        ("-a ::1 -p 1 --sources 2", ["--sources", "--source A,B"]),
        ("-a 127.0.0.1 -p 1 --sources 255", ["--sources", "1 to 254"]),
        (
            "-a 127.0.0.1 -p 1 --sources 2 --source 127.0.0.1",
            ["--source and --sources", "drop"],
        ),
        ("-a ::1 -p 1 -q -v", ["-q and -v", "drop"]),
        ("-a ::1 -p 1 --seed -1", ["--seed", "whole number"]),
        ("-a ::1 -p", ["-p", "--help"]),
        ("-a ::1 -p 1 --frob", ["--frob", "--help"]),
        ("-a ::1 -p 1 --json=yes", ["--json", "--help"]),
        ("-a ::1 -p 1 stray", ["stray", "--help"]),
    ] {
        let line = error(words);
        assert!(!line.contains('\n'), "{words}: {line}");
        for part in parts {
            assert!(line.contains(part), "{words}: {line:?} lacks {part:?}");
        }
    }
}

#[test]
fn value_that_is_not_text_is_refused_not_a_panic() {
    use std::os::unix::ffi::OsStringExt;
    let bad = OsString::from_vec(vec![0xff]);
    let line = parse(["-a".into(), bad]).unwrap_err();
    assert!(line.contains("--address"), "{line}");
}
