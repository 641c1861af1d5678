//! Sentinel's programs in the kernel: they load, every hook is in force, and the process that loaded
//! them is the one that is trusted.

use ironclad_bpf::probe::{State, probe_lsm};
use ironclad_bpf::sentinel::{Guard, GuardOptions, canaries};
use ironclad_bpf::socket::Processes;
use ironclad_lab::harness::Test;
use ironclad_lab::test;

pub(crate) fn tests() -> Vec<Test> {
    vec![test!(every_hook_is_in_force).in_machine().needs(&[lsm])]
}

/// BPF LSM runs, as far as is known.
fn lsm() -> Result<(), String> {
    let lsm = probe_lsm();
    match lsm.state {
        State::Available | State::Unknown => Ok(()),
        _ => Err(lsm.reason.unwrap_or_default()),
    }
}

fn every_hook_is_in_force() {
    let processes = Processes::load(None, None).unwrap();
    let guard = Guard::load(&processes, GuardOptions::default(), None).unwrap();
    for missing in guard.missing() {
        println!("missing: {missing:?}");
        assert!(missing.is_optional, "{missing:?}");
    }
    let (mut walked, mut instructions) = (0, 0);
    for program in guard.programs() {
        let info = program.info();
        println!("{}: walked {} xlated {}", info.name, info.verified_instructions, info.xlated_len);
        walked += info.verified_instructions;
        instructions += info.xlated_len / 8;
    }
    println!("RECORD sentinel_instructions {instructions}");
    // Before Linux 5.16 the kernel does not report it.
    if walked > 0 {
        println!("RECORD sentinel_verified {walked}");
    }
    let dir = tempfile::tempdir().unwrap();
    let canaries = canaries(&guard, dir.path());
    for canary in &canaries {
        println!("{}: {:?}", canary.hook, canary.inactive);
    }
    let silent: Vec<_> = canaries.iter().filter(|canary| canary.inactive.is_some()).collect();
    assert!(silent.is_empty(), "{silent:?}");
    assert!(canaries.len() >= 24, "{}", canaries.len());
}
