//! The message of the sequence protocol, and a stream of them.
//!
//! Message *n* of a connection is the four bytes of *n*, big-endian, from 0 on. So a
//! position says which bytes come next, and nothing has to be stored.

/// Bytes of a message.
pub const WORD: usize = 4;

/// The bytes of message `number`.
#[must_use]
pub fn encode(number: u64) -> [u8; WORD] {
    // The counter on the wire has 32 bits and wraps.
    (number as u32).to_be_bytes()
}

/// How many whole messages so many bytes are.
#[must_use]
pub fn whole_in(bytes: u64) -> u64 {
    bytes / WORD as u64
}

/// Fills `buffer`, whose length is a multiple of [`WORD`], with the stream's bytes from
/// position `from` on, up to `to` if they fit.
#[must_use]
pub fn stream_bytes(buffer: &mut [u8], from: u64, to: u64) -> &[u8] {
    let skip = (from % WORD as u64) as usize;
    let wanted = usize::try_from(to - from).unwrap_or(usize::MAX - WORD);
    let end = (skip + wanted).min(buffer.len());
    let words = buffer[..end.next_multiple_of(WORD)].chunks_exact_mut(WORD);
    for (word, number) in words.zip(whole_in(from)..) {
        word.copy_from_slice(&encode(number));
    }
    &buffer[skip..end]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stream_bytes_are_the_counter_at_any_position_and_length() {
        let whole: Vec<u8> = (0..100).flat_map(encode).collect();
        for from in 0..40 {
            for to in from..120 {
                let mut buffer = [0xee; 64];
                let bytes = stream_bytes(&mut buffer, from as u64, to as u64);
                let fits = (to - from).min(64 - from % 4);
                assert_eq!(bytes, &whole[from..from + fits], "{from}..{to}");
            }
        }
    }

    #[test]
    fn stream_without_end_fills_the_buffer() {
        let mut buffer = [0; 8];
        assert_eq!(
            stream_bytes(&mut buffer, 5, u64::MAX),
            [0, 0, 1, 0, 0, 0, 2]
        );
    }
}
