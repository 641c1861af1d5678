//! Address lists: whatever the bytes, no panic, and both readers agree.
#![no_main]

#[path = "../../ironclad-policy/tests/list_invariants/mod.rs"]
mod list_invariants;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| list_invariants::check(bytes));
