//! A conversation as bytes: what one side says, message by message.
//!
//! ```text
//!   how u8 ┊ descriptors u8 ┊ length u16 ┊ bytes     repeated
//!            kind << 4 | count
//! ```
//!
//! A mutation of a good record nearly always breaks its length or its number, and what is true
//! only now (the clock, the digest) cannot be in a corpus at all. So *how* says which of these
//! are put right before the message is sent; without it the bytes go as they are.

use std::fs::File;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;

use socket_takeover::event::Time;
use socket_takeover::proto::digest::Digest;
use socket_takeover::proto::records::Kind;
use socket_takeover::proto::wire::{HEADER, MAGIC, WIRE_VERSION, patch_sequence, patch_version};
use socket_takeover::takeover::internal::channel::{Channel, Got};
use socket_takeover::takeover::internal::lease::Lease;

/// Magic, version, length and number are put right.
pub const REPAIR: u8 = 1;
/// The clock of HELLO and WELCOME is ours, and the digest of END that of what was said.
pub const TRUE: u8 = 2;
/// A donor grants the lease before this, a taker claims it before this.
pub const LEASE: u8 = 4;
/// The other side has its turn before the next message.
pub const TURN: u8 = 8;

/// Kinds of descriptors.
pub const EVENTFD: u8 = 0;
pub const FILE: u8 = 1;
pub const UNIX: u8 = 2;
pub const THE_LEASE: u8 = 3;

/// Longer conversations say nothing new.
const MOST: usize = 64;

/// One message.
#[derive(Debug, Clone, Copy)]
pub struct Message<'a> {
    pub how: u8,
    pub fds: u8,
    pub bytes: &'a [u8],
}

/// The messages of a conversation, as far as the bytes go.
pub fn messages(mut data: &[u8]) -> impl Iterator<Item = Message<'_>> {
    std::iter::from_fn(move || {
        let (&[how, fds, low, high], rest) = data.split_first_chunk()?;
        let length = usize::from(u16::from_le_bytes([low, high])).min(rest.len());
        let (bytes, rest) = rest.split_at(length);
        data = rest;
        Some(Message { how, fds, bytes })
    })
    .take(MOST)
}

/// Appends a message to a conversation.
pub fn put(out: &mut Vec<u8>, how: u8, fds: u8, bytes: &[u8]) {
    out.extend([how, fds]);
    out.extend((bytes.len() as u16).to_le_bytes());
    out.extend(bytes);
}

/// Descriptors to send, made once.
#[derive(Debug)]
pub struct Palette {
    event: OwnedFd,
    file: File,
    unix: UnixStream,
}

impl Palette {
    /// # Panics
    /// If the process has no descriptors left.
    pub fn new() -> Palette {
        // A lease is an eventfd, and as good as any.
        let event = Lease::new().expect("an eventfd");
        Palette {
            event: event.as_fd().try_clone_to_owned().expect("a descriptor"),
            file: File::open("/dev/null").expect("/dev/null"),
            unix: UnixStream::pair().expect("a socket").0,
        }
    }
}

impl Default for Palette {
    fn default() -> Self {
        Palette::new()
    }
}

/// The side that is played.
#[derive(Debug)]
pub struct Played {
    channel: Channel,
    next: u32,
    digest: Digest,
    /// The final array has begun.
    digesting: bool,
    buffer: Vec<u8>,
}

impl Played {
    pub fn new(channel: Channel) -> Played {
        Played {
            channel,
            next: 0,
            digest: Digest::default(),
            digesting: false,
            buffer: vec![0; 1 << 16],
        }
    }

    /// Sends a message, as far as the channel takes it.
    pub fn say(&mut self, message: &Message<'_>, palette: &Palette, lease: Option<&Lease>) {
        let mut bytes = message.bytes.to_vec();
        if message.how & REPAIR != 0 {
            bytes.resize(bytes.len().max(HEADER), 0);
            bytes[..4].copy_from_slice(&MAGIC.to_le_bytes());
            patch_version(&mut bytes, WIRE_VERSION);
            let length = bytes.len() as u32;
            bytes[8..12].copy_from_slice(&length.to_le_bytes());
            patch_sequence(&mut bytes, self.next);
        }
        let kind = bytes.get(6).and_then(|code| Kind::from_code(*code));
        if message.how & TRUE != 0 {
            let now = Time::now().as_ns();
            match kind {
                Some(Kind::Hello) => fill(&mut bytes, HEADER + 20, now),
                Some(Kind::Welcome) => fill(&mut bytes, HEADER + 50, now),
                Some(Kind::End) => fill(&mut bytes, HEADER + 40, self.digest.value()),
                _ => {}
            }
        }
        match kind {
            Some(Kind::Prepare) => self.digesting = true,
            Some(kind) if self.digesting && kind.is_batch() => {
                self.digest.update(&bytes);
            }
            _ => {}
        }
        let count = usize::from(message.fds & 15);
        let fd = match message.fds >> 4 {
            FILE => palette.file.as_fd(),
            UNIX => palette.unix.as_fd(),
            THE_LEASE => lease.map_or(palette.event.as_fd(), AsFd::as_fd),
            _ => palette.event.as_fd(),
        };
        let fds: Vec<BorrowedFd<'_>> = vec![fd; count];
        // Full, or hung up on: then it is not said.
        if self.channel.send(&bytes, &fds).is_ok() {
            self.next = self.next.wrapping_add(1);
        }
    }

    /// Hears what there is; `each` is given every record. False at the channel's end.
    pub fn hear(&mut self, mut each: impl FnMut(&[u8], Vec<OwnedFd>)) -> bool {
        let mut fds = Vec::new();
        loop {
            match self.channel.recv(&mut self.buffer, &mut fds) {
                Got::Record(length) => each(&self.buffer[..length], std::mem::take(&mut fds)),
                Got::Empty => return true,
                Got::End => return false,
                Got::Broken(fault) => panic!("the product says what is none: {fault}"),
            }
        }
    }
}

fn fill(bytes: &mut [u8], at: usize, value: u64) {
    if let Some(place) = bytes.get_mut(at..at + 8) {
        place.copy_from_slice(&value.to_le_bytes());
    }
}

/// How many descriptors this process has open.
pub fn open_fds() -> usize {
    // Since Linux 6.2 the folder's size says so (proc_pid_fd(5)).
    match std::fs::metadata("/proc/self/fd") {
        Ok(folder) if folder.len() > 0 => folder.len() as usize,
        _ => std::fs::read_dir("/proc/self/fd").map_or(0, Iterator::count),
    }
}
