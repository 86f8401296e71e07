//! One peer's conversation, without I/O: bytes in, bytes out, and how it travels.
//!
//! State, version 1, little-endian: open (0 or 1), length of the input (4 bytes), input,
//! output.

use std::net::IpAddr;

/// A peer that announces a longer message is not one.
const LONGEST: usize = 64 * 1024;
const CAPABILITIES: u32 = 257;
const WATCHDOG: u32 = 280;
const DISCONNECT: u32 = 282;
const SUCCESS: u32 = 2001;
const UNSUPPORTED: u32 = 3001;
/// Flag of a command: a request; proxiable; an error.
const REQUEST: u8 = 0x80;
const PROXIABLE: u8 = 0x40;
const ERROR: u8 = 0x20;
/// Flag of an AVP that its receiver has to understand.
const MANDATORY: u8 = 0x40;

/// Who we are.
#[derive(Default)]
pub(crate) struct Identity {
    pub(crate) host: String,
    /// Origin-State-Id.
    pub(crate) state: u32,
}

#[derive(Default)]
pub(crate) struct Session {
    /// Capabilities were exchanged.
    open: bool,
    /// A message that is not whole yet.
    input: Vec<u8>,
    /// Answers that the kernel did not take yet.
    pub(crate) output: Vec<u8>,
}

impl Session {
    pub(crate) fn save(&self, out: &mut Vec<u8>) {
        out.push(u8::from(self.open));
        out.extend_from_slice(&(self.input.len() as u32).to_le_bytes());
        out.extend_from_slice(&self.input);
        out.extend_from_slice(&self.output);
    }

    pub(crate) fn restore(state: &[u8]) -> Option<Session> {
        let (&open, rest) = state.split_first()?;
        let (length, rest) = rest.split_first_chunk()?;
        let (input, output) = rest.split_at_checked(u32::from_le_bytes(*length) as usize)?;
        Some(Session {
            open: open == 1,
            input: input.to_vec(),
            output: output.to_vec(),
        })
    }

    /// Takes what was read, and puts the answers to all that is whole into the output.
    /// `None`: this is no Diameter peer.
    pub(crate) fn take_in(&mut self, bytes: &[u8], identity: &Identity, us: IpAddr) -> Option<()> {
        self.input.extend_from_slice(bytes);
        while let [version, a, b, c, ..] = self.input[..] {
            let length = u32::from_be_bytes([0, a, b, c]) as usize;
            if version != 1 || !length.is_multiple_of(4) || !(20..=LONGEST).contains(&length) {
                return None;
            }
            if self.input.len() < length {
                break;
            }
            let message: Vec<u8> = self.input.drain(..length).collect();
            self.answer(&message, identity, us)?;
        }
        Some(())
    }

    fn answer(&mut self, message: &[u8], identity: &Identity, us: IpAddr) -> Option<()> {
        let flags = message[4];
        let command = u32::from_be_bytes([0, message[5], message[6], message[7]]);
        if flags & REQUEST == 0 {
            return Some(()); // an answer, and we have asked nothing
        }
        self.open |= command == CAPABILITIES;
        if !self.open {
            return None;
        }
        let (result, error) = match command {
            CAPABILITIES | WATCHDOG | DISCONNECT => (SUCCESS, 0),
            _ => (UNSUPPORTED, ERROR),
        };
        let start = self.output.len();
        self.output
            .extend_from_slice(&[1, 0, 0, 0, flags & PROXIABLE | error]);
        // The command, the application, and the identifiers by which the peer knows it.
        self.output.extend_from_slice(&message[5..20]);
        let realm = identity.host.split_once('.').map_or("", |(_, realm)| realm);
        self.avp(268, MANDATORY, &result.to_be_bytes());
        self.avp(264, MANDATORY, identity.host.as_bytes());
        self.avp(296, MANDATORY, realm.as_bytes());
        if command == CAPABILITIES {
            let address = match us {
                IpAddr::V4(us) => [&[0, 1][..], &us.octets()].concat(),
                IpAddr::V6(us) => [&[0, 2][..], &us.octets()].concat(),
            };
            self.avp(257, MANDATORY, &address);
            self.avp(266, MANDATORY, &[0; 4]); // Vendor-Id
            self.avp(269, 0, b"diameter_watchdog"); // Product-Name
        }
        if command != DISCONNECT {
            self.avp(278, MANDATORY, &identity.state.to_be_bytes());
        }
        let length = (self.output.len() - start) as u32;
        self.output[start + 1..start + 4].copy_from_slice(&length.to_be_bytes()[1..]);
        Some(())
    }

    /// Code, flags, a length of 3 bytes, data, and padding that the length does not count.
    fn avp(&mut self, code: u32, flags: u8, data: &[u8]) {
        let length = 8 + data.len() as u32;
        self.output.extend_from_slice(&code.to_be_bytes());
        self.output
            .extend_from_slice(&(u32::from(flags) << 24 | length).to_be_bytes());
        self.output.extend_from_slice(data);
        self.output.resize(self.output.len().next_multiple_of(4), 0);
    }
}
