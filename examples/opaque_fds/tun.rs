//! The tun device: how it is opened, and what it reflects.

#![allow(unsafe_code)] // one ioctl, which has no safe form

use std::fs::{File, OpenOptions};
use std::io::{self, ErrorKind, Read, Write};
use std::os::fd::AsRawFd;
use std::os::unix::fs::OpenOptionsExt;

use socket_takeover::event::{Cx, Next, Spec};
use socket_takeover::takeover::Item;

use crate::Reflector;

/// The device behind an interface, which is made with it and gone with its last descriptor
/// (linux: `Documentation/networking/tuntap.rst`).
pub(crate) fn open(interface: &str) -> io::Result<File> {
    let flags = libc::O_NONBLOCK;
    let device = OpenOptions::new()
        .read(true)
        .write(true)
        .custom_flags(flags)
        .open("/dev/net/tun")?;
    // struct ifreq: a name of 16 bytes, NUL included, then a union that begins with the flags.
    let mut request = [0_u8; size_of::<libc::ifreq>()];
    let name = request[..15]
        .get_mut(..interface.len())
        .ok_or(ErrorKind::InvalidInput)?;
    name.copy_from_slice(interface.as_bytes());
    let flags = (libc::IFF_TUN | libc::IFF_NO_PI) as u16;
    request[16..18].copy_from_slice(&flags.to_ne_bytes());
    // SAFETY: the request is as large as the kernel takes it to be, and outlives the call.
    match unsafe { libc::ioctl(device.as_raw_fd(), libc::TUNSETIFF, request.as_mut_ptr()) } {
        0.. => Ok(device),
        _ => Err(io::Error::last_os_error()),
    }
}

/// One packet a read, and a write.
pub(crate) fn reflect(device: File, cx: &mut Cx<Reflector>) -> io::Result<Item> {
    let spec = Spec::item("tun");
    let added = cx.add(spec, device, |device, app: &mut Reflector, cx, _| {
        let mut packet = [0; 2048];
        for _ in 0..cx.budget() {
            let length = match device.read(&mut packet) {
                Ok(length) => length,
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(Next::Keep),
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
