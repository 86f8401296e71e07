//! PATH: what may be in its place, and what becomes of it. Nothing is removed that is not a
//! stale socket, and nobody is called who did not offer a takeover.

use std::fs::{self, Permissions};
use std::io::ErrorKind;
use std::os::unix::fs::{FileTypeExt, PermissionsExt, symlink};
use std::os::unix::net::{UnixDatagram, UnixListener};
use std::path::Path;

use crate::support::{Client, Scene, Server, Stage};
use nix::sys::signal::Signal;
use nix::sys::stat::Mode;

/// A plain start that offers takeovers at `path`.
fn start_at(path: &Path) -> Server {
    let path = path.to_str().expect("a plain name");
    Server::start(&["-G", "-a", "127.0.0.1", "-p", "0", "-t", path])
}

#[test]
fn plain_start_at_a_live_path_is_refused() {
    let scene = Scene::new(&[]);
    let mut second = start_at(&scene.stage.path());
    assert_eq!(second.wait_exit(), 1);
    second.wait_line("is offered by a running process; take over from it with -T");
    scene.is_as_before();
    scene.end();
}

#[test]
fn plain_start_at_a_live_port_is_refused() {
    let scene = Scene::new(&[]);
    let port = scene.donor.address().port().to_string();
    let path = scene.stage.path();
    let args = [
        "-G",
        "-a",
        "127.0.0.1",
        "-p",
        &port,
        "-t",
        path.to_str().unwrap(),
    ];
    let mut second = Server::start(&args);
    assert_eq!(second.wait_exit(), 1);
    second.wait_line("cannot listen on");
    let pid = scene.donor.pid();
    second.wait_line(&format!(
        "by pid {pid} (socket-takeover), which listens on port {port}"
    ));
    scene.is_as_before();
    scene.end();
}

#[test]
fn plain_start_at_a_stale_path_replaces_it() {
    let stage = Stage::new();
    for _ in 0..5 {
        let mut donor = stage.serve(&[]);
        donor.signal(Signal::SIGKILL);
        donor.wait_exit();
        assert!(
            fs::symlink_metadata(stage.path())
                .unwrap()
                .file_type()
                .is_socket()
        );
    }
    let donor = stage.serve(&[]);
    Client::connect(donor.address()).talk();
}

#[test]
fn successor_of_nobody_exits_69() {
    let stage = Stage::new();
    let mut taker = stage.take_over(&[]);
    assert_eq!(taker.wait_exit(), 69, "no file");
    taker.wait_line("start the service without -T");

    let mut taker = Server::take_over(&stage.file("no folder/takeover"), &[]);
    assert_eq!(taker.wait_exit(), 69, "no folder");

    let mut donor = stage.serve(&[]);
    donor.signal(Signal::SIGKILL);
    donor.wait_exit();
    let mut taker = stage.take_over(&[]);
    assert_eq!(taker.wait_exit(), 69, "nobody listens");
    taker.wait_line("nobody listens there any more");
}

/// Neither a plain start nor a successor does anything to it.
#[track_caller]
fn is_left_alone(stage: &Stage, what: &str) {
    let before = fs::symlink_metadata(stage.path()).unwrap();
    let mut plain = start_at(&stage.path());
    assert_eq!(plain.wait_exit(), 1, "{what}");
    plain.wait_line(what);
    let mut taker = stage.take_over(&[]);
    assert_eq!(taker.wait_exit(), 1, "{what}");
    taker.wait_line(what);
    let after = fs::symlink_metadata(stage.path()).unwrap();
    assert_eq!(after.modified().unwrap(), before.modified().unwrap());
    assert_eq!(after.file_type(), before.file_type());
}

#[test]
fn regular_file_at_path_is_left_alone() {
    let stage = Stage::new();
    fs::write(stage.path(), "precious").unwrap();
    is_left_alone(&stage, "a regular file");
    assert_eq!(fs::read_to_string(stage.path()).unwrap(), "precious");
}

#[test]
fn fifo_at_path_is_left_alone() {
    let stage = Stage::new();
    nix::unistd::mkfifo(&stage.path(), Mode::S_IRWXU).unwrap();
    is_left_alone(&stage, "a FIFO");
}

#[test]
fn symbolic_link_at_path_is_not_followed() {
    let scene = Scene::new(&[]);
    let other = Stage::new();
    symlink(scene.stage.path(), other.path()).unwrap();
    is_left_alone(&other, "a symbolic link");
    fs::remove_file(other.path()).unwrap();
    symlink(other.file("nothing"), other.path()).unwrap();
    is_left_alone(&other, "a symbolic link");
    scene.is_as_before();
    scene.end();
}

#[test]
fn datagram_socket_at_path_is_left_alone() {
    let stage = Stage::new();
    let socket = UnixDatagram::bind(stage.path()).unwrap();
    is_left_alone(&stage, "a datagram socket");
    socket.set_nonblocking(true).unwrap();
    let nothing = socket.recv(&mut [0; 8]).unwrap_err();
    assert_eq!(nothing.kind(), ErrorKind::WouldBlock);
}

#[test]
fn directory_at_path_is_a_usage_error() {
    let stage = Stage::new();
    fs::create_dir(stage.path()).unwrap();
    assert_eq!(start_at(&stage.path()).wait_exit(), 2);
    assert_eq!(stage.take_over(&[]).wait_exit(), 2);
}

/// The original program takes a connection for the order to hand over and quit: a plain
/// start must not make one by looking.
#[test]
fn stream_listener_at_path_is_not_called_by_a_plain_start() {
    let stage = Stage::new();
    let original = UnixListener::bind(stage.path()).unwrap();
    let mut plain = start_at(&stage.path());
    assert_eq!(plain.wait_exit(), 1);
    plain.wait_line("SOCK_STREAM");
    original.set_nonblocking(true).unwrap();
    let nobody = original.accept().unwrap_err();
    assert_eq!(nobody.kind(), ErrorKind::WouldBlock);
}

#[test]
fn path_in_a_folder_of_everybody_is_warned_of() {
    let stage = Stage::new();
    let folder = stage.file("open");
    fs::create_dir(&folder).unwrap();
    fs::set_permissions(&folder, Permissions::from_mode(0o777)).unwrap();
    let path = folder.join("takeover");
    let mut donor = start_at(&path);
    donor.wait_line("can be written by others");
    donor.wait_line("Starting Takeover channel on");
    let mode = fs::symlink_metadata(&path).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600, "but nobody else can call");
    let taker = Server::take_over(&path, &[]);
    taker.wait_line("can be written by others");
    taker.wait_line("Serving on ");
    assert_eq!(donor.wait_exit(), 0);
}
