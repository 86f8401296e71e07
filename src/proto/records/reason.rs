//! Why, in words: the text of the records that refuse or give up.

use crate::proto::cursor::Reader;
use crate::proto::wire::{DecodeError, MAX_REASON, put_text, read_text};

pub(super) fn read_reason<'a>(reader: &mut Reader<'a>) -> Result<&'a str, DecodeError> {
    let reason = read_text(reader, "reason")?;
    if reason.len() > MAX_REASON {
        return Err(DecodeError::Value("length of a reason"));
    }
    Ok(reason)
}

/// Cuts a text that is too long: the code says enough, and giving up must not fail for its wording.
pub(super) fn put_reason(reason: &str, out: &mut Vec<u8>) {
    let mut end = reason.len().min(MAX_REASON);
    while !reason.is_char_boundary(end) {
        end -= 1;
    }
    put_text(&reason[..end], out);
}
