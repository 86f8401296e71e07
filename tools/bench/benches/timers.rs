//! What a timer costs: this reactor's beside those of calloop and tokio, and a binary heap.
//!
//! ```text
//! cargo bench -p takeover-bench --bench timers [-- ARMED...]
//! ```
//! Each line is so many timers armed over one minute. *add* makes them, in fresh memory; *push*
//! moves each of them later, in random order; *cancel* ends each of them, in random order;
//! *again* makes as many once more, as a server does all day. *expire* is what the process
//! computes for each while so many timers pass within two seconds, waits included.
//! *idle* is a turn in which nothing is due, with its wait. Nanoseconds of the processor, the
//! median of three rounds; the subjects take turns within a round.
//!
//! The heap is the bare structure without a loop: it has to be beaten by a loop with callbacks.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Wake, Waker};
use std::time::{Duration, Instant};

use calloop::EventLoop;
use calloop::timer::{TimeoutAction, Timer};
use nix::time::{ClockId, clock_gettime};
use socket_takeover::event::{Class, Config, Reactor, Time, TimerId};

/// Those armed lie within this, beginning after half of it.
const SPREAD: Duration = Duration::from_secs(60);
/// Each is pushed by this.
const LATER: Duration = Duration::from_secs(1);
/// Those that expire pass within this.
const PASSING: Duration = Duration::from_secs(2);
const ROUNDS: usize = 3;
/// calloop looks for a free slot from the first one on: a million would take an hour.
const CALLOOP_LIMIT: usize = 20_000;

/// What has timers. Each is known by the order in which it was added.
trait Subject {
    const NAME: &'static str;
    fn new() -> Self;
    /// Adds some that are due so long after the subject was made.
    fn add(&mut self, afters: &[Duration]);
    /// Moves all, in this order, to so long after it was made.
    fn push(&mut self, order: &[usize], afters: &[Duration]);
    /// Ends all, in this order.
    fn cancel(&mut self, order: &[usize]);
    /// Runs what is due by now, waiting for no more than a millisecond.
    fn turn(&mut self);
    /// How many have run.
    fn fired(&self) -> usize;
}

struct Ours {
    reactor: Reactor<usize>,
    began: Time,
    timers: Vec<TimerId>,
    fired: usize,
}

impl Subject for Ours {
    const NAME: &'static str = "socket-takeover";

    fn new() -> Ours {
        Ours {
            reactor: Reactor::new(Config::default()).expect("an epoll set"),
            began: Time::now(),
            timers: Vec::new(),
            fired: 0,
        }
    }

    fn add(&mut self, afters: &[Duration]) {
        let cx = self.reactor.cx();
        for &after in afters {
            let at = self.began + after;
            self.timers
                .push(cx.timer(Class::Item, "bench", at, |fired, _| {
                    *fired += 1;
                    None
                }));
        }
    }

    fn push(&mut self, order: &[usize], afters: &[Duration]) {
        let cx = self.reactor.cx();
        for &which in order {
            cx.rearm(self.timers[which], self.began + afters[which]);
        }
    }

    fn cancel(&mut self, order: &[usize]) {
        let cx = self.reactor.cx();
        for &which in order {
            cx.cancel(self.timers[which]);
        }
    }

    fn turn(&mut self) {
        let longest = Some(Duration::from_millis(1));
        self.reactor.turn(&mut self.fired, longest).expect("a turn");
    }

    fn fired(&self) -> usize {
        self.fired
    }
}

struct Calloop {
    event_loop: EventLoop<'static, usize>,
    began: Instant,
    timers: Vec<calloop::RegistrationToken>,
    fired: usize,
}

impl Calloop {
    fn one(&self, after: Duration) -> calloop::RegistrationToken {
        let timer = Timer::from_deadline(self.began + after);
        let handle = self.event_loop.handle();
        let token = handle.insert_source(timer, |_, (), fired| {
            *fired += 1;
            TimeoutAction::Drop
        });
        token.expect("a timer")
    }
}

impl Subject for Calloop {
    const NAME: &'static str = "calloop";

    fn new() -> Calloop {
        Calloop {
            event_loop: EventLoop::try_new().expect("an epoll set"),
            began: Instant::now(),
            timers: Vec::new(),
            fired: 0,
        }
    }

    fn add(&mut self, afters: &[Duration]) {
        for &after in afters {
            let timer = self.one(after);
            self.timers.push(timer);
        }
    }

    /// It has no verb for a timer that is known by its token alone.
    fn push(&mut self, order: &[usize], afters: &[Duration]) {
        for &which in order {
            self.event_loop.handle().remove(self.timers[which]);
            self.timers[which] = self.one(afters[which]);
        }
    }

    fn cancel(&mut self, order: &[usize]) {
        for &which in order {
            self.event_loop.handle().remove(self.timers[which]);
        }
    }

    fn turn(&mut self) {
        let longest = Some(Duration::from_millis(1));
        let turned = self.event_loop.dispatch(longest, &mut self.fired);
        turned.expect("a turn");
    }

    fn fired(&self) -> usize {
        self.fired
    }
}

/// Counts where a task would be woken: less than any use of tokio does.
struct Count(AtomicUsize);

impl Wake for Count {
    fn wake(self: Arc<Count>) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }
}

struct Tokio {
    runtime: tokio::runtime::Runtime,
    began: tokio::time::Instant,
    timers: Vec<Option<Pin<Box<tokio::time::Sleep>>>>,
    count: Arc<Count>,
    waker: Waker,
}

impl Subject for Tokio {
    const NAME: &'static str = "tokio";

    fn new() -> Tokio {
        let mut runtime = tokio::runtime::Builder::new_current_thread();
        let count = Arc::new(Count(AtomicUsize::new(0)));
        Tokio {
            runtime: runtime.enable_time().build().expect("a runtime"),
            began: tokio::time::Instant::now(),
            timers: Vec::new(),
            waker: Waker::from(Arc::clone(&count)),
            count,
        }
    }

    fn add(&mut self, afters: &[Duration]) {
        let _entered = self.runtime.enter();
        for &after in afters {
            let mut sleep = Box::pin(tokio::time::sleep_until(self.began + after));
            // It is armed when it is polled first.
            let _ = sleep.as_mut().poll(&mut Context::from_waker(&self.waker));
            self.timers.push(Some(sleep));
        }
    }

    fn push(&mut self, order: &[usize], afters: &[Duration]) {
        for &which in order {
            if let Some(sleep) = &mut self.timers[which] {
                sleep.as_mut().reset(self.began + afters[which]);
            }
        }
    }

    fn cancel(&mut self, order: &[usize]) {
        for &which in order {
            self.timers[which] = None;
        }
    }

    fn turn(&mut self) {
        let turn = async { tokio::time::sleep(Duration::from_millis(1)).await };
        self.runtime.block_on(turn);
    }

    fn fired(&self) -> usize {
        self.count.0.load(Ordering::Relaxed)
    }
}

/// A heap with lazy removal, as is usual.
struct Heap {
    began: Instant,
    heap: BinaryHeap<Reverse<(Duration, usize, u32)>>,
    /// Of each its generation, and its callback while it is armed.
    timers: Vec<(u32, Option<Callback>)>,
    fired: usize,
}

type Callback = Box<dyn FnMut(&mut usize)>;

impl Subject for Heap {
    const NAME: &'static str = "BinaryHeap";

    fn new() -> Heap {
        Heap {
            began: Instant::now(),
            heap: BinaryHeap::new(),
            timers: Vec::new(),
            fired: 0,
        }
    }

    fn add(&mut self, afters: &[Duration]) {
        for &after in afters {
            self.heap.push(Reverse((after, self.timers.len(), 0)));
            self.timers.push((0, Some(Box::new(|fired| *fired += 1))));
        }
    }

    fn push(&mut self, order: &[usize], afters: &[Duration]) {
        for &which in order {
            let (generation, _) = &mut self.timers[which];
            *generation += 1;
            self.heap.push(Reverse((afters[which], which, *generation)));
        }
    }

    fn cancel(&mut self, order: &[usize]) {
        for &which in order {
            self.timers[which] = (u32::MAX, None);
        }
    }

    fn turn(&mut self) {
        let now = self.began.elapsed();
        while let Some(&Reverse((at, which, generation))) = self.heap.peek()
            && at <= now
        {
            self.heap.pop();
            let (present, callback) = &mut self.timers[which];
            if *present == generation
                && let Some(callback) = callback
            {
                callback(&mut self.fired);
            }
        }
        std::thread::sleep(Duration::from_millis(1));
    }

    fn fired(&self) -> usize {
        self.fired
    }
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

fn median(mut figures: Vec<f64>) -> f64 {
    figures.sort_by(f64::total_cmp);
    figures[figures.len() / 2]
}

fn main() {
    let asked: Vec<usize> = std::env::args()
        .filter_map(|arg| arg.parse().ok())
        .collect();
    let sizes = if asked.is_empty() {
        vec![1_000, 100_000, 1_000_000]
    } else {
        asked
    };
    let mut random = Random(0x5DEE_CE66_D1CE_4E5B);
    type Measure = fn(usize, &mut Random) -> Figures;
    let subjects: [(&str, usize, Measure); 4] = [
        (Ours::NAME, usize::MAX, measure::<Ours>),
        (Heap::NAME, usize::MAX, measure::<Heap>),
        (Calloop::NAME, CALLOOP_LIMIT, measure::<Calloop>),
        (Tokio::NAME, usize::MAX, measure::<Tokio>),
    ];
    print!("{:>9}  {:<16}", "armed", "ns each");
    println!("{}", COLUMNS.map(|name| format!("{name:>9}")).concat());
    for armed in sizes {
        let able = subjects.iter().filter(|(_, limit, _)| armed <= *limit);
        let able: Vec<_> = able.collect();
        let mut rounds: Vec<Vec<Figures>> = vec![Vec::new(); able.len()];
        for _ in 0..ROUNDS {
            for ((_, _, measure), figures) in able.iter().zip(&mut rounds) {
                figures.push(measure(armed, &mut random));
            }
        }
        for ((name, _, _), figures) in able.iter().zip(&rounds) {
            let column = |index: usize| median(figures.iter().map(|line| line[index]).collect());
            let columns = std::array::from_fn::<_, { COLUMNS.len() }, _>(|index| {
                format!("{:>9.0}", column(index))
            });
            println!("{armed:>9}  {name:<16}{}", columns.concat());
        }
    }
}
