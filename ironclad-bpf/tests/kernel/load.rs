//! Needs root: the programs load, whatever a policy turns on, and how much the verifier has to read.

use std::collections::BTreeSet;

use ironclad_bpf::shield::{
    PolicyConfig, PolicyImage, PolicyProgram, SetsBackend, Shared, SharedOptions,
};
use ironclad_bpf::socket::{Processes, SocketOptions, SocketShared};
use ironclad_bpf::{BpfErrorKind, LinkLayer, Program};
use ironclad_core::Verdict;
use ironclad_core::abi::{
    Entry, FLAT_ROOT_CELLS, Gateways, Lpm4Key, Lpm6Key, SOCK_ROWS_MAX, TUPLE_V4, TupleKey,
    TupleMask, TupleVal,
};
use ironclad_lab::harness::Test;
use ironclad_lab::test;

pub(crate) fn tests() -> Vec<Test> {
    vec![
        test!(every_policy_program_loads),
        test!(more_rows_than_numbers_are_refused),
        test!(every_socket_program_loads),
    ]
}

fn record(name: &str, program: &Program) {
    let info = program.info();
    println!("RECORD {name}_instructions {}", info.xlated_len / 8);
    // Before Linux 5.16 the kernel does not report it.
    if info.verified_instructions > 0 {
        println!("RECORD {name}_verified {}", info.verified_instructions);
    }
}

fn every_policy_program_loads() {
    let shared = Shared::load(SharedOptions::default()).unwrap();
    record("dispatcher", shared.dispatcher());
    let roots = vec![0u32; 2 * FLAT_ROOT_CELLS as usize * 16];
    let entries = [Entry::default(); 2];
    let lpm4 = [(Lpm4Key { prefixlen: 8, addr: [10, 0, 0, 0] }, 1)];
    let lpm6 = [(Lpm6Key { prefixlen: 8, addr: [0x20; 16] }, 1)];
    let tuples = [(TupleKey { kind: TUPLE_V4, ..Default::default() }, TupleVal::default())];
    let masks = [TupleMask { kind: TUPLE_V4, ..Default::default() }; 32];
    for (name, v4, v6, everything) in [
        ("bare", SetsBackend::None, SetsBackend::None, false),
        ("flat4", SetsBackend::Flat, SetsBackend::None, false),
        ("flat", SetsBackend::Flat, SetsBackend::Flat, false),
        ("lpm", SetsBackend::LpmTrie, SetsBackend::LpmTrie, false),
        ("flat_all", SetsBackend::Flat, SetsBackend::Flat, true),
        ("lpm_all", SetsBackend::LpmTrie, SetsBackend::LpmTrie, true),
    ] {
        let is_lpm = v4 == SetsBackend::LpmTrie;
        let image = PolicyImage {
            config: PolicyConfig {
                generation: 1,
                default_action: Verdict::Allow,
                malformed: if everything { Verdict::Allow } else { Verdict::Drop },
                non_ip: Verdict::Allow,
                neighbour: true,
                dry_run: everything,
                log: everything,
                sets_v4: v4,
                sets_v6: v6,
                flat_root4: 0,
                flat_root6: FLAT_ROOT_CELLS,
                masks: if everything { &masks } else { &[] },
                rates: &[10; 1024],
                gateways: Gateways::default(),
            },
            flat: if v4 == SetsBackend::Flat { &roots } else { &[] },
            entries: &entries,
            lpm4: if is_lpm { &lpm4 } else { &[] },
            lpm6: if is_lpm { &lpm6 } else { &[] },
            tuples: if everything { &tuples } else { &[] },
        };
        let loaded = PolicyProgram::load(&shared, &image);
        let mut policy = loaded.unwrap_or_else(|e| panic!("{name}: {e}"));
        record(&format!("policy_{name}"), policy.program());
        policy.load_ip(&shared, None).unwrap_or_else(|e| panic!("{name}, from the IP header: {e}"));
        let ip = policy.program_for(LinkLayer::Ip).unwrap();
        record(&format!("policy_{name}_ip"), ip);
        // The maps are the same, constants and variables among them.
        let maps = |program: &Program| BTreeSet::from_iter(program.info().map_ids.iter().copied());
        assert_eq!(maps(ip), maps(policy.program()), "{name}");
    }
}

fn more_rows_than_numbers_are_refused() {
    let shared = Shared::load(SharedOptions::default()).unwrap();
    let processes = Processes::load(Some(&shared.losses), None).unwrap();
    let mut options = SocketOptions::default();
    options.rows = SOCK_ROWS_MAX + 1;
    let refused = SocketShared::load(&shared, &processes, options, None).unwrap_err();
    assert_eq!(refused.kind(), BpfErrorKind::Limit);
    assert!(refused.to_string().ends_with(" 65536"), "{refused}");
}

fn every_socket_program_loads() {
    let shared = Shared::load(SharedOptions::default()).unwrap();
    let processes = Processes::load(Some(&shared.losses), None).unwrap();
    let sockets = SocketShared::load(&shared, &processes, SocketOptions::default(), None).unwrap();
    for program in processes.programs().chain(sockets.programs()) {
        record(&program.info().name, program);
    }
}
