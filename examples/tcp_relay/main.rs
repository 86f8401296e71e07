//! A TCP relay whose connections outlive its own upgrade: the hardest honest case.
//!
//! Each client is two connections, and bytes are on the way in both directions at any time: in
//! the kernel, where they travel with the sockets, and here, where they travel as state. Either
//! side may have ended already while the other goes on.
//!
//! ```text
//!   tcp_relay -t PATH ADDRESS UPSTREAM    cold start: what comes to ADDRESS goes to UPSTREAM
//!   tcp_relay -T PATH                     take over from whoever offers it at PATH
//! ```
//!
//! What it shows: linked items. One leg is nothing without the other, so a successor that
//! declines one is not given the other, and one that has both finds them by their link.
//!
//! | item | kind | state, version 1 |
//! |---|---|---|
//! | "listener" | listener | none |
//! | "leg" | tcp peer, or opaque while it is being connected | see `leg.rs` |
//! | "upstream" | state | the address, as text |

mod leg;

use std::io;
use std::net::{SocketAddr, TcpListener, TcpStream};

use leg::Leg;
use socket_takeover::event::{Acceptor, Cx, Spec};
use socket_takeover::takeover::{
    Application, Arrival, DeclineCode, Description, Error, Exit, Item, ItemKind, Moment, Rejection,
    SavedState, Start, Takeover, TakeoverPath,
};

const VERSION: u16 = 1;
/// Our number for the item "upstream".
const UPSTREAM: u32 = 0;

#[derive(Default)]
pub(crate) struct Relay {
    /// None until a successor has been told.
    upstream: Option<SocketAddr>,
    takeover: Takeover,
}

fn main() -> Exit {
    run().into()
}

fn run() -> Result<(), Error> {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    let mut app = Relay::default();
    let (path, address, upstream) = match words[..] {
        ["-T", path] => {
            return Start::take_over(TakeoverPath::new(path)?).run(&mut app, |_, _| Ok(()));
        }
        ["-t", path, address, upstream] => (path, address, upstream),
        _ => return Err(Error::usage("say -t PATH ADDRESS UPSTREAM, or -T PATH")),
    };
    let upstream = upstream.parse();
    app.upstream = Some(upstream.map_err(|_| Error::usage("UPSTREAM is to be HOST:PORT"))?);
    Start::offer(TakeoverPath::new(path)?).run(&mut app, |_, cx| {
        let listener = TcpListener::bind(address)?;
        listener.set_nonblocking(true)?;
        eprintln!("serving on {}", listener.local_addr()?);
        listen(listener, cx)?;
        Ok(())
    })
}

fn listen(listener: TcpListener, cx: &mut Cx<Relay>) -> io::Result<Item> {
    let (spec, listener) = (Spec::item("listener"), Acceptor::from(listener));
    let added = cx.add(spec, listener, |listener, app: &mut Relay, cx, event| {
        listener.accept(cx, event, |cx, client, address| {
            if let Err(error) = app.welcome(client, cx) {
                eprintln!("{address} was not taken: {error}");
            }
        })
    })?;
    Ok(added.into())
}

impl Relay {
    fn welcome(&mut self, client: TcpStream, cx: &mut Cx<Relay>) -> io::Result<()> {
        client.set_nodelay(true)?;
        let upstream = self.upstream.ok_or(io::ErrorKind::NotConnected)?;
        let upstream = Leg::connect(upstream)?.add(cx)?;
        let mut client = Leg::from(client);
        client.partner = Some(upstream);
        let client = client.add(cx).inspect_err(|_| drop(cx.take(upstream)))?;
        if let Some(leg) = cx.get_mut(upstream) {
            leg.partner = Some(client);
        }
        Ok(())
    }
}

impl Application for Relay {
    const NAME: &'static str = "tcp_relay";

    fn takeover(&mut self) -> &mut Takeover {
        &mut self.takeover
    }

    fn carried(&self, out: &mut Vec<u32>) {
        out.push(UPSTREAM);
    }

    fn describe(&mut self, cx: &mut Cx<Self>, item: Item) -> Result<Description, String> {
        let Item::Source(id) = item else {
            return Ok(Description::new(ItemKind::State, "upstream", VERSION));
        };
        let Some(leg) = cx.source::<Leg>(id) else {
            return Description::source(cx, id, ItemKind::Listener, VERSION);
        };
        let kind = if leg.is_connected() {
            ItemKind::TcpPeer
        } else {
            ItemKind::Opaque
        };
        let partner = leg.partner.map(Item::from);
        Ok(Description::source(cx, id, kind, VERSION)?.links(partner))
    }

    fn save(&mut self, cx: &mut Cx<Self>, item: Item, out: &mut Vec<u8>) -> bool {
        match item {
            Item::Carried(_) => {
                let upstream = self.upstream.map(|address| address.to_string());
                out.extend_from_slice(upstream.unwrap_or_default().as_bytes());
                false
            }
            Item::Source(id) => match cx.source::<Leg>(id) {
                Some(leg) => leg.save(out),
                None => cx.source(id).is_some_and(Acceptor::is_pausing),
            },
        }
    }

    fn restore(&mut self, cx: &mut Cx<Self>, arrival: Arrival<'_>) -> Result<Item, Rejection> {
        match (arrival.name, arrival.state.version, arrival.fd) {
            ("listener", VERSION, Some(fd)) => Ok(listen(fd.into(), cx)?),
            ("leg", VERSION, Some(fd)) => {
                let mut leg = Leg::from(TcpStream::from(fd));
                leg.restore(arrival.state.bytes)?;
                // Of two, the one that comes second knows the first, and tells it.
                if let [Item::Source(id)] = arrival.links[..] {
                    leg.partner = cx.handle(id);
                }
                let partner = leg.partner;
                let handle = leg.add(cx)?;
                if let Some(leg) = partner.and_then(|partner| cx.get_mut(partner)) {
                    leg.partner = Some(handle);
                }
                Ok(handle.into())
            }
            ("upstream", VERSION, None) => {
                self.update(cx, Item::Carried(UPSTREAM), arrival.state)?;
                Ok(Item::Carried(UPSTREAM))
            }
            // Of another release: its donor serves it to its end.
            ("leg", _, Some(_)) => Err(Rejection::Declined(DeclineCode::StateVersion)),
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
                let upstream = std::str::from_utf8(state.bytes).ok();
                let upstream = upstream.and_then(|text| text.parse().ok());
                self.upstream = Some(upstream.ok_or("no address of an upstream")?);
                Ok(())
            }
            Item::Source(id) => match cx.source_mut::<Leg>(id) {
                Some(leg) => leg.restore(state.bytes),
                None => Ok(()),
            },
        }
    }

    fn moment(&mut self, cx: &mut Cx<Self>, moment: Moment) {
        eprintln!("{moment}");
        moment.follow(self, cx);
    }
}
