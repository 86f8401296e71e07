//! Any conversation, as a donor hears it from its taker.
//!
//! `tools/fuzz hear_donor 600` (seconds), or `RUSTC_BOOTSTRAP=1 cargo fuzz run hear_donor`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    socket_takeover_fuzz::donor::hear(data);
});
