//! What is prepared for this kernel, what it loads, and what it says of it. Nothing is attached.
use ironclad_bpf::BpfErrorKind;
use ironclad_core::ErrorChain;
use std::os::fd::AsFd;

use ironclad_bpf::audit::{
    Allowlist, Calls, Comparison, Digest, FORBIDDEN_HELPERS, Offence, ProgramReport, Violation,
    audit_object, audit_prepared, compare_loaded, open_object,
};
use ironclad_bpf::uapi::{Helper, ProgramType};
use ironclad_hostile::object;
use ironclad_lab::harness::{Test, skip};
use ironclad_lab::test;
use libbpf_rs::btf::types::Enum;
use libbpf_rs::btf::{Btf, BtfKind, BtfType};
use libbpf_rs::{AsRawLibbpf, Object, OpenObject};
use rustix::thread::CapabilitySet;

pub(crate) fn tests() -> Vec<Test> {
    vec![
        test!(helpers_have_the_kernels_names),
        test!(forbidden_helpers_are_refused_before_the_kernel_sees_them),
        test!(without_the_audit_the_kernel_would_load_them),
        test!(calls_hide_nowhere),
        test!(exception_callbacks_are_seen),
        test!(kernel_functions_and_variables_are_named),
        test!(allowed_kernel_functions_load),
        test!(oddities_are_refused),
        test!(what_is_not_loaded_is_reported_but_not_refused),
        test!(what_the_kernel_loaded_is_what_was_audited),
        test!(another_program_is_not_the_audited_one),
        test!(a_program_changed_after_the_audit_is_found_out),
        test!(preparing_twice_is_an_error),
        test!(no_pins_are_made),
        test!(hidden_addresses_are_not_silently_fine),
    ]
}

fn open(name: &str) -> OpenObject {
    open_object(name, object(name)).unwrap_or_else(|e| panic!("{name}: {e}"))
}

/// Permits types and helpers that the harmless parts of the objects use.
fn generous() -> Allowlist {
    Allowlist::shield()
        .allow(ProgramType::TRACEPOINT, [Helper::GET_CURRENT_PID_TGID, Helper::LOOP])
        .unwrap()
        .allow_type(ProgramType::KPROBE)
        .allow_type(ProgramType::SCHED_CLS)
        .allow_sleepable(ProgramType::SYSCALL)
}

fn refusal(name: &str, list: &Allowlist) -> Vec<Violation> {
    let error = audit_prepared(&mut open(name), list).unwrap_err();
    error.refusal().unwrap_or_else(|| panic!("{name}: {error}")).violations.clone()
}

/// The table of helpers is the kernel's own.
fn helpers_have_the_kernels_names() {
    let btf = Btf::from_vmlinux().unwrap();
    let ids: Enum<'_> = btf.type_by_name("bpf_func_id").unwrap();
    let mut known = 0;
    for member in ids.iter() {
        let name = member.name.unwrap().to_string_lossy();
        let Some(name) = name.strip_prefix("BPF_FUNC_") else { continue };
        let helper = Helper(member.value as u32);
        match helper.name() {
            Some(known_as) => assert_eq!(known_as, name),
            None => println!("{helper} is new: {name}"),
        }
        known += 1;
    }
    assert!(known > 150, "{known}");
}

/// Audits, loads and compares.
fn load(mut open: OpenObject, list: &Allowlist) -> (Vec<ProgramReport>, Object, Vec<Comparison>) {
    let reports = audit_prepared(&mut open, list).unwrap();
    let object = open.load().unwrap();
    let loaded = reports.iter().filter(|report| report.is_loaded);
    let comparisons = loaded
        .map(|report| {
            let program = object.progs().find(|it| *it.name() == *report.name).unwrap();
            compare_loaded(program.as_fd(), report).unwrap()
        })
        .collect();
    (reports, object, comparisons)
}

/// Whether the kernel's BTF has a function or variable of this name.
fn has_symbol(name: &str) -> bool {
    let btf = Btf::from_vmlinux().unwrap();
    btf.type_by_name::<BtfType<'_>>(name)
        .is_some_and(|it| matches!(it.kind(), BtfKind::Func | BtfKind::Var))
}

fn forbidden_helpers_are_refused_before_the_kernel_sees_them() {
    for &helper in FORBIDDEN_HELPERS {
        let name = format!("forbidden_{}", helper.name().unwrap());
        let violations = refusal(&name, &generous());
        let [violation] = &violations[..] else { panic!("{violations:?}") };
        assert_eq!(violation.program, "evil");
        assert_eq!(violation.offence, Offence::ForbiddenHelper(helper));
        // An object without functions is not changed by preparing it.
        let on_file = audit_object(object(&name), &generous()).unwrap_err();
        assert_eq!(violations, on_file.refusal().unwrap().violations);
    }
}

/// The counter-proof: without the audit, the kernel takes what it refuses.
fn without_the_audit_the_kernel_would_load_them() {
    for name in ["forbidden_send_signal", "forbidden_send_signal_thread", "dead_branch"] {
        let object = open(name).load().unwrap_or_else(|e| panic!("{name}: {e}"));
        assert_eq!(object.progs().count(), 1);
    }
    // Kernels that are locked down or lack an option refuse some of the other helpers themselves.
    for &helper in FORBIDDEN_HELPERS {
        let name = format!("forbidden_{}", helper.name().unwrap());
        let loaded = open(&name).load();
        println!("{name}: {}", loaded.map_or_else(|e| e.to_string(), |_| "loaded".into()));
    }
}

fn calls_hide_nowhere() {
    for (name, function) in [
        ("subprogram", Some("deeper")),
        ("global_function", Some("helper")),
        ("dead_branch", None),
        ("second_program", None),
        ("callback", Some("each")),
    ] {
        let violations = refusal(name, &generous());
        let [violation] = &violations[..] else { panic!("{name}: {violations:?}") };
        assert_eq!(violation.program, "evil", "{name}");
        assert_eq!(violation.function.as_deref(), function, "{name}");
        assert_eq!(violation.offence, Offence::ForbiddenHelper(Helper::SEND_SIGNAL), "{name}");
        let line = violation.line.as_ref().unwrap();
        assert_eq!(line.file, format!("hostile/{name}.bpf.c"));
    }
    // Not part of any program once it is prepared.
    let (reports, ..) = load(open("unused_function"), &generous());
    assert!(reports[0].helpers.is_empty());
}

fn exception_callbacks_are_seen() {
    if !has_symbol("bpf_throw") {
        skip("this kernel has no exceptions (since Linux 6.7)");
    }
    let list = generous().allow_kfunc(ProgramType::SCHED_CLS, "bpf_throw").unwrap();
    for name in ["exception_callback", "exception_callback_shared"] {
        let violations = refusal(name, &list);
        assert_eq!(violations.len(), 1);
        assert_eq!(violations[0].program, "evil");
        assert_eq!(violations[0].offence, Offence::ForbiddenHelper(Helper::SEND_SIGNAL));
    }
}

fn kernel_functions_and_variables_are_named() {
    let expect = |name: &str, symbol: &str, offence: Offence| {
        let error = audit_prepared(&mut open(name), &generous()).unwrap_err();
        match error.refusal() {
            Some(refusal) => {
                assert_eq!(refusal.violations.len(), 1);
                assert_eq!(refusal.violations[0].offence, offence);
            }
            // libbpf finds nothing to put in.
            None => {
                assert_eq!(error.kind(), BpfErrorKind::Object, "{name}: {error}");
                assert!(error.to_string().starts_with("libbpf could not prepare"), "{error}");
                let text = ErrorChain::new(&error).to_string();
                assert!(text.contains(symbol), "{text}");
                assert!(!has_symbol(symbol), "{text}");
            }
        }
    };
    let kfunc = "bpf_xdp_metadata_rx_timestamp";
    expect("kfunc", kfunc, Offence::KfuncNotAllowed(kfunc.into()));
    expect("forbidden_kfunc", "crash_kexec", Offence::ForbiddenKfunc("crash_kexec".into()));
    let variable = "bpf_prog_active";
    expect("kernel_variable", variable, Offence::VariableNotAllowed(variable.into()));
}

fn allowed_kernel_functions_load() {
    let kfunc = "bpf_xdp_metadata_rx_timestamp";
    let list = generous().allow_kfunc(ProgramType::XDP, kfunc).unwrap();
    match audit_prepared(&mut open("kfunc"), &list) {
        Ok(reports) => assert_eq!(reports[0].kfuncs.iter().collect::<Vec<_>>(), [kfunc]),
        Err(error) => {
            assert_eq!(error.kind(), BpfErrorKind::Object, "{error}");
            assert!(!has_symbol(kfunc));
        }
    }
    // A function that no kernel has: the call is marked as unreachable, and the kernel agrees.
    let list = generous().allow_kfunc(ProgramType::XDP, "bpf_cpumask_any").unwrap();
    let (reports, _object, comparisons) = load(open("weak_kfunc"), &list);
    assert_eq!(reports[0].poisoned, 1);
    assert!(matches!(comparisons[0].digest, Digest::Equal { .. }));
}

fn oddities_are_refused() {
    for (name, offence) in [
        ("unknown_helper", Offence::UnknownHelper(4711)),
        ("foreign_map", Offence::ForeignMap(5)),
        ("raw_map_by_index", Offence::UnknownLoad(5)),
        ("raw_indirect_call", Offence::IndirectCall),
        ("raw_unknown_opcode", Offence::UnknownOpcode(0xff)),
        ("raw_tail_call_opcode", Offence::UnknownOpcode(0xf5)),
    ] {
        assert_eq!(refusal(name, &generous())[0].offence, offence, "{name}");
    }
}

fn what_is_not_loaded_is_reported_but_not_refused() {
    let (reports, object, _) = load(open("dormant"), &generous());
    let evil = reports.iter().find(|report| report.name == "evil").unwrap();
    assert!(!evil.is_loaded);
    let loaded =
        object.progs().filter(|it| reports.iter().any(|r| r.is_loaded && *it.name() == *r.name));
    assert_eq!(loaded.count(), 1);
}

fn what_the_kernel_loaded_is_what_was_audited() {
    let (reports, _object, comparisons) = load(open("good"), &Allowlist::shield());
    assert_eq!(reports.len(), 2);
    for (report, comparison) in reports.iter().zip(&comparisons) {
        println!("{}: {comparison}", report.name);
        assert!(comparison.is_complete(), "{comparison}");
        let Calls::Audited { calls, vanished, unattributed } = &comparison.calls else {
            panic!("{comparison}");
        };
        assert!(unattributed.is_empty(), "{unattributed:?}");
        let audited: usize = report.helpers.values().sum();
        assert_eq!(calls + vanished.values().sum::<usize>(), audited);
    }
    // Calls that no kernel inlines are there to be seen.
    let Calls::Audited { calls, .. } = comparisons[0].calls else { panic!() };
    assert!(calls >= 4, "{calls}");
}

fn another_program_is_not_the_audited_one() {
    let (mut reports, object, _) = load(open("good"), &Allowlist::shield());
    let second = object.progs().find(|it| it.name() == "second").unwrap();
    let first = reports.remove(0);
    let error = compare_loaded(second.as_fd(), &first).unwrap_err();
    assert_eq!(error.kind(), BpfErrorKind::Changed, "{error}");
}

/// What a handler in the same process could do between the audit and the load.
fn a_program_changed_after_the_audit_is_found_out() {
    let mut open = open("good");
    let reports = audit_prepared(&mut open, &Allowlist::shield()).unwrap();
    for program in open.progs_mut().filter(|it| it.name() == "second") {
        let raw = program.as_libbpf_object().as_ptr();
        // SAFETY: the program's own instructions, of eight bytes each; libbpf copies the changed ones.
        let set = unsafe {
            let count = libbpf_sys::bpf_program__insn_cnt(raw);
            let insns = libbpf_sys::bpf_program__insns(raw).cast::<u64>();
            let mut insns = std::slice::from_raw_parts(insns, count as usize).to_vec();
            // w0 = 2 becomes w0 = 1.
            let pass = insns.iter_mut().find(|insn| **insn == 0x0000_0002_0000_00b4).unwrap();
            *pass = 0x0000_0001_0000_00b4;
            libbpf_sys::bpf_program__set_insns(raw, insns.as_mut_ptr().cast(), count)
        };
        assert_eq!(set, 0);
    }
    let object = open.load().unwrap();
    let by_name = |name| object.progs().find(|it| it.name() == name).unwrap();
    compare_loaded(by_name("good").as_fd(), &reports[0]).unwrap();
    let error = compare_loaded(by_name("second").as_fd(), &reports[1]).unwrap_err();
    assert!(error.to_string().contains("digest"), "{error}");
}

fn preparing_twice_is_an_error() {
    let mut open = open("good");
    audit_prepared(&mut open, &Allowlist::shield()).unwrap();
    let error = audit_prepared(&mut open, &Allowlist::shield()).unwrap_err();
    let error = ErrorChain::new(&error).to_string();
    assert!(error.contains("twice"), "{error}");
}

/// A foreign object may declare pins; opening it for an audit makes none.
fn no_pins_are_made() {
    let (_, object, _) = load(open("pinned"), &Allowlist::shield());
    assert_eq!(object.maps().count(), 1);
    assert!(object.maps().all(|map| map.get_pin_path().is_none() && !map.is_pinned()));
    let path = std::path::Path::new("/sys/fs/bpf/ic_hostile_pin");
    assert!(!path.exists());
}

/// Without the right to see addresses the comparison says that it could not be made, and why.
fn hidden_addresses_are_not_silently_fine() {
    // Capabilities are a thread's own.
    let thread = std::thread::spawn(|| {
        let mut capabilities = rustix::thread::capabilities(None).unwrap();
        capabilities.effective.remove(CapabilitySet::SYSLOG);
        rustix::thread::set_capabilities(None, capabilities).unwrap();
        load(open("good"), &Allowlist::shield()).2
    });
    let comparison = thread.join().unwrap().remove(0);
    println!("{comparison}");
    // The digest needs no addresses.
    assert!(matches!(comparison.digest, Digest::Equal { .. }));
    let number = |name: &str| -> i32 {
        let text = std::fs::read_to_string(format!("/proc/sys/kernel/{name}")).unwrap();
        text.trim().parse().unwrap()
    };
    let is_for_everybody = number("kptr_restrict") == 0 && number("perf_event_paranoid") <= 1;
    match &comparison.calls {
        Calls::NotComparable { why } => assert!(why.contains("CAP_SYSLOG"), "{why}"),
        calls => assert!(is_for_everybody, "{calls:?}"),
    }
}
