//! ACTIVE that cannot be sent at once. The donor before must hear it before anybody else is
//! handed anything: else it takes the end of a process that has handed over in its turn for the
//! death of the owner, and ends peers that a third process has.

use std::process::Command;

use crate::support::{Client, Server, Stage, need};

/// Runs the service with one fault, injected by strace(1). With `-D` the process that is
/// started is the service itself.
fn start_with(fault: &str, args: &[&str]) -> Server {
    need("strace");
    let mut command = Command::new("strace");
    command.args(["-D", "-o", "/dev/null", "-e", "signal=none", "-e"]);
    command.arg(format!("inject={fault}"));
    let binary = env!("CARGO_BIN_EXE_socket-takeover");
    Server::spawn(command.arg(binary).arg("-G").args(args))
}

#[test]
fn chain_goes_on_before_a_stopped_donor_hears_of_the_claim() {
    let stage = Stage::new();
    let path = stage.path();
    let path = path.to_str().expect("a plain name");
    // Its sixth record is END; it is stopped right behind it.
    let args = ["-a", "127.0.0.1", "-p", "0", "-t", path];
    let mut first = start_with("sendmsg:signal=SIGSTOP:when=6", &args);
    first.wait_line("Starting Takeover channel on");
    let mut client = Client::connect(first.address());
    client.talk();
    // Its fourth record is ACTIVE, and the kernel has no memory for it at first.
    let mut second = start_with("sendmsg:error=ENOMEM:when=4", &["-T", path]);
    second.wait_line("Serving on ");
    client.talk();
    // BUSY until the first donor has been told.
    let third = loop {
        let mut third = stage.take_over(&[]);
        if third.serves() {
            break third;
        }
        assert_eq!(third.wait_exit(), 75);
    };
    assert_eq!(second.wait_exit(), 0);
    client.talk();
    first.go_on();
    assert_eq!(first.wait_exit(), 0);
    assert_eq!(first.log().count("died right after it took over"), 0);
    client.talk();
    drop(third);
}
