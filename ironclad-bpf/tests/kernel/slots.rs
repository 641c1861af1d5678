//! Needs root: loads the programs into the running kernel.
use std::path::Path;

use ironclad_bpf::shield::*;
use ironclad_bpf::{BPFFS, BpfErrorKind, EventRing, PinDirectory};
use ironclad_core::Verdict;
use ironclad_core::abi::{self, Gateways};
use ironclad_lab::harness::Test;
use ironclad_lab::test;

pub(crate) fn tests() -> Vec<Test> {
    vec![
        test!(a_policy_in_a_slot_decides).on_host(),
        test!(a_ring_buffer_has_one_reader),
        test!(an_instance_with_interrupted_pins_is_adopted),
    ]
}

fn bare(default_action: Verdict) -> PolicyConfig<'static> {
    PolicyConfig {
        generation: 1,
        default_action,
        malformed: Verdict::Drop,
        non_ip: Verdict::Allow,
        neighbour: true,
        dry_run: false,
        log: false,
        sets_v4: SetsBackend::None,
        sets_v6: SetsBackend::None,
        flat_root4: 0,
        flat_root6: 0,
        masks: &[],
        rates: &[],
        gateways: Gateways::default(),
    }
}

fn a_policy_in_a_slot_decides() {
    let shared = Shared::load(SharedOptions::default()).unwrap();
    let frame = [0u8; 60];
    assert_eq!(shared.dispatcher().test_run(&frame, 1).unwrap().retval, 2);
    assert_eq!(
        shared
            .losses
            .lookup_all(&(abi::Loss::NoPolicy as u32))
            .unwrap()
            .unwrap()
            .iter()
            .sum::<u64>(),
        1
    );
    let image = PolicyImage {
        config: PolicyConfig { non_ip: Verdict::Drop, ..bare(Verdict::Allow) },
        flat: &[],
        entries: &[],
        lpm4: &[],
        lpm6: &[],
        tuples: &[],
    };
    let policy = PolicyProgram::load(&shared, &image).unwrap();
    println!("{:?}", policy.program().info());
    shared
        .fill_slot(0, Some(&policy), &abi::Generation { number: 1, ..Default::default() })
        .unwrap();
    assert_eq!(shared.dispatcher().test_run(&frame, 1).unwrap().retval, 1);
}

fn a_ring_buffer_has_one_reader() {
    let (shared, other) =
        (Shared::load(SharedOptions::default()), Shared::load(SharedOptions::default()));
    let (shared, other) = (shared.unwrap(), other.unwrap());
    let first = EventRing::new(shared.events()).unwrap();
    let refused = EventRing::new(shared.events()).unwrap_err();
    assert_eq!(refused.kind(), BpfErrorKind::RingInUse);
    assert!(refused.to_string().contains("`ic_events`"), "{refused}");
    EventRing::new(other.events()).unwrap();
    drop(first);
    EventRing::new(shared.events()).unwrap();
}

fn an_instance_with_interrupted_pins_is_adopted() {
    let instance = format!("test-{}-interrupted", std::process::id());
    let bpffs = Path::new(BPFFS);
    PinDirectory::purge(bpffs, &instance).unwrap();
    let directory = PinDirectory::open(bpffs, &instance).unwrap();
    let shared = Shared::load(SharedOptions::default()).unwrap();
    shared.persist(&directory, &mut [], Vec::new()).unwrap();
    // An agent that ends before the rename leaves this directory.
    std::fs::create_dir(directory.path().join("sockets_new")).unwrap();
    let (adopted, links) = Shared::adopt(&directory).unwrap().unwrap();
    assert_eq!(adopted.dispatcher().info().id, shared.dispatcher().info().id);
    assert!(links.is_empty());
    assert!(!directory.path().join("sockets_new").exists());
    // The lock names its holder.
    let refused = PinDirectory::open(bpffs, &instance).unwrap_err();
    assert_eq!(refused.kind(), BpfErrorKind::PinDirectory);
    let holder = format!("process {} (", std::process::id());
    assert!(refused.to_string().contains(&holder), "{refused}");
    drop(directory);
    PinDirectory::purge(bpffs, &instance).unwrap();
}
