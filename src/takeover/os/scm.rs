//! One record and its descriptors, in or out: sendmsg(2) and recvmsg(2) with SCM_RIGHTS.
//!
//! The receiving half is written by hand because nix loses descriptors. When the kernel cuts the
//! list short (MSG_CTRUNC), nix reports an error, while the descriptors that fitted are already
//! installed and have no owner. Here every descriptor gets its owner before anything else is looked
//! at. So whatever is wrong with a record, dropping it closes them all.
//!
//! Invariants:
//! - a received descriptor is close-on-exec and owned from the moment that it exists;
//! - no call blocks, and none raises SIGPIPE, whatever mode the socket is in.
#![allow(unsafe_code)]

use std::io;
use std::mem;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};

/// The most descriptors that one message can carry (unix(7), SCM_MAX_FD).
pub const SCM_MAX_FD: usize = 253;

/// What recvmsg(2) said about a record, beside its bytes and descriptors.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Received {
    /// Bytes stored.
    pub len: usize,
    /// The record was longer than the buffer (MSG_TRUNC).
    pub truncated: bool,
    /// Descriptors were lost: at RLIMIT_NOFILE, or because a security module objected
    /// (MSG_CTRUNC). The kernel gives no other sign.
    pub fds_lost: bool,
    /// There was a control message other than SCM_RIGHTS. The kernel adds one only to a socket
    /// whose owner asked for it (SO_PASSCRED and the like), and nothing here asks.
    pub foreign_cmsg: bool,
}

/// Sends one record with its descriptors, all or nothing. The sender keeps its own copies.
///
/// # Errors
/// `InvalidInput` for more than [`SCM_MAX_FD`] descriptors. Otherwise those of sendmsg(2) and
/// unix(7).
pub fn send(socket: BorrowedFd<'_>, bytes: &[u8], fds: &[BorrowedFd<'_>]) -> io::Result<()> {
    if fds.len() > SCM_MAX_FD {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    let mut control = Control::new();
    let mut part = libc::iovec {
        iov_base: bytes.as_ptr().cast_mut().cast(),
        iov_len: bytes.len(),
    };
    // SAFETY: msghdr is plain old data and all zeroes is its empty value.
    let mut message: libc::msghdr = unsafe { mem::zeroed() };
    message.msg_iov = &raw mut part;
    message.msg_iovlen = 1;
    if !fds.is_empty() {
        let length = size_of_val(fds) as libc::c_uint;
        message.msg_control = control.0.as_mut_ptr().cast();
        // SAFETY: arithmetic on the argument; 253 descriptors need CONTROL bytes, no more.
        message.msg_controllen = unsafe { libc::CMSG_SPACE(length) } as _;
        // SAFETY: the buffer is aligned for a cmsghdr and has room for one, so the first
        // header exists. The copy goes into that room; BorrowedFd is a transparent RawFd.
        unsafe {
            let header = libc::CMSG_FIRSTHDR(&raw const message);
            (*header).cmsg_level = libc::SOL_SOCKET;
            (*header).cmsg_type = libc::SCM_RIGHTS;
            (*header).cmsg_len = libc::CMSG_LEN(length) as _;
            let room = libc::CMSG_DATA(header);
            fds.as_ptr()
                .cast::<u8>()
                .copy_to_nonoverlapping(room, size_of_val(fds));
        }
    }
    // SAFETY: every pointer in `message` is to a live local, or to `bytes`, which sendmsg
    // only reads.
    let sent = unsafe { libc::sendmsg(socket.as_raw_fd(), &raw const message, FLAGS) };
    if sent < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(())
}

/// Receives one record; its descriptors are added to `fds`.
///
/// A record of length 0 looks like the end of the channel, unless it has descriptors.
///
/// # Errors
/// Those of recvmsg(2). No descriptor was received then.
pub fn recv(
    socket: BorrowedFd<'_>,
    buffer: &mut [u8],
    fds: &mut Vec<OwnedFd>,
) -> io::Result<Received> {
    let mut control = Control::new();
    let mut part = libc::iovec {
        iov_base: buffer.as_mut_ptr().cast(),
        iov_len: buffer.len(),
    };
    // SAFETY: msghdr is plain old data and all zeroes is its empty value.
    let mut message: libc::msghdr = unsafe { mem::zeroed() };
    message.msg_iov = &raw mut part;
    message.msg_iovlen = 1;
    message.msg_control = control.0.as_mut_ptr().cast();
    message.msg_controllen = CONTROL as _;
    let flags = FLAGS | libc::MSG_CMSG_CLOEXEC;
    // SAFETY: the lengths are those of the buffers behind the pointers, all live locals.
    let len = unsafe { libc::recvmsg(socket.as_raw_fd(), &raw mut message, flags) };
    // -1 is the only negative value (recvmsg(2)); nothing was installed then.
    let Ok(len) = usize::try_from(len) else {
        return Err(io::Error::last_os_error());
    };
    let foreign_cmsg = own_all(&message, fds);
    Ok(Received {
        len,
        truncated: message.msg_flags & libc::MSG_TRUNC != 0,
        fds_lost: message.msg_flags & libc::MSG_CTRUNC != 0,
        foreign_cmsg,
    })
}

/// Gives every descriptor of a received message its owner. The kernel merges what a sender
/// puts into several SCM_RIGHTS headers, but nothing promises that, so all are walked.
/// Returns whether there was something else among them.
fn own_all(message: &libc::msghdr, fds: &mut Vec<OwnedFd>) -> bool {
    let mut foreign = false;
    // SAFETY: the kernel has just written the control buffer and its length.
    let mut next = unsafe { libc::CMSG_FIRSTHDR(message) };
    // SAFETY: the CMSG functions return a header that lies within the buffer, or null.
    while let Some(header) = unsafe { next.as_ref() } {
        if (header.cmsg_level, header.cmsg_type) == (libc::SOL_SOCKET, libc::SCM_RIGHTS) {
            // SAFETY: arithmetic on constants.
            let payload = header.cmsg_len - unsafe { libc::CMSG_LEN(0) } as usize;
            // SAFETY: the payload follows its header, in the same buffer.
            let first = unsafe { libc::CMSG_DATA(header) }.cast::<RawFd>();
            for index in 0..payload / size_of::<RawFd>() {
                // SAFETY: the index is within the payload; the descriptor was made by this
                // recvmsg for us, and nobody else knows it.
                fds.push(unsafe { OwnedFd::from_raw_fd(first.add(index).read_unaligned()) });
            }
        } else {
            foreign = true;
        }
        // SAFETY: as for the first header.
        next = unsafe { libc::CMSG_NXTHDR(message, header) };
    }
    foreign
}

const FLAGS: libc::c_int = libc::MSG_DONTWAIT | libc::MSG_NOSIGNAL;

/// Bytes of control buffer for [`SCM_MAX_FD`] descriptors. With a smaller buffer a sender's extra
/// descriptors would not fail, but vanish.
// SAFETY: arithmetic on a constant.
const CONTROL: usize =
    unsafe { libc::CMSG_SPACE((SCM_MAX_FD * size_of::<RawFd>()) as libc::c_uint) } as usize;

/// A control buffer, aligned for the headers inside it (cmsg(3)).
#[repr(C, align(8))]
struct Control([u8; CONTROL]);

const _: () = assert!(align_of::<Control>() >= align_of::<libc::cmsghdr>());

impl Control {
    fn new() -> Self {
        Control([0; CONTROL])
    }
}
