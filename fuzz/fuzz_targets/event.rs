//! Ring-buffer records: whatever the bytes, no panic, and each field is the one at its offset.
#![no_main]

#[path = "../../ironclad-events/tests/event_invariants/mod.rs"]
mod event_invariants;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| event_invariants::check(bytes));
