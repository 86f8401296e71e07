//! What has timers: this reactor, calloop, tokio, and a heap without a loop.

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
use socket_takeover::event::{Class, Config, Reactor, Time, TimerId};

/// What has timers. Each is known by the order in which it was added.
pub(crate) trait Subject {
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

pub(crate) struct Ours {
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

pub(crate) struct Calloop {
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

pub(crate) struct Tokio {
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
pub(crate) struct Heap {
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
