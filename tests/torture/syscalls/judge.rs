//! What must hold after a takeover with one fault.
//!
//! | who serves | donor | taker | clients | |
//! |---|---|---|---|---|
//! | taker | 0, or died of its fault | runs | all | took over |
//! | donor | runs | 75, 69, 76, or 1 before it had an answer | all | rolled back, or refused |
//! | donor | runs | died of its fault, had not claimed | all | rolled back |
//! | donor | runs | died of its fault, had claimed | none | owner died |
//! | nobody | died of its fault, END not sent | 1, 69 or 75 | none | owner died |
//! | nobody | 0 | died of its fault, had claimed | none | owner died |
//!
//! An error at a peer's own socket may end that peer alone. Everything else is a violation: a
//! mixture of kept and lost clients above all, a wrong byte, a panic, a process that says
//! something untrue about the other.

use super::cell::{Ended, Owner, Side, Site};
use super::errors::{What, may_abort};

/// What came of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Outcome {
    TookOver,
    RolledBack,
    /// The taker left before it was welcome.
    Refused,
    OwnerDied,
    /// Whichever of the two came of it, a peer at whose socket the fault was has been ended.
    PeerEnded,
}

const KILLED: i32 = 128 + libc::SIGKILL;
const ABORTED: i32 = 128 + libc::SIGABRT;

/// The call that was made to fail, as strace shows it; `None` if it was never made.
pub(crate) fn fired(site: &Site, ended: &Ended) -> Option<String> {
    let code = match site.side {
        Side::Donor => ended.donor,
        Side::Taker => ended.taker,
    };
    let call = format!("{}(", site.call);
    let last = ended.trace.last()?;
    match site.what {
        // Others may have killed it too, but not on the way into this call.
        What::Kill => (code == Some(KILLED) && last.starts_with(&call) && returned(last, "?"))
            .then(|| last.clone()),
        What::Error(_) | What::Result(_) => {
            let mut trace = ended.trace.iter();
            trace.find(|line| line.ends_with("(INJECTED)")).cloned()
        }
    }
}

/// Whether the taker's read of the lease got the 1.
pub(crate) fn has_claimed(trace: &[String]) -> bool {
    let claim = r#", "\1\0\0\0\0\0\0\0", 8)"#;
    let mut trace = trace.iter();
    trace.any(|line| line.starts_with("read(") && line.contains(claim) && returned(line, "8"))
}

/// Whether the donor's END is in the kernel: from then on its death costs nothing.
fn has_ended(trace: &[String]) -> bool {
    let end = r#""SKTO\1\0\7\0"#;
    let mut trace = trace.iter();
    let is_sent = |line: &str| {
        let result = line.rsplit_once("= ");
        result.is_some_and(|(_, bytes)| bytes.parse::<u32>().is_ok())
    };
    trace.any(|line| line.starts_with("sendmsg(") && line.contains(end) && is_sent(line))
}

fn returned(line: &str, result: &str) -> bool {
    line.rsplit_once("= ").is_some_and(|(_, is)| is == result)
}

/// Whether the call was one at a peer's socket, of which it may die alone.
fn is_peers_own(site: &Site, fired: Option<&str>) -> bool {
    let interrupted = matches!(site.what, What::Error("EINTR" | "EAGAIN") | What::Kill);
    let changes = fired.is_some_and(|line| line.contains("EPOLL_CTL_MOD"));
    !interrupted && (matches!(site.call.as_str(), "recvfrom" | "sendto") || changes)
}

/// Sorts what happened, or says what must not be.
pub(crate) fn judge(site: &Site, fired: Option<&str>, ended: &Ended) -> Result<Outcome, String> {
    let outcome = judge_takeover(site, fired, ended)?;
    Ok(match (outcome, ended.lost) {
        (Outcome::OwnerDied, _) | (_, 0) => outcome,
        _ => Outcome::PeerEnded,
    })
}

fn judge_takeover(site: &Site, fired: Option<&str>, ended: &Ended) -> Result<Outcome, String> {
    let kill = site.what == What::Kill && fired.is_some();
    let died = |code: Option<i32>, side: Side| {
        let by_fault = site.side == side && fired.is_some();
        by_fault && (kill && code == Some(KILLED) || may_abort(&site.call) && code == Some(ABORTED))
    };
    let (donor_died, taker_died) = (
        died(ended.donor, Side::Donor),
        died(ended.taker, Side::Taker),
    );
    let all_lost = ended.lost == ended.clients;
    let none_lost = ended.lost == 0 || is_peers_own(site, fired) && ended.lost == 1;
    for log in [&ended.donor_log, &ended.taker_log] {
        if let Some(line) = log.iter().find(|line| line.contains("panicked")) {
            return Err(format!("it panicked: {line}"));
        }
    }
    match ended.owner {
        Owner::Taker => {
            if ended.donor != Some(0) && !donor_died {
                return Err(format!("the donor left with {:?}", ended.donor));
            }
            if donor_died && !has_ended(&ended.trace) {
                return Err("owns what was not handed over".to_owned());
            }
            none_lost
                .then_some(Outcome::TookOver)
                .ok_or_else(|| format!("{} of {} clients lost", ended.lost, ended.clients))
        }
        Owner::Donor => {
            if fired.is_none() {
                return Err("failed without a fault".to_owned());
            }
            if taker_died {
                return match (has_claimed(&ended.trace), all_lost, none_lost) {
                    (true, true, _) => Ok(Outcome::OwnerDied),
                    (false, _, true) => Ok(Outcome::RolledBack),
                    (claimed, ..) => Err(format!(
                        "the taker died, claimed: {claimed}, and {} of {} clients are lost",
                        ended.lost, ended.clients
                    )),
                };
            }
            if !none_lost {
                return Err(format!("{} of {} clients lost", ended.lost, ended.clients));
            }
            refusal(site, fired, ended)
        }
        Owner::Nobody => {
            let may = donor_died && !has_ended(&ended.trace)
                || taker_died && ended.donor == Some(0) && has_claimed(&ended.trace);
            if !may || !all_lost {
                return Err(format!(
                    "nobody serves; {} of {} clients lost",
                    ended.lost, ended.clients
                ));
            }
            let code = ended.taker;
            if donor_died && !matches!(code, Some(1 | 69 | 75)) {
                return Err(format!("the taker of a dead donor left with {code:?}"));
            }
            Ok(Outcome::OwnerDied)
        }
    }
}

/// The donor serves on: the taker's exit code and its last line have to say so.
fn refusal(site: &Site, fired: Option<&str>, ended: &Ended) -> Result<Outcome, String> {
    let is_complaint = |line: &&String| line.contains("error: ") || line.contains("takeover: ");
    let last = ended.taker_log.iter().rev().find(is_complaint);
    let log_failed =
        site.side == Side::Taker && fired.is_some_and(|line| line.starts_with("write("));
    let welcome = ended
        .donor_log
        .iter()
        .any(|line| line.contains("Current fd_array"));
    let last = match last {
        Some(last) => last,
        None if log_failed => return Ok(Outcome::RolledBack),
        None => return Err(format!("the taker left with {:?} and no word", ended.taker)),
    };
    if last.contains("donor has died or was stopped") {
        return Err(format!("the donor lives, and the taker says: {last}"));
    }
    match ended.taker {
        Some(75 | 76) => Ok(if welcome {
            Outcome::RolledBack
        } else {
            Outcome::Refused
        }),
        Some(1 | 69) if !welcome => Ok(Outcome::Refused),
        code => Err(format!(
            "the donor serves and the taker left with {code:?}: {last}"
        )),
    }
}

/// What is known, for whoever has to find out.
pub(crate) fn shown(ended: &Ended) -> String {
    let mut out = format!(
        "    {:?} serves; exit of donor {:?}, taker {:?}; lost {} of {}\n",
        ended.owner, ended.donor, ended.taker, ended.lost, ended.clients
    );
    for (name, lines, most) in [
        ("donor", &ended.donor_log, 12),
        ("taker", &ended.taker_log, 12),
        ("trace", &ended.trace, 15),
    ] {
        for line in &lines[lines.len().saturating_sub(most)..] {
            let line: String = line.chars().take(200).collect();
            out.push_str(&format!("    {name}: {line}\n"));
        }
    }
    out
}
