//! Records of all kinds of bytes, against a decoder that knows nothing but offsets.

mod event_invariants;

use std::fs;
use std::path::Path;

use ironclad_core::abi;
use proptest::prelude::*;
use zerocopy::{FromZeros, IntoBytes};

fn event() -> abi::ShieldEvent {
    let mut event = abi::ShieldEvent::default();
    event.hdr.kind = abi::EV_SHIELD;
    event.hdr.len = size_of::<abi::ShieldEvent>() as u16;
    event
}

#[test]
fn the_fuzz_corpus_keeps_the_invariants() {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("../fuzz/corpus/event");
    let Ok(files) = fs::read_dir(&dir) else {
        println!("SKIP the_fuzz_corpus_keeps_the_invariants: no {}", dir.display());
        return;
    };
    let mut count = 0;
    for file in files {
        let path = file.unwrap().path();
        println!("{}", path.display());
        event_invariants::check(&fs::read(path).unwrap());
        count += 1;
    }
    assert!(count > 20, "{count} files in the corpus");
}

/// Each value of each byte behind an event's head, and each length.
#[test]
fn every_value_of_every_byte() {
    let mut socket = abi::SockEvent::default();
    socket.hdr.kind = abi::EV_SOCKET;
    socket.hdr.len = size_of::<abi::SockEvent>() as u16;
    let mut sentinel = abi::SentinelEvent::new_zeroed();
    sentinel.hdr.kind = abi::EV_SENTINEL;
    sentinel.hdr.len = size_of::<abi::SentinelEvent>() as u16;
    (sentinel.hook, sentinel.verdict, sentinel.path_len) = (14, 1, 12);
    sentinel.path[..12].copy_from_slice(b"passwd\0etc\0\0");
    for bytes in [event().as_bytes(), socket.as_bytes(), sentinel.as_bytes()] {
        every_value(bytes.to_vec());
    }
}

fn every_value(mut bytes: Vec<u8>) {
    for length in 0..=bytes.len() {
        event_invariants::check(&bytes[..length]);
    }
    for at in 0..bytes.len() {
        let was = bytes[at];
        for value in 0..=255 {
            bytes[at] = value;
            event_invariants::check(&bytes);
        }
        bytes[at] = was;
    }
}

proptest! {
    #[test]
    fn any_bytes(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        event_invariants::check(&bytes);
    }

    #[test]
    fn any_event(
        body in prop::collection::vec(any::<u8>(), 84),
        family in prop::sample::select(vec![0u8, 4, 6]),
        protocol in prop::sample::select(vec![0u8, 1, 6, 17, 33, 58, 132, 136, 255]),
        verdict in 0u8..2,
        reason in 0u8..24,
        flags in 0u8..16,
        behind in prop::collection::vec(any::<u8>(), 0..9),
    ) {
        let mut bytes = event().as_bytes()[..4].to_vec();
        bytes.extend(body);
        bytes[80..85].copy_from_slice(&[family, protocol, verdict, reason, flags]);
        bytes.extend(behind);
        event_invariants::check(&bytes);
    }
}
