//! What came of one run: where the kill hit, who serves then, and how many clients were lost.
//!
//! Where it hit is read from the log of whoever was left to write one: from the hold to the
//! outcome nobody logs, but the line of the outcome names every phase that was reached.

/// Where the takeover was when the kill hit; if it hit both, the first kill, as far as one of
/// them lived to tell.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Phase {
    BeforeWelcome,
    /// Until the hold.
    Preload,
    Freeze,
    /// END was sent. Whether the claim came before the kill does not show.
    AfterEnd,
    AfterClaim,
    /// The donor had left.
    AfterTheEnd,
    /// Some time before END: nobody lived to tell.
    AfterWelcome,
}

impl Phase {
    pub(super) fn name(self) -> &'static str {
        match self {
            Phase::BeforeWelcome => "before WELCOME",
            Phase::Preload => "preload",
            Phase::Freeze => "freeze",
            Phase::AfterEnd => "after END",
            Phase::AfterClaim => "after the claim",
            Phase::AfterTheEnd => "after the end",
            Phase::AfterWelcome => "after WELCOME",
        }
    }

    /// From the line with which a side that does not own says what became of an attempt.
    pub(super) fn of(line: &str) -> Phase {
        if line.contains(" array_ms=") {
            Phase::AfterEnd
        } else if line.contains(" prepare_ms=") {
            Phase::Freeze
        } else if line.contains(" id=0000000000000000 ") {
            Phase::BeforeWelcome
        } else {
            Phase::Preload
        }
    }
}

/// Who serves when it is over.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Owner {
    Donor,
    /// The donor, whose successor died as the owner of its clients.
    Orphaned,
    Taker,
    Nobody,
}

impl Owner {
    pub(super) fn name(self) -> &'static str {
        match self {
            Owner::Donor => "donor",
            Owner::Orphaned => "donor, orphaned",
            Owner::Taker => "taker",
            Owner::Nobody => "nobody",
        }
    }
}

/// What came of one run.
#[derive(Debug, Clone, Copy)]
pub(super) struct Outcome {
    pub(super) phase: Phase,
    pub(super) owner: Owner,
    /// Of the clients that stay.
    pub(super) fine: u64,
    pub(super) lost: u64,
}
