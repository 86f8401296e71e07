//! One shard: an instance of the service, known by its files in the folder.

use std::ffi::OsStr;
use std::fs::{self, OpenOptions};
use std::io::{self, ErrorKind};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, PidfdFlags, pidfd_open};
use serde_json::Value;

use crate::owner::{NoOwner, Owner, ended_within};

/// Exit code of a successor that was refused or rolled back: the old process still serves.
const DONOR_SERVES: i32 = 75;
/// And of one that speaks another version, likewise.
const OTHER_VERSION: i32 = 76;
/// How long the service's command may take to return: several times what its own deadlines add
/// up to. One that has not returned may serve already, so it is left alone.
const RETURNS_WITHIN: Duration = Duration::from_secs(120);
/// How long a shard that was told to stop may take.
const STOPS_WITHIN: Duration = Duration::from_secs(30);

/// Where a shard's files are.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Shard {
    /// The folder, with the shard's name.
    stem: PathBuf,
}

/// What a takeover moved and how long that took, as the successor reported.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Moved {
    /// Items that the successor has now; all but three or four are connections.
    pub items: u64,
    /// How long nobody served.
    pub freeze: Duration,
    /// From the start of the successor's command to its return.
    pub whole: Duration,
    /// Takeovers since the shard's cold start.
    pub generation: u64,
}

/// Why a shard was not replaced.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refused {
    /// The successor's exit code, if it was no signal.
    pub code: Option<i32>,
    /// Its last words.
    pub why: String,
}

impl Refused {
    /// Whether the old process still serves for certain.
    #[must_use]
    pub fn is_safe(&self) -> bool {
        matches!(self.code, Some(DONOR_SERVES | OTHER_VERSION))
    }

    /// With what was known of the shard before.
    fn because(self, nobody: &NoOwner) -> Refused {
        Refused {
            why: format!("{}; {nobody}", self.why),
            ..self
        }
    }
}

impl Shard {
    /// A shard of this name.
    #[must_use]
    pub fn new(folder: &Path, name: &str) -> Shard {
        let stem = folder.join(name);
        Shard { stem }
    }

    /// Its name.
    #[must_use]
    pub fn name(&self) -> String {
        let name = self.stem.file_name().unwrap_or_default();
        name.to_string_lossy().into_owned()
    }

    /// Its file of this kind: `sock`, `pid`, `log` or `report`.
    #[must_use]
    pub fn file(&self, kind: &str) -> PathBuf {
        self.stem.with_extension(kind)
    }

    /// The process that serves it now: it is named by the pid file, and holds its lock.
    ///
    /// # Errors
    /// Nobody, and why; or why that cannot be told.
    pub fn owner(&self) -> Result<Owner, NoOwner> {
        Owner::of(&self.file("pid"))
    }

    /// Its number, for people.
    ///
    /// # Errors
    /// As for [`Shard::owner`].
    pub fn pid(&self) -> io::Result<u32> {
        Ok(self.owner()?.pid())
    }

    /// Where it listens, as its first generation has logged.
    ///
    /// # Errors
    /// If there is no such line in its log.
    pub fn address(&self) -> io::Result<SocketAddr> {
        let log = fs::read_to_string(self.file("log"))?;
        let mut lines = log.lines().rev();
        let shown = lines.find_map(|line| line.split_once("Starting TCP server on ["));
        let (_, shown) = shown.ok_or(ErrorKind::NotFound)?;
        let (host, rest) = shown.split_once("]:").ok_or(ErrorKind::InvalidData)?;
        let port = rest.split(' ').next().unwrap_or_default();
        let host = host.parse().map_err(io::Error::other)?;
        Ok(SocketAddr::new(
            host,
            port.parse().map_err(io::Error::other)?,
        ))
    }

    /// Starts it; it serves when this returns.
    ///
    /// # Errors
    /// That somebody serves it already, or the service's own words.
    pub fn start(&self, service: &OsStr, listen: SocketAddr) -> Result<(), Refused> {
        if let Ok(owner) = self.owner() {
            let pid = owner.pid();
            return Err(Refused {
                code: None,
                why: format!("process {pid} serves it already; `roll` replaces it, `stop` ends it"),
            });
        }
        let mut command = self.command(service).map_err(cannot_run)?;
        let (address, port) = (listen.ip().to_string(), listen.port().to_string());
        command.args(["-a", &address, "-p", &port, "-t"]);
        self.run(command.arg(self.file("sock")))
    }

    /// Replaces it: the successor serves when this returns.
    ///
    /// # Errors
    /// The successor's own words, and its exit code.
    pub fn replace(&self, service: &OsStr) -> Result<Moved, Refused> {
        let began = Instant::now();
        let nobody = self.owner().err();
        let reported = length_of(&self.file("report"));
        let mut command = self.command(service).map_err(cannot_run)?;
        self.run(command.arg("-T").arg(self.file("sock")))
            .map_err(|refused| match nobody {
                Some(why) => refused.because(&why),
                None => refused,
            })?;
        let whole = began.elapsed();
        self.moved(reported, whole).map_err(|what| Refused {
            code: Some(0),
            why: format!("it serves, but its report is of no use: {what}"),
        })
    }

    /// As a daemon that logs to the shard's file.
    fn command(&self, service: &OsStr) -> io::Result<Command> {
        let mut log = OpenOptions::new();
        let log = log.append(true).create(true).open(self.file("log"))?;
        let mut command = Command::new(service);
        command
            .args(["-d", "-G", "-l", "-P"])
            .arg(self.file("pid"))
            .arg("--report")
            .arg(self.file("report"))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log);
        Ok(command)
    }

    fn run(&self, command: &mut Command) -> Result<(), Refused> {
        let said = length_of(&self.file("log"));
        let status = run_within(command, RETURNS_WITHIN).map_err(cannot_run)?;
        let Some(status) = status else {
            let (log, within) = (self.file("log"), RETURNS_WITHIN.as_secs());
            return Err(Refused {
                code: None,
                why: format!(
                    "the service has not said within {within} s whether it serves, and is left \
                     alone: see {}",
                    log.display()
                ),
            });
        };
        if status.success() {
            return Ok(());
        }
        let new = text_after(&self.file("log"), said).unwrap_or_default();
        // The donor's lines are there as well, and its last one is not what is looked for.
        let words = new.lines().rev().find(|line| line.contains("ERROR"));
        let words = words.or_else(|| new.lines().last()).unwrap_or_default();
        Err(Refused {
            code: status.code(),
            why: words.trim().to_owned(),
        })
    }

    /// From the last line that a successor has reported, behind what was there before.
    fn moved(&self, before: u64, whole: Duration) -> Result<Moved, String> {
        let text = text_after(&self.file("report"), before).map_err(|error| error.to_string())?;
        let lines = text.lines().rev();
        let active = lines
            .filter_map(|line| serde_json::from_str::<Value>(line).ok())
            .find(|line| line["outcome"] == "active")
            .ok_or("no takeover is in it")?;
        let number = |value: &Value| value.as_u64().ok_or("a number is missing");
        Ok(Moved {
            items: number(&active["items"]["moved"])?,
            freeze: Duration::from_nanos(number(&active["freeze_ns"])?),
            generation: number(&active["generation"])?,
            whole,
        })
    }
}

/// Runs it and waits for its end; `None` if that has not come by then.
fn run_within(command: &mut Command, longest: Duration) -> io::Result<Option<ExitStatus>> {
    let mut child = command.spawn()?;
    let pidfd = pidfd_open(Pid::from_child(&child), PidfdFlags::empty())?;
    if !ended_within(&pidfd, longest)? {
        return Ok(None);
    }
    child.wait().map(Some)
}

fn length_of(file: &Path) -> u64 {
    fs::metadata(file).map_or(0, |file| file.len())
}

fn text_after(file: &Path, before: u64) -> io::Result<String> {
    let bytes = fs::read(file)?;
    let new = bytes.get(before as usize..).unwrap_or_default();
    Ok(String::from_utf8_lossy(new).into_owned())
}

fn cannot_run(error: io::Error) -> Refused {
    Refused {
        code: None,
        why: format!("the service cannot be run: {error}"),
    }
}

/// Starts so many shards on ports that follow each other, or for port 0 on any.
///
/// # Errors
/// The first that does not start: its name, and why. Those before it serve.
pub fn start(
    folder: &Path,
    service: &OsStr,
    count: u16,
    first: SocketAddr,
) -> Result<Vec<Shard>, (String, Refused)> {
    let mut shards = Vec::new();
    for number in 0..count {
        let shard = Shard::new(folder, &format!("shard-{number:03}"));
        let mut listen = first;
        if first.port() != 0 {
            listen.set_port(first.port() + number);
        }
        shard
            .start(service, listen)
            .map_err(|refused| (shard.name(), refused))?;
        shards.push(shard);
    }
    Ok(shards)
}

/// All shards of a folder, by name.
///
/// # Errors
/// Those of reading the folder.
pub fn find(folder: &Path) -> io::Result<Vec<Shard>> {
    let mut shards = Vec::new();
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        if path.extension() == Some(OsStr::new("sock")) {
            let stem = path.with_extension("");
            shards.push(Shard { stem });
        }
    }
    shards.sort();
    Ok(shards)
}

/// Tells each to stop, and waits until nobody serves it. Returns those that nobody served
/// before, and why.
///
/// # Errors
/// The first of which it cannot be told who serves it, that cannot be told, or does not stop;
/// all others are told nevertheless.
pub fn stop(shards: &[Shard]) -> io::Result<Vec<(&Shard, NoOwner)>> {
    let (mut told, mut unserved, mut failed) = (Vec::new(), Vec::new(), None);
    for shard in shards {
        let outcome = match shard.owner() {
            Ok(owner) => {
                let sent = owner.tell_to_stop();
                told.push((shard, owner));
                sent
            }
            Err(why @ NoOwner::Nobody(_)) => {
                unserved.push((shard, why));
                Ok(())
            }
            Err(NoOwner::Unknown(error)) => Err(error),
        };
        if let Err(error) = outcome {
            failed.get_or_insert(named(shard, &error));
        }
    }
    if let Some(error) = failed {
        return Err(error);
    }
    let end = Instant::now() + STOPS_WITHIN;
    for (shard, owner) in told {
        stopped(shard, owner, end)?;
    }
    Ok(unserved)
}

/// Waits for the end of who was told, and of a successor that was taking over meanwhile: the
/// word is passed on to it.
fn stopped(shard: &Shard, told: Owner, end: Instant) -> io::Result<()> {
    let mut serves = told;
    while serves.has_ended_within(end.saturating_duration_since(Instant::now()))? {
        match shard.owner() {
            Ok(successor) => serves = successor,
            Err(NoOwner::Nobody(_)) => return Ok(()),
            Err(NoOwner::Unknown(error)) => return Err(named(shard, &error)),
        }
    }
    let (name, pid) = (shard.name(), serves.pid());
    let what = format!("{name} does not stop: process {pid} serves it still");
    Err(io::Error::new(ErrorKind::TimedOut, what))
}

fn named(shard: &Shard, error: &io::Error) -> io::Error {
    io::Error::new(error.kind(), format!("{}: {error}", shard.name()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn command_that_does_not_return_is_not_waited_for_without_end() {
        let soon = Duration::from_millis(10);
        let status = run_within(Command::new("sleep").arg("2"), soon).unwrap();
        assert_eq!(status, None);
        let status = run_within(&mut Command::new("false"), RETURNS_WITHIN).unwrap();
        assert_eq!(status.and_then(|status| status.code()), Some(1));
    }
}
