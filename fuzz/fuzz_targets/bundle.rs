//! Headers of bundles, tokens and keys: whatever the bytes, no panic, and each has one form.
#![no_main]

#[path = "../../ironclad-policy/tests/bundle_invariants/mod.rs"]
mod bundle_invariants;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| bundle_invariants::check(bytes));
