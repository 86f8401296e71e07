//! A chain of takeovers with connections: who serves now is replaced, again and again.

use std::error::Error;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use crate::cli::Options;
use crate::clients::Clients;
use crate::process::{Process, port_in};

/// What one takeover took.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Took {
    pub(crate) freeze: Duration,
    /// From the successor's start to the old process's exit.
    pub(crate) whole: Duration,
    /// Of the floor: to pass, validate and register everything.
    pub(crate) passed: Duration,
    /// Items of the final array.
    pub(crate) last: u64,
    /// When the successor was told everything, in ns of CLOCK_MONOTONIC: from, to.
    pub(crate) preload: (u64, u64),
}

/// What happens to the connections once their first copies are out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Stir {
    Nothing,
    /// A whole message on each so many-th connection.
    Touch(usize),
    /// A byte on every connection: each state changes.
    Split,
    /// So many messages a second, all the time.
    Rate(u32),
}

/// The floor's chain, or the product's.
pub(crate) struct Chain {
    /// Dropped first: its connections end before whoever serves them.
    clients: Clients,
    owner: Process,
    folder: tempfile::TempDir,
    /// None for the floor.
    service: Option<PathBuf>,
}

impl Chain {
    /// The floor with so many silent connections.
    pub(crate) fn floor(count: usize) -> Result<Chain, Box<dyn Error>> {
        let folder = tempfile::tempdir()?;
        let mut command = Command::new(std::env::current_exe()?);
        command.arg("pair").arg(folder.path().join("path"));
        let owner = Process::start(command.arg(count.to_string()))?;
        let port = port_in(&owner.line("[127.0.0.1]:")?)?;
        let clients = Clients::connect(port, count, "silent")?;
        owner.line("all accepted")?;
        Ok(Chain {
            folder,
            service: None,
            owner,
            clients,
        })
    }

    /// The service with so many connections, each of which has talked once.
    pub(crate) fn service(count: usize, options: &Options) -> Result<Chain, Box<dyn Error>> {
        let folder = tempfile::tempdir()?;
        let service = match &options.service {
            Some(file) => file.clone(),
            None => std::env::current_exe()?.with_file_name("socket-takeover"),
        };
        let mut command = Command::new(&service);
        command.args(["-a", "127.0.0.1", "-p", "0", "--no-syslog", "-t"]);
        let owner = Process::start(command.arg(folder.path().join("path")))?;
        let port = port_in(&owner.line("[127.0.0.1]:")?)?;
        owner.line("Starting Takeover channel")?;
        let clients = Clients::connect(port, count, "talking")?;
        Ok(Chain {
            folder,
            service: Some(service),
            owner,
            clients,
        })
    }

    /// Replaces who serves, while `stir` happens.
    pub(crate) fn takeover(&mut self, stir: Stir) -> Result<Took, Box<dyn Error>> {
        let path = self.folder.path().join("path");
        let report = self.folder.path().join("report");
        let began = Instant::now();
        let mut next = match &self.service {
            None => {
                let mut command = Command::new(std::env::current_exe()?);
                command.stdout(fs::File::create(&report)?);
                Process::start(command.arg("pair").arg(path))?
            }
            Some(service) => {
                let mut command = Command::new(service);
                command.args(["--no-syslog", "-T"]).arg(path);
                Process::start(command.arg("--report").arg(&report))?
            }
        };
        if stir != Stir::Nothing && !matches!(stir, Stir::Rate(_)) {
            self.owner.line("Current fd_array")?;
            self.clients.order(&stir.order())?;
        }
        std::mem::swap(&mut next, &mut self.owner);
        let old = next;
        let code = old.wait()?;
        let whole = began.elapsed();
        if !code.success() {
            return Err(format!("the old process left with {code}").into());
        }
        if stir != Stir::Nothing && !matches!(stir, Stir::Rate(_)) {
            self.clients.answer()?;
        }
        let took = match &self.service {
            None => floor_figures(&last_line(&report)?, whole)?,
            Some(_) => service_figures(&last_line(&report)?, whole)?,
        };
        fs::remove_file(&report)?;
        Ok(took)
    }

    /// Lets the clients begin or end a steady load.
    pub(crate) fn rate(&mut self, messages: u32) -> Result<(), Box<dyn Error>> {
        self.clients.order(&Stir::Rate(messages).order())?;
        self.clients.answer().map(drop)
    }

    /// How long answers took to messages that were sent within these moments, in ns.
    pub(crate) fn times(&mut self, (from, to): (u64, u64)) -> Result<Vec<f64>, Box<dyn Error>> {
        self.clients.order(&format!("times {from} {to}"))?;
        let line = self.clients.answer()?;
        let words = line.split_whitespace();
        Ok(words.map(str::parse).collect::<Result<_, _>>()?)
    }
}

impl Stir {
    fn order(self) -> String {
        match self {
            Stir::Nothing => String::new(),
            Stir::Touch(each) => format!("touch {each}"),
            Stir::Split => "split".into(),
            Stir::Rate(messages) => format!("rate {messages}"),
        }
    }
}

/// How long a report may take to be written: a thread does it, behind everything else.
const WRITTEN: Duration = Duration::from_secs(5);

/// The last line of the report, once it is there as a whole.
fn last_line(report: &Path) -> Result<String, Box<dyn Error>> {
    let end = Instant::now() + WRITTEN;
    loop {
        let said = fs::read_to_string(report)?;
        if let Some(lines) = said.strip_suffix('\n') {
            return Ok(lines.lines().last().unwrap_or_default().to_owned());
        }
        if Instant::now() > end {
            return Err(format!("no report within {WRITTEN:?}").into());
        }
        thread::sleep(Duration::from_millis(1));
    }
}

fn floor_figures(line: &str, whole: Duration) -> Result<Took, Box<dyn Error>> {
    let (freeze, passed) = line.split_once(' ').ok_or("no figures")?;
    Ok(Took {
        freeze: Duration::from_nanos(freeze.parse()?),
        passed: Duration::from_nanos(passed.parse()?),
        whole,
        last: 0,
        preload: (0, 0),
    })
}

/// From the successor's report, a line of JSON of which every key is unique.
fn service_figures(line: &str, whole: Duration) -> Result<Took, Box<dyn Error>> {
    let value = |key: &str| -> Result<u64, Box<dyn Error>> {
        let (_, rest) = line
            .split_once(&format!("\"{key}\":"))
            .ok_or_else(|| format!("no {key} in {line}"))?;
        Ok(rest.split([',', '}']).next().unwrap_or_default().parse()?)
    };
    Ok(Took {
        freeze: Duration::from_nanos(value("freeze_ns")?),
        passed: Duration::ZERO,
        whole,
        last: value("new")? + value("closed")? + value("changed")?,
        preload: (value("welcome_at")?, value("prepare_at")?),
    })
}
