//! What a timer costs: this reactor's beside those of calloop and tokio, and a binary heap.
//!
//! Each line is so many timers armed over one minute. *add* makes them, in fresh memory; *push*
//! moves each of them later, in random order; *cancel* ends each of them, in random order;
//! *again* makes as many once more, as a server does all day. *expire* is what the process
//! computes for each while so many timers pass within two seconds, waits included.
//! *idle* is a turn in which nothing is due, with its wait. The subjects take turns within a
//! round.
//!
//! The heap is the bare structure without a loop: it has to be beaten by a loop with callbacks.

mod subjects;

use std::error::Error;
use std::time::{Duration, Instant};

use nix::time::{ClockId, clock_gettime};

use crate::cli::Options;
use crate::figures::median;
use subjects::{Calloop, Heap};
pub(crate) use subjects::{Ours, Subject, Tokio};

use takeover_say::say;

/// Those armed lie within this, beginning after half of it.
const SPREAD: Duration = Duration::from_secs(60);
/// Each is pushed by this.
const LATER: Duration = Duration::from_secs(1);
/// Those that expire pass within this.
const PASSING: Duration = Duration::from_secs(2);
/// A round waits for seconds, and says the same as the one before.
const MOST_ROUNDS: usize = 3;
/// How many are armed.
const SIZES: [usize; 3] = [1_000, 100_000, 1_000_000];
/// calloop looks for a free slot from the first one on: a million would take hours.
const CALLOOP_LIMIT: usize = 100_000;
/// Above this it is measured once: that takes it half a minute.
const CALLOOP_OFTEN: usize = 10_000;
/// Marsaglia's xorshift begins with this.
const SEED: u64 = 0x5DEE_CE66_D1CE_4E5B;

type Measure = fn(usize, &mut Random) -> Figures;

/// Measures and prints.
pub(crate) fn table(options: &Options) -> Result<(), Box<dyn Error>> {
    let mut random = Random(SEED);
    let able = |name: &str, armed: usize| name != Calloop::NAME || armed <= CALLOOP_LIMIT;
    let often = |name: &str, armed: usize| name != Calloop::NAME || armed <= CALLOOP_OFTEN;
    let subjects: [(&str, Measure); 4] = [
        (Ours::NAME, measure::<Ours>),
        (Heap::NAME, measure::<Heap>),
        (Calloop::NAME, measure::<Calloop>),
        (Tokio::NAME, measure::<Tokio>),
    ];
    let count = options.pairs.min(MOST_ROUNDS);
    say!(
        "Nanoseconds of the processor for each timer (idle: a turn), the median of {count}. \
         calloop looks for\na free slot from the first one on: it is asked once for \
         {CALLOOP_LIMIT}, and not for more.\n"
    )?;
    say!("| armed | | {} |", COLUMNS.join(" | "))?;
    say!("|---|---|{}", "---|".repeat(COLUMNS.len()))?;
    for armed in SIZES {
        let able = subjects.iter().filter(|(name, _)| able(name, armed));
        let able: Vec<_> = able.collect();
        let mut rounds: Vec<Vec<Figures>> = vec![Vec::new(); able.len()];
        for round in 0..count {
            for ((name, measure), figures) in able.iter().zip(&mut rounds) {
                if round == 0 || often(name, armed) {
                    figures.push(measure(armed, &mut random));
                }
            }
        }
        for ((name, _), figures) in able.iter().zip(&rounds) {
            let mut line = format!("| {armed} | {name} |");
            for column in 0..COLUMNS.len() {
                let values: Vec<f64> = figures.iter().map(|line| line[column]).collect();
                line += &format!(" {:.0} |", median(&values));
            }
            say!("{line}")?;
        }
    }
    Ok(())
}

/// Nanoseconds a timer, and in the last a turn.
type Figures = [f64; COLUMNS.len()];
const COLUMNS: [&str; 6] = ["add", "push", "cancel", "again", "expire", "idle"];

fn measure<T: Subject>(armed: usize, random: &mut Random) -> Figures {
    let mut order: Vec<usize> = (0..armed).collect();
    let mut afters: Vec<Duration> = order
        .iter()
        .map(|_| SPREAD / 2 + random.below(SPREAD))
        .collect();

    let mut subject = T::new();
    let add = computing(armed, || subject.add(&afters));
    random.shuffle(&mut order);
    afters.iter_mut().for_each(|after| *after += LATER);
    let push = computing(armed, || subject.push(&order, &afters));
    // The wait, of at most a millisecond, is not computing.
    let idle = computing(100, || (0..100).for_each(|_| subject.turn()));
    random.shuffle(&mut order);
    let cancel = computing(armed, || subject.cancel(&order));
    let again = computing(armed, || subject.add(&afters));
    drop(subject);

    let room = Duration::from_secs(3);
    afters.fill_with(|| room + random.below(PASSING));
    let mut subject = T::new();
    let began = Instant::now();
    subject.add(&afters);
    std::thread::sleep(room.saturating_sub(began.elapsed()));
    let expire = computing(armed, || {
        while subject.fired() < armed {
            subject.turn();
        }
    });
    [add, push, cancel, again, expire, idle]
}

/// Nanoseconds that the process computes for each of so many.
fn computing(count: usize, work: impl FnOnce()) -> f64 {
    let used = || {
        let used = clock_gettime(ClockId::CLOCK_PROCESS_CPUTIME_ID);
        Duration::from(used.expect("Linux has this clock"))
    };
    let began = used();
    work();
    (used() - began).as_nanos() as f64 / count as f64
}

/// Marsaglia's xorshift: the same numbers every time.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    fn below(&mut self, span: Duration) -> Duration {
        Duration::from_nanos(self.next() % span.as_nanos() as u64)
    }

    fn shuffle(&mut self, order: &mut [usize]) {
        for index in (1..order.len()).rev() {
            order.swap(index, self.next() as usize % (index + 1));
        }
    }
}
