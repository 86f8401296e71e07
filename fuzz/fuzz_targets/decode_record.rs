//! Any bytes, with any number of descriptors, as one record.
//!
//! `tools/fuzz decode_record 600` (seconds), or `RUSTC_BOOTSTRAP=1 cargo fuzz run decode_record`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    socket_takeover_fuzz::record::decode(data);
});
