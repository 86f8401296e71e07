//! States that are not where their sockets are, by one byte: with `--check-positions` each is
//! found out, before the claim wherever that is possible, and then nobody has lost anything.
//!
//! | who is wrong | when | found by |
//! |---|---|---|
//! | an application that saves too little or too much | preload, final array | the donor |
//! | one that restores something else | preload | the taker, at END |
//! | a donor that goes on reading and does not say so | before PREPARE | the taker, at END |
//! | a donor whose last state is not the last | final array | the taker, at once |
//! | a donor that reads in the freeze | after END | the taker, once it owns |

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::fd::OwnedFd;
use std::time::Duration;

use crate::support;
use crate::support::pair::{Process, stage, turn_until};
use crate::support::pinned::{Pinned, Step};
use crate::support::side::FakeDonor;
use crate::support::{Client, Server, Stage};
use socket_takeover::event::{Cx, Next, Spec};
use socket_takeover::proto::records::{Kind, Record};
use socket_takeover::takeover::internal::lease::Verdict;
use socket_takeover::takeover::{
    Application, Arrival, Deadlines, Description, Item, Moment, Positions, Rejection, SavedState,
    Takeover,
};

const FLAG: [&str; 1] = ["--check-positions"];

/// What a donor does behind the taker's back.
type Sin = fn(&mut TcpStream);

const SINS: [(&str, Sin); 2] = [
    ("1 read, 0 written", |peer| {
        peer.read_exact(&mut [0; 1]).expect("the client has spoken");
    }),
    ("0 read, 1 written", |peer| {
        peer.write_all(&[7]).expect("it is open");
    }),
];

/// A donor played by the test, with one client that has sent a message nobody has read.
struct Played {
    stage: Stage,
    donor: FakeDonor,
    client: Client,
}

impl Played {
    fn new() -> Played {
        let stage = Stage::new();
        let mut donor = FakeDonor::bind(&stage.path());
        let mut client = Client::connect(donor.address());
        client.say();
        donor.accept(1);
        let arrived = support::wait_readable(donor.first_peer(), support::BOUND);
        assert!(arrived.expect("it is a socket"));
        Played {
            stage,
            donor,
            client,
        }
    }

    /// WELCOME, the one batch, and what is done after it.
    fn preload_and(&mut self, sin: impl FnOnce(&mut TcpStream)) {
        self.donor.await_taker();
        self.donor.welcome();
        let stuffing = self.donor.stuffing();
        self.donor.send(&stuffing);
        sin(self.donor.first_peer());
        self.donor.side().say(&Record::Prepare);
        self.donor.side().expect(Kind::Drained);
    }

    fn end(&mut self) {
        self.donor.grant();
        let end = Record::End(self.donor.ending());
        // It may have hung up at what came before.
        let _ = self.donor.side().try_say(support::side::encoded(&end), &[]);
    }

    /// The taker has said FAIL and left with 75; the lease is still the donor's.
    #[track_caller]
    fn is_given_up(&mut self, mut taker: Server, why: &str) {
        let last = self.donor.last_word().expect("a last word");
        assert_eq!(last.record().kind(), Kind::Fail, "{why}");
        assert_eq!(taker.wait_exit(), 75, "{why}");
        taker.wait_line(why);
        assert_eq!(self.donor.revoke(), Verdict::Won, "{why}");
    }
}

#[test]
fn good_donor_is_found_good() {
    let mut played = Played::new();
    let taker = played.stage.take_over(&FLAG);
    played.preload_and(|_| {});
    played.donor.finish();
    played.donor.side().expect(Kind::Active);
    taker.wait_line("what was taken over: 1 agree, 0 cannot be told, 0 differ");
    played.client.hear();
    played.client.talk();
}

#[test]
fn receive_socket_used_and_no_other_state_comes() {
    for (_, sin) in SINS {
        let mut played = Played::new();
        let taker = played.stage.take_over(&FLAG);
        played.preload_and(sin);
        played.end();
        played.is_given_up(taker, "no other state came");
    }
}

/// What the flag is for: without it the byte is simply lost.
#[test]
fn receive_socket_used_and_nobody_looks() {
    let mut played = Played::new();
    let mut taker = played.stage.take_over(&[]);
    played.preload_and(SINS[0].1);
    played.end();
    played.donor.side().expect(Kind::Active);
    taker.wait_line("Serving on ");
    assert!(taker.is_running());
    assert_eq!(taker.log().count("positions"), 0);
}

#[test]
fn settle_last_state_is_an_old_one() {
    for (found, sin) in SINS {
        let mut played = Played::new();
        let taker = played.stage.take_over(&FLAG);
        played.preload_and(|_| {});
        sin(played.donor.first_peer());
        played.donor.final_array();
        played.end();
        let why = format!("the state says 0 read, 0 written, the socket {found}");
        played.is_given_up(taker, &why);
    }
}

/// It is too late to leave everything to the donor, so it is said.
#[test]
fn validate_socket_used_in_the_freeze() {
    for (found, sin) in SINS {
        let mut played = Played::new();
        let mut taker = Pinned::take_over(&played.stage.path(), &FLAG);
        // The donor's part is played by this thread too, as far as the taker waits for it.
        taker.run_to(Step::Sent(Kind::Hello), 1);
        played.donor.await_taker();
        played.donor.welcome();
        let stuffing = played.donor.stuffing();
        played.donor.throw(&stuffing);
        taker.run_to(Step::Sent(Kind::Ack), 1);
        played.donor.side().expect(Kind::Ack);
        played.donor.side().say(&Record::Prepare);
        taker.run_to(Step::Sent(Kind::Drained), 1);
        played.donor.side().expect(Kind::Drained);
        played.end();
        taker.run_to(Step::Received(Kind::End), 1);
        sin(played.donor.first_peer());
        let taker = taker.release();
        taker.wait_line(&format!(
            "the state says 0 read, 0 written, the socket {found}"
        ));
        taker.wait_line("what was taken over: 0 agree, 0 cannot be told, 1 differ");
    }
}

/// An application of one connection that counts what it reads and writes, and may be wrong.
#[derive(Debug, Default)]
struct App {
    takeover: Takeover,
    /// How long each comparison takes.
    slow: Duration,
    compared: usize,
    /// How many of them came before it owned.
    compared_before: usize,
    wrong: Option<Wrong>,
    moments: Vec<&'static str>,
    failure: String,
}

#[derive(Debug, Clone, Copy, PartialEq)]
enum Wrong {
    Save(i64, i64),
    Restore(i64, i64),
}

/// A connection, and how far its owner is.
#[derive(Debug)]
struct Counting {
    socket: TcpStream,
    at: Positions,
}

impl std::os::fd::AsFd for Counting {
    fn as_fd(&self) -> std::os::fd::BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

impl App {
    fn add(&mut self, cx: &mut Cx<App>, counting: Counting) -> Result<Item, Rejection> {
        let serve = |peer: &mut Counting, _: &mut App, _: &mut Cx<App>, _| {
            let mut room = [0; 256];
            loop {
                match peer.socket.read(&mut room) {
                    Ok(0) => return Ok(Next::End),
                    Ok(length) => {
                        peer.at.consumed += length as u64;
                        peer.at.written += peer.socket.write(&room[..length])? as u64;
                    }
                    Err(_) => return Ok(Next::Keep),
                }
            }
        };
        let handle = cx.add(Spec::item("counting"), counting, serve)?;
        Ok(handle.into())
    }
}

fn off(at: Positions, consumed: i64, written: i64) -> Positions {
    Positions {
        consumed: at.consumed.wrapping_add_signed(consumed),
        written: at.written.wrapping_add_signed(written),
    }
}

impl Application for App {
    const NAME: &'static str = "counting";

    fn takeover(&mut self) -> &mut Takeover {
        &mut self.takeover
    }

    fn describe(&mut self, cx: &mut Cx<App>, item: Item) -> Result<Description, String> {
        match item {
            Item::Source(id) => Description::detect(cx, id, 1),
            Item::Carried(_) => Err("nothing is carried".into()),
        }
    }

    fn save(&mut self, cx: &mut Cx<App>, item: Item, out: &mut Vec<u8>) -> bool {
        let at = self.positions(cx, item).expect("it is the peer");
        out.extend_from_slice(&at.consumed.to_le_bytes());
        out.extend_from_slice(&at.written.to_le_bytes());
        false
    }

    fn restore(&mut self, cx: &mut Cx<App>, arrival: Arrival<'_>) -> Result<Item, Rejection> {
        let (words, _) = arrival.state.bytes.as_chunks::<8>();
        let mut at = Positions {
            consumed: u64::from_le_bytes(words[0]),
            written: u64::from_le_bytes(words[1]),
        };
        if let Some(Wrong::Restore(consumed, written)) = self.wrong {
            at = off(at, consumed, written);
        }
        let fd: OwnedFd = arrival.fd.expect("a connection has one");
        let socket = TcpStream::from(fd);
        self.add(cx, Counting { socket, at })
    }

    fn update(&mut self, _: &mut Cx<App>, _: Item, _: SavedState<'_>) -> Result<(), String> {
        Ok(())
    }

    fn positions(&mut self, cx: &mut Cx<App>, item: Item) -> Option<Positions> {
        let Item::Source(id) = item else {
            return None;
        };
        std::thread::sleep(self.slow);
        self.compared += 1;
        let handle = cx.handle::<Counting>(id)?;
        let at = cx.get(handle)?.at;
        match self.wrong {
            Some(Wrong::Save(consumed, written)) => Some(off(at, consumed, written)),
            _ => Some(at),
        }
    }

    fn moment(&mut self, _: &mut Cx<App>, moment: Moment) {
        let said = match moment {
            Moment::RolledBack(report) => {
                self.failure = report.failure;
                "rolled back"
            }
            Moment::Exit => "exit",
            Moment::Active(_) => {
                self.compared_before = self.compared;
                "active"
            }
            Moment::Left(..) => "left",
            _ => return,
        };
        self.moments.push(said);
    }
}

/// A donor whose client has had an answer, and a taker, either of them wrong or not.
fn play(donor_is: Option<Wrong>, taker_is: Option<Wrong>) -> (Process<App>, Process<App>) {
    let (_folder, path) = stage();
    let app = |wrong| {
        let mut app = App {
            wrong,
            ..App::default()
        };
        app.takeover.check_positions(true);
        app
    };
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let mut client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    let (socket, _) = listener.accept().unwrap();
    socket.set_nonblocking(true).unwrap();
    // Else a socket that is ahead of its state may have passed over an urgent byte.
    nix::sys::socket::setsockopt(&socket, nix::sys::socket::sockopt::OobInline, &true).unwrap();
    let at = Positions::of(&socket).unwrap().unwrap();
    let mut donor = Process::donor(&path, app(donor_is));
    let cx = donor.reactor.cx();
    donor.app.add(cx, Counting { socket, at }).unwrap();
    client.write_all(b"ping pong").unwrap();
    client.set_nonblocking(true).unwrap();
    while client.peek(&mut [0; 9]).unwrap_or(0) < 9 {
        donor.turn();
    }
    let mut taker = Process::taker(&path, app(taker_is));
    turn_until(&mut donor, &mut taker, |donor, taker| {
        let failed = donor.moments.contains(&"rolled back") && taker.moments.contains(&"left");
        failed || (donor.moments.contains(&"exit") && taker.moments.contains(&"active"))
    });
    // Whoever it is, somebody serves.
    client.write_all(b"!").unwrap();
    while client.peek(&mut [0; 10]).unwrap_or(0) < 10 {
        donor.turn();
        taker.turn();
    }
    (donor, taker)
}

#[test]
fn application_that_counts_well_is_taken_over() {
    let (_, taker) = play(None, None);
    assert_eq!(taker.app.moments, ["active"]);
}

#[test]
fn application_that_saves_one_byte_more_or_less_is_not_taken_over() {
    for (consumed, written) in [(1, 0), (-1, 0), (0, 1), (0, -1)] {
        let (donor, taker) = play(Some(Wrong::Save(consumed, written)), None);
        assert_eq!(taker.app.moments, ["left"]);
        let why = format!(
            "the state says {} read, {} written, the socket 9 read, 9 written",
            9 + consumed,
            9 + written
        );
        assert!(donor.app.failure.contains(&why), "{}", donor.app.failure);
    }
}

#[test]
fn application_that_restores_one_byte_more_or_less_does_not_take_over() {
    for (consumed, written) in [(1, 0), (-1, 0), (0, 1), (0, -1)] {
        let (donor, taker) = play(None, Some(Wrong::Restore(consumed, written)));
        assert_eq!(taker.app.moments, ["left"]);
        let failure = &donor.app.failure;
        assert!(failure.contains("no other state came"), "{failure}");
    }
}

/// The donor would wait in vain for one that compares as long as it likes.
#[test]
fn comparison_that_takes_longer_than_there_is_time_is_finished_after_the_takeover() {
    const ITEMS: usize = 40;
    let (_folder, path) = stage();
    let app = |slow| {
        let mut app = App {
            slow,
            ..App::default()
        };
        app.takeover.check_positions(true);
        app
    };
    let mut donor = Process::donor(&path, app(Duration::ZERO));
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let mut clients = Vec::new();
    for _ in 0..ITEMS {
        clients.push(TcpStream::connect(listener.local_addr().unwrap()).unwrap());
        let (socket, _) = listener.accept().unwrap();
        socket.set_nonblocking(true).unwrap();
        nix::sys::socket::setsockopt(&socket, nix::sys::socket::sockopt::OobInline, &true).unwrap();
        let at = Positions::of(&socket).unwrap().unwrap();
        donor
            .app
            .add(donor.reactor.cx(), Counting { socket, at })
            .unwrap();
    }
    // All of them take longer than the freeze may, and so half of it is too short.
    let slow = Deadlines::default().freeze * 11 / 10 / ITEMS as u32;
    let mut taker = Process::taker(&path, app(slow));
    turn_until(&mut donor, &mut taker, |donor, taker| {
        donor.moments.contains(&"exit") && taker.moments.contains(&"active")
    });
    let before = taker.app.compared_before;
    assert!(0 < before && before < ITEMS, "{before} compared");
    while taker.app.compared < before + ITEMS {
        taker.turn();
    }
}
