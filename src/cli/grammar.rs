//! What the options are called, and everything that is said about them.

use getopts::{Fail, Options};

use super::Usage;

/// Every option with its line of help; the long names are those that [`super::parse`] asks
/// for.
#[rustfmt::skip] // one line an option reads as a table
pub(super) fn grammar() -> Options {
    let mut grammar = Options::new();
    grammar
        .optopt("a", "listen-address", "listen on this IP address; write a link-local one with its interface: fe80::1%eth0", "ADDRESS")
        .optopt("p", "listen-port", "listen on this TCP port; 0: the kernel picks a free one", "PORT")
        .optopt("b", "listen-backlog", "let so many connections wait to be accepted (default 4096)", "COUNT")
        .optopt("i", "idle-timeout", "close a peer that is silent for SEC seconds (default: never)", "SEC")
        .optopt("t", "takeover-path", "offer a takeover at this Unix socket", "PATH")
        .optopt("T", "takeover", "take over from the process that offers it at PATH, and offer the next one there", "PATH")
        .optmulti("", "deadline", "limit a step of a takeover to MS milliseconds; repeatable; the defaults are hello=2000, preload=30000, freeze=1000, end=100, claim=50, drain=600000", "STEP=MS")
        .optflag("", "check-positions", "compare each connection's state with its socket, on this side of a takeover; a takeover that would lose or double a byte is given up")
        .optflag("", "any-netns", "with -T: take over even if the donor is in another network namespace")
        .optflag("d", "daemon", "run in the background; the command returns once the service serves")
        .optopt("P", "pid-file", "keep the process id in FILE, locked; HUP makes FILE again if it was removed", "FILE")
        .optopt("", "report", "append a line of JSON to FILE for each takeover, done or failed; FILE may be a FIFO", "FILE")
        .optopt("S", "log-facility", "log to syslog as daemon (the default), user, or local0 to local7, for short 0 to 7", "NAME")
        .optflag("G", "no-syslog", "do not log to syslog")
        .optflag("l", "log-console", "log to stderr too, with -d")
        .optflagmulti("v", "verbose", "log each peer; given twice: each message too")
        .optflag("V", "version", "print the versions and exit")
        .optflag("h", "help", "print this help and exit");
    grammar
}

/// What getopts found wrong, in our words.
pub(super) fn misspelt(fail: Fail) -> Usage {
    let (name, why, remedy) = match fail {
        Fail::ArgumentMissing(name) => (name, "needs a value", "add it behind the option"),
        Fail::UnrecognizedOption(name) => {
            (name, "there is no such option", "--help lists them all")
        }
        Fail::OptionDuplicated(name) => (name, "is given more than once", "keep the one you mean"),
        Fail::UnexpectedArgument(name) => (
            name,
            "takes no value",
            "remove the \"=\" and what follows it",
        ),
        Fail::OptionMissing(name) => (name, "is missing", "add it"),
    };
    let dashes = if name.chars().count() == 1 { "-" } else { "--" };
    Usage::new(
        format!("option {dashes}{}", name.escape_debug()),
        why,
        remedy,
    )
}

/// The text of `--help`.
pub fn help() -> String {
    let options = grammar().usage_with_format(|lines| lines.collect::<Vec<_>>().join("\n"));
    format!(
        "\
Usage: socket-takeover -a ADDRESS -p PORT [-t PATH] [OPTION]...
       socket-takeover -T PATH [OPTION]...

Echoes 4-byte sequence numbers over TCP. Hands its listener and all its
connections to a successor, and no client notices.

Options:
{options}

Examples:
  Start a server that can be taken over:
    socket-takeover -a 127.0.0.1 -p 1234 -t /run/echo.sock
  Replace it while it serves, as often as you like:
    socket-takeover -T /run/echo.sock
  The same as daemons, with a pid file that follows the owner:
    socket-takeover -d -P /run/echo.pid -a :: -p 1234 -t /run/echo.sock
    socket-takeover -d -P /run/echo.pid -T /run/echo.sock
  Give up a takeover rather than let a client wait for more than 30 ms:
    socket-takeover -a :: -p 7 -t /run/x --deadline end=20 --deadline claim=9
  Replace a running server of the original C program, as root. A client that
  stays within a message for 3 s is ended; all others are kept:
    socket-takeover -T /tmp/.takeover --deadline freeze=3000

Put PATH into a folder of the service's own below /run, not into /tmp: other
users could touch it there, and programs that clean /tmp take it for a dead
socket. If PATH is removed, the service makes it anew within a second. A
takeover needs /proc to be mounted, and so does -d.

Exit codes:
   0  stopped as asked, or handed over
   1  failed
   2  the command line is wrong
  69  -T: no donor has answered at PATH within two seconds
  75  -T: refused, busy or rolled back; the donor still serves, a retry is safe
  76  -T: the donor speaks another version; it still serves
"
    )
}

/// The text of `--version`. `wire` is the version of the records that donor and taker
/// exchange, `state` that of what is said about a peer; the commit is known if
/// SOCKET_TAKEOVER_GIT was set at build time.
pub fn version(wire: u16, state: u16) -> String {
    let release = env!("CARGO_PKG_VERSION");
    let commit = match option_env!("SOCKET_TAKEOVER_GIT") {
        Some(commit) => format!(" ({commit})"),
        None => String::new(),
    };
    format!("socket-takeover {release}{commit}\nwire version {wire}, state version {state}\n")
}
