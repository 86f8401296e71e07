//! `examples/nested_loop`: the reactor inside a loop that is not ours.

use crate::example::{Datagrams, Example, TAKEOVERS, addresses};
use nix::sys::signal::Signal;

#[test]
fn five_takeovers_inside_a_foreign_loop_lose_nothing_and_keep_it_beating() {
    let example = Example::new("nested_loop");
    let mut server = example.serve(&["127.0.0.1:0"]);
    let ask = |number: u64| (number, number.to_be_bytes().to_vec());
    let load = Datagrams::start(addresses(&server)[0], ask, |answer| {
        let number = answer.try_into().map(u64::from_be_bytes);
        number.map_err(|_| format!("{answer:?}"))
    });
    for _ in 0..TAKEOVERS {
        load.progress.wait_for_more(100);
        server.wait_line("the host's heart beats");
        server = example.replace(&mut server);
    }
    load.progress.wait_for_more(100);
    println!("{} echoes", load.finish());
    server.wait_line("the host's heart beats");
    server.signal(Signal::SIGTERM);
    assert_eq!(server.wait_exit(), 0);
    assert!(!example.stage.path().exists(), "PATH is removed at the end");
}

#[test]
fn successor_of_nobody_leaves_the_foreign_loop() {
    let example = Example::new("nested_loop");
    assert_eq!(example.take_over().wait_exit(), 69);
}
