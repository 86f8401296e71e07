//! Values of options: text in, something that can only be valid out.
//!
//! Each function takes the option's name as the operator wrote it, for the refusal.

use std::fmt;
use std::net::{IpAddr, SocketAddr, SocketAddrV6};
use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use nix::net::if_::if_nametoindex;
use socket_takeover::takeover::{PathError, TakeoverPath};
use syslog::Facility;

use super::{Deadlines, Usage, refuse};

/// No step of a takeover is worth an hour; whoever writes more has mistaken the unit.
const DEADLINE_MS: RangeInclusive<u64> = 1..=3_600_000;

/// A week: beyond it a limit on silence is no limit any more.
const IDLE_SECONDS: RangeInclusive<u64> = 1..=604_800;

/// An address that a listener can have, with port 0. std's parser takes no name, no blanks, no
/// leading zeros and no trailing text. A link-local address belongs to an interface, which is
/// named behind it as getaddrinfo(3) has it; which number that has is asked of the kernel.
pub(super) fn address(option: &str, text: &str) -> Result<SocketAddr, Usage> {
    let what = format!("{option} {text:?}");
    let (host, interface) = match text.split_once('%') {
        Some((host, interface)) => (host, Some(interface)),
        None => (text, None),
    };
    let Ok(address) = host.parse::<IpAddr>() else {
        return refuse(
            what,
            "is not a complete IPv4 or IPv6 address",
            "give one like 127.0.0.1, ::1 or fe80::1%eth0, without name, brackets or port",
        );
    };
    if address.is_multicast() || address == IpAddr::from([255; 4]) {
        return refuse(
            what,
            "no TCP connection can be made to a group address",
            "give an address of this machine, or 0.0.0.0 or :: for all of them",
        );
    }
    match (address, interface) {
        (IpAddr::V6(ip), Some(interface)) if ip.is_unicast_link_local() => {
            let scope = scope(&what, interface)?;
            Ok(SocketAddrV6::new(ip, 0, 0, scope).into())
        }
        (IpAddr::V6(ip), None) if ip.is_unicast_link_local() => refuse(
            what,
            "a link-local address is another one on each interface",
            format!("say which, as in {ip}%eth0"),
        ),
        (_, Some(interface)) => refuse(
            what,
            "only a link-local IPv6 address belongs to an interface",
            format!("remove %{interface}"),
        ),
        (_, None) => Ok(SocketAddr::new(address, 0)),
    }
}

/// An interface by its name or its number.
fn scope(what: &str, interface: &str) -> Result<u32, Usage> {
    if let Ok(number) = interface.parse()
        && number > 0
    {
        return Ok(number);
    }
    if_nametoindex(interface).or_else(|error| {
        let why = format!(
            "there is no interface {interface:?} here ({})",
            error.desc()
        );
        refuse(what, why, "ip link shows which there are")
    })
}

/// A number in digits and nothing else: no sign, no blank, no unit.
pub(super) fn number<N>(option: &str, text: &str, range: RangeInclusive<N>) -> Result<N, Usage>
where
    N: FromStr + PartialOrd + fmt::Display,
{
    let what = format!("{option} {text:?}");
    let remedy = format!("give a number from {} to {}", range.start(), range.end());
    if text.is_empty() || !text.bytes().all(|byte| byte.is_ascii_digit()) {
        return refuse(what, "is not a number in plain digits", remedy);
    }
    match text.parse() {
        Ok(value) if range.contains(&value) => Ok(value),
        // Digits alone can only fail by being too many.
        _ => refuse(what, "is out of range", remedy),
    }
}

/// A peer's permitted silence, in seconds.
pub(super) fn idle_timeout(option: &str, text: &str) -> Result<Duration, Usage> {
    number(option, text, IDLE_SECONDS).map(Duration::from_secs)
}

/// A name that a takeover socket can have.
pub(super) fn takeover_path(option: &str, text: &str) -> Result<TakeoverPath, Usage> {
    TakeoverPath::new(text).or_else(|why| {
        let what = match &why {
            PathError::TooLong(_) => format!("{option} PATH"),
            _ => format!("{option} {text:?}"),
        };
        refuse(
            what,
            why,
            "give the name of a socket, such as /run/echo.sock",
        )
    })
}

/// A name that something other than a directory can have.
pub(super) fn file_path(option: &str, text: &str) -> Result<PathBuf, Usage> {
    let what = format!("{option} {text:?}");
    if text.is_empty() {
        return refuse(what, "the name is empty", "give the name of a file");
    }
    if text.contains('\0') {
        return refuse(what, "no name can contain a NUL byte", "remove it");
    }
    if let Some("" | "." | "..") = text.rsplit('/').next() {
        return refuse(what, "names a directory", "add the name of a file in it");
    }
    Ok(PathBuf::from(text))
}

/// The facilities that a service may log under; the others belong to the kernel, mail and
/// the like (syslog(3)). A bare digit means localN, as keepalived has it.
pub(super) fn facility(option: &str, text: &str) -> Result<Facility, Usage> {
    Ok(match text {
        "daemon" => Facility::LOG_DAEMON,
        "user" => Facility::LOG_USER,
        "local0" | "0" => Facility::LOG_LOCAL0,
        "local1" | "1" => Facility::LOG_LOCAL1,
        "local2" | "2" => Facility::LOG_LOCAL2,
        "local3" | "3" => Facility::LOG_LOCAL3,
        "local4" | "4" => Facility::LOG_LOCAL4,
        "local5" | "5" => Facility::LOG_LOCAL5,
        "local6" | "6" => Facility::LOG_LOCAL6,
        "local7" | "7" => Facility::LOG_LOCAL7,
        _ => {
            return refuse(
                format!("{option} {text:?}"),
                "is not a facility for services",
                "give daemon, user, local0 to local7 or 0 to 7",
            );
        }
    })
}

/// The deadlines of all steps, from a list of STEP=MS and the defaults.
pub(super) fn deadlines(option: &str, list: &[String]) -> Result<Deadlines, Usage> {
    let mut deadlines = Deadlines::default();
    let mut named: Vec<&str> = Vec::new();
    for text in list {
        let what = format!("{option} {text:?}");
        let Some((name, milliseconds)) = text.split_once('=') else {
            return refuse(what, "has no \"=\"", "write STEP=MS, such as freeze=500");
        };
        let step = match name {
            "hello" => &mut deadlines.hello,
            "preload" => &mut deadlines.preload,
            "freeze" => &mut deadlines.freeze,
            "end" => &mut deadlines.end,
            "claim" => &mut deadlines.claim,
            "drain" => &mut deadlines.drain,
            _ => {
                let remedy = "the steps are hello, preload, freeze, end, claim and drain";
                return refuse(what, "there is no such step", remedy);
            }
        };
        if named.contains(&name) {
            return refuse(what, "the step has a deadline already", "keep one of them");
        }
        *step = number(&format!("{option} {name}"), milliseconds, DEADLINE_MS)
            .map(Duration::from_millis)?;
        named.push(name);
    }
    Ok(deadlines)
}
