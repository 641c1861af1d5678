//! Needs root: loads the programs into the running kernel.
use ironclad_bpf::shield::*;
use ironclad_core::Verdict;
use ironclad_core::abi;
use ironclad_lab::harness::Test;
use ironclad_lab::test;

pub(crate) fn tests() -> Vec<Test> {
    vec![test!(a_policy_in_a_slot_decides).on_host()]
}

fn bare(default_action: Verdict) -> PolicyConfig<'static> {
    PolicyConfig {
        generation: 1,
        default_action,
        malformed: Verdict::Drop,
        non_ip: Verdict::Pass,
        neighbour: true,
        dry_run: false,
        log: false,
        sets_v4: SetsBackend::None,
        sets_v6: SetsBackend::None,
        flat_root4: 0,
        flat_root6: 0,
        masks: &[],
        rates: &[],
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
        config: PolicyConfig { non_ip: Verdict::Drop, ..bare(Verdict::Pass) },
        flat: &[],
        entries: &[],
        lpm4: &[],
        lpm6: &[],
        tuples: &[],
    };
    let policy = PolicyProgram::load(&shared, &image).unwrap();
    println!("{:?}", policy.program().info());
    shared
        .fill_slot(0, policy.program(), &abi::Generation { number: 1, ..Default::default() })
        .unwrap();
    assert_eq!(shared.dispatcher().test_run(&frame, 1).unwrap().retval, 1);
}
