//! The probe on each kernel of the matrix, where what it calls available is used for real: the machine
//! is the test's own. Needs root.

use ironclad_bpf::audit::open_object;
use ironclad_bpf::probe::probe;
use ironclad_hostile::object;
use ironclad_lab::harness::Test;
use ironclad_lab::test;
use libbpf_rs::{MapCore, MapFlags, Object};

pub(crate) fn tests() -> Vec<Test> {
    vec![
        test!(lsm_programs_run).in_machine(),
        test!(entry_programs_run).in_machine(),
        test!(debian_kernels_have_every_hook).in_machine(),
    ]
}

/// What the object's program has counted.
fn calls(object: &Object) -> u64 {
    let map = object.maps().find(|map| map.name().to_string_lossy().ends_with(".bss")).unwrap();
    let value = map.lookup(&0u32.to_ne_bytes(), MapFlags::ANY).unwrap().unwrap();
    u64::from_ne_bytes(value[..8].try_into().unwrap())
}

fn lsm_programs_run() {
    assert!(probe().hook("lsm").unwrap().is_available());
    let object = open_object("lsm", object("lsm")).unwrap().load().unwrap();
    let before = calls(&object);
    let link = object.progs_mut().next().unwrap().attach().unwrap();
    std::fs::read("/proc/self/stat").unwrap();
    assert!(calls(&object) > before);
    drop(link);
}

fn entry_programs_run() {
    assert!(probe().hook("fentry").unwrap().is_available());
    let object = open_object("fentry", object("fentry")).unwrap().load().unwrap();
    let link = object.progs_mut().next().unwrap().attach().unwrap();
    let program = object.progs_mut().next().unwrap();
    // A test run of a tracing program calls the kernel's functions that are there for it.
    program.test_run(libbpf_rs::ProgramInput::default()).unwrap();
    assert_eq!(calls(&object), 1);
    drop(link);
}

/// The kernel was started with `bpf` in lsm=, kprobes and uprobes are in Debian's configuration.
fn debian_kernels_have_every_hook() {
    let probe = probe();
    for hook in ["fentry", "fexit", "fmod_ret", "tp_btf", "iter", "lsm", "kprobe", "uprobe"] {
        let feature = probe.hook(hook).unwrap();
        assert!(feature.is_available(), "{feature:?}");
    }
}
