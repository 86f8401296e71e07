//! A connection that a reactor's application begins, and that comes back to itself.

use std::io::ErrorKind;
use std::net::{SocketAddr, TcpListener};

use crate::support::apart::in_own_network;
use crate::support::apart::test_name;
use socket_takeover::event::Stream;

#[test]
fn connection_to_itself_is_refused_and_leaves_the_port_free() {
    // A port for our end is picked out of two, and one of them is the one that is called.
    let range = ["net.ipv4.ip_local_port_range=40000 40001"];
    let test = "connection_to_itself_is_refused_and_leaves_the_port_free";
    if !in_own_network(&test_name!(test), &range) {
        return;
    }
    for nobody in ["127.0.0.1:40000", "[::1]:40000", "0.0.0.0:40000"] {
        let nobody: SocketAddr = nobody.parse().unwrap();
        if nobody.is_ipv6() && TcpListener::bind("[::1]:0").is_err() {
            println!("skipped {nobody}: no IPv6 here");
            continue;
        }
        let mut found = false;
        for _ in 0..64 {
            match Stream::<()>::connect(nobody) {
                // By the other port: refused by an event.
                Ok(stream) => assert!(stream.socket().peer_addr().is_err(), "{nobody}"),
                Err(error) => {
                    assert_eq!(error.kind(), ErrorKind::ConnectionRefused, "{nobody}");
                    assert!(error.to_string().contains("nobody listens"), "{error}");
                    found = true;
                }
            }
        }
        assert!(found, "{nobody}: the port was never picked");
        TcpListener::bind(nobody).expect("nothing rests at the port");
    }
}

#[test]
fn connection_to_a_listener_is_made() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let stream = Stream::<()>::connect(listener.local_addr().unwrap()).unwrap();
    let (_, from) = listener.accept().unwrap();
    assert_eq!(stream.socket().local_addr().unwrap(), from);
}
