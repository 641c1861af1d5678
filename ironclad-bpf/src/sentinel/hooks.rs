use libbpf_rs::OpenObject;

use crate::error::{BpfError, Failure};
use crate::hook::HookLink;
use crate::loader::LoadedProgram;
use crate::probe::KernelBtf;
use crate::program::Program;

/// A hook that this kernel does not have.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct MissingHook {
    /// Its name.
    pub hook: String,
    /// Whether some kernels that Ironclad runs on lack it, and have another hook instead.
    pub is_optional: bool,
}

/// A hook with one more parameter on some kernels, and a program for each.
pub(super) struct Variant {
    pub(super) hook: &'static str,
    pub(super) parameters: usize,
    /// The program for so many parameters, and that for one more.
    pub(super) fits: &'static str,
    pub(super) more: &'static str,
}

/// The hooks of the gate (`sentinel/gate.h`), in the order in which they are attached. A process loses its mark
/// when it executes another program before any process has a mark, and no object is recorded whose end is
/// not seen.
pub(super) const GATE: [&str; 16] = [
    "bprm_committing_creds",
    "bpf_map_free_security",
    "bpf_map_free",
    "bpf_prog_free_security",
    "bpf_prog_free",
    "bpf_map_alloc_security",
    "bpf_map_create",
    "bpf_prog_alloc_security",
    CALLS,
    CALLS_5_10,
    "task_prctl",
    "bpf_map",
    "bpf_prog",
    "bpf",
    FORK,
    "task_free",
];

/// The hook at which calls of programs are checked, since Linux 6.9.
const CALLS: &str = "bpf_prog_load";

/// The function where they are checked before.
const CALLS_5_10: &str = "bpf_prog_calc_tag";

/// The tracepoint sched_process_fork. The table of processes has other programs there.
const FORK: &str = "fork_marks";

/// Hooks whose first parameter is the mount's idmap on some kernels: their parameters without it, and the two
/// programs of each.
pub(super) const IDMAP: [Variant; 3] = [
    Variant { hook: "inode_setattr", parameters: 2, fits: "ic_setattr_5_10", more: "ic_setattr" },
    Variant {
        hook: "inode_setxattr",
        parameters: 5,
        fits: "ic_setxattr_5_10",
        more: "ic_setxattr",
    },
    Variant {
        hook: "inode_removexattr",
        parameters: 2,
        fits: "ic_removexattr_5_10",
        more: "ic_removexattr",
    },
];

/// Lets libbpf load the programs of hooks that the kernel has, of variants those that fit; names the
/// hooks that it does not have.
pub(super) fn choose(
    open: &mut OpenObject,
    btf: &KernelBtf,
    variants: &[Variant],
) -> Vec<MissingHook> {
    let unfit: Vec<_> = variants
        .iter()
        .map(|it| match btf.parameters(&format!("bpf_lsm_{}", it.hook)) {
            Some(parameters) if parameters > it.parameters => it.fits,
            _ => it.more,
        })
        .collect();
    let has_calls = btf.function("bpf_lsm_bpf_prog_load").is_some();
    let mut missing = Vec::new();
    for mut program in open.progs_mut() {
        let section = program.section().to_string_lossy().into_owned();
        // libbpf takes the question mark of its section away.
        let is_optional = !program.autoload();
        if unfit.iter().any(|name| program.name() == *name) {
            program.set_autoload(false);
            continue;
        }
        let Some((hook, function)) = place(&section) else { continue };
        // Tracepoints are types there, and those that we have are everywhere.
        let is_known = function.is_empty() || btf.function(&function).is_some();
        let is_there = is_known && !(hook == CALLS_5_10 && has_calls);
        program.set_autoload(is_there);
        // One of the two is enough.
        let is_replaced = match hook {
            CALLS => btf.function(CALLS_5_10).is_some(),
            CALLS_5_10 => has_calls,
            _ => false,
        };
        if !is_there && !is_replaced {
            missing.push(MissingHook { hook: hook.to_owned(), is_optional });
        }
    }
    missing
}

/// The hook of a section, and the kernel's function that it is entered by, if it is by one.
fn place(section: &str) -> Option<(&str, String)> {
    match section.split_once('/')? {
        ("lsm", hook) => Some((hook, format!("bpf_lsm_{hook}"))),
        ("tp_btf", "sched_process_fork") => Some((FORK, String::new())),
        ("tp_btf", tracepoint) => Some((tracepoint, String::new())),
        ("fentry" | "fexit", function) => Some((function, function.to_owned())),
        _ => None,
    }
}

/// Attaches the hooks of the gate, in their order, and takes their programs out.
pub(super) fn attach_gate(
    programs: &mut Vec<LoadedProgram>,
    number: u64,
) -> Result<Vec<(Program, HookLink)>, BpfError> {
    let mut attached = Vec::new();
    for hook in GATE {
        let is_it = |it: &LoadedProgram| place(&it.section).is_some_and(|(name, _)| name == hook);
        if let Some(at) = programs.iter().position(is_it) {
            attached.push(attach_to(hook, programs.remove(at).program, number)?);
        }
    }
    Ok(attached)
}

/// Attaches every program that has a hook.
pub(super) fn attach(
    programs: &mut Vec<LoadedProgram>,
    number: u64,
) -> Result<Vec<(Program, HookLink)>, BpfError> {
    std::mem::take(programs)
        .into_iter()
        .map(|it| {
            let (hook, _) = place(&it.section).ok_or_else(|| Failure::Object {
                object: "sentinel",
                step: "attaching its programs",
                source: std::io::Error::other(format!("section {} is no hook", it.section)),
            })?;
            attach_to(hook, it.program, number)
        })
        .collect()
}

fn attach_to(hook: &str, program: Program, number: u64) -> Result<(Program, HookLink), BpfError> {
    let link = HookLink::tracepoint(&program, &format!("{number}_{hook}"))?;
    Ok((program, link))
}
