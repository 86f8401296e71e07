//! A Diameter peer (RFC 6733) that keeps its connections over its own upgrade.
//!
//! It answers capabilities exchange, watchdog and disconnect, and says of any other request
//! that it is not supported. A message is framed by a length of 3 bytes and comes in as many
//! pieces as TCP likes: what has come of it travels. Origin-State-Id tells a peer whether we
//! have lost our sessions (§8.16): it is the time of the cold start, and a takeover keeps it.
//!
//! ```text
//!   diameter_watchdog -t PATH HOST [ADDRESS]    cold start as HOST, on ADDRESS or 0.0.0.0:3868
//!   diameter_watchdog -T PATH                   take over from whoever offers it at PATH
//! ```
//!
//! What it shows: connections with half-read input, unsent output and a deadline.
//!
//! | item | kind | state, version 1, little-endian |
//! |---|---|---|
//! | "listener" | listener | none |
//! | "peer" | tcp peer | deadline (8 bytes, ns), then as in `session.rs` |
//! | "identity" | state | Origin-State-Id (4 bytes), Origin-Host |

mod peer;
mod session;

use std::io;
use std::net::{TcpListener, TcpStream};
use std::time::{SystemTime, UNIX_EPOCH};

use peer::Peer;
use session::Identity;
use socket_takeover::event::{Acceptor, Cx, Spec};
use socket_takeover::takeover::{
    Application, Arrival, DeclineCode, Description, Error, Exit, Item, ItemKind, Moment, Rejection,
    SavedState, Start, Takeover, TakeoverPath,
};

const VERSION: u16 = 1;
/// Our number for the item "identity".
const IDENTITY: u32 = 0;

#[derive(Default)]
pub(crate) struct Diameter {
    pub(crate) identity: Identity,
    takeover: Takeover,
}

fn main() -> Exit {
    run().into()
}

fn run() -> Result<(), Error> {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    let mut app = Diameter::default();
    let (path, host, address) = match words[..] {
        ["-T", path] => {
            return Start::take_over(TakeoverPath::new(path)?).run(&mut app, |_, _| Ok(()));
        }
        ["-t", path, host] => (path, host, "0.0.0.0:3868"),
        ["-t", path, host, address] => (path, host, address),
        _ => return Err(Error::usage("say -t PATH HOST [ADDRESS], or -T PATH")),
    };
    Start::offer(TakeoverPath::new(path)?).run(&mut app, |app, cx| {
        let since = SystemTime::now().duration_since(UNIX_EPOCH);
        app.identity.state = since.map_err(io::Error::other)?.as_secs() as u32;
        app.identity.host = host.to_owned();
        let listener = TcpListener::bind(address)?;
        listener.set_nonblocking(true)?;
        eprintln!("serving on {} as {host}", listener.local_addr()?);
        listen(listener, cx)?;
        Ok(())
    })
}

fn listen(listener: TcpListener, cx: &mut Cx<Diameter>) -> io::Result<Item> {
    let (spec, listener) = (Spec::item("listener"), Acceptor::from(listener));
    let added = cx.add(spec, listener, |listener, _, cx, event| {
        listener.accept(cx, event, |cx, stream, address| {
            let added = stream
                .set_nodelay(true)
                .and_then(|()| Peer::from(stream).add(cx, None));
            if let Err(error) = added {
                eprintln!("{address} was not taken: {error}");
            }
        })
    })?;
    Ok(added.into())
}

impl Application for Diameter {
    const NAME: &'static str = "diameter_watchdog";

    fn takeover(&mut self) -> &mut Takeover {
        &mut self.takeover
    }

    fn carried(&self, out: &mut Vec<u32>) {
        out.push(IDENTITY);
    }

    fn describe(&mut self, cx: &mut Cx<Self>, item: Item) -> Result<Description, String> {
        match item {
            Item::Carried(_) => Ok(Description::new(ItemKind::State, "identity", VERSION)),
            Item::Source(id) if cx.name(id) == Some("peer") => {
                Description::source(cx, id, ItemKind::TcpPeer, VERSION)
            }
            Item::Source(id) => Description::source(cx, id, ItemKind::Listener, VERSION),
        }
    }

    fn save(&mut self, cx: &mut Cx<Self>, item: Item, out: &mut Vec<u8>) -> bool {
        match item {
            Item::Carried(_) => {
                out.extend_from_slice(&self.identity.state.to_le_bytes());
                out.extend_from_slice(self.identity.host.as_bytes());
                false
            }
            Item::Source(id) => {
                let Some(peer) = cx.source::<Peer>(id) else {
                    return cx.source(id).is_some_and(Acceptor::is_pausing);
                };
                peer.save(cx.deadline(id), out)
            }
        }
    }

    fn restore(&mut self, cx: &mut Cx<Self>, arrival: Arrival<'_>) -> Result<Item, Rejection> {
        match (arrival.name, arrival.state.version, arrival.fd) {
            ("listener", VERSION, Some(fd)) => Ok(listen(fd.into(), cx)?),
            ("peer", VERSION, Some(fd)) => {
                let mut peer = Peer::from(TcpStream::from(fd));
                let until = peer.restore(arrival.state.bytes)?;
                Ok(peer.add(cx, Some(until))?)
            }
            ("identity", VERSION, None) => {
                self.update(cx, Item::Carried(IDENTITY), arrival.state)?;
                Ok(Item::Carried(IDENTITY))
            }
            // Of another release: its donor serves it to its end.
            ("peer", _, Some(_)) => Err(Rejection::Declined(DeclineCode::StateVersion)),
            (name, version, _) => Err(format!("{name:?}, version {version}, is not for us").into()),
        }
    }

    fn update(
        &mut self,
        cx: &mut Cx<Self>,
        item: Item,
        state: SavedState<'_>,
    ) -> Result<(), String> {
        match item {
            Item::Carried(_) => {
                let (number, host) = state.bytes.split_first_chunk().ok_or("no identity")?;
                self.identity.state = u32::from_le_bytes(*number);
                self.identity.host = String::from_utf8_lossy(host).into_owned();
            }
            Item::Source(id) => {
                if let Some(peer) = cx.source_mut::<Peer>(id) {
                    let until = peer.restore(state.bytes)?;
                    cx.set_deadline(id, Some(until));
                }
            }
        }
        Ok(())
    }

    fn moment(&mut self, cx: &mut Cx<Self>, moment: Moment) {
        eprintln!("{moment}");
        moment.follow(self, cx);
    }
}
