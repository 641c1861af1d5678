//! The audit against the running kernel. Needs root.

use ironclad_bpf::audit::{Allowlist, audit_object, audit_prepared, inspect_object, open_object};
use ironclad_bpf::uapi::ProgramType;
use ironclad_hostile::object;
use ironclad_lab::harness::Test;
use ironclad_lab::test;
use object::{Object, ObjectSection};

pub(crate) fn tests() -> Vec<Test> {
    vec![test!(a_file_is_read_as_libbpf_reads_it).on_host()]
}

/// Where an object's code, symbols and relocations are. Maps and types stay as they are: libbpf would
/// pass whatever damage makes of them to the kernel.
fn places(bytes: &[u8]) -> Vec<(usize, usize)> {
    let file = object::File::parse(bytes).unwrap();
    let code = file.sections().filter(|section| {
        let name = section.name().unwrap();
        [".text", ".rel.text", ".symtab"].contains(&name)
            || name.contains("xdp")
            || name.contains("tracepoint")
    });
    code.filter_map(|section| section.file_range())
        .filter(|(_, size)| *size > 0)
        .map(|(start, size)| (start as usize, size as usize))
        .collect()
}

/// The audit of the file and libbpf read the same programs, however odd the file: what the first lets
/// pass, the audit of what libbpf made of it does too.
fn a_file_is_read_as_libbpf_reads_it() {
    let mut state = 7u64;
    let mut next = || {
        state =
            state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 33) as usize
    };
    let (mut both_pass, mut both_refuse, mut unprepared) = (0, 0, 0);
    for round in 0..4000 {
        let mut bytes = object(["good", "subprogram", "callback", "dormant"][round % 4]).to_vec();
        let places = places(&bytes);
        for _ in 0..1 + next() % 3 {
            let (start, size) = places[next() % places.len()];
            let at = start + next() % size;
            match next() % 3 {
                0 => bytes[at] ^= 1 << (next() % 8),
                1 => bytes[at] = [0, 1, 5, 8, 0x10, 0x18, 0x85, 109, 0xff][next() % 9],
                _ => {
                    let from = start + next() % size / 8 * 8;
                    let to = start + next() % size / 8 * 8;
                    if from + 8 <= start + size && to + 8 <= start + size {
                        bytes.copy_within(from..from + 8, to);
                    }
                }
            }
        }
        let list = Allowlist::shield().allow_type(ProgramType::TRACEPOINT);
        let on_file = audit_object(&bytes, &list);
        let Ok(mut open) = open_object("damaged", &bytes) else {
            unprepared += 1;
            continue;
        };
        match audit_prepared(&mut open, &list) {
            Ok(_) => both_pass += usize::from(on_file.is_ok()),
            Err(error) => match error.refusal() {
                Some(refusal) => {
                    assert!(
                        on_file.is_err(),
                        "round {round}: only libbpf's reading has\n{refusal}\n{:#?}",
                        inspect_object(&bytes, &list)
                    );
                    both_refuse += 1;
                }
                None => unprepared += 1,
            },
        }
    }
    println!("{both_pass} passed, {both_refuse} were refused, {unprepared} could not be prepared");
    assert!(both_pass > 200 && both_refuse > 200, "{both_pass} {both_refuse}");
}
