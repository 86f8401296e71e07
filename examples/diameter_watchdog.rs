//! A Diameter peer (RFC 6733) that keeps its connections over its own upgrade.
//!
//! It answers capabilities exchange, watchdog and disconnect, and says of any other request
//! that it is not supported. A message comes in as many pieces as TCP likes: what has come of
//! it travels. Origin-State-Id tells a peer whether we have lost our sessions (§8.16): it is
//! the time of the cold start, and a takeover keeps it.
//!
//! ```text
//!   diameter_watchdog -t PATH HOST ADDRESS    cold start as HOST, on ADDRESS such as 0.0.0.0:3868
//!   diameter_watchdog -T PATH                 take over from whoever offers it at PATH
//! ```
//!
//! | item | kind | state, version 1, little-endian |
//! |---|---|---|
//! | "listener" | listener | our identity: the AVPs that every answer has, as they are sent |
//! | "peer" | tcp peer | deadline (8 bytes, ns), capabilities exchanged (0 or 1), stream |

use std::io::{self, ErrorKind};
use std::net::{IpAddr, TcpListener, TcpStream};
use std::time::{Duration, UNIX_EPOCH};

use socket_takeover::event::{Acceptor, Cx, Stream, Time};
use socket_takeover::takeover::{
    Application, Arrival, DeclineCode, Description, Error, Exit, Item, Moment, Rejection,
    SavedState, Start, Takeover,
};

const VERSION: u16 = 1;
/// A peer is to be heard of twice in so long (RFC 3539 recommends a watchdog each 30 s).
const SILENCE: Duration = Duration::from_secs(60);
/// A peer that announces a longer message is not one.
const LONGEST: usize = 64 * 1024;

const CAPABILITIES: u32 = 257;
const WATCHDOG: u32 = 280;
const DISCONNECT: u32 = 282;
/// Flags of a command: a request; proxiable; an error. Of an AVP: not to be ignored.
const REQUEST: u8 = 0x80;
const PROXIABLE: u8 = 0x40;
const ERROR: u8 = 0x20;
const MANDATORY: u8 = 0x40;

#[derive(Default)]
struct Diameter {
    identity: Vec<u8>,
    takeover: Takeover,
}

/// A connection, and whether capabilities were exchanged on it.
type Peer = Stream<bool>;

fn main() -> Exit {
    run().into()
}

fn run() -> Result<(), Error> {
    let (start, [host, address]) = Start::from_args(["HOST", "ADDRESS"])?;
    start.run(&mut Diameter::default(), |app, cx| {
        let realm = host.split_once('.').map_or("", |(_, realm)| realm);
        let started = UNIX_EPOCH.elapsed().map_err(io::Error::other)?.as_secs() as u32;
        avp(&mut app.identity, 264, MANDATORY, host.as_bytes());
        avp(&mut app.identity, 296, MANDATORY, realm.as_bytes());
        avp(&mut app.identity, 278, MANDATORY, &started.to_be_bytes());
        let listener = Acceptor::bind(address.parse().map_err(io::Error::other)?)?;
        eprintln!("serving on {} as {host}", listener.local_addr()?);
        listen(listener, cx).map(|_| ())
    })
}

fn listen(listener: Acceptor, cx: &mut Cx<Diameter>) -> io::Result<Item> {
    let added = listener.add(cx, "listener", |_, cx, stream, _| {
        stream.set_nodelay(true)?;
        add(stream.into(), cx).map(|_| ())
    })?;
    Ok(added.into())
}

/// Accepted or handed over, a peer is served in the same way.
fn add(peer: Peer, cx: &mut Cx<Diameter>) -> io::Result<Item> {
    let spec = Peer::spec("peer").deadline(cx.now() + SILENCE);
    let added = cx.add(spec, peer, |peer, app: &mut Diameter, cx, event| {
        peer.serve(cx, event, |peer, cx| {
            cx.set_deadline(event.id(), Some(cx.now() + SILENCE));
            take_in(peer, &app.identity)
        })
    })?;
    Ok(added.into())
}

/// Answers each message that is whole, of which the first 20 bytes are the header (§3).
fn take_in(peer: &mut Peer, identity: &[u8]) -> io::Result<()> {
    while let Some(&[version, a, b, c]) = peer.input.first_chunk() {
        let length = u32::from_be_bytes([0, a, b, c]) as usize;
        if version != 1 || !length.is_multiple_of(4) || !(20..=LONGEST).contains(&length) {
            return Err(ErrorKind::InvalidData.into());
        }
        if peer.input.len() < length {
            break;
        }
        let message: Vec<u8> = peer.input.drain(..length).collect();
        let command = u32::from_be_bytes([0, message[5], message[6], message[7]]);
        if message[4] & REQUEST == 0 {
            continue; // an answer, and we have asked nothing
        }
        peer.session |= command == CAPABILITIES;
        if !peer.session {
            return Err(ErrorKind::InvalidData.into());
        }
        let (result, error) = match command {
            CAPABILITIES | WATCHDOG | DISCONNECT => (2001_u32, 0),
            _ => (3001, ERROR),
        };
        let mut answer = vec![1, 0, 0, 0, message[4] & PROXIABLE | error];
        // The command, the application, and the identifiers by which the peer knows it.
        answer.extend(&message[5..20]);
        avp(&mut answer, 268, MANDATORY, &result.to_be_bytes());
        answer.extend(identity);
        if command == CAPABILITIES {
            let address = match peer.socket().local_addr()?.ip() {
                IpAddr::V4(us) => [&[0, 1][..], &us.octets()].concat(),
                IpAddr::V6(us) => [&[0, 2][..], &us.octets()].concat(),
            };
            avp(&mut answer, 257, MANDATORY, &address);
            avp(&mut answer, 266, MANDATORY, &[0; 4]); // Vendor-Id
            avp(&mut answer, 269, 0, Diameter::NAME.as_bytes()); // Product-Name
        }
        let length = answer.len() as u32;
        answer[1..4].copy_from_slice(&length.to_be_bytes()[1..]);
        peer.output.append(&mut answer);
    }
    Ok(())
}

/// Code, flags, a length of 3 bytes, data, and padding that the length does not count.
fn avp(out: &mut Vec<u8>, code: u32, flags: u8, data: &[u8]) {
    let length = 8 + data.len() as u32;
    out.extend(code.to_be_bytes());
    out.extend((u32::from(flags) << 24 | length).to_be_bytes());
    out.extend(data);
    out.resize(out.len().next_multiple_of(4), 0);
}

impl Application for Diameter {
    const NAME: &'static str = "diameter_watchdog";

    fn takeover(&mut self) -> &mut Takeover {
        &mut self.takeover
    }

    fn describe(&mut self, cx: &mut Cx<Self>, item: Item) -> Result<Description, String> {
        match item {
            Item::Source(id) => Description::detect(cx, id, VERSION),
            Item::Carried(_) => Err("nothing is carried beside the sockets".into()),
        }
    }

    fn save(&mut self, cx: &mut Cx<Self>, item: Item, out: &mut Vec<u8>) -> bool {
        let Item::Source(id) = item else { return false };
        let Some(peer) = cx.source::<Peer>(id) else {
            out.extend(&self.identity);
            return true; // a listener may pause: the successor's is to try at once
        };
        out.extend(cx.deadline(id).unwrap_or(Time::ZERO).as_ns().to_le_bytes());
        out.push(u8::from(peer.session));
        peer.save(out)
    }

    fn restore(&mut self, cx: &mut Cx<Self>, arrival: Arrival<'_>) -> Result<Item, Rejection> {
        let item = match (arrival.name, arrival.state.version, arrival.fd) {
            ("listener", VERSION, Some(fd)) => listen(TcpListener::from(fd).into(), cx)?,
            ("peer", VERSION, Some(fd)) => add(TcpStream::from(fd).into(), cx)?,
            // Of another release: its donor serves it to its end.
            ("peer", _, Some(_)) => return Err(Rejection::Declined(DeclineCode::StateVersion)),
            (name, version, _) => return Err(format!("no {name:?}, version {version}").into()),
        };
        self.update(cx, item, arrival.state)?;
        Ok(item)
    }

    fn update(&mut self, cx: &mut Cx<Self>, item: Item, now: SavedState<'_>) -> Result<(), String> {
        if let Item::Source(id) = item
            && let Some(peer) = cx.source_mut::<Peer>(id)
        {
            let (deadline, rest) = now.bytes.split_first_chunk().ok_or("no deadline")?;
            let (open, stream) = rest.split_first().ok_or("no session")?;
            peer.session = *open == 1;
            peer.restore(stream)?;
            cx.set_deadline(id, Some(Time::from_ns(u64::from_le_bytes(*deadline))));
        } else {
            self.identity = now.bytes.to_vec();
        }
        Ok(())
    }

    fn moment(&mut self, cx: &mut Cx<Self>, moment: Moment) {
        eprintln!("{moment}");
        moment.follow(self, cx);
    }
}
