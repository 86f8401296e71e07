//! Any conversation, as a taker hears it from its donor.
//!
//! `tools/fuzz hear_taker 600` (seconds), or `RUSTC_BOOTSTRAP=1 cargo fuzz run hear_taker`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    socket_takeover_fuzz::taker::hear(data);
});
