//! Descriptors that are no sockets: a tun device, a timerfd and a memfd change hands.
//!
//! A reflector on a tun device, as a user plane has one: it sends each UDP packet back to where
//! it came from. How many there were stands in a table in shared memory, and an alarm is set.
//! The interface stays up, with its addresses and routes, as long as somebody has the device
//! open; the alarm rings when it was set to, in whichever process has it by then, once; the
//! table is not copied, however large it is.
//!
//! ```text
//!   opaque_fds -t PATH INTERFACE MILLISECONDS    cold start; the alarm rings after so long
//!   opaque_fds -T PATH                           take over from whoever offers it at PATH
//! ```
//!
//! What it shows: kinds of descriptors, and one that is carried beside the reactor.
//!
//! | item | kind | state, version 1, little-endian |
//! |---|---|---|
//! | "tun" | tun | none |
//! | "alarm" | timerfd | when it rings (8 bytes, ns of CLOCK_MONOTONIC) |
//! | "table" | memfd, carried: memory cannot be polled | none, it is in the memory |

use std::fs::File;
use std::io::{self, ErrorKind, Read, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::FileExt;
use std::time::Duration;

use nix::sys::memfd::{MFdFlags, memfd_create};
use nix::sys::timerfd::{ClockId, Expiration, TimerFd, TimerFlags, TimerSetTimeFlags};
use socket_takeover::event::{Cx, Next, Spec, Time};
use socket_takeover::sys;
use socket_takeover::takeover::{
    Application, Arrival, Description, Error, Exit, Item, ItemKind, Moment, Rejection, SavedState,
    Start, Takeover,
};

const VERSION: u16 = 1;
/// Our number for the item "table".
const TABLE: u32 = 0;

#[derive(Default)]
struct Reflector {
    /// None until a successor has received it. Packets reflected: 8 bytes at its start.
    table: Option<File>,
    alarm_at: Time,
    takeover: Takeover,
}

fn main() -> Exit {
    run().into()
}

fn run() -> Result<(), Error> {
    let (start, [interface, after]) = Start::from_args(["INTERFACE", "MILLISECONDS"])?;
    start.run(&mut Reflector::default(), |app, cx| {
        reflect(sys::open_tun(&interface)?, cx)?;
        let after = Duration::from_millis(after.parse().map_err(io::Error::other)?);
        app.alarm_at = Time::now() + after;
        let flags = TimerFlags::TFD_NONBLOCK | TimerFlags::TFD_CLOEXEC;
        let alarm = TimerFd::new(ClockId::CLOCK_MONOTONIC, flags)?;
        let once = Expiration::OneShot(after.into());
        alarm.set(once, TimerSetTimeFlags::empty())?;
        ring(OwnedFd::from(alarm).into(), cx)?;
        let table = File::from(memfd_create("table", MFdFlags::MFD_CLOEXEC)?);
        table.set_len(8)?;
        app.table = Some(table);
        Ok(())
    })
}

/// One packet a read, and a write.
fn reflect(device: File, cx: &mut Cx<Reflector>) -> io::Result<Item> {
    let spec = Spec::item("tun");
    let added = cx.add(spec, device, |device, app: &mut Reflector, cx, _| {
        let mut packet = [0; 2048];
        for _ in 0..cx.budget() {
            let length = match device.read(&mut packet) {
                Ok(length) => length,
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(Next::Keep),
                // The device itself: its source ends, and the log says why.
                Err(error) => return Err(error),
            };
            // IPv4 without options, UDP. Both checksums are sums: they stay right.
            if let [0x45, _, _, _, _, _, _, _, _, 17, ..] = packet[..length]
                && length >= 28
            {
                let (source, target) = packet[12..20].split_at_mut(4);
                source.swap_with_slice(target);
                let (source, target) = packet[20..24].split_at_mut(2);
                source.swap_with_slice(target);
                // One that is not taken is lost, as by any router.
                if device.write(&packet[..length]).is_ok() {
                    app.count_one()?;
                }
            }
        }
        Ok(Next::Again)
    })?;
    Ok(added.into())
}

fn ring(alarm: File, cx: &mut Cx<Reflector>) -> io::Result<Item> {
    let spec = Spec::item("alarm");
    let added = cx.add(spec, alarm, |alarm, app: &mut Reflector, cx, _| {
        // How often it rang. An event without a ring is no fault (timerfd_create(2)).
        if alarm.read(&mut [0; 8]).is_ok() {
            let late = i128::from(cx.now().as_ns()) - i128::from(app.alarm_at.as_ns());
            eprintln!("alarm: {} µs late", late / 1000);
        }
        Ok(Next::Keep)
    })?;
    Ok(added.into())
}

impl Reflector {
    fn packets(&self) -> io::Result<u64> {
        let table = self.table.as_ref().ok_or(ErrorKind::NotFound)?;
        let mut count = [0; 8];
        table.read_exact_at(&mut count, 0)?;
        Ok(u64::from_le_bytes(count))
    }

    /// Only the owner writes: a donor that has released shares the memory with its successor.
    fn count_one(&self) -> io::Result<()> {
        let count = self.packets()? + 1;
        let table = self.table.as_ref().ok_or(ErrorKind::NotFound)?;
        table.write_all_at(&count.to_le_bytes(), 0)
    }
}

impl Application for Reflector {
    const NAME: &'static str = "opaque_fds";

    fn takeover(&mut self) -> &mut Takeover {
        &mut self.takeover
    }

    fn carried(&self, out: &mut Vec<u32>) {
        out.push(TABLE);
    }

    fn carried_fd(&self, _: u32) -> Option<BorrowedFd<'_>> {
        self.table.as_ref().map(File::as_fd)
    }

    fn describe(&mut self, cx: &mut Cx<Self>, item: Item) -> Result<Description, String> {
        match item {
            Item::Carried(_) => Ok(Description::new(ItemKind::Memfd, "table", VERSION)),
            Item::Source(id) => Description::detect(cx, id, VERSION),
        }
    }

    fn save(&mut self, cx: &mut Cx<Self>, item: Item, out: &mut Vec<u8>) -> bool {
        if let Item::Source(id) = item
            && cx.name(id) == Some("alarm")
        {
            out.extend_from_slice(&self.alarm_at.as_ns().to_le_bytes());
        }
        false
    }

    fn restore(&mut self, cx: &mut Cx<Self>, arrival: Arrival<'_>) -> Result<Item, Rejection> {
        match (arrival.name, arrival.state.version, arrival.fd) {
            ("tun", VERSION, Some(fd)) => Ok(reflect(fd.into(), cx)?),
            ("alarm", VERSION, Some(fd)) => {
                let at = arrival.state.bytes.first_chunk();
                let at = at.ok_or_else(|| "no time".to_owned())?;
                self.alarm_at = Time::from_ns(u64::from_le_bytes(*at));
                Ok(ring(fd.into(), cx)?)
            }
            ("table", VERSION, Some(fd)) => {
                self.table = Some(fd.into());
                Ok(Item::Carried(TABLE))
            }
            // Without it we would be no successor: the donor had better go on.
            (name, version, _) => Err(format!("{name:?}, version {version}, is not for us").into()),
        }
    }

    /// Nothing of this changes while it runs.
    fn update(&mut self, _: &mut Cx<Self>, _: Item, _: SavedState<'_>) -> Result<(), String> {
        Ok(())
    }

    fn moment(&mut self, cx: &mut Cx<Self>, moment: Moment) {
        eprintln!("{moment}; {:?} packets", self.packets().ok());
        moment.follow(self, cx);
    }
}
