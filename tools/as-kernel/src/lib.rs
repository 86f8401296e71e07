//! Makes the running kernel behave like an older one, for this process and all that it starts.
//!
//! ```text
//!   5.5 ─▶ one seccomp filter for each error: pidfd_getfd ENOSYS, SO_PEERPIDFD ENOPROTOOPT, …
//! ```
//!
//! Nothing is emulated. A call that came later fails in the way in which the older kernel lets it
//! fail, as far as that can be told by the call's number and its arguments. `/proc`, `uname` and
//! everything else are the running kernel's. A process keeps the filters for life, and so do those
//! that it starts (seccomp(2)).

use std::collections::BTreeMap;
use std::env;
use std::fmt;

use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter,
    SeccompRule, TargetArch,
};

/// A version of Linux, to its minor number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Version {
    /// The 5 of 5.4.
    pub major: u32,
    /// The 4 of 5.4.
    pub minor: u32,
}

impl Version {
    /// Reads a version such as `5.4`.
    #[must_use]
    pub fn parse(text: &str) -> Option<Version> {
        let (major, minor) = text.split_once('.')?;
        let (major, minor) = (major.parse().ok()?, minor.parse().ok()?);
        Some(Version { major, minor })
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.major, self.minor)
    }
}

/// From here on the kernel behaves as if it were of this version.
///
/// # Errors
/// In words: this machine has no seccomp, or another architecture than those that are known.
pub fn act(version: Version) -> Result<(), String> {
    for filter in filters(version)? {
        seccompiler::apply_filter(&filter).map_err(|error| error.to_string())?;
    }
    Ok(())
}

/// Something that a kernel does not have.
struct Later {
    /// The first version that has it: major and minor.
    since: Version,
    call: i64,
    /// Which argument has to be what.
    arguments: &'static [(u8, u64)],
    error: i32,
}

/// waitid(2): `P_PIDFD`.
const P_PIDFD: u64 = 3;
const SOL_SOCKET: u64 = 1;
/// Options of sockets (`asm-generic/socket.h`).
const SO_NETNS_COOKIE: u64 = 71;
const SO_PASSPIDFD: u64 = 76;
const SO_PEERPIDFD: u64 = 77;
const SO_PASSRIGHTS: u64 = 83;

/// What this project uses, or might.
const TABLE: &[Later] = &[
    Later {
        since: at(6, 16),
        call: libc::SYS_setsockopt,
        arguments: &[(1, SOL_SOCKET), (2, SO_PASSRIGHTS)],
        error: libc::ENOPROTOOPT,
    },
    Later {
        since: at(6, 5),
        call: libc::SYS_getsockopt,
        arguments: &[(1, SOL_SOCKET), (2, SO_PEERPIDFD)],
        error: libc::ENOPROTOOPT,
    },
    Later {
        since: at(6, 5),
        call: libc::SYS_setsockopt,
        arguments: &[(1, SOL_SOCKET), (2, SO_PASSPIDFD)],
        error: libc::ENOPROTOOPT,
    },
    Later {
        since: at(5, 14),
        call: libc::SYS_getsockopt,
        arguments: &[(1, SOL_SOCKET), (2, SO_NETNS_COOKIE)],
        error: libc::ENOPROTOOPT,
    },
    Later {
        since: at(5, 9),
        call: libc::SYS_close_range,
        arguments: &[],
        error: libc::ENOSYS,
    },
    Later {
        since: at(5, 8),
        call: libc::SYS_faccessat2,
        arguments: &[],
        error: libc::ENOSYS,
    },
    Later {
        since: at(5, 6),
        call: libc::SYS_pidfd_getfd,
        arguments: &[],
        error: libc::ENOSYS,
    },
    Later {
        since: at(5, 6),
        call: libc::SYS_openat2,
        arguments: &[],
        error: libc::ENOSYS,
    },
    Later {
        since: at(5, 4),
        call: libc::SYS_waitid,
        arguments: &[(0, P_PIDFD)],
        error: libc::EINVAL,
    },
    Later {
        since: at(5, 3),
        call: libc::SYS_pidfd_open,
        arguments: &[],
        error: libc::ENOSYS,
    },
    Later {
        since: at(5, 3),
        call: libc::SYS_clone3,
        arguments: &[],
        error: libc::ENOSYS,
    },
];

const fn at(major: u32, minor: u32) -> Version {
    Version { major, minor }
}

/// A filter has one error, so there is one for each.
fn filters(version: Version) -> Result<Vec<BpfProgram>, String> {
    let mut by_error: BTreeMap<i32, BTreeMap<i64, Vec<SeccompRule>>> = BTreeMap::new();
    for later in TABLE.iter().filter(|later| version < later.since) {
        let calls = by_error.entry(later.error).or_default();
        let rules = calls.entry(later.call).or_default();
        if !later.arguments.is_empty() {
            rules.push(rule(later.arguments)?);
        }
    }
    let arch = TargetArch::try_from(env::consts::ARCH).map_err(|error| error.to_string())?;
    let filter = |(error, rules): (i32, _)| {
        let fails = SeccompAction::Errno(error.unsigned_abs());
        let filter = SeccompFilter::new(rules, SeccompAction::Allow, fails, arch)?;
        BpfProgram::try_from(filter)
    };
    let made: Result<Vec<_>, _> = by_error.into_iter().map(filter).collect();
    made.map_err(|error| error.to_string())
}

fn rule(arguments: &[(u8, u64)]) -> Result<SeccompRule, String> {
    let is = |(at, value): &(u8, u64)| {
        SeccompCondition::new(*at, SeccompCmpArgLen::Dword, SeccompCmpOp::Eq, *value)
    };
    let conditions: Result<Vec<_>, _> = arguments.iter().map(is).collect();
    let rule = conditions.and_then(SeccompRule::new);
    rule.map_err(|error| error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_compared_by_number() {
        let parse = |text| Version::parse(text).unwrap();
        assert!(parse("5.9") < parse("5.10") && parse("5.19") < parse("6.0"));
        for wrong in ["", "6", "6.", ".4", "6.x", "6.4.1", "-6.4"] {
            assert_eq!(Version::parse(wrong), None, "{wrong:?}");
        }
    }

    #[test]
    fn newer_kernel_than_all_of_the_table_has_no_filter() {
        assert!(filters(at(6, 16)).unwrap().is_empty());
        // ENOPROTOOPT; and ENOSYS; and EINVAL.
        assert_eq!(filters(at(6, 15)).unwrap().len(), 1);
        assert_eq!(filters(at(5, 5)).unwrap().len(), 2);
        assert_eq!(filters(at(5, 3)).unwrap().len(), 3);
    }
}
