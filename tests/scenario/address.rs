//! Forms of an address that the platform's own functions take, from the command line to the
//! successor.

use std::io::ErrorKind;
use std::net::{SocketAddr, SocketAddrV6, TcpStream};
use std::process::Command;

use crate::support::apart::in_own_network;
use crate::support::apart::test_name;
use crate::support::{Client, Server, Stage, wait_until};

#[test]
fn link_local_address_with_its_interface_is_served_and_taken_over() {
    if !in_own_network(
        &test_name!("link_local_address_with_its_interface_is_served_and_taken_over"),
        &[],
    ) {
        return;
    }
    let add = ["-6", "addr", "add", "fe80::1/64", "dev", "lo", "nodad"];
    if !Command::new("ip")
        .args(add)
        .status()
        .is_ok_and(|it| it.success())
    {
        return eprintln!("skipped: no IPv6 here");
    }
    // By its name and by its number, which is 1 in each network namespace.
    for address in ["fe80::1%lo", "fe80::1%1"] {
        let stage = Stage::new();
        let path = stage.path();
        let path = path.to_str().unwrap();
        let mut donor = Server::start(&["-G", "-a", address, "-p", "0", "-t", path]);
        let line = donor.wait_line("Starting TCP server on [fe80::1%1]:");
        donor.wait_line("Starting Takeover channel");
        let (_, port) = line.split_once("]:").unwrap();
        let port = port.split(' ').next().unwrap().parse().unwrap();
        let to = SocketAddrV6::new("fe80::1".parse().unwrap(), port, 0, 1);
        // The kernel makes the route to an address by a worker of its own.
        wait_until(|| {
            let error = TcpStream::connect(to).err();
            error.is_none_or(|error| error.kind() != ErrorKind::NetworkUnreachable)
        });
        let mut client = Client::connect(SocketAddr::V6(to));
        client.talk();
        let taker = stage.replace(&mut donor, &[]);
        taker.wait_line("Serving on [fe80::1%1]:");
        client.talk();
        Client::connect(to.into()).talk();
    }
    // One that is not here is told by the kernel.
    let mut nowhere = Server::start(&["-G", "-a", "fe80::1%77", "-p", "0"]);
    assert_eq!(nowhere.wait_exit(), 1);
    nowhere.wait_line("cannot listen on [fe80::1%77]:0: ");
}
