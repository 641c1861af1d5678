use libbpf_rs::OpenObject;

use crate::error::BpfError;
use crate::hook::HookLink;
use crate::probe::KernelBtf;
use crate::program::{Program, clone_fd};

/// A hook that this kernel does not have.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct MissingHook {
    /// Its name.
    pub hook: String,
    /// Whether some kernels that Ironclad runs on have it not, and have others in its stead.
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

/// Lets libbpf load the programs whose hooks the kernel has, of variants those that fit; names the
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
        let is_there = function.is_empty() || btf.function(&function).is_some();
        program.set_autoload(is_there);
        if !is_there {
            missing.push(MissingHook { hook: hook.to_owned(), is_optional });
        }
    }
    missing
}

/// The hook of a section, and the kernel's function that it is entered by, if it is by one.
fn place(section: &str) -> Option<(&str, String)> {
    match section.split_once('/')? {
        ("lsm", hook) => Some((hook, format!("bpf_lsm_{hook}"))),
        // Not to be taken for one of those that keep the table of processes.
        ("tp_btf", _) => Some(("fork_marks", String::new())),
        ("fexit", function) => Some((function, function.to_owned())),
        _ => None,
    }
}

/// The programs of an object that is loaded, attached where they belong, `order` first.
pub(super) fn attach(
    object: &'static str,
    open: &mut OpenObject,
    order: &[&str],
    number: u64,
) -> Result<Vec<(Program, HookLink)>, BpfError> {
    let mut found = Vec::new();
    for program in open.progs_mut() {
        if !program.autoload() {
            continue;
        }
        let section = program.section().to_string_lossy().into_owned();
        let hook = place(&section).map(|(hook, _)| hook.to_owned());
        let hook = hook.ok_or_else(|| {
            let why = std::io::Error::other(format!("section {section} is no hook"));
            BpfError::Object { object, step: "attaching its programs", source: why }
        })?;
        found.push((hook, Program::new(clone_fd(&program)?)?));
    }
    let rank = |hook: &str| order.iter().position(|it| *it == hook).unwrap_or(order.len());
    found.sort_by_key(|(hook, _)| rank(hook));
    found
        .into_iter()
        .map(|(hook, program)| {
            let link = HookLink::tracepoint(&program, &format!("{number}_{hook}"))?;
            Ok((program, link))
        })
        .collect()
}
