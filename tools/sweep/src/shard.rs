//! One shard: an instance of the service, known by its files in the folder.

use std::ffi::OsStr;
use std::fs::{self, File, OpenOptions};
use std::io::{self, ErrorKind};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;

/// Exit code of a successor that was refused or rolled back: the old process still serves.
const DONOR_SERVES: i32 = 75;
/// And of one that speaks another version, likewise.
const OTHER_VERSION: i32 = 76;
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

    /// The process that serves it now, as its pid file says.
    ///
    /// # Errors
    /// If there is no pid file, or no number in it.
    pub fn pid(&self) -> io::Result<Pid> {
        let text = fs::read_to_string(self.file("pid"))?;
        let pid = text.trim().parse().map_err(io::Error::other)?;
        Ok(Pid::from_raw(pid))
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
    /// The service's own words.
    pub fn start(&self, service: &OsStr, listen: SocketAddr) -> Result<(), Refused> {
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
        let mut command = self.command(service).map_err(cannot_run)?;
        self.run(command.arg("-T").arg(self.file("sock")))?;
        let whole = began.elapsed();
        self.moved(whole).map_err(|what| Refused {
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
        let said = fs::metadata(self.file("log")).map_or(0, |log| log.len());
        let status = command.status().map_err(cannot_run)?;
        if status.success() {
            return Ok(());
        }
        let log = fs::read(self.file("log")).unwrap_or_default();
        let new = String::from_utf8_lossy(log.get(said as usize..).unwrap_or_default());
        // The donor's lines are there as well, and its last one is not what is looked for.
        let words = new.lines().rev().find(|line| line.contains("ERROR"));
        let words = words.or_else(|| new.lines().last()).unwrap_or_default();
        Err(Refused {
            code: status.code(),
            why: words.trim().to_owned(),
        })
    }

    /// From the last line that a successor has reported.
    fn moved(&self, whole: Duration) -> Result<Moved, String> {
        let text = fs::read_to_string(self.file("report")).map_err(|error| error.to_string())?;
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

/// Tells each to stop, and waits until its pid file is gone.
///
/// # Errors
/// The first that cannot be told, or does not stop.
pub fn stop(shards: &[Shard]) -> io::Result<()> {
    for shard in shards {
        kill(shard.pid()?, Signal::SIGTERM)?;
    }
    let end = Instant::now() + STOPS_WITHIN;
    for shard in shards {
        while File::open(shard.file("pid")).is_ok() {
            if Instant::now() > end {
                let what = format!("{} does not stop", shard.name());
                return Err(io::Error::new(ErrorKind::TimedOut, what));
            }
            std::thread::sleep(Duration::from_millis(5));
        }
    }
    Ok(())
}
