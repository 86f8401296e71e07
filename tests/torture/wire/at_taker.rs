//! Takers, each a real process, their donor played. The lease is granted as soon as a taker can
//! have no objection to that, so that nothing but its own judgement keeps it from owning.

use std::fs::File;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Mutex;
use std::thread;

use socket_takeover::proto::records::{Kind, Record};
use socket_takeover::proto::wire::patch_sequence;
use socket_takeover::takeover::internal::lease::Verdict;

use super::{Spoil, Table, is_record};
use crate::options::Options;
use crate::support::side::{FakeDonor, encoded};
use crate::support::{Client, Random, Stage};

/// Takers at a time: each waits a tenth of a second to see whether its donor dies.
const AT_ONCE: usize = 8;
const CLIENTS: usize = 2;

/// The donor's records.
const RECORDS: [&str; 6] = ["WELCOME", "ITEMS", "STATE", "PREPARE", "final STATE", "END"];

/// What came of it, for a takeover that succeeded.
const OWNS: &str = "taken over";

const STATE: usize = 2;
const PREPARE: usize = 3;
const FINAL: usize = 4;
const END: usize = 5;

/// One of them, ready to be said.
struct Good {
    bytes: Vec<u8>,
    fds: Vec<OwnedFd>,
}

pub(crate) fn run(options: &Options, spread: usize) -> Result<Table, String> {
    let mut random = Random::new(options.seed);
    let mut cases = Vec::new();
    {
        // How long each is: one whole takeover, to the letter.
        let mut place = Place::new();
        let taker = place.stage.take_over(&[]);
        place.donor.await_taker();
        for which in 0..RECORDS.len() {
            let good = place.good(which);
            let all = Spoil::all(good.bytes.len(), spread, &mut random);
            let can_be = |spoil: &Spoil| match spoil {
                Spoil::Fds(-1) => !good.fds.is_empty(),
                Spoil::Swapped(_) => which != END,
                _ => true,
            };
            cases.extend(all.into_iter().filter(can_be).map(|spoil| (which, spoil)));
            place.say(which, &good);
        }
        place.donor.side().expect(Kind::Active);
        taker.wait_line("Serving on ");
    }
    let total = cases.len();
    let cases = Mutex::new(cases.into_iter());
    let table = Mutex::new(Table::default());
    let failed = Mutex::new(None);
    thread::scope(|scope| {
        for _ in 0..AT_ONCE {
            scope.spawn(|| {
                let mut place = Place::new();
                loop {
                    let Some((which, spoil)) = cases.lock().unwrap().next() else {
                        return;
                    };
                    match place.attempt(which, spoil) {
                        Ok(outcome) => {
                            table.lock().unwrap().count(RECORDS[which], spoil, outcome);
                            if outcome == OWNS {
                                place = Place::new(); // PATH was the taker's
                            }
                        }
                        Err(why) => {
                            let why = format!("{}, {spoil:?}: {why}", RECORDS[which]);
                            failed.lock().unwrap().get_or_insert(why);
                            return;
                        }
                    }
                }
            });
        }
    });
    if let Some(why) = failed.into_inner().unwrap() {
        return Err(why);
    }
    let table = table.into_inner().unwrap();
    assert_eq!(table.total(), total, "a thread has given up");
    Ok(table)
}

/// A donor with clients, which many takers call in turn.
struct Place {
    stage: Stage,
    donor: FakeDonor,
    _clients: Vec<Client>,
    /// The lease was granted to the present taker.
    is_granted: bool,
}

impl Place {
    fn new() -> Place {
        let stage = Stage::new();
        let mut donor = FakeDonor::bind(&stage.path());
        let clients = (0..CLIENTS).map(|_| Client::connect(donor.address()));
        let clients = clients.collect();
        donor.accept(CLIENTS);
        Place {
            stage,
            donor,
            _clients: clients,
            is_granted: false,
        }
    }

    /// The record as it should be said now, its number included.
    fn good(&mut self, which: usize) -> Good {
        let none = Vec::new;
        let (bytes, fds) = match which {
            0 => {
                let greeting = self.donor.greeting();
                (
                    encoded(&Record::Welcome(greeting)),
                    vec![self.donor.lease()],
                )
            }
            1 => {
                let stuffing = self.donor.stuffing();
                (stuffing.items, stuffing.fds)
            }
            STATE => (self.donor.stuffing().states, none()),
            PREPARE => (encoded(&Record::Prepare), none()),
            FINAL => (self.donor.final_states(), none()),
            _ => (encoded(&Record::End(self.donor.ending())), none()),
        };
        let bytes = self.donor.side().finished(bytes);
        Good { bytes, fds }
    }

    /// Says it, and hears what a taker answers.
    fn say(&mut self, which: usize, good: &Good) {
        if which == FINAL {
            self.donor.note_final(&good.bytes);
        }
        if which == END {
            self.donor.grant();
        }
        let fds: Vec<BorrowedFd<'_>> = good.fds.iter().map(AsFd::as_fd).collect();
        self.donor.side().say_encoded(good.bytes.clone(), &fds);
        match which {
            STATE => drop(self.donor.side().expect(Kind::Ack)),
            PREPARE => drop(self.donor.side().expect(Kind::Drained)),
            _ => {}
        }
    }

    fn attempt(&mut self, which: usize, spoil: Spoil) -> Result<&'static str, String> {
        let mut taker = self.stage.take_over(&[]);
        self.donor.await_taker();
        for before in 0..which {
            let good = self.good(before);
            self.say(before, &good);
        }
        // Before its ACK a taker may not have looked at the lease yet, and a grant by then is
        // one of the things that it refuses.
        self.is_granted = which >= PREPARE;
        if self.is_granted {
            self.donor.grant();
        }
        let outcome = self.spoil(which, spoil)?;
        if outcome == OWNS {
            return Ok(outcome); // and killed, as it is dropped
        }
        match taker.wait_exit() {
            75 | 76 => Ok(outcome),
            code => Err(format!("exit {code}")),
        }
    }

    /// Says the record spoilt, and returns what came of it.
    fn spoil(&mut self, which: usize, spoil: Spoil) -> Result<&'static str, String> {
        let good = self.good(which);
        if which == FINAL {
            // Whatever is said in its place: END speaks of this one.
            self.donor.note_final(&good.bytes);
        }
        let next = (which < END).then(|| self.good(which + 1).bytes);
        let (said, mut must_fail) = spoil.of(&good.bytes, next.as_deref());
        match (which, spoil) {
            // State may come twice before the final array, and END counts at once.
            (STATE, Spoil::Doubled(true)) => {}
            (END, Spoil::Doubled(_)) => must_fail = false,
            (_, Spoil::Doubled(_)) => must_fail = true,
            _ => {}
        }
        for one in &said {
            let is_its_own = one.bytes.get(6) == good.bytes.get(6);
            let own = if is_its_own { good.fds.len() } else { 0 };
            let count = own.saturating_add_signed(one.fds);
            let alone = matches!(spoil, Spoil::Changed(..));
            must_fail |= alone && !is_record(&one.bytes, count);
            self.throw(&one.bytes, &good.fds, count);
        }
        // What is not in its place, or not what it should be, is found at END if not before.
        let is_found_late = match which {
            FINAL => true,
            PREPARE => matches!(spoil, Spoil::Missing | Spoil::Swapped(_)),
            _ => false,
        };
        if is_found_late {
            if which == PREPARE {
                let final_array = self.good(FINAL);
                self.donor.note_final(&final_array.bytes);
            }
            let mut end = self.good(END);
            let number = self.donor.side().next_number() + said.len() as u32;
            patch_sequence(&mut end.bytes, number);
            self.throw(&end.bytes, &[], 0);
        }
        if must_fail || is_found_late {
            self.has_failed()
        } else if matches!(spoil, Spoil::Changed(..)) || which == END && !said.is_empty() {
            self.go_on(which + 1)
        } else {
            self.is_left()
        }
    }

    /// The rest of the takeover, as it should be: what was changed before may be allowed.
    fn go_on(&mut self, from: usize) -> Result<&'static str, String> {
        let mut number = self.donor.side().next_number();
        for which in from..RECORDS.len() {
            number += 1;
            let mut good = self.good(which);
            patch_sequence(&mut good.bytes, number);
            if which == FINAL {
                self.donor.note_final(&good.bytes);
                if self.until(Kind::Drained)? == Kind::Fail {
                    return self.has_not_owned("FAIL");
                }
                self.donor.grant();
                self.is_granted = true;
            }
            self.throw(&good.bytes, &good.fds, good.fds.len());
        }
        match self.until(Kind::Active)? {
            Kind::Fail => self.has_not_owned("FAIL"),
            _ => Ok(OWNS),
        }
    }

    /// Says bytes with so many descriptors: the record's own, as far as there are any.
    fn throw(&mut self, bytes: &[u8], own: &[OwnedFd], count: usize) {
        let stray = File::open("/dev/null").expect("/dev/null");
        let mut fds: Vec<BorrowedFd<'_>> = own.iter().map(AsFd::as_fd).take(count).collect();
        fds.resize(count, stray.as_fd());
        // It may have hung up already.
        let _ = self.donor.side().throw(bytes, &fds);
    }

    /// Hears it until it says this, or FAIL.
    fn until(&mut self, wanted: Kind) -> Result<Kind, String> {
        while let Some(heard) = self.donor.side().hear() {
            let kind = heard.record().kind();
            if [wanted, Kind::Fail].contains(&kind) {
                return Ok(kind);
            }
        }
        Err(format!("no {wanted:?} and no FAIL"))
    }

    fn has_failed(&mut self) -> Result<&'static str, String> {
        let last = self.donor.last_word().ok_or("no last word")?;
        match last.record() {
            Record::Fail(_) => self.has_not_owned("FAIL"),
            other => Err(format!("{other:?} is the last word")),
        }
    }

    /// It was told something that is allowed, and then its donor hangs up.
    fn is_left(&mut self) -> Result<&'static str, String> {
        let outcome = self.has_not_owned("allowed, then left");
        self.donor.hang_up();
        outcome
    }

    fn has_not_owned(&mut self, outcome: &'static str) -> Result<&'static str, String> {
        match self.donor.revoke() {
            Verdict::Lost if self.is_granted => Err("it owns".into()),
            Verdict::Lost | Verdict::Won => Ok(outcome),
        }
    }
}
