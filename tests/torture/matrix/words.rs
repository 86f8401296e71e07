//! The fault table in words, as it stands in `docs/reliability.md`.

use std::fmt::Write;
use std::fs;

use super::table::{Clients, End, Faults, Outcome, Owner, ROWS, Row, Scene, Side};

const DOCS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/reliability.md");

/// That the documentation has this very table.
pub(super) fn are_in_the_docs() -> Result<(), String> {
    let table = table();
    let docs = fs::read_to_string(DOCS).unwrap_or_default();
    if docs.contains(&table) {
        return Ok(());
    }
    Err(format!(
        "docs/reliability.md has another table than the proof, which is\n\n{table}"
    ))
}

fn table() -> String {
    let mut out = String::from(
        "| state | the fault comes | dies (kill, panic, exit) | sleeps past the deadline | TERM |\n\
         |---|---|---|---|---|\n",
    );
    for row in ROWS {
        if row.before == row.after {
            line(&mut out, row, "", &row.before);
        } else {
            line(&mut out, row, "before", &row.before);
            line(&mut out, row, "after", &row.after);
        }
    }
    out
}

fn line(out: &mut String, row: &Row, when: &str, faults: &Faults) {
    let side = match row.side {
        Side::Donor => "donor",
        Side::Taker => "taker",
    };
    let scene = match row.scene {
        Scene::Plain | Scene::Declined => "",
        Scene::TakerKilled => ", its taker was killed",
        Scene::TakerSleeps => ", its taker sleeps",
        Scene::TakerSleepsLate => ", its taker sleeps before the claim",
        Scene::OwnerPanics => ", its taker panicked as owner",
        Scene::OwnerSleeps => ", its taker sleeps as owner",
        Scene::DonorSleeps => ", told to stop",
    };
    let when = if when.is_empty() { "either" } else { when };
    let [dies, sleeps, mut term] = [faults.dies, faults.sleeps, faults.term].map(outcome);
    if let Some(or) = faults.or {
        term.push_str(&format!(" *or* {}", outcome(or)));
    }
    writeln!(
        out,
        "| {side} {}{scene} | {when} | {dies} | {sleeps} | {term} |",
        row.state
    )
    .expect("a string takes all");
}

/// "taker; donor 137, taker serves; flawless"
pub(super) fn outcome(outcome: Outcome) -> String {
    let owner = match outcome.owner {
        Owner::Donor => "**donor**",
        Owner::Taker => "**taker**",
        Owner::Nobody => "nobody",
    };
    let clients = match outcome.clients {
        Clients::Flawless => "flawless",
        Clients::Lost => "lost",
        Clients::Ended => "ended",
    };
    let end = |end| match end {
        End::Serves => "serves".to_owned(),
        End::Exit(code) => code.to_string(),
        End::Fault => "†".to_owned(),
        End::Played => "–".to_owned(),
    };
    let (donor, taker) = (end(outcome.donor), end(outcome.taker));
    format!("{owner}, {clients}; {donor} / {taker}")
}
