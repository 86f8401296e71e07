//! A donor, and a taker that says anything.

use std::cell::RefCell;
use std::time::Duration;

use socket_takeover::event::{Config, Reactor};
use socket_takeover::proto::records::{self, Record};
use socket_takeover::takeover::internal::lease::{Lease, Verdict};
use socket_takeover::takeover::internal::offer::{Offer, Replace};
use socket_takeover::takeover::internal::path;
use socket_takeover::takeover::{Deadlines, Takeover, TakeoverPath};
use tempfile::TempDir;

use crate::app::{App, End};
use crate::script::{LEASE, Palette, Played, TURN, messages, open_fds};

/// Enough for two batches.
pub const ITEMS: usize = 70;
/// A donor is done with a caller that has gone after so many turns.
const TURNS: usize = 20;

struct Stage {
    _folder: TempDir,
    path: TakeoverPath,
    palette: Palette,
    /// It serves on from one conversation to the next, until one takes it over.
    donor: Option<(Reactor<App>, App)>,
}

impl Stage {
    fn new() -> Stage {
        let folder = tempfile::tempdir().expect("a folder");
        Stage {
            path: TakeoverPath::new(folder.path().join("donor")).expect("a good PATH"),
            _folder: folder,
            palette: Palette::new(),
            donor: None,
        }
    }

    fn donor(&self) -> (Reactor<App>, App) {
        let mut reactor = Reactor::new(Config::default()).expect("a reactor");
        let mut app = App::default();
        let mut offer = Offer::bind(&self.path).expect("an offer");
        offer.publish(Replace::Live).expect("PATH");
        Takeover::offer(&mut app, reactor.cx(), offer, 0, Deadlines::default()).expect("an offer");
        for _ in 0..ITEMS {
            App::open(reactor.cx());
        }
        (reactor, app)
    }
}

thread_local! {
    static STAGE: RefCell<Option<Stage>> = const { RefCell::new(None) };
}

/// Has a donor hear a conversation. Returns how it ended, if it came as far as WELCOME.
///
/// # Panics
/// If the donor does not serve on with what it had, or leaves without a claim.
pub fn hear(data: &[u8]) -> Option<End> {
    STAGE.with_borrow_mut(|stage| converse(stage.get_or_insert_with(Stage::new), data))
}

fn converse(stage: &mut Stage, data: &[u8]) -> Option<End> {
    let (mut reactor, mut app) = stage.donor.take().unwrap_or_else(|| stage.donor());
    app.ended = None;
    let before = open_fds();
    let (channel, donor) = path::connect(&stage.path).expect("a donor at PATH");
    let mut played = Played::new(channel);
    let mut lease = None;
    let mut claimed = false;
    let mut take_turn = |app: &mut App, played: &mut Played, lease: &mut Option<Lease>| {
        reactor.turn(app, Some(Duration::ZERO)).expect("a turn");
        played.hear(|bytes, mut fds| {
            let record = records::decode(bytes, fds.len());
            if let Ok((_, Record::Welcome(_))) = record {
                *lease = fds.pop().and_then(|fd| Lease::from_fd(fd).ok());
            }
        });
    };
    take_turn(&mut app, &mut played, &mut lease);
    for message in messages(data) {
        if message.how & LEASE != 0
            && let Some(lease) = &lease
        {
            claimed |= lease.claim().expect("a lease can be read") == Verdict::Won;
        }
        played.say(&message, &stage.palette, lease.as_ref());
        if message.how & TURN != 0 {
            take_turn(&mut app, &mut played, &mut lease);
        }
        // A taker that hears ABORT and stays is killed, and that would be this process.
        if app.ended.is_some() {
            break;
        }
    }
    take_turn(&mut app, &mut played, &mut lease);
    drop((played, lease, donor));
    for _ in 0..TURNS {
        if open_fds() == before {
            break;
        }
        reactor
            .turn(&mut app, Some(Duration::ZERO))
            .expect("a turn");
    }
    let ended = app.ended;
    // From the claim on it releases, or mourns for a second first. Whichever: it is done with.
    if claimed {
        return ended;
    }
    assert!(ended != Some(End::Released), "nobody has claimed");
    assert_eq!(open_fds(), before, "descriptors were left behind");
    assert_eq!(reactor.cx().items_len(), ITEMS, "it has what it had");
    assert!(!reactor.cx().is_held(), "it serves");
    stage.donor = Some((reactor, app));
    ended
}
