//! The application that hands over and takes over here: eventfds, and states of any size.

use std::fs::File;
use std::os::fd::{AsFd, OwnedFd};

use socket_takeover::event::{Cx, Next, Spec};
use socket_takeover::takeover::internal::lease::Lease;
use socket_takeover::takeover::{
    Application, Arrival, DeclineCode, Description, Item, ItemKind, Moment, Rejection, SavedState,
    Takeover,
};

/// The newest state version that is read here.
pub const NEWEST: u16 = 3;
/// What is carried: a small state, and one of several records.
const SMALL: u32 = 0;
const LARGE: u32 = 1;

/// See the file's own description.
#[derive(Debug, Default)]
pub struct App {
    takeover: Takeover,
    /// What has become of the last attempt.
    pub ended: Option<End>,
    /// Bytes of state that were restored or updated.
    pub bytes: usize,
}

/// How an attempt ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    RolledBack,
    Released,
    Active,
    Left,
}

impl App {
    /// Adds an item of the donor's own.
    ///
    /// # Panics
    /// If the process has no descriptors left.
    pub fn open(cx: &mut Cx<App>) {
        let event = Lease::new().expect("an eventfd");
        let event = event.as_fd().try_clone_to_owned().expect("a descriptor");
        add(cx, event).expect("an eventfd can be watched");
    }
}

fn add(cx: &mut Cx<App>, fd: OwnedFd) -> Result<Item, Rejection> {
    let source = File::from(fd);
    Ok(cx
        .add(Spec::item("event"), source, |_, _, _, _| Ok(Next::Keep))?
        .into())
}

impl Application for App {
    const NAME: &'static str = "fuzzed";
    const NEWEST_STATE: Option<u16> = Some(NEWEST);

    fn takeover(&mut self) -> &mut Takeover {
        &mut self.takeover
    }

    fn carried(&self, out: &mut Vec<u32>) {
        out.extend([SMALL, LARGE]);
    }

    fn describe(&mut self, cx: &mut Cx<App>, item: Item) -> Result<Description, String> {
        let version = self.takeover.state_version(NEWEST);
        match item {
            Item::Source(id) => Description::source(cx, id, ItemKind::Eventfd, version),
            Item::Carried(_) => Ok(Description::new(ItemKind::State, "state", version)),
        }
    }

    fn save(&mut self, _: &mut Cx<App>, item: Item, out: &mut Vec<u8>) -> bool {
        let length = match item {
            Item::Carried(LARGE) => 70_000,
            Item::Carried(_) => 8,
            Item::Source(_) => 1,
        };
        out.resize(out.len() + length, 7);
        false
    }

    fn restore(&mut self, cx: &mut Cx<App>, arrival: Arrival<'_>) -> Result<Item, Rejection> {
        if arrival.state.version > NEWEST {
            return Err(Rejection::Declined(DeclineCode::StateVersion));
        }
        self.bytes += arrival.state.bytes.len();
        match (arrival.kind, arrival.fd) {
            (ItemKind::Other(_), _) => Err(Rejection::Declined(DeclineCode::Kind)),
            (_, Some(fd)) => add(cx, fd),
            (_, None) if arrival.name == "state" => {
                Ok(Item::Carried(arrival.state.bytes.len() as u32))
            }
            (_, None) => Err(format!("{:?} is not known", arrival.name).into()),
        }
    }

    fn update(&mut self, _: &mut Cx<App>, _: Item, state: SavedState<'_>) -> Result<(), String> {
        self.bytes += state.bytes.len();
        match state.bytes {
            [0xFF, ..] => Err("a state that cannot be read".into()),
            _ => Ok(()),
        }
    }

    fn moment(&mut self, _: &mut Cx<App>, moment: Moment) {
        self.ended = match moment {
            Moment::RolledBack(_) => Some(End::RolledBack),
            Moment::Released(_) => Some(End::Released),
            Moment::Active(_) => Some(End::Active),
            Moment::Left(..) => Some(End::Left),
            _ => return,
        };
    }
}
