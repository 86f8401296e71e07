use std::time::Duration;

use super::*;
use crate::event::{Config, Reactor};

const LONG: Option<Duration> = Some(Duration::from_secs(10));

/// What was accepted, by the listener's name, and what was told.
#[derive(Default)]
struct Seen {
    streams: Vec<(&'static str, TcpStream)>,
    told: Vec<String>,
}

fn reactor(budget: u32) -> Reactor<Seen> {
    let config = Config {
        budget,
        ..Config::default()
    };
    let mut reactor = Reactor::new(config).unwrap();
    reactor.cx().on_accepting(|seen: &mut Seen, _, news| {
        let quiet = if news.is_quiet { " (quiet)" } else { "" };
        seen.told.push(format!("{news}{quiet}"));
    });
    reactor
}

fn any() -> Acceptor {
    Acceptor::bind("127.0.0.1:0".parse().unwrap()).unwrap()
}

/// Whose streams stay outside of the reactor.
fn add(cx: &mut Cx<Seen>, listener: Acceptor, name: &'static str) -> Handle<Acceptor> {
    let welcome = move |seen: &mut Seen, _: &mut Cx<Seen>, stream, _| {
        seen.streams.push((name, stream));
        Ok(())
    };
    listener.add(cx, name, welcome).unwrap()
}

/// Whose streams become sources that end when their client does.
fn add_sources(cx: &mut Cx<Seen>, listener: Acceptor, name: &'static str) -> Handle<Acceptor> {
    let welcome = move |seen: &mut Seen, cx: &mut Cx<Seen>, stream: TcpStream, _| {
        seen.streams.push((name, stream.try_clone()?));
        cx.add(Spec::item("peer"), stream, |_, _, _, _| Ok(Next::End))?;
        Ok(())
    };
    listener.add(cx, name, welcome).unwrap()
}

fn turn_until(reactor: &mut Reactor<Seen>, seen: &mut Seen, so: impl Fn(&Seen) -> bool) {
    while !so(seen) {
        let turns = reactor.cx().stats().turns;
        assert!(turns < 1000, "{:?}", seen.told);
        reactor.turn(seen, LONG).unwrap();
    }
}

fn connect(address: SocketAddr) -> TcpStream {
    TcpStream::connect(address).unwrap()
}

#[test]
fn acceptor_with_more_clients_than_budget_accepts_all() {
    let mut reactor = reactor(2);
    let listener = any();
    let address = listener.local_addr().unwrap();
    let handle = add(reactor.cx(), listener, "listener");
    let clients: Vec<TcpStream> = (0..5).map(|_| connect(address)).collect();
    let mut seen = Seen::default();
    while seen.streams.len() < clients.len() {
        let before = seen.streams.len();
        reactor.turn(&mut seen, LONG).unwrap();
        assert!(seen.streams.len() > before, "a turn in vain");
    }
    for (client, (_, stream)) in clients.iter().zip(&seen.streams) {
        assert_eq!(client.local_addr().unwrap(), stream.peer_addr().unwrap());
    }
    assert!(!reactor.cx().get(handle).unwrap().is_pausing());
    assert_eq!(seen.told, [""; 0]);
}

#[test]
fn client_beyond_the_limit_is_accepted_when_a_source_has_ended() {
    let mut reactor = reactor(16);
    let listener = any().limit(2);
    let address = listener.local_addr().unwrap();
    let handle = add_sources(reactor.cx(), listener, "listener");
    let mut clients: Vec<TcpStream> = (0..3).map(|_| connect(address)).collect();
    let mut seen = Seen::default();
    turn_until(&mut reactor, &mut seen, |seen| !seen.told.is_empty());
    assert_eq!(seen.streams.len(), 2);
    assert!(
        seen.told[0].contains("2 sources are the most"),
        "{:?}",
        seen.told
    );
    let cx = reactor.cx();
    assert!(cx.is_resuming(handle), "a successor would not try");
    assert_eq!(
        cx.deadline(handle),
        None,
        "nothing is tried before one has ended"
    );
    drop(clients.remove(0));
    turn_until(&mut reactor, &mut seen, |seen| seen.streams.len() == 3);
    drop(clients.remove(0));
    turn_until(&mut reactor, &mut seen, |seen| seen.told.len() == 2);
    assert_eq!(seen.told[1], "listener: connections are accepted again");
    assert!(!reactor.cx().is_resuming(handle));
    assert_eq!(reactor.cx().stats().accept_pauses, 1);
    // Again within a minute.
    clients.extend((0..2).map(|_| connect(address)));
    turn_until(&mut reactor, &mut seen, |seen| seen.told.len() == 3);
    assert!(seen.told[2].ends_with("(quiet)"), "{:?}", seen.told);
}

#[test]
fn listeners_that_wait_for_the_same_room_have_it_in_turn() {
    const NAMES: [&str; 3] = ["a", "b", "c"];
    let mut reactor = reactor(16);
    let mut waiting = Vec::new();
    let full = any();
    let first = connect(full.local_addr().unwrap());
    let mut seen = Seen::default();
    let full = add_sources(reactor.cx(), full, "full");
    turn_until(&mut reactor, &mut seen, |seen| seen.streams.len() == 1);
    reactor.cx().remove(full);
    for name in NAMES {
        // The other two, and one connection.
        let listener = any().limit(3);
        let address = listener.local_addr().unwrap();
        add_sources(reactor.cx(), listener, name);
        waiting.extend((0..3).map(|_| connect(address)));
    }
    turn_until(&mut reactor, &mut seen, |seen| seen.told.len() == 3);
    drop(first);
    for count in 2..8 {
        turn_until(&mut reactor, &mut seen, |seen| seen.streams.len() == count);
        let (_, newest) = seen.streams.last().unwrap();
        newest.shutdown(std::net::Shutdown::Both).unwrap();
    }
    for name in NAMES {
        let accepted = seen.streams.iter().filter(|(by, _)| *by == name);
        assert!(
            accepted.count() >= 1,
            "{name} was never served: {:?}",
            seen.streams
        );
    }
}

#[test]
fn client_that_could_not_be_taken_for_want_of_something_makes_a_pause() {
    let mut reactor = reactor(16);
    let listener = any();
    let address = listener.local_addr().unwrap();
    let mut first = true;
    let welcome = move |seen: &mut Seen, _: &mut Cx<Seen>, stream, _| {
        if std::mem::take(&mut first) {
            return Err(io::Error::from_raw_os_error(libc::ENOSPC));
        }
        seen.streams.push(("listener", stream));
        Ok(())
    };
    let handle = listener.add(reactor.cx(), "listener", welcome).unwrap();
    let _clients: Vec<TcpStream> = (0..2).map(|_| connect(address)).collect();
    let mut seen = Seen::default();
    turn_until(&mut reactor, &mut seen, |seen| !seen.told.is_empty());
    assert!(seen.streams.is_empty());
    assert!(reactor.cx().deadline(handle).is_some());
    turn_until(&mut reactor, &mut seen, |seen| seen.told.len() == 2);
    assert_eq!(seen.streams.len(), 1);
    assert_eq!(reactor.cx().stats().accepts_unforeseen, 0);
}

#[test]
fn listener_shut_down_by_another_holder_listens_again() {
    let mut reactor = reactor(16);
    let listener = any();
    let address = listener.local_addr().unwrap();
    let other = listener.as_fd().try_clone_to_owned().unwrap();
    let handle = add(reactor.cx(), listener, "listener");
    let mut seen = Seen::default();
    for times in 1..=2 {
        shutdown(other.as_raw_fd(), Shutdown::Both).unwrap();
        turn_until(&mut reactor, &mut seen, |seen| seen.told.len() == times);
        let expected = format!("listens on {address} again");
        assert!(seen.told[times - 1].contains(&expected), "{:?}", seen.told);
        let _client = connect(address);
        turn_until(&mut reactor, &mut seen, |seen| seen.streams.len() == times);
    }
    assert!(reactor.cx().get(handle).unwrap().broken().is_none());
    assert_eq!(reactor.cx().stats().faults, 0);
    assert_eq!(reactor.cx().stats().accepts_unforeseen, 0);
}

/// Whoever has a copy can make a client of it, and that cannot listen: bind(2) and listen(2) both
/// say `EINVAL`.
#[test]
fn listener_that_cannot_listen_again_is_replaced_by_another() {
    let mut reactor = reactor(16);
    let listener = any();
    let address = listener.local_addr().unwrap();
    let other = listener.as_fd().try_clone_to_owned().unwrap();
    let handle = add(reactor.cx(), listener, "listener");
    let elsewhere = TcpListener::bind("127.0.0.1:0").unwrap();
    let to = nix::sys::socket::SockaddrStorage::from(elsewhere.local_addr().unwrap());
    shutdown(other.as_raw_fd(), Shutdown::Both).unwrap();
    // It is bound to another port since, unless it had asked for the one.
    let at = nix::sys::socket::SockaddrStorage::from(address);
    nix::sys::socket::bind(other.as_raw_fd(), &at).unwrap();
    let connecting = nix::sys::socket::connect(other.as_raw_fd(), &to);
    assert!(matches!(connecting, Ok(()) | Err(Errno::EINPROGRESS)));
    // What has come of the listener shows only when there is something to accept, or so it seems.
    drop(elsewhere.accept().unwrap());
    let mut seen = Seen::default();
    turn_until(&mut reactor, &mut seen, |seen| !seen.told.is_empty());
    assert!(seen.told[0].contains("listens on"), "{:?}", seen.told);
    assert!(!reactor.cx().contains(handle), "it is another source");
    let _client = connect(address);
    turn_until(&mut reactor, &mut seen, |seen| seen.streams.len() == 1);
}

#[test]
fn listener_whose_port_is_taken_after_it_was_shut_down_tries_on_until_it_is_free() {
    let mut reactor = reactor(16);
    let listener = any();
    let address = listener.local_addr().unwrap();
    let other = listener.as_fd().try_clone_to_owned().unwrap();
    let handle = add(reactor.cx(), listener, "listener");
    shutdown(other.as_raw_fd(), Shutdown::Both).unwrap();
    let thief = TcpListener::bind(address).unwrap();
    let mut seen = Seen::default();
    turn_until(&mut reactor, &mut seen, |seen| seen.told.len() == 3);
    let begins = format!(
        "listener: no connections are accepted: it was shut down, and cannot listen on {address}"
    );
    assert!(seen.told[0].starts_with(&begins), "{:?}", seen.told);
    // Once a minute is enough for a log.
    assert!(seen.told[2].ends_with("(quiet)"), "{:?}", seen.told);
    assert!(reactor.cx().get(handle).unwrap().broken().is_some());
    drop(thief);
    turn_until(&mut reactor, &mut seen, |seen| {
        seen.told
            .last()
            .is_some_and(|line| line.ends_with("are accepted again"))
    });
    let _client = connect(address);
    turn_until(&mut reactor, &mut seen, |seen| seen.streams.len() == 1);
}
