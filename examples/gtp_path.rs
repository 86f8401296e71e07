//! GTP path management that outlives its own upgrade.
//!
//! Answers echo requests on two UDP sockets: GTP-U (TS 29.281) and GTP-C, versions 1 and 2
//! (TS 29.060, TS 29.274). An answer of GTP-C carries the Recovery counter: a peer that sees
//! another one takes it for a restart and deletes every session that it has with us (TS
//! 23.007 §18). So a cold start counts up, in a file, and a takeover must not.
//!
//! ```text
//!   gtp_path -t PATH FILE [USER CONTROL]    cold start; addresses, if not 0.0.0.0:2152 and :2123
//!   gtp_path -T PATH                        take over from the process that offers it at PATH
//! ```
//!
//! What it shows: datagram sockets as items, and state without a descriptor.
//!
//! | item | kind | state, version 1 |
//! |---|---|---|
//! | "gtp-u", "gtp-c" | udp | none: what is queued in the kernel moves with the socket |
//! | "recovery" | state | Recovery counter (1 byte), echoes answered (8 bytes, little-endian) |

use std::net::{SocketAddr, UdpSocket};
use std::{env, fs, io};

use socket_takeover::event::{Cx, Next, Spec};
use socket_takeover::takeover::{
    Application, Arrival, Description, Error, Exit, Item, ItemKind, Moment, Rejection, SavedState,
    Start, Takeover, TakeoverPath,
};

/// Version of every state below; a change that an older release cannot read gets another.
const VERSION: u16 = 1;
/// What the sockets are called, in logs and to a successor.
const GTP_U: &str = "gtp-u";
const GTP_C: &str = "gtp-c";
/// Our number for the item "recovery".
const RECOVERY: u32 = 0;

/// The application's state, which every callback gets.
#[derive(Default)]
struct GtpPath {
    recovery: u8,
    answered: u64,
    takeover: Takeover,
}

fn main() -> Exit {
    run().into()
}

fn run() -> Result<(), Error> {
    let words: Vec<String> = env::args().skip(1).collect();
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    let mut app = GtpPath::default();
    let (path, file, user, control) = match words[..] {
        ["-T", path] => {
            return Start::take_over(TakeoverPath::new(path)?).run(&mut app, |_, _| Ok(()));
        }
        ["-t", path, file] => (path, file, "0.0.0.0:2152", "0.0.0.0:2123"),
        ["-t", path, file, user, control] => (path, file, user, control),
        _ => return Err(Error::usage("say -t PATH FILE [USER CONTROL], or -T PATH")),
    };
    Start::offer(TakeoverPath::new(path)?).run(&mut app, |app, cx| {
        let user = open(user, GTP_U, cx)?;
        let control = open(control, GTP_C, cx)?;
        // Not before both are ours: a second start by mistake is no restart.
        app.recovery = count_up(file)?;
        eprintln!("serving on {user} and {control}");
        Ok(())
    })
}

fn open(address: &str, name: &'static str, cx: &mut Cx<GtpPath>) -> io::Result<SocketAddr> {
    let socket = UdpSocket::bind(address)?;
    socket.set_nonblocking(true)?;
    let bound = socket.local_addr()?;
    add(socket, name, cx)?;
    Ok(bound)
}

/// Opened or handed over, a socket is served in the same way.
fn add(socket: UdpSocket, name: &'static str, cx: &mut Cx<GtpPath>) -> io::Result<Item> {
    let added = cx.add(Spec::item(name), socket, move |socket, app, cx, _| {
        serve(socket, name, app, cx)
    })?;
    Ok(added.into())
}

/// The counter of this start: one more than that of the last, which the file has.
fn count_up(file: &str) -> io::Result<u8> {
    let last = match fs::read_to_string(file) {
        Ok(text) => text.trim().parse().map_err(io::Error::other)?,
        Err(error) if error.kind() == io::ErrorKind::NotFound => 0_u8,
        Err(error) => return Err(error),
    };
    let counter = last.wrapping_add(1);
    // Renamed into place: a crash leaves the old number or the new one.
    fs::write(format!("{file}.new"), counter.to_string())?;
    fs::rename(format!("{file}.new"), file)?;
    Ok(counter)
}

impl Application for GtpPath {
    const NAME: &'static str = "gtp_path";

    fn takeover(&mut self) -> &mut Takeover {
        &mut self.takeover
    }

    fn carried(&self, out: &mut Vec<u32>) {
        out.push(RECOVERY);
    }

    fn describe(&mut self, cx: &mut Cx<Self>, item: Item) -> Result<Description, String> {
        match item {
            Item::Source(id) => Description::source(cx, id, ItemKind::Udp, VERSION),
            Item::Carried(_) => Ok(Description::new(ItemKind::State, "recovery", VERSION)),
        }
    }

    fn save(&mut self, _: &mut Cx<Self>, item: Item, out: &mut Vec<u8>) -> bool {
        if item == Item::Carried(RECOVERY) {
            out.push(self.recovery);
            out.extend_from_slice(&self.answered.to_le_bytes());
        }
        false
    }

    fn restore(&mut self, cx: &mut Cx<Self>, arrival: Arrival<'_>) -> Result<Item, Rejection> {
        match (arrival.name, arrival.state.version, arrival.fd) {
            (GTP_U, VERSION, Some(fd)) => Ok(add(fd.into(), GTP_U, cx)?),
            (GTP_C, VERSION, Some(fd)) => Ok(add(fd.into(), GTP_C, cx)?),
            ("recovery", VERSION, None) => {
                self.update(cx, Item::Carried(RECOVERY), arrival.state)?;
                Ok(Item::Carried(RECOVERY))
            }
            // Without it we would be no successor: the donor had better go on.
            (name, version, _) => Err(format!("{name:?}, version {version}, is not for us").into()),
        }
    }

    fn update(
        &mut self,
        _: &mut Cx<Self>,
        item: Item,
        state: SavedState<'_>,
    ) -> Result<(), String> {
        if item == Item::Carried(RECOVERY) {
            let (recovery, answered) = state.bytes.split_first().ok_or("no counter")?;
            let answered = answered.try_into().map_err(|_| "no count of echoes")?;
            (self.recovery, self.answered) = (*recovery, u64::from_le_bytes(answered));
        }
        Ok(())
    }

    fn moment(&mut self, cx: &mut Cx<Self>, moment: Moment) {
        eprintln!("{moment}; recovery {}", self.recovery);
        moment.follow(self, cx);
    }
}

fn serve(socket: &UdpSocket, name: &str, app: &mut GtpPath, cx: &Cx<GtpPath>) -> io::Result<Next> {
    let mut datagram = [0; 2048];
    for _ in 0..cx.budget() {
        match socket.recv_from(&mut datagram) {
            Ok((length, peer)) => {
                if let Some(answer) = echo(&datagram[..length], name, app.recovery) {
                    // Not taken: the peer asks again, as if it had been lost.
                    app.answered += u64::from(socket.send_to(&answer, peer).is_ok());
                }
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(Next::Keep),
            // It was about one datagram (udp(7)), and reading it has cleared it.
            Err(_) => {}
        }
    }
    Ok(Next::Again)
}

/// The answer to an echo request; other messages belong to whoever has sessions.
fn echo(request: &[u8], name: &str, recovery: u8) -> Option<Vec<u8>> {
    match *request {
        // Version 1, whose S flag says that there is a sequence number. The IE is TV: type 14;
        // in the user plane its value is 0, and not to be looked at.
        [flags, 1, _, _, _, _, _, _, high, low, ..] if flags & 0xf2 == 0x32 => {
            let recovery = if name == GTP_U { 0 } else { recovery };
            Some([0x32, 2, 0, 6, 0, 0, 0, 0, high, low, 0, 0, 14, recovery].into())
        }
        // Version 2, without TEID. The IE is TLIV: type 3, length 1.
        [flags, 1, _, _, a, b, c, _, ..] if flags & 0xe8 == 0x40 && name == GTP_C => {
            Some([0x40, 2, 0, 9, a, b, c, 0, 3, 0, 1, 0, recovery].into())
        }
        _ => None,
    }
}
