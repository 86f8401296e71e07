//! A taker, and a donor that says anything.

use std::cell::RefCell;
use std::time::Duration;

use socket_takeover::event::{Config, Reactor};
use socket_takeover::takeover::internal::channel::Channel;
use socket_takeover::takeover::internal::identity::Identity;
use socket_takeover::takeover::internal::lease::Lease;
use socket_takeover::takeover::internal::offer::Offer;
use socket_takeover::takeover::{Deadlines, Takeover, TakeoverPath};
use tempfile::TempDir;

use crate::app::{App, End};
use crate::script::{LEASE, Palette, Played, TURN, messages, open_fds};

struct Stage {
    _folder: TempDir,
    path: TakeoverPath,
    palette: Palette,
}

impl Stage {
    fn new() -> Stage {
        let folder = tempfile::tempdir().expect("a folder");
        Stage {
            path: TakeoverPath::new(folder.path().join("taker")).expect("a good PATH"),
            _folder: folder,
            palette: Palette::new(),
        }
    }
}

thread_local! {
    static STAGE: RefCell<Option<Stage>> = const { RefCell::new(None) };
}

/// Has a taker hear a conversation. Returns how it ended, if it did.
///
/// # Panics
/// If the taker leaves a descriptor behind, or owns without a grant.
pub fn hear(data: &[u8]) -> Option<End> {
    STAGE.with_borrow_mut(|stage| converse(stage.get_or_insert_with(Stage::new), data))
}

fn converse(stage: &Stage, data: &[u8]) -> Option<End> {
    let before = open_fds();
    let (ours, theirs) = Channel::pair().expect("a channel");
    let donor = Identity::of(&ours).expect("it is us");
    let lease = Lease::new().expect("a lease");
    let mut reactor = Reactor::new_held(Config::default()).expect("a reactor");
    let mut app = App::default();
    let offer = Offer::bind(&stage.path).expect("an offer");
    let deadlines = Deadlines::default();
    Takeover::take_over(&mut app, reactor.cx(), theirs, donor, offer, deadlines).expect("HELLO");

    let mut played = Played::new(ours);
    let mut granted = false;
    for message in messages(data) {
        if message.how & LEASE != 0 && !granted {
            lease.grant().expect("once");
            granted = true;
        }
        played.say(&message, &stage.palette, Some(&lease));
        if message.how & TURN != 0 {
            reactor
                .turn(&mut app, Some(Duration::ZERO))
                .expect("a turn");
            played.hear(|_, _| ());
        }
    }
    reactor
        .turn(&mut app, Some(Duration::ZERO))
        .expect("a turn");
    played.hear(|_, _| ());
    assert!(
        granted || app.ended != Some(End::Active),
        "nobody has granted"
    );
    drop(played);
    reactor
        .turn(&mut app, Some(Duration::ZERO))
        .expect("a turn");
    let ended = app.ended;
    drop((reactor, app, lease));
    assert_eq!(open_fds(), before, "descriptors were left behind");
    ended
}
