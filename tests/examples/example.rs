//! What the tests of the examples share: an example as a process, its successors, and load.
//!
//! | file | what it has |
//! |---|---|
//! | `datagrams.rs` | [`Datagrams`], requests over UDP, each to be answered once |
//! | `exchange.rs` | [`Exchange`], conversations over TCP, every byte checked |
//! | `progress.rs` | [`Progress`], what a load has done, and waiting for more |

// Each test binary uses a part of it.
#![allow(dead_code, unused_imports, unreachable_pub)]

mod datagrams;
mod exchange;
mod progress;

use std::ffi::OsStr;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::Command;

use crate::support::{Server, Stage};

pub use datagrams::Datagrams;
pub use exchange::{Exchange, connect};
pub use progress::Progress;

/// How often each example is taken over.
pub const TAKEOVERS: u64 = 5;

/// An example, with the folder in which its generations live.
#[derive(Debug)]
pub struct Example {
    name: &'static str,
    pub stage: Stage,
    /// The limit of open files of each generation, which none of them can raise.
    pub nofile: Option<usize>,
}

impl Example {
    pub fn new(name: &'static str) -> Example {
        Example {
            name,
            stage: Stage::new(),
            nofile: None,
        }
    }

    /// A cold start that offers takeovers; it serves when this returns.
    pub fn serve<A: AsRef<OsStr>>(&self, args: &[A]) -> Server {
        let server = self.cold_start(args);
        server.wait_line("open");
        server
    }

    /// A cold start, as soon as it is started.
    pub fn cold_start<A: AsRef<OsStr>>(&self, args: &[A]) -> Server {
        let path = self.stage.path();
        Server::spawn(self.command().arg("-t").arg(path).args(args))
    }

    /// A successor, as soon as it is started.
    pub fn take_over(&self) -> Server {
        Server::spawn(self.command().arg("-T").arg(self.stage.path()))
    }

    /// A whole takeover: the successor serves and `donor` has exited with 0.
    pub fn replace(&self, donor: &mut Server) -> Server {
        let taker = self.take_over();
        taker.wait_line("taken over from ");
        assert_eq!(donor.wait_exit(), 0, "the donor's exit code");
        taker
    }

    /// [`TAKEOVERS`] in a row, each under a load of which `progress` tells; returns the last
    /// owner. After each takeover the load has to come on before the next.
    pub fn replace_often(&self, mut server: Server, progress: &Progress) -> Server {
        for generation in 1..=TAKEOVERS {
            server = self.replace(&mut server);
            server.wait_line(&format!("generation={generation} "));
            progress.wait_for_more(100);
        }
        server
    }

    /// Its binary, which cargo builds beside the test's own: `target/PROFILE/deps/TEST` and
    /// `target/PROFILE/examples/NAME`.
    fn command(&self) -> Command {
        let test = std::env::current_exe().expect("a test has a file");
        let profile = test.ancestors().nth(2).expect("it is in deps");
        let binary: PathBuf = profile.join("examples").join(self.name);
        assert!(
            binary.is_file(),
            "{binary:?} is missing: cargo build --examples"
        );
        let Some(nofile) = self.nofile else {
            return Command::new(binary);
        };
        let script = format!("ulimit -n {nofile} && exec \"$0\" \"$@\"");
        let mut limited = Command::new("sh");
        limited.arg("-c").arg(script).arg(binary);
        limited
    }
}

/// The addresses that the line "serving on …" names, in their order.
pub fn addresses(server: &Server) -> Vec<SocketAddr> {
    let line = server.wait_line("serving on ");
    let words = line.split([' ', ',']);
    words.filter_map(|word| word.parse().ok()).collect()
}
