//! What an application that embeds the takeover can rely on: donor and taker on two reactors
//! in one process, turned in turn, with an application that can do everything at the wrong
//! moment.

use std::borrow::Cow;
use std::io::{self, PipeReader, PipeWriter, pipe};
use std::os::fd::BorrowedFd;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Instant;

use crate::support::BOUND;
use crate::support::pair::{Process, stage, turn_until};
use socket_takeover::event::{Cx, Next, Spec};
use socket_takeover::proto::records::{DeclineCode, ItemKind};
use socket_takeover::takeover::TakeoverPath;
use socket_takeover::takeover::{
    Application, Arrival, Description, Error, Item, Moment, Rejection, SavedState, Start, Takeover,
};

const PIPE: ItemKind = ItemKind::Opaque;

/// How a taker answers to each item.
#[derive(Debug, Default, Clone, Copy, PartialEq)]
enum Taste {
    #[default]
    All,
    /// It has no use for pipes.
    NoPipes,
    /// The first item is damaged.
    Nothing,
    /// It wants more pipes than any donor has.
    More,
    /// It panics at the first item.
    Panics,
}

#[derive(Debug, Default)]
struct App {
    takeover: Takeover,
    taste: Taste,
    /// Calls `Takeover::term` from within the moment that says so.
    terms_when_rolled_back: bool,
    /// Panics in so many calls of `save` from now on.
    panics_in: Option<u32>,
    /// Panics when it is told this.
    panics_at: Option<&'static str>,
    moments: Vec<&'static str>,
    /// As a donor: the first of these names the second as its link.
    named: Option<(Item, Item)>,
    /// As a taker: the links that each pipe had when it arrived.
    links: Vec<Vec<Item>>,
    /// What it held when all had arrived.
    arrived: Option<usize>,
    /// How many items were offered to it.
    offered: usize,
    declined: u64,
    cut_short: bool,
    /// How its own takeover ended, and why.
    left: String,
    writers: Vec<PipeWriter>,
}

fn serving(path: &TakeoverPath, pipes: usize) -> Process<App> {
    let mut donor = Process::donor(path, App::default());
    for _ in 0..pipes {
        donor.app.open_pipe(donor.reactor.cx());
    }
    donor
}

fn calling(path: &TakeoverPath, taste: Taste) -> Process<App> {
    let app = App {
        taste,
        ..App::default()
    };
    Process::taker(path, app)
}

#[test]
fn taker_that_has_left_is_not_waited_for_though_its_process_goes_on() {
    let (_folder, path) = stage();
    let mut donor = serving(&path, 1);
    let mut left = calling(&path, Taste::Nothing);
    turn_until(&mut donor, &mut left, |donor, taker| {
        donor.moments.contains(&"rolled back") && taker.moments.contains(&"left")
    });
    // Were the channel still open, the donor would be busy, and would soon kill this process.
    donor.turn();
    let mut next = calling(&path, Taste::All);
    turn_until(&mut donor, &mut next, |donor, taker| {
        donor.moments.contains(&"exit") && taker.moments.contains(&"active")
    });
}

#[test]
fn taker_that_misses_something_when_all_has_arrived_leaves_and_the_donor_serves_on() {
    let (_folder, path) = stage();
    let mut donor = serving(&path, 100);
    let mut taker = calling(&path, Taste::More);
    turn_until(&mut donor, &mut taker, |donor, taker| {
        donor.moments.contains(&"rolled back") && taker.moments.contains(&"left")
    });
    assert_eq!(taker.app.arrived, Some(100));
    assert!(
        taker.app.left.starts_with("DonorServes: "),
        "{}",
        taker.app.left
    );
    assert!(
        taker.app.left.contains("a pipe is missing"),
        "{}",
        taker.app.left
    );
    assert!(!donor.reactor.cx().is_held());

    donor.turn();
    let mut next = calling(&path, Taste::All);
    turn_until(&mut donor, &mut next, |donor, taker| {
        donor.moments.contains(&"exit") && taker.moments.contains(&"active")
    });
    assert_eq!(next.app.arrived, Some(100));
}

#[test]
fn linked_item_that_comes_later_finds_the_first_whichever_named_the_other() {
    for (from, to) in [(0, 1), (1, 0)] {
        let (_folder, path) = stage();
        let mut donor = serving(&path, 2);
        let mut ids = Vec::new();
        donor.reactor.cx().items(&mut ids);
        donor.app.named = Some((Item::Source(ids[from]), Item::Source(ids[to])));
        let mut taker = calling(&path, Taste::All);
        turn_until(&mut donor, &mut taker, |donor, taker| {
            donor.moments.contains(&"exit") && taker.moments.contains(&"active")
        });
        let mut here = Vec::new();
        taker.reactor.cx().items(&mut here);
        assert_eq!(taker.app.links.len(), 2, "{from} names {to}");
        assert!(taker.app.links[0].is_empty(), "{from} names {to}");
        assert_eq!(taker.app.links[1].len(), 1, "{from} names {to}");
        assert!(
            here.iter()
                .any(|id| Item::Source(*id) == taker.app.links[1][0])
        );
    }
}

/// What it opens may be a counter of restarts, and this is none.
#[test]
fn cold_start_where_a_donor_lives_opens_nothing() {
    let (_folder, path) = stage();
    let mut donor = serving(&path, 1);
    let mut opened = false;
    let started = Start::offer(path.clone()).run(&mut App::default(), |_, cx| {
        opened = true;
        cx.stop();
        Ok(())
    });
    assert!(matches!(started, Err(Error::Taken { .. })), "{started:?}");
    assert!(!opened);

    // It has felt no more than a caller who hangs up.
    donor.turn();
    assert_eq!(donor.app.moments, [""; 0]);
    let mut taker = calling(&path, Taste::All);
    turn_until(&mut donor, &mut taker, |donor, taker| {
        donor.moments.contains(&"exit") && taker.moments.contains(&"active")
    });
}

#[test]
fn told_to_stop_from_within_a_moment_withdraws_first() {
    let (_folder, path) = stage();
    let mut donor = serving(&path, 1);
    donor.app.terms_when_rolled_back = true;
    let mut taker = calling(&path, Taste::Nothing);
    turn_until(&mut donor, &mut taker, |donor, _| {
        donor.moments.contains(&"stop")
    });
    assert!(!path.as_path().exists());
}

/// The first save is of the preload, the third of the rehearsal, the last one of the final
/// array, when nobody serves.
#[test]
fn donor_that_panics_in_save_and_goes_on_serves_on() {
    let (_folder, path) = stage();
    let mut donor = serving(&path, 1);
    for save in [1, 3, 4] {
        donor.app.moments.clear();
        donor.app.panics_in = Some(save);
        let mut taker = calling(&path, Taste::All);
        let end = Instant::now() + BOUND;
        let panicked = loop {
            assert!(Instant::now() < end, "{:?}", donor.app.moments);
            taker.turn();
            if let Err(panic) = catch_unwind(AssertUnwindSafe(|| donor.turn())) {
                break panic;
            }
        };
        assert_eq!(
            panicked.downcast_ref(),
            Some(&"the application cannot save")
        );
        assert_eq!(donor.reactor.cx().is_held(), save == 4);
        turn_until(&mut donor, &mut taker, |donor, taker| {
            donor.moments.contains(&"rolled back") && taker.moments.contains(&"left")
        });
        assert!(!donor.reactor.cx().is_held());
        // It sees that the taker has gone: the next one is not told BUSY.
        donor.turn();
    }
    let mut next = calling(&path, Taste::All);
    turn_until(&mut donor, &mut next, |donor, taker| {
        donor.moments.contains(&"exit") && taker.moments.contains(&"active")
    });
}

/// One that goes on after it owns nothing, and has told the donor so at once.
#[test]
fn taker_that_panics_in_restore_leaves_and_the_donor_serves_on() {
    let (_folder, path) = stage();
    let mut donor = serving(&path, 3);
    let mut taker = calling(&path, Taste::Panics);
    let end = Instant::now() + BOUND;
    let mut panics = 0;
    while !donor.app.moments.contains(&"rolled back") || !taker.app.moments.contains(&"left") {
        assert!(Instant::now() < end, "{:?}", donor.app.moments);
        donor.turn();
        panics += u32::from(catch_unwind(AssertUnwindSafe(|| taker.turn())).is_err());
    }
    assert_eq!(panics, 1);
    assert_eq!(taker.reactor.cx().items_len(), 0);
    assert!(!donor.reactor.cx().is_held());
    donor.turn();
    let mut next = calling(&path, Taste::All);
    turn_until(&mut donor, &mut next, |donor, taker| {
        donor.moments.contains(&"exit") && taker.moments.contains(&"active")
    });
}

/// An application that catches it and goes on must not be left with half of an outcome: a donor
/// held for ever, a taker that never says that it serves.
#[test]
fn panic_in_a_notification_comes_after_the_outcome() {
    for (donors, takers) in [
        (Some("preload"), None),
        (Some("released"), None),
        (Some("exit"), None),
        (None, Some("owner")),
        (None, Some("active")),
    ] {
        let (_folder, path) = stage();
        let mut donor = serving(&path, 3);
        donor.app.panics_at = donors;
        let mut taker = calling(&path, Taste::All);
        taker.app.panics_at = takers;
        let end = Instant::now() + BOUND;
        let mut panics = 0;
        while !donor.app.moments.contains(&"exit") || !taker.app.moments.contains(&"active") {
            assert!(Instant::now() < end, "{donors:?} {:?}", donor.app.moments);
            panics += u32::from(catch_unwind(AssertUnwindSafe(|| donor.turn())).is_err());
            panics += u32::from(catch_unwind(AssertUnwindSafe(|| taker.turn())).is_err());
        }
        assert_eq!(panics, 1, "{donors:?} {takers:?}");
        assert_eq!(donor.reactor.cx().items_len(), 0, "{donors:?} {takers:?}");
        assert!(!taker.reactor.cx().is_held());
        // Nobody holds the new owner back.
        taker.app.panics_at = None;
        let mut next = calling(&path, Taste::All);
        turn_until(&mut taker, &mut next, |taker, next| {
            taker.moments.contains(&"exit") && next.moments.contains(&"active")
        });
    }
}

#[test]
fn declined_kind_is_not_sent_again_even_if_it_was_noted_before() {
    let (_folder, path) = stage();
    let mut donor = serving(&path, 1000);
    let mut taker = calling(&path, Taste::NoPipes);
    // More of them while the first batch is on its way.
    turn_until(&mut donor, &mut taker, |donor, _| {
        donor.moments.contains(&"preload")
    });
    for _ in 0..10 {
        let cx = donor.reactor.cx();
        donor.app.open_pipe(cx);
    }
    turn_until(&mut donor, &mut taker, |donor, taker| {
        assert!(!donor.moments.contains(&"rolled back"));
        donor.moments.contains(&"released") && taker.moments.contains(&"active")
    });
    assert_eq!(donor.app.declined, 1010);
    assert!(taker.app.offered <= 64, "{}", taker.app.offered);
}

#[test]
fn preload_of_a_donor_that_changes_all_the_time_ends_and_says_so() {
    const PIPES: usize = 300;
    let (_folder, path) = stage();
    for (restless, cut_short) in [(false, false), (true, true)] {
        let mut donor = serving(&path, PIPES);
        if restless {
            donor.reactor.cx().on_turn_end(|_, cx: &mut Cx<App>| {
                let mut items = Vec::new();
                cx.items(&mut items);
                items.into_iter().for_each(|item| cx.touch(item));
            });
        }
        let mut taker = calling(&path, Taste::All);
        turn_until(&mut donor, &mut taker, |donor, taker| {
            donor.moments.contains(&"exit") && taker.moments.contains(&"active")
        });
        assert_eq!(donor.app.cut_short, cut_short);
    }
}

impl App {
    fn open_pipe(&mut self, cx: &mut Cx<App>) {
        let (reader, writer) = pipe().unwrap();
        self.writers.push(writer);
        add(cx, reader).unwrap();
    }
}

fn add(cx: &mut Cx<App>, reader: PipeReader) -> io::Result<Item> {
    let handle = cx
        .add(Spec::item("pipe"), reader, |_, _, _, _| Ok(Next::Keep))
        .map_err(|refused| refused.error)?;
    Ok(Item::Source(handle.id()))
}

impl Application for App {
    const NAME: &'static str = "pipes";

    fn takeover(&mut self) -> &mut Takeover {
        &mut self.takeover
    }

    fn carried(&self, out: &mut Vec<u32>) {
        out.push(7);
    }

    fn carried_fd(&self, _: u32) -> Option<BorrowedFd<'_>> {
        None
    }

    fn describe(&mut self, cx: &mut Cx<App>, item: Item) -> Result<Description, String> {
        let name = Cow::Borrowed("item");
        match item {
            Item::Carried(_) => Ok(Description::new(ItemKind::State, name, 1)),
            Item::Source(id) if cx.contains(id) => {
                let named = self.named.filter(|(from, _)| *from == item);
                Ok(Description::new(PIPE, name, 1).links(named.map(|(_, to)| to)))
            }
            Item::Source(_) => Err("it is gone".into()),
        }
    }

    fn save(&mut self, _: &mut Cx<App>, _: Item, _: &mut Vec<u8>) -> bool {
        self.panics_in = self.panics_in.map(|left| left - 1);
        if self.panics_in.take_if(|left| *left == 0).is_some() {
            panic!("the application cannot save");
        }
        false
    }

    fn restore(&mut self, cx: &mut Cx<App>, arrival: Arrival<'_>) -> Result<Item, Rejection> {
        match (arrival.fd, self.taste) {
            (_, Taste::Panics) => panic!("the application cannot restore"),
            (_, Taste::Nothing) => Err(Rejection::Invalid("it is damaged".into())),
            (None, _) => Ok(Item::Carried(7)),
            (Some(_), Taste::NoPipes) => {
                self.offered += 1;
                Err(Rejection::Declined(DeclineCode::Kind))
            }
            (Some(fd), Taste::All | Taste::More) => {
                self.links.push(arrival.links);
                let reader = PipeReader::from(fd);
                add(cx, reader).map_err(|error| Rejection::Invalid(error.to_string()))
            }
        }
    }

    fn update(&mut self, _: &mut Cx<App>, _: Item, _: SavedState<'_>) -> Result<(), String> {
        Ok(())
    }

    fn arrived(&mut self, cx: &mut Cx<App>) -> Result<(), String> {
        self.arrived = Some(cx.items_len());
        match self.taste {
            Taste::More => Err("a pipe is missing".into()),
            Taste::All | Taste::NoPipes | Taste::Nothing | Taste::Panics => Ok(()),
        }
    }

    fn forget(&mut self, cx: &mut Cx<App>, item: Item) {
        if let Item::Source(id) = item {
            cx.remove(id);
        }
    }

    fn moment(&mut self, cx: &mut Cx<App>, moment: Moment) {
        let said = match moment {
            Moment::Open => "open",
            Moment::Preload => "preload",
            Moment::Held(_) => "held",
            Moment::Owner => "owner",
            Moment::RolledBack(_) => {
                if self.terms_when_rolled_back {
                    Takeover::term(self, cx);
                }
                "rolled back"
            }
            Moment::Released(report) => {
                self.declined = report.declined;
                self.cut_short = report.is_cut_short();
                "released"
            }
            Moment::Exit => "exit",
            Moment::Orphaned(..) => "orphaned",
            Moment::Stop => "stop",
            Moment::Active(_) => "active",
            Moment::Left(report, ending) => {
                self.left = format!("{ending:?}: {}", report.failure);
                "left"
            }
        };
        self.moments.push(said);
        if self.panics_at == Some(said) {
            panic!("the application cannot be told");
        }
    }
}

#[test]
fn application_can_ask_why_no_successor_finds_it() {
    let (folder, path) = stage();
    let mut donor = serving(&path, 0);
    let mut turn_until = |done: &dyn Fn(Option<&str>) -> bool| {
        let end = Instant::now() + BOUND;
        while !done(donor.app.takeover.unreachable()) {
            assert!(Instant::now() < end, "it does not come to that");
            donor.turn();
        }
    };
    turn_until(&|why| why.is_none());
    let aside = folder.path().with_extension("aside");
    std::fs::rename(folder.path(), &aside).unwrap();
    turn_until(&|why| why == Some("its folder is gone"));
    std::fs::rename(&aside, folder.path()).unwrap();
    turn_until(&|why| why.is_none());
}
