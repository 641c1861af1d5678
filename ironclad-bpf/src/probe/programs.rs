//! Program types and the hooks of the kernel: a program that does nothing is loaded for each.
use std::fs;
use std::io;
use std::os::fd::AsFd;
use std::path::Path;

use super::btf::{self, KernelBtf};
use super::feature::{Feature, State, no_such_type};
use super::load::{Refused, Trial, query_tcx};
use crate::capabilities::Capabilities;
use crate::uapi::{AttachType, ProgramType};

/// A program of this type that ought to load, and for what.
pub(super) fn trial(program_type: ProgramType) -> Trial<'static> {
    let attach_type = match program_type {
        ProgramType::CGROUP_SOCK => AttachType::CGROUP_INET_SOCK_CREATE,
        ProgramType::CGROUP_SOCK_ADDR => AttachType::CGROUP_INET4_CONNECT,
        ProgramType::CGROUP_SYSCTL => AttachType::CGROUP_SYSCTL,
        ProgramType::CGROUP_SOCKOPT => AttachType::CGROUP_SETSOCKOPT,
        ProgramType::SOCK_OPS => AttachType::CGROUP_SOCK_OPS,
        ProgramType::SK_LOOKUP => AttachType::SK_LOOKUP,
        ProgramType::NETFILTER => AttachType::NETFILTER,
        ProgramType::XDP => AttachType::XDP,
        _ => AttachType(0),
    };
    let flags = match program_type {
        ProgramType::SYSCALL => libbpf_sys::BPF_F_SLEEPABLE,
        _ => 0,
    };
    Trial { attach_type, flags, ..Trial::of(program_type) }
}

/// Each program type. Those that belong to a function of the kernel are what their hooks are.
pub(super) fn types(hooks: &[Feature], capabilities: Capabilities) -> Vec<Feature> {
    let hook = |names: &[&str]| {
        let mut tried = hooks.iter().filter(|hook| names.contains(&hook.name.as_str()));
        let first = tried.clone().find(|hook| hook.is_available()).or(tried.next());
        first.cloned().unwrap_or_else(|| Feature::new("", State::Unknown, "not tried"))
    };
    let named = |feature: Feature, name: &str| Feature { name: name.to_owned(), ..feature };
    ProgramType::ALL[1..]
        .iter()
        .map(|&program_type| {
            let name = program_type.to_string();
            match program_type {
                ProgramType::TRACING => {
                    named(hook(&["tp_btf", "iter", "fentry", "fexit", "fmod_ret"]), &name)
                }
                ProgramType::LSM => named(hook(&["lsm_load"]), &name),
                ProgramType::EXT => named(hook(&["freplace"]), &name),
                ProgramType::STRUCT_OPS => named(hook(&["struct_ops"]), &name),
                _ => Feature::answer(name, trial(program_type).load(), capabilities),
            }
        })
        .collect()
}

/// A program for a function, tracepoint or iterator of the kernel, by its BTF.
pub(super) fn for_kernel(
    hook: &str,
    program_type: ProgramType,
    attach_type: AttachType,
    btf: &KernelBtf,
) -> Result<Trial<'static>, String> {
    let (id, what) = match hook {
        "tp_btf" => (btf.typedef("btf_trace_sched_process_exec"), "tracepoint sched_process_exec"),
        "iter" => (btf.function("bpf_iter_task"), "function bpf_iter_task"),
        "lsm_load" => (btf.function("bpf_lsm_file_open"), "function bpf_lsm_file_open"),
        "lsm_cgroup" => (btf.function("bpf_lsm_socket_bind"), "function bpf_lsm_socket_bind"),
        // Functions made for tests need CONFIG_FUNCTION_ERROR_INJECTION, security hooks do not.
        "fmod_ret" => (btf.function("security_file_open"), "function security_file_open"),
        // Exists on every kernel with networking, and is called by tests only.
        _ => (btf.function("bpf_fentry_test1"), "function bpf_fentry_test1"),
    };
    let btf_id = id.ok_or(what)?;
    Ok(Trial { attach_type, btf_id, ..Trial::of(program_type) })
}

/// Places where programs are attached, as far as loading shows.
pub(super) fn hooks(btf: Option<&KernelBtf>, capabilities: Capabilities) -> Vec<Feature> {
    let mut hooks: Vec<_> = [
        ("fentry", ProgramType::TRACING, AttachType::TRACE_FENTRY),
        ("fexit", ProgramType::TRACING, AttachType::TRACE_FEXIT),
        ("fmod_ret", ProgramType::TRACING, AttachType::MODIFY_RETURN),
        ("tp_btf", ProgramType::TRACING, AttachType::TRACE_RAW_TP),
        ("iter", ProgramType::TRACING, AttachType::TRACE_ITER),
        ("lsm_load", ProgramType::LSM, AttachType::LSM_MAC),
        ("lsm_cgroup", ProgramType::LSM, AttachType::LSM_CGROUP),
    ]
    .into_iter()
    .map(|(name, program_type, attach_type)| {
        one(name, program_type, attach_type, btf, capabilities)
    })
    .collect();
    hooks.push(Feature::answer("freplace", freplace(), capabilities));
    hooks.push(struct_ops(btf, capabilities));
    hooks.push(tcx(capabilities));
    hooks.push(performance_unit("kprobe", "CONFIG_KPROBE_EVENTS"));
    hooks.push(performance_unit("uprobe", "CONFIG_UPROBE_EVENTS"));
    hooks
}

fn one(
    name: &str,
    program_type: ProgramType,
    attach_type: AttachType,
    btf: Option<&KernelBtf>,
    capabilities: Capabilities,
) -> Feature {
    let Some(btf) = btf else {
        return no_such_type(name, "type information at all: see `btf`");
    };
    match for_kernel(name, program_type, attach_type, btf) {
        Ok(trial) => Feature::answer(name, trial.load(), capabilities),
        Err(what) => no_such_type(name, &what),
    }
}

/// Whether LSM programs load.
pub(super) fn lsm_load(btf: Option<&KernelBtf>, capabilities: Capabilities) -> Feature {
    one("lsm_load", ProgramType::LSM, AttachType::LSM_MAC, btf, capabilities)
}

/// Whether programs at tracepoints, by their types, load.
pub(super) fn tracing_load(btf: Option<&KernelBtf>, capabilities: Capabilities) -> Feature {
    one("tp_btf", ProgramType::TRACING, AttachType::TRACE_RAW_TP, btf, capabilities)
}

/// Loads a program, and one that could replace it.
fn freplace() -> Result<(), Refused> {
    let plain = |source: io::Error| Refused { source, log: String::new() };
    let types = btf::function().map_err(plain)?;
    let own_btf = Some((types.as_fd(), btf::FUNCTION));
    let target = Trial { own_btf, ..trial(ProgramType::XDP) }.load()?;
    let replacement = Trial {
        own_btf,
        btf_id: btf::FUNCTION,
        target: Some(target.as_fd()),
        ..Trial::of(ProgramType::EXT)
    };
    replacement.load().map(drop)
}

fn struct_ops(btf: Option<&KernelBtf>, capabilities: Capabilities) -> Feature {
    let name = "struct_ops";
    let Some((btf_id, member)) = btf.and_then(|btf| btf.member("tcp_congestion_ops", "init"))
    else {
        return no_such_type(name, "struct tcp_congestion_ops");
    };
    let attach_type = AttachType(member);
    let trial = Trial { btf_id, attach_type, ..Trial::of(ProgramType::STRUCT_OPS) };
    Feature::answer(name, trial.load(), capabilities)
}

/// Queries the programs at the loopback interface: kernels without tcx do not know the query.
fn tcx(capabilities: Capabilities) -> Feature {
    const LOOPBACK: u32 = 1;
    let answer = query_tcx(LOOPBACK).map_err(|source| Refused { source, log: String::new() });
    let mut feature = Feature::answer("tcx", answer, capabilities);
    if feature.state == State::Unavailable {
        feature.reason = Some("this kernel does not know it (since Linux 6.6)".into());
    }
    feature
}

fn performance_unit(name: &str, option: &str) -> Feature {
    let path = Path::new("/sys/bus/event_source/devices").join(name).join("type");
    match fs::read_to_string(&path) {
        Ok(_) => Feature::available(name),
        Err(e) if e.kind() == io::ErrorKind::NotFound && Path::new("/sys/bus").exists() => {
            let why = format!("the kernel has no {} (is built without {option})", path.display());
            Feature::new(name, State::Unavailable, why)
        }
        Err(e) => Feature::new(name, State::Unknown, format!("{}: {e}", path.display())),
    }
}
