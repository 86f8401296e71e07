//! A donor with clients that check every byte, its taker played: after each attempt it holds
//! the descriptors that it held before, and a takeover is possible in the end.

use std::fs::File;
use std::os::fd::AsFd;

use socket_takeover::proto::records::{AckBuilder, Active, Kind, Record};
use socket_takeover::proto::wire::patch_sequence;
use socket_takeover::takeover::internal::lease::Verdict;

use super::{Spoil, Table, is_record};
use crate::options::Options;
use crate::support::side::{At, FakeTaker, encoded};
use crate::support::{PATIENT, Random, Scene};

/// Descriptors to send where none belong.
const STRAY: &str = "/dev/null";
/// How often, in attempts, the clients are asked.
const ASKED: usize = 50;

/// The taker's records, each with the state in which the donor waits for it.
const RECORDS: [(&str, At); 5] = [
    ("HELLO", At::AcceptChannel),
    ("first ACK", At::FirstBatch),
    ("second ACK", At::Window),
    ("DRAINED", At::HoldPeers),
    ("ACTIVE", At::AwaitClaim),
];

/// The record that a taker in this state says next, but for its number.
fn record(at: At, batch: Option<u32>) -> Vec<u8> {
    match at {
        At::AcceptChannel => encoded(&Record::Hello(FakeTaker::hello())),
        At::FirstBatch | At::Window => {
            let mut record = Vec::new();
            AckBuilder::new(batch.unwrap_or(0), &mut record).finish();
            record
        }
        At::HoldPeers => encoded(&Record::Drained),
        At::AwaitClaim => encoded(&Record::Active(Active::default())),
    }
}

pub(crate) fn run(options: &Options, spread: usize) -> Result<Table, String> {
    let mut random = Random::new(options.seed);
    let scene = Scene::new(&PATIENT);
    let mut table = Table::default();
    let mut attempts = 0;
    for (place, (name, at)) in RECORDS.into_iter().enumerate() {
        let next = RECORDS.get(place + 1).map(|(_, at)| record(*at, None));
        let length = record(at, None).len();
        for spoil in Spoil::all(length, spread, &mut random) {
            if matches!(spoil, Spoil::Fds(-1)) {
                continue; // they have none
            }
            let outcome = attempt(&scene, at, spoil, next.as_deref())
                .map_err(|why| format!("{name}, {spoil:?}: {why}"))?;
            table.count(name, spoil, outcome);
            FakeTaker::await_idle(&scene.stage.path());
            scene.donor.wait_fds(|fds| fds == scene.fds);
            attempts += 1;
            if attempts % ASKED == 0 {
                scene.peers.echoes(4);
            }
        }
    }
    scene.end();
    Ok(table)
}

fn attempt(
    scene: &Scene,
    at: At,
    spoil: Spoil,
    next: Option<&[u8]>,
) -> Result<&'static str, String> {
    let (mut taker, batch) = FakeTaker::at_batch(&scene.stage.path(), at);
    let mut good = record(at, batch);
    patch_sequence(&mut good, taker.side.next_number());
    let (said, mut must_end) = spoil.of(&good, next);
    let stray = File::open(STRAY).map_err(|error| error.to_string())?;
    for one in &said {
        must_end |= !is_record(&one.bytes, one.fds.unsigned_abs());
        let fds = vec![stray.as_fd(); one.fds.unsigned_abs()];
        match taker.side.throw(&one.bytes, &fds) {
            Ok(_) => {}
            // SO_PASSRIGHTS: the kernel itself refuses, and nothing was said.
            Err(error) if error.raw_os_error() == Some(libc::EPERM) => return Ok("not sent"),
            // It has hung up at the one before.
            Err(_) => break,
        }
    }
    // Of HELLO much may be otherwise; of an ACK and what follows, nothing.
    must_end |= matches!(spoil, Spoil::Changed(..)) && at != At::AcceptChannel;
    // Nothing may be said twice, and ACTIVE without a claim has no good answer.
    must_end |= matches!(spoil, Spoil::Doubled(_)) || at == At::AwaitClaim && !said.is_empty();
    if !must_end {
        return Ok("allowed, then left");
    }
    let mut last = None;
    while let Some(heard) = taker.side.hear() {
        let kind = heard.record().kind();
        if kind == Kind::Abort {
            // Now to leave soon: the donor kills a taker that stays, and that is us.
            let verdict = (at != At::AcceptChannel).then(|| taker.claim());
            return match verdict {
                Some(Verdict::Won) => Err("the lease could be claimed".into()),
                Some(Verdict::Lost) | None => Ok("rolled back"),
            };
        }
        last = Some(kind);
    }
    match last {
        None if at == At::AcceptChannel => Ok("hung up on"),
        Some(Kind::Refuse) if at == At::AcceptChannel => Ok("refused"),
        last => Err(format!("{last:?} is the last word")),
    }
}
