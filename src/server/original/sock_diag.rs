//! The Unix sockets that listen, as the kernel tells them in numbers (sock_diag(7)).
//!
//! ```text
//!   request   nlmsghdr  unix_diag_req              all that listen: what file, whose socket
//!   answer    nlmsghdr  unix_diag_msg  attributes  one for each; then NLMSG_DONE
//!                         type, inode  UNIX_DIAG_VFS, UNIX_DIAG_UID
//! ```
//!
//! `/proc/net/unix` tells the names as well, raw: whoever binds a name with a line feed in it
//! writes lines of his own there. Here nothing is told that a user chooses: the file is the one
//! that the socket has made when it was bound, by the device of its file system and the low half
//! of its inode number (`net/unix/diag.c`, `sk_diag_dump_vfs`). Both are the kernel's own, and
//! stat(2) may tell another device: see [`File::of`]. Two subvolumes of one btrfs have the same
//! device and numbers of their own, so two files may seem to be one; then it helps to know which
//! user has made the socket.
//!
//! The kernel answers for the network namespace that the question comes from.

use std::fs;
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};

use nix::sys::socket::{
    AddressFamily, MsgFlags, NetlinkAddr, SockFlag, SockProtocol, SockType, recvfrom, send, socket,
};
use nix::sys::stat::{fstat, major, minor};

/// A file by what the kernel calls it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct File {
    /// Major and minor number of its file system.
    device: (u32, u32),
    /// The low half of its number there.
    inode: u32,
}

/// A Unix socket that listens for SOCK_STREAM.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Listener {
    /// The kernel's number for the socket, as in `/proc/PID/fd`.
    pub(super) socket: u64,
    /// What it has made when it was bound; none if its name is no file.
    pub(super) file: Option<File>,
    /// The user who has made it; none before Linux 5.3.
    pub(super) owner: Option<u32>,
}

impl File {
    /// Of an open file, O_PATH will do. Its device is that of the mount (`/proc/PID/mountinfo`):
    /// stat(2) may tell another one, for a subvolume (btrfs) or a layer (overlayfs). A mount that
    /// is not among ours, where the file was reached through another process, is taken by stat.
    pub(super) fn of(file: BorrowedFd<'_>) -> io::Result<File> {
        let found = fstat(file)?;
        let info = fs::read_to_string(format!("/proc/self/fdinfo/{}", file.as_raw_fd()))?;
        let mounts = fs::read("/proc/self/mountinfo")?;
        let device = mount(&info).and_then(|mount| device(&mounts, mount));
        #[expect(
            clippy::cast_possible_truncation,
            reason = "device numbers are small, and of the inode the low half is told"
        )]
        Ok(File {
            device: device.unwrap_or((major(found.st_dev) as u32, minor(found.st_dev) as u32)),
            inode: found.st_ino as u32,
        })
    }
}

/// The number of the mount that a file was opened through (`Documentation/filesystems/proc.rst`).
fn mount(fdinfo: &str) -> Option<u64> {
    let number = fdinfo.lines().find_map(|line| line.strip_prefix("mnt_id:"));
    number?.trim().parse().ok()
}

/// The device in the line of a mount. Names come behind it, with a line feed as `\\012`
/// (`fs/proc_namespace.c`).
fn device(mountinfo: &[u8], mount: u64) -> Option<(u32, u32)> {
    mountinfo.split(|byte| *byte == b'\n').find_map(|line| {
        // Number, parent, major:minor …
        let mut words = line.split(|byte| *byte == b' ');
        let mut word = || std::str::from_utf8(words.next()?).ok();
        if word()?.parse() != Ok(mount) {
            return None;
        }
        word()?;
        let (major, minor) = word()?.split_once(':')?;
        Some((major.parse().ok()?, minor.parse().ok()?))
    })
}

/// All that listen in the network namespace of the calling thread.
///
/// # Errors
/// `ENOENT` from a kernel without unix_diag, `InvalidData` for an answer that cannot be read.
pub(super) fn listeners() -> io::Result<Vec<Listener>> {
    let netlink = socket(
        AddressFamily::Netlink,
        SockType::Raw,
        SockFlag::SOCK_CLOEXEC,
        SockProtocol::NetlinkSockDiag,
    )?;
    send(netlink.as_raw_fd(), &request(), MsgFlags::empty())?;
    let mut found = Vec::new();
    // The kernel's own messages are half as long at most (`net/netlink/af_netlink.c`).
    let mut buffer = vec![0; 1 << 16];
    loop {
        let (length, from) = match recvfrom::<NetlinkAddr>(netlink.as_raw_fd(), &mut buffer) {
            Err(nix::errno::Errno::EINTR) => continue,
            received => received?,
        };
        // The kernel is 0.
        if from.is_some_and(|from| from.pid() != 0) {
            continue;
        }
        if read(&buffer[..length], &mut found)? {
            return Ok(found);
        }
    }
}

// linux/netlink.h, linux/sock_diag.h, linux/unix_diag.h
const REQUEST: u16 = 0x1;
const DUMP: u16 = 0x300;
const BY_FAMILY: u16 = 20;
const ERROR: u16 = 2;
const DONE: u16 = 3;
const SHOW_VFS: u32 = 0x2;
const SHOW_UID: u32 = 0x40;
const VFS: u16 = 1;
const UID: u16 = 7;
/// TCP_LISTEN, which Unix sockets use as well.
const LISTEN: u8 = 10;
const STREAM: u8 = 1;
/// Of a message, of what is said of a socket, and of an attribute.
const HEADER: usize = 16;
const SOCKET: usize = 16;
const ATTRIBUTE: usize = 4;

fn request() -> Vec<u8> {
    let mut request = Vec::with_capacity(HEADER + 24);
    // nlmsghdr: length, type, flags, number, sender
    request.extend_from_slice(&40_u32.to_ne_bytes());
    request.extend_from_slice(&BY_FAMILY.to_ne_bytes());
    request.extend_from_slice(&(REQUEST | DUMP).to_ne_bytes());
    request.extend_from_slice(&[0; 8]);
    // unix_diag_req: family, protocol, states, inode, what to show, cookie
    request.extend_from_slice(&[libc::AF_UNIX as u8, 0, 0, 0]);
    request.extend_from_slice(&(1_u32 << LISTEN).to_ne_bytes());
    request.extend_from_slice(&[0; 4]);
    request.extend_from_slice(&(SHOW_VFS | SHOW_UID).to_ne_bytes());
    request.extend_from_slice(&[0; 8]);
    request
}

/// Reads what has come; whether that was all.
fn read(mut datagram: &[u8], found: &mut Vec<Listener>) -> io::Result<bool> {
    while !datagram.is_empty() {
        let message = take(&mut datagram, |head| word(head, 0), HEADER)?;
        let body = &message[HEADER..];
        match half(message, 4) {
            Some(DONE) => return Ok(true),
            Some(ERROR) => {
                let code = word(body, 0).ok_or_else(malformed)?.cast_signed();
                return Err(io::Error::from_raw_os_error(-code));
            }
            Some(BY_FAMILY) => found.extend(listener(body)?),
            // Whatever it is, it is no socket.
            _ => {}
        }
    }
    Ok(false)
}

/// What is said of a socket; none if it is of another type.
fn listener(body: &[u8]) -> io::Result<Option<Listener>> {
    // unix_diag_msg: family, type, state, inode, cookie
    let (Some(socket), [_, kind, state, ..]) = (word(body, 4), body) else {
        return Err(malformed());
    };
    let mut attributes = body.get(SOCKET..).ok_or_else(malformed)?;
    let (mut file, mut owner) = (None, None);
    while !attributes.is_empty() {
        let length = |head: &[u8]| half(head, 0).map(u32::from);
        let attribute = take(&mut attributes, length, ATTRIBUTE)?;
        match half(attribute, 2) {
            Some(VFS) => {
                let (Some(inode), Some(device)) = (word(attribute, 4), word(attribute, 8)) else {
                    return Err(malformed());
                };
                // A dev_t as the kernel has it inside (linux/kdev_t.h).
                let device = (device >> 20, device & 0xf_ffff);
                file = Some(File { device, inode });
            }
            Some(UID) => owner = Some(word(attribute, 4).ok_or_else(malformed)?),
            // Shown though nobody has asked.
            _ => {}
        }
    }
    let listener = Listener {
        socket: u64::from(socket),
        file,
        owner,
    };
    Ok((*kind == STREAM && *state == LISTEN).then_some(listener))
}

/// Takes off what begins with its length, its header included; the next begins at a multiple
/// of 4.
fn take<'a>(
    from: &mut &'a [u8],
    length: impl Fn(&[u8]) -> Option<u32>,
    least: usize,
) -> io::Result<&'a [u8]> {
    let length = length(from).ok_or_else(malformed)? as usize;
    if length < least || length > from.len() {
        return Err(malformed());
    }
    let (taken, rest) = from.split_at(length);
    let padding = length.next_multiple_of(4) - length;
    *from = rest.get(padding..).unwrap_or_default();
    Ok(taken)
}

fn word(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_ne_bytes(*bytes.get(at..)?.first_chunk()?))
}

fn half(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_ne_bytes(*bytes.get(at..)?.first_chunk()?))
}

fn malformed() -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, "sock_diag: not as it should be")
}

#[cfg(test)]
mod tests {
    use std::os::fd::{AsFd, AsRawFd};
    use std::os::unix::net::{UnixDatagram, UnixListener, UnixStream};
    use std::path::Path;

    use super::*;

    fn message(kind: u16, body: &[u8]) -> Vec<u8> {
        let length = (HEADER + body.len()) as u32;
        let mut message = length.to_ne_bytes().to_vec();
        message.extend_from_slice(&kind.to_ne_bytes());
        message.extend_from_slice(&[0; 10]);
        message.extend_from_slice(body);
        message.resize(message.len().next_multiple_of(4), 0);
        message
    }

    fn attribute(kind: u16, value: &[u8]) -> Vec<u8> {
        let mut attribute = ((4 + value.len()) as u16).to_ne_bytes().to_vec();
        attribute.extend_from_slice(&kind.to_ne_bytes());
        attribute.extend_from_slice(value);
        attribute.resize(attribute.len().next_multiple_of(4), 0);
        attribute
    }

    fn told(kind: u8, state: u8, socket: u32, attributes: &[u8]) -> Vec<u8> {
        let mut body = vec![1, kind, state, 0];
        body.extend_from_slice(&socket.to_ne_bytes());
        body.extend_from_slice(&[7; 8]);
        body.extend_from_slice(attributes);
        message(BY_FAMILY, &body)
    }

    fn vfs(inode: u32, device: u32) -> Vec<u8> {
        attribute(VFS, &[inode.to_ne_bytes(), device.to_ne_bytes()].concat())
    }

    #[test]
    fn listening_stream_sockets_are_told_from_all_others() {
        let name = attribute(0, b"/run/a\nforged");
        let uid = attribute(UID, &1000_u32.to_ne_bytes());
        let both = [name, vfs(12, (254 << 20) | 3), uid].concat();
        let datagram = [
            told(STREAM, LISTEN, 70, &both),
            told(5, LISTEN, 71, &vfs(13, 1)),
            told(STREAM, 1, 72, &vfs(12, (254 << 20) | 3)),
            told(STREAM, LISTEN, 73, &[]),
            message(99, &[]),
        ]
        .concat();
        let mut found = Vec::new();
        assert!(!read(&datagram, &mut found).unwrap());
        let file = Some(File {
            device: (254, 3),
            inode: 12,
        });
        let one = Listener {
            socket: 70,
            file,
            owner: Some(1000),
        };
        let two = Listener {
            socket: 73,
            file: None,
            owner: None,
        };
        assert_eq!(found, [one, two]);
        assert!(read(&message(DONE, &[0; 4]), &mut found).unwrap());
        let refused = message(ERROR, &(-libc::ENOENT).to_ne_bytes());
        let error = read(&refused, &mut found).unwrap_err();
        assert_eq!(error.raw_os_error(), Some(libc::ENOENT));
    }

    /// Each prefix, and each byte other than it was: read or refused, and no more.
    #[test]
    fn nothing_that_comes_makes_it_panic() {
        let whole = [
            told(STREAM, LISTEN, 70, &vfs(12, 1)),
            message(ERROR, &(-1_i32).to_ne_bytes()),
        ]
        .concat();
        for length in 0..whole.len() {
            let _ = read(&whole[..length], &mut Vec::new());
        }
        for at in 0..whole.len() {
            for byte in 0..=255 {
                let mut spoilt = whole.clone();
                spoilt[at] = byte;
                let _ = read(&spoilt, &mut Vec::new());
            }
        }
    }

    #[test]
    fn mount_of_a_file_tells_its_device() {
        assert_eq!(
            mount("pos:\t0\nflags:\t012\nmnt_id:\t29\nino:\t5\n"),
            Some(29)
        );
        assert_eq!(mount("pos:\t0\n"), None);
        let table = b"28 1 0:5 / /dev rw - devtmpfs x rw\n\
                      29 1 254:17 / /a\\01230 rw - ext4 /dev/x rw\n";
        assert_eq!(device(table, 29), Some((254, 17)));
        assert_eq!(device(table, 30), None);
    }

    fn own(listener: &UnixListener) -> Option<Listener> {
        let socket = fstat(listener).unwrap().st_ino;
        let mut all = listeners().unwrap().into_iter();
        all.find(|found| found.socket == socket)
    }

    fn file(path: &Path) -> File {
        let flags = nix::fcntl::OFlag::O_PATH;
        let file = nix::fcntl::open(path, flags, nix::sys::stat::Mode::empty()).unwrap();
        File::of(file.as_fd()).unwrap()
    }

    #[test]
    fn own_listener_is_told_by_its_file_whatever_it_is_called_now() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a\nb");
        let listener = UnixListener::bind(&path).unwrap();
        let _connected = UnixStream::connect(&path).unwrap();
        let _other = UnixDatagram::bind(folder.path().join("other")).unwrap();
        let found = own(&listener).expect("it listens");
        assert_eq!(found.file, Some(file(&path)));
        assert_eq!(found.owner, Some(nix::unistd::geteuid().as_raw()));
        let renamed = folder.path().join("c");
        fs::rename(&path, &renamed).unwrap();
        assert_eq!(own(&listener).unwrap().file, Some(file(&renamed)));
        assert_ne!(found.file, Some(file(&folder.path().join("other"))));
        assert!(listener.as_raw_fd() > 2);
    }

    /// A file of such a file system has a device by stat(2) that is none of the mount.
    #[test]
    fn listener_on_an_overlay_of_two_file_systems_is_told_by_its_file() {
        let folder = tempfile::tempdir().unwrap();
        let mount_at = |kind: &str, options: &str, at: &str| {
            let mut mount = std::process::Command::new("mount");
            mount.args(["-t", kind, kind, "-o", options, at]);
            mount.stderr(std::process::Stdio::null());
            mount.status().is_ok_and(|status| status.success())
        };
        let at = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
        for name in ["lower", "other", "merged"] {
            fs::create_dir(at(name)).unwrap();
        }
        if !mount_at("tmpfs", "size=1m", &at("other")) {
            println!("skipped: this user may not mount");
            return;
        }
        for name in ["other/upper", "other/work"] {
            fs::create_dir(at(name)).unwrap();
        }
        let layers = [at("lower"), at("other/upper"), at("other/work")];
        let [lower, upper, work] = layers;
        let layers = format!("lowerdir={lower},upperdir={upper},workdir={work}");
        let mounted = mount_at("overlay", &layers, &at("merged"));
        let told = mounted.then(|| {
            let path = folder.path().join("merged/socket");
            let listener = UnixListener::bind(&path).unwrap();
            (own(&listener).and_then(|found| found.file), file(&path))
        });
        for name in ["merged", "other"] {
            let _ = std::process::Command::new("umount").arg(at(name)).status();
        }
        match told {
            Some((told, file)) => assert_eq!(told, Some(file)),
            None => println!("skipped: no overlayfs here"),
        }
    }
}
