//! eBPF objects for the audit's tests, compiled when the tests are built, so that they can run where
//! there is no compiler.
#![forbid(unsafe_code)]

include!(concat!(env!("OUT_DIR"), "/objects.rs"));

/// The object that was compiled from `name.bpf.c`.
///
/// # Panics
/// There is no such source.
pub fn object(name: &str) -> &'static [u8] {
    let found = OBJECTS.iter().find(|(it, _)| *it == name);
    found.unwrap_or_else(|| panic!("no {name}.bpf.c among the hostile objects")).1
}
