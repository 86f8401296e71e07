//! A TCP relay whose connections outlive its own upgrade: the hardest honest case.
//!
//! Each client is two connections, and bytes are on the way in both directions at any time: in
//! the kernel, where they travel with the sockets, and here, where they travel as state. Either
//! side may have ended already while the other goes on.
//!
//! ```text
//!   tcp_relay -t PATH ADDRESS UPSTREAM    cold start: what comes to ADDRESS goes to UPSTREAM
//!   tcp_relay -T PATH                     take over from whoever offers it at PATH
//!
//!              read                  output                flush
//!   leg A ───────────────▶ B.output ─────────▶ leg B       and the same from B to A
//! ```
//!
//! What it shows: linked items. One leg is nothing without the other, so a successor that
//! declines one is not given the other, and one that has both finds them by their link.
//!
//! | item | kind | state, version 1 |
//! |---|---|---|
//! | "listener" | listener | none |
//! | "leg" | tcp peer, or opaque while it is being connected | as of a stream |
//! | "upstream" | state | the address, as text |

use std::io;
use std::net::{SocketAddr, TcpListener, TcpStream};

use socket_takeover::event::{Acceptor, Cx, Handle, Next, Stream};
use socket_takeover::takeover::{
    Application, Arrival, DeclineCode, Description, Error, Exit, Item, ItemKind, Moment, Rejection,
    SavedState, Start, Takeover,
};

const VERSION: u16 = 1;
/// Our number for the item "upstream".
const UPSTREAM: u32 = 0;

#[derive(Default)]
struct Relay {
    /// None until a successor has been told.
    upstream: Option<SocketAddr>,
    takeover: Takeover,
}

/// One of the two connections of a client.
type Leg = Stream<Pair>;

#[derive(Default)]
struct Pair {
    /// Set as soon as both are in the reactor.
    partner: Option<Handle<Leg>>,
}

fn main() -> Exit {
    run().into()
}

fn run() -> Result<(), Error> {
    let (start, [address, upstream]) = Start::from_args(["ADDRESS", "UPSTREAM"])?;
    start.run(&mut Relay::default(), |app, cx| {
        app.upstream = Some(upstream.parse().map_err(io::Error::other)?);
        let listener = Acceptor::bind(address.parse().map_err(io::Error::other)?)?;
        eprintln!("serving on {}", listener.local_addr()?);
        listen(listener, cx).map(|_| ())
    })
}

fn listen(listener: Acceptor, cx: &mut Cx<Relay>) -> io::Result<Item> {
    let added = listener.add(cx, "listener", |app: &mut Relay, cx, client, _| {
        let upstream = Stream::connect(app.upstream.ok_or(io::ErrorKind::NotConnected)?)?;
        client.set_nodelay(true)?;
        upstream.socket().set_nodelay(true)?;
        let upstream = add(upstream, None, cx)?;
        add(client.into(), Some(upstream), cx).inspect_err(|_| drop(cx.take(upstream)))?;
        Ok(())
    })?;
    Ok(added.into())
}

/// Accepted, connected or handed over. Of two legs the second knows the first, and tells it.
fn add(mut leg: Leg, partner: Option<Handle<Leg>>, cx: &mut Cx<Relay>) -> io::Result<Handle<Leg>> {
    leg.session.partner = partner;
    let handle = cx.add(Leg::spec("leg"), leg, |leg, _, cx, _| {
        let passed = pass(leg, cx);
        if !matches!(passed, Ok(Next::Keep | Next::Again)) {
            leg.end();
            if let Some(partner) = leg.session.partner.and_then(|partner| cx.take(partner)) {
                partner.end();
            }
        }
        passed
    })?;
    if let Some(first) = partner.and_then(|first| cx.get_mut(first)) {
        first.session.partner = Some(handle);
    }
    Ok(handle)
}

/// All that can be done for this leg now. It is not read while its partner has something to
/// send, so a client that does not read fills the kernel's buffers and not ours. The one that
/// gets rid of its bytes resumes the other, whose readiness would not be reported again.
fn pass(leg: &mut Leg, cx: &mut Cx<Relay>) -> io::Result<Next> {
    let Some(partner) = leg.session.partner else {
        return Ok(Next::Keep);
    };
    let was_blocked = !leg.output.is_empty();
    if leg.flush()? && was_blocked {
        cx.resume_later(partner);
    }
    for _ in 0..cx.budget() {
        let Some(other) = cx.get_mut(partner) else {
            return Ok(Next::End);
        };
        if leg.is_finished() && other.is_finished() {
            return Ok(Next::End);
        }
        if !other.wants_output() {
            return Ok(Next::Keep);
        }
        match leg.read()? {
            None => return Ok(Next::Keep),
            Some(0) => other.finish(),
            Some(_) => other.output.append(&mut leg.input),
        }
        other.flush()?;
    }
    Ok(Next::Again)
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
        let partner = cx.source::<Leg>(id).and_then(|leg| leg.session.partner);
        Ok(Description::detect(cx, id, VERSION)?.links(partner.map(Item::from)))
    }

    fn save(&mut self, cx: &mut Cx<Self>, item: Item, out: &mut Vec<u8>) -> bool {
        let Item::Source(id) = item else {
            let upstream = self.upstream.map(|address| address.to_string());
            out.extend(upstream.unwrap_or_default().as_bytes());
            return false;
        };
        match cx.source::<Leg>(id) {
            Some(leg) => leg.save(out),
            None => true, // the listener, which may pause: the successor's tries at once
        }
    }

    fn restore(&mut self, cx: &mut Cx<Self>, arrival: Arrival<'_>) -> Result<Item, Rejection> {
        let item = match (arrival.name, arrival.state.version, arrival.fd) {
            ("listener", VERSION, Some(fd)) => listen(TcpListener::from(fd).into(), cx)?,
            ("leg", VERSION, Some(fd)) => {
                let partner = match arrival.links[..] {
                    [Item::Source(id)] => cx.handle(id),
                    _ => None,
                };
                add(TcpStream::from(fd).into(), partner, cx)?.into()
            }
            ("upstream", VERSION, None) => Item::Carried(UPSTREAM),
            // Of another release: its donor serves it to its end.
            ("leg", _, Some(_)) => return Err(Rejection::Declined(DeclineCode::StateVersion)),
            (name, version, _) => return Err(format!("no {name:?}, version {version}").into()),
        };
        self.update(cx, item, arrival.state)?;
        Ok(item)
    }

    fn update(&mut self, cx: &mut Cx<Self>, item: Item, now: SavedState<'_>) -> Result<(), String> {
        let Item::Source(id) = item else {
            let upstream = String::from_utf8_lossy(now.bytes).parse();
            self.upstream = Some(upstream.map_err(|_| "no address of an upstream")?);
            return Ok(());
        };
        let leg = cx.source_mut::<Leg>(id);
        leg.map_or(Ok(()), |leg| leg.restore(now.bytes))
    }

    fn moment(&mut self, cx: &mut Cx<Self>, moment: Moment) {
        eprintln!("{moment}");
        moment.follow(self, cx);
    }
}
