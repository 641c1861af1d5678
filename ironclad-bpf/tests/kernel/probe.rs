//! The probe's findings against other evidence: kernel versions, and libbpf with whole objects.
use ironclad_bpf::audit::open_object;
use ironclad_bpf::probe::{Feature, Probe, State, probe, probe_helper, probe_interface};
use ironclad_bpf::uapi::{Helper, MapType, ProgramType};
use ironclad_hostile::object;
use ironclad_lab::harness::Test;
use ironclad_lab::test;

pub(crate) fn tests() -> Vec<Test> {
    vec![
        test!(features_are_there_since_the_release_that_brought_them),
        test!(what_is_not_available_has_a_reason),
        test!(hooks_are_what_libbpf_finds),
        test!(the_probe_leaves_nothing_open),
        test!(the_loopback_interface_is_probed_and_unchanged),
        test!(json_has_every_feature),
    ]
}

fn release() -> (u32, u32) {
    let release = std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap();
    let mut numbers = release.split(['.', '-']).map(|number| number.trim().parse().unwrap());
    (numbers.next().unwrap(), numbers.next().unwrap())
}

fn all(probe: &Probe) -> impl Iterator<Item = &Feature> {
    [&probe.system, &probe.hooks, &probe.program_types, &probe.map_types, &probe.helpers]
        .into_iter()
        .flatten()
}

fn features_are_there_since_the_release_that_brought_them() {
    let (probe, release) = (probe(), release());
    println!("{probe}");
    let helper = |program_type, helper| probe.helper(program_type, helper).unwrap();
    let xdp = |it| helper(ProgramType::XDP, it);
    let program = |it| probe.program_type(it).unwrap();
    let map = |it| probe.map_type(it).unwrap();
    for (feature, since) in [
        (program(ProgramType::XDP), (4, 8)),
        (program(ProgramType::SCHED_CLS), (4, 1)),
        (program(ProgramType::CGROUP_SOCK_ADDR), (4, 17)),
        (program(ProgramType::SK_LOOKUP), (5, 9)),
        (program(ProgramType::SYSCALL), (5, 14)),
        (program(ProgramType::NETFILTER), (6, 4)),
        (map(MapType::LPM_TRIE), (4, 11)),
        (map(MapType::ARRAY_OF_MAPS), (4, 12)),
        (map(MapType::RINGBUF), (5, 8)),
        (map(MapType::TASK_STORAGE), (5, 11)),
        (map(MapType::BLOOM_FILTER), (5, 16)),
        (map(MapType::USER_RINGBUF), (6, 1)),
        (map(MapType::CGRP_STORAGE), (6, 2)),
        (map(MapType::ARENA), (6, 9)),
        (map(MapType::INSN_ARRAY), (6, 19)),
        (xdp(Helper::MAP_LOOKUP_ELEM), (3, 19)),
        (xdp(Helper::JIFFIES64), (5, 5)),
        (xdp(Helper::KTIME_GET_BOOT_NS), (5, 8)),
        (xdp(Helper::RINGBUF_RESERVE), (5, 8)),
        (xdp(Helper::KTIME_GET_COARSE_NS), (5, 11)),
        (xdp(Helper::FOR_EACH_MAP_ELEM), (5, 13)),
        (xdp(Helper::TIMER_INIT), (5, 15)),
        (xdp(Helper::LOOP), (5, 17)),
        (xdp(Helper::XDP_LOAD_BYTES), (5, 18)),
        (xdp(Helper::TCP_RAW_GEN_SYNCOOKIE_IPV4), (6, 0)),
        (helper(ProgramType::SCHED_CLS, Helper::SKB_SET_TSTAMP), (5, 18)),
        (helper(ProgramType::CGROUP_SOCK_ADDR, Helper::SET_RETVAL), (5, 18)),
        (helper(ProgramType::KPROBE, Helper::GET_ATTACH_COOKIE), (5, 15)),
        (probe.hook("tcx").unwrap(), (6, 6)),
        (probe.system("memcg_accounting").unwrap(), (5, 11)),
    ] {
        let expected = if release >= since { State::Available } else { State::Unavailable };
        assert_eq!(feature.state, expected, "{feature:?} since {since:?}, here {release:?}");
    }
    for name in ["btf", "jit", "capabilities"] {
        assert!(probe.system(name).unwrap().is_available());
    }
}

fn what_is_not_available_has_a_reason() {
    let probe = probe();
    assert!(all(&probe).count() > 100);
    for feature in all(&probe) {
        assert_ne!(feature.state, State::Unknown, "{feature:?}");
        assert!(feature.is_available() || feature.reason.is_some(), "{feature:?}");
    }
    // A helper of other program types.
    let helper = probe_helper(ProgramType::XDP, Helper::OVERRIDE_RETURN);
    assert_eq!(helper.state, State::Unavailable);
    assert_eq!(probe_helper(ProgramType::XDP, Helper(4711)).state, State::Unavailable);
}

/// libbpf loads a whole object for the hook, or does not.
fn hooks_are_what_libbpf_finds() {
    let probe = probe();
    for (hook, name) in [("fentry", "fentry"), ("lsm_load", "lsm"), ("tp_btf", "tp_btf")] {
        let loaded = open_object(name, object(name)).unwrap().load();
        let feature = probe.hook(hook).unwrap();
        println!("{hook}: {feature:?}, libbpf: {:?}", loaded.as_ref().err());
        assert_eq!(loaded.is_ok(), feature.is_available(), "{feature:?}");
    }
}

fn the_probe_leaves_nothing_open() {
    let open = || std::fs::read_dir("/proc/self/fd").unwrap().count();
    // What libraries open once for good is open after the first.
    probe();
    let before = open();
    probe();
    assert_eq!(open(), before);
}

fn the_loopback_interface_is_probed_and_unchanged() {
    let lo = probe_interface("lo").unwrap();
    println!("{lo}");
    assert_eq!((lo.index, lo.programs.len()), (1, 0));
    let native = lo.feature("native").unwrap();
    let expected = if release() >= (6, 3) { State::Unavailable } else { State::Unknown };
    assert_eq!(native.state, expected, "{native:?}");
    assert!(native.reason.is_some());
    assert!(lo.feature("generic").unwrap().is_available());

    let error = probe_interface("ic-none").unwrap_err().to_string();
    assert!(error.contains("`ic-none`"), "{error}");
}

fn json_has_every_feature() {
    let probe = probe();
    let json = serde_json::to_value(&probe).unwrap();
    for list in ["system", "hooks", "program_types", "map_types", "helpers"] {
        for feature in json[list].as_array().unwrap() {
            assert!(feature["name"].is_string());
            let states = ["available", "unavailable", "refused", "unknown"];
            assert!(states.contains(&feature["state"].as_str().unwrap()));
        }
    }
    assert_eq!(json["map_types"].as_array().unwrap().len(), probe.map_types.len());
}
