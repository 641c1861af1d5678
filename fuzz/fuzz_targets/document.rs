//! Policy files: whatever the bytes, no panic, and errors name places that there are.
#![no_main]

#[path = "../../ironclad-policy/tests/document_invariants/mod.rs"]
mod document_invariants;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| document_invariants::check(bytes));
