//! The probe on the running kernel, against `bpftool`. Needs root.

use std::collections::BTreeMap;
use std::process::Command;

use ironclad_bpf::probe::{State, probe, probe_interface};
use ironclad_lab::Lab;
use ironclad_lab::harness::{Test, skip};
use ironclad_lab::test;

pub(crate) fn tests() -> Vec<Test> {
    vec![
        test!(types_are_those_that_bpftool_finds).on_host(),
        test!(helpers_are_those_that_bpftool_finds).on_host(),
        test!(a_veth_pair_offers_native_xdp).on_host(),
    ]
}

/// What `bpftool feature probe` says: `program_type` or `map_type` with a name, and whether it is
/// available.
fn bpftool() -> Option<BTreeMap<(String, String), bool>> {
    let output = Command::new("bpftool").args(["feature", "probe", "kernel"]).output().ok()?;
    let text = String::from_utf8(output.stdout).ok()?;
    let found = text.lines().filter_map(|line| {
        let (kind, rest) = line.strip_prefix("eBPF ")?.split_once(' ')?;
        let (name, verdict) = rest.split_once(" is ")?;
        Some(((kind.to_owned(), name.to_owned()), verdict == "available"))
    });
    Some(found.collect())
}

fn types_are_those_that_bpftool_finds() {
    let Some(bpftool) = bpftool() else {
        skip("no bpftool here");
    };
    let probe = probe();
    let mut compared = 0;
    for (kind, features) in [("program_type", &probe.program_types), ("map_type", &probe.map_types)]
    {
        for feature in features {
            let Some(&expected) = bpftool.get(&(kind.to_owned(), feature.name.clone())) else {
                continue;
            };
            // bpftool tries fentry programs only and takes what it sees for the type.
            if feature.name == "tracing" {
                continue;
            }
            assert_eq!(feature.is_available(), expected, "{kind} {feature:?}");
            compared += 1;
        }
    }
    assert!(compared > 50, "{compared}");
}

fn helpers_are_those_that_bpftool_finds() {
    let Ok(output) = Command::new("bpftool").args(["feature", "probe", "kernel", "full"]).output()
    else {
        skip("no bpftool here");
    };
    let text = String::from_utf8(output.stdout).unwrap();
    let mut helpers: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    let mut program_type = "";
    for line in text.lines() {
        if let Some(rest) = line.strip_prefix("eBPF helpers supported for program type ") {
            program_type = rest.trim_end_matches(':');
            helpers.insert(program_type, Vec::new());
        } else if let Some(helper) = line.strip_prefix("\t- ") {
            helpers.entry(program_type).or_default().push(helper);
        }
    }
    let mut compared = 0;
    for feature in probe().helpers {
        let (program_type, helper) = feature.name.split_once('/').unwrap();
        // bpftool loads no program of the types that attach to kernel functions.
        if feature.state == State::Refused || ["tracing", "lsm"].contains(&program_type) {
            continue;
        }
        let Some(list) = helpers.get(program_type) else { continue };
        assert_eq!(feature.is_available(), list.contains(&helper), "{feature:?}");
        compared += 1;
    }
    assert!(compared > 30, "{compared}");
}

fn a_veth_pair_offers_native_xdp() {
    let lab = Lab::new().unwrap();
    let (a, b) = (lab.namespace("a").unwrap(), lab.namespace("b").unwrap());
    lab.veth((&a, "ic0"), (&b, "ic1")).unwrap();
    let found = a.run(|| probe_interface("ic0")).unwrap().unwrap();
    println!("{found}");
    for ability in ["native", "redirect", "generic"] {
        assert!(found.feature(ability).unwrap().is_available(), "{found}");
    }
    assert!(!found.feature("offload").unwrap().is_available());
    assert!(found.programs.is_empty());
}
