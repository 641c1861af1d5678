//! The audit of object files. Needs neither root nor a kernel.
use ironclad_bpf::BpfErrorKind;
use ironclad_bpf::audit::{
    Allowlist, FORBIDDEN_HELPERS, Offence, Violation, audit_object, inspect_object, open_object,
};
use ironclad_bpf::uapi::{AttachType, Helper, ProgramType};
use ironclad_hostile::{OBJECTS, object};

/// Everything that can be permitted, to show that what is refused is not for lack of permission.
fn generous() -> Allowlist {
    let mut list = Allowlist::empty();
    for &program_type in &ProgramType::ALL[1..] {
        let helpers = Helper::ALL[1..].iter().copied().filter(|it| !FORBIDDEN_HELPERS.contains(it));
        list = list
            .allow(program_type, helpers)
            .unwrap()
            .allow_sleepable(program_type)
            .allow_kfunc(program_type, "bpf_throw")
            .unwrap();
    }
    list
}

fn refusal(name: &str, list: &Allowlist) -> Vec<Violation> {
    let error = audit_object(object(name), list).unwrap_err();
    error.refusal().unwrap_or_else(|| panic!("{name}: {error}")).violations.clone()
}

fn only(name: &str, list: &Allowlist) -> Violation {
    let mut violations = refusal(name, list);
    assert_eq!(violations.len(), 1, "{name}: {violations:?}");
    violations.remove(0)
}

/// Where the only call of a helper in a function is.
fn call_index(name: &str, program: &str, helper: Helper) -> usize {
    use ::object::{Object, ObjectSection, ObjectSymbol};
    let file = ::object::File::parse(object(name)).unwrap();
    let symbol = file.symbols().find(|it| it.name() == Ok(program)).unwrap();
    let section = file.section_by_index(symbol.section_index().unwrap()).unwrap();
    let start = symbol.address() as usize;
    let code = &section.data().unwrap()[start..start + symbol.size() as usize];
    code.chunks(8).position(|it| it[..2] == [0x85, 0] && it[4..] == helper.0.to_le_bytes()).unwrap()
}

#[test]
fn each_forbidden_helper_is_refused_by_name_place_and_number() {
    for &helper in FORBIDDEN_HELPERS {
        let name = format!("forbidden_{}", helper.name().unwrap());
        let violation = only(&name, &generous());
        assert_eq!(violation.offence, Offence::ForbiddenHelper(helper));
        assert_eq!(violation.program, "evil");
        assert_eq!(violation.function, None);
        assert_eq!(violation.instruction, Some(call_index(&name, "evil", helper)));
        let line = violation.line.as_ref().unwrap();
        assert_eq!(line.file, format!("hostile/{name}.bpf.c"));
        let source = format!("{}/tests/hostile/{name}.bpf.c", env!("CARGO_MANIFEST_DIR"));
        let source = std::fs::read_to_string(source).unwrap();
        let text = source.lines().nth(line.line as usize - 1).unwrap();
        assert!(text.contains(&format!("{}(", helper.name().unwrap())), "{line}: {text}");

        let message = audit_object(object(&name), &generous()).unwrap_err().to_string();
        let expected = [
            "program `evil`",
            &format!("instruction {}", violation.instruction.unwrap()),
            &format!("{helper} (#{})", helper.0),
            &format!("hostile/{name}.bpf.c:"),
            "forbidden because",
            "remove the call",
        ];
        for part in expected {
            assert!(message.contains(part), "{part} is not in: {message}");
        }
    }
}

/// What is refused is not broken: libbpf takes every object.
#[test]
fn without_the_audit_libbpf_opens_them() {
    for (name, bytes) in OBJECTS {
        open_object(name, bytes).unwrap_or_else(|e| panic!("{name}: {e}"));
    }
}

#[test]
fn calls_hide_nowhere() {
    for (name, program, function) in [
        ("subprogram", "evil", Some("deeper")),
        ("global_function", "evil", Some("helper")),
        ("dead_branch", "evil", None),
        ("second_program", "evil", None),
        ("callback", "evil", Some("each")),
        ("exception_callback", "evil", Some("after")),
        ("exception_callback_shared", "evil", Some("after")),
        ("unused_function", "good", Some("unused")),
    ] {
        let violation = only(name, &generous());
        let helper = Helper::SEND_SIGNAL;
        assert_eq!(violation.offence, Offence::ForbiddenHelper(helper), "{name}");
        assert_eq!(violation.program, program, "{name}");
        assert_eq!(violation.function.as_deref(), function, "{name}");
        let index = call_index(name, function.unwrap_or(program), helper);
        assert_eq!(violation.instruction, Some(index), "{name}");
        assert!(violation.line.is_some(), "{name}");
    }
}

#[test]
fn what_is_not_loaded_is_reported_but_not_refused() {
    let report = audit_object(object("dormant"), &generous()).unwrap();
    assert_eq!(report.violations().count(), 0);
    let dormant: Vec<_> = report.dormant_violations().collect();
    assert_eq!(dormant.len(), 1);
    assert_eq!(dormant[0].program, "evil");
    assert_eq!(dormant[0].function.as_deref(), Some("helper"));
    assert_eq!(dormant[0].offence, Offence::ForbiddenHelper(Helper::SEND_SIGNAL));
    let by_name = |name| report.programs.iter().find(|it| it.name == name).unwrap();
    assert!(by_name("good").is_loaded && !by_name("evil").is_loaded);
    assert!(by_name("good").helpers.is_empty());
}

#[test]
fn oddities_are_refused() {
    for (name, offence) in [
        ("unknown_helper", Offence::UnknownHelper(4711)),
        ("foreign_map", Offence::ForeignMap(5)),
        ("raw_map_by_index", Offence::UnknownLoad(5)),
        ("raw_indirect_call", Offence::IndirectCall),
        ("raw_unknown_opcode", Offence::UnknownOpcode(0xff)),
        ("raw_tail_call_opcode", Offence::UnknownOpcode(0xf5)),
        ("no_type", Offence::TypeNotAllowed(ProgramType::UNSPEC)),
        ("kernel_variable", Offence::VariableNotAllowed("bpf_prog_active".into())),
        ("kfunc", Offence::KfuncNotAllowed("bpf_xdp_metadata_rx_timestamp".into())),
        ("forbidden_kfunc", Offence::ForbiddenKfunc("crash_kexec".into())),
    ] {
        let found = refusal(name, &generous());
        assert_eq!(found[0].offence, offence, "{name}");
    }
    for name in ["raw_hard_coded_kfunc", "raw_hard_coded_variable"] {
        assert!(
            matches!(only(name, &generous()).offence, Offence::Nameless { id: 7, .. }),
            "{name}"
        );
    }
    assert!(matches!(only("raw_poison", &generous()).offence, Offence::StrangeRelocation(_)));
}

/// The object, and where in the file a section's bytes begin.
fn with_section(name: &str, section: &str) -> (Vec<u8>, usize) {
    use ::object::{Object, ObjectSection};
    let file = ::object::File::parse(object(name)).unwrap();
    let (start, _) = file.section_by_name(section).unwrap().file_range().unwrap();
    (object(name).to_vec(), start as usize)
}

#[test]
fn relocations_that_say_something_else_are_refused() {
    const ENTRY: usize = 16;
    let strange = |bytes: &[u8]| {
        let error = audit_object(bytes, &Allowlist::shield()).unwrap_err();
        let mut violations = error.refusal().unwrap().violations.iter();
        violations.any(|it| matches!(it.offence, Offence::StrangeRelocation(_)))
    };
    // Two of one instruction: which of them counts?
    let (mut bytes, relocations) = with_section("good", ".relxdp");
    bytes.copy_within(relocations..relocations + 8, relocations + ENTRY);
    assert!(strange(&bytes));

    // A call of a helper that a relocation would turn into another call, and a load into another.
    let (mut bytes, code) = with_section("good", "xdp");
    let (_, relocations) = with_section("good", ".relxdp");
    let entries = bytes[relocations..].chunks(ENTRY).take(6);
    let places: Vec<_> = entries.map(|it| code + usize::from(it[0])).collect();
    for at in places {
        let before = bytes[at + 1];
        bytes[at + 1] = before ^ 0x10;
        assert!(strange(&bytes), "{at}");
        bytes[at + 1] = before;
    }
    // An instruction that refers to nothing.
    bytes[relocations] = 0;
    assert!(strange(&bytes));
}

#[test]
fn an_allowlist_is_for_types_places_and_sleep() {
    let shield = Allowlist::shield();
    let only_offence = |name, list: &Allowlist| only(name, list).offence;
    assert_eq!(
        only_offence("devmap", &shield),
        Offence::AttachTypeNotAllowed(AttachType::XDP_DEVMAP)
    );
    let devmap = shield.clone().allow_attach_type(ProgramType::XDP, AttachType::XDP_DEVMAP);
    audit_object(object("devmap"), &devmap).unwrap();

    assert_eq!(only_offence("sleepable", &shield), Offence::TypeNotAllowed(ProgramType::TRACING));
    let tracing = shield.clone().allow_type(ProgramType::TRACING);
    assert_eq!(only_offence("sleepable", &tracing), Offence::SleepableNotAllowed);
    let sleepable = tracing.allow_sleepable(ProgramType::TRACING);
    audit_object(object("sleepable"), &sleepable).unwrap();

    assert!(refusal("weak_kfunc", &shield).len() == 2);
    let kfunc = shield.clone().allow_kfunc(ProgramType::XDP, "bpf_cpumask_any").unwrap();
    audit_object(object("weak_kfunc"), &kfunc).unwrap();
    let variable = generous().allow_variable(ProgramType::TRACEPOINT, "bpf_prog_active");
    audit_object(object("kernel_variable"), &variable).unwrap();
}

#[test]
fn a_good_object_passes_and_is_described() {
    let report = audit_object(object("good"), &Allowlist::shield()).unwrap();
    assert_eq!(report.license.as_deref(), Some("GPL"));
    let names: Vec<_> = report.programs.iter().map(|it| it.name.as_str()).collect();
    assert_eq!(names, ["good", "second"]);
    let first = &report.programs[0];
    assert_eq!((first.program_type, first.attach_type), (ProgramType::XDP, AttachType::XDP));
    assert_eq!(first.helpers[&Helper::RINGBUF_RESERVE], 1);
    assert_eq!(first.helpers[&Helper::TAIL_CALL], 1);
    assert_eq!(first.helpers.len(), 8);
    // A function belongs to the programs that call it, and to no other.
    let second: Vec<_> = report.programs[1].helpers.keys().collect();
    assert_eq!(second, [&Helper::MAP_LOOKUP_ELEM]);

    let strict = Allowlist::empty().allow(ProgramType::XDP, [Helper::MAP_LOOKUP_ELEM]).unwrap();
    let report = inspect_object(object("good"), &strict).unwrap();
    let counts: Vec<_> = report.programs.iter().map(|it| it.violations.len()).collect();
    assert_eq!(counts, [7, 0]);
}

#[test]
fn garbage_is_an_error() {
    let good = object("good");
    let mut big_endian = good.to_vec();
    big_endian[5] = 2;
    let mut machine = good.to_vec();
    machine[18] = 62;
    for (bytes, word) in [
        (&[][..], "no 64-bit ELF"),
        (b"\x7fELF", "no 64-bit ELF"),
        (&[0xff; 4096], "no 64-bit ELF"),
        (&big_endian, "big-endian"),
        (&machine, "no eBPF object"),
        (&good[..good.len() / 2], "broken"),
    ] {
        let error = audit_object(bytes, &Allowlist::shield()).unwrap_err();
        assert_eq!(error.kind(), BpfErrorKind::Object);
        assert!(error.to_string().contains(word), "{error}");
    }
}

/// Deterministic, so that a failure can be repeated.
fn mutations(seed: u64) -> impl Iterator<Item = Vec<u8>> {
    let mut state = seed;
    let mut next = move || {
        state =
            state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 33) as usize
    };
    std::iter::from_fn(move || {
        let mut bytes = object(["good", "callback", "dormant", "kfunc"][next() % 4]).to_vec();
        for _ in 0..1 + next() % 8 {
            let at = next() % bytes.len();
            match next() % 4 {
                0 => bytes[at] = next() as u8,
                1 => bytes[at] ^= 1 << (next() % 8),
                2 => bytes.truncate(at.max(1)),
                _ => {
                    let word = [0, u32::MAX, 1 << 31, next() as u32][next() % 4].to_le_bytes();
                    let end = (at + 4).min(bytes.len());
                    bytes[at..end].copy_from_slice(&word[..end - at]);
                }
            }
        }
        Some(bytes)
    })
}

#[test]
fn damaged_objects_are_no_trouble() {
    let (mut passed, mut refused, mut unreadable) = (0, 0, 0);
    for bytes in mutations(1).take(20_000) {
        match audit_object(&bytes, &Allowlist::shield()) {
            Ok(_) => passed += 1,
            Err(error) => match (error.kind(), error.refusal()) {
                (BpfErrorKind::Audit, Some(refusal)) => {
                    assert!(!refusal.to_string().is_empty());
                    refused += 1;
                }
                (BpfErrorKind::Object, None) => unreadable += 1,
                _ => panic!("{error}"),
            },
        }
    }
    // Each of the three has to be met, or the damage is not what it is meant to be.
    assert!(passed > 100 && refused > 100 && unreadable > 100, "{passed} {refused} {unreadable}");
}
