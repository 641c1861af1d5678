//! Audits eBPF object files: lists what each program calls, and refuses what the allowlist does not
//! permit. Without options the allowlist is Shield's own; no privileges are needed.
use std::error::Error;
use std::os::fd::AsFd;
use std::process::ExitCode;

use ironclad::bpf::audit::{
    Allowlist, audit_object, audit_prepared, compare_loaded, inspect_object, open_object,
};
use ironclad::bpf::uapi::{Helper, ProgramType};
use ironclad::bpf::{BpfError, BpfErrorKind};
use ironclad::core::ErrorChain;

const HELP: &str = "\
usage: audit_object [OPTION…] FILE…

  --allow TYPE/HELPER      permit a helper to programs of a type: xdp/redirect_map
  --allow-type TYPE        permit programs of a type: tracepoint
  --allow-kfunc TYPE/NAME  permit a kernel function to programs of a type
  --allow-sleepable TYPE   permit programs of a type that may sleep
  --load                   also prepare the object for this kernel and audit that, load it, and
                           compare what the kernel says of it; nothing is attached (needs root)

Exit status: 0 if every object passes, 1 if one is refused or unreadable, 2 for wrong options.";

struct Options {
    allowlist: Allowlist,
    load: bool,
    files: Vec<String>,
}

fn options() -> Result<Option<Options>, Box<dyn Error>> {
    let mut options = Options { allowlist: Allowlist::shield(), load: false, files: Vec::new() };
    let mut arguments = std::env::args().skip(1);
    while let Some(argument) = arguments.next() {
        let mut value = || arguments.next().ok_or(format!("{argument} needs a value"));
        let list = std::mem::take(&mut options.allowlist);
        options.allowlist = match argument.as_str() {
            "--help" | "-h" => return Ok(None),
            "--allow" => {
                let (program_type, name) = pair(&value()?)?;
                let name = name.strip_prefix("bpf_").unwrap_or(&name);
                let helper =
                    Helper::from_name(name).ok_or(format!("no helper is called {name}"))?;
                list.allow(program_type, [helper])?
            }
            "--allow-type" => list.allow_type(program_type(&value()?)?),
            "--allow-kfunc" => {
                let (program_type, name) = pair(&value()?)?;
                list.allow_kfunc(program_type, &name)?
            }
            "--allow-sleepable" => list.allow_sleepable(program_type(&value()?)?),
            "--load" => {
                options.load = true;
                list
            }
            option if option.starts_with('-') => return Err(format!("no option {option}").into()),
            file => {
                options.files.push(file.to_owned());
                list
            }
        };
    }
    if options.files.is_empty() {
        return Err("no file given".into());
    }
    Ok(Some(options))
}

fn pair(value: &str) -> Result<(ProgramType, String), String> {
    let (kind, name) =
        value.split_once('/').ok_or(format!("{value} is not of the form TYPE/NAME"))?;
    Ok((program_type(kind)?, name.to_owned()))
}

fn program_type(name: &str) -> Result<ProgramType, String> {
    ProgramType::from_name(name).ok_or(format!("no program type is called {name}"))
}

fn audit(file: &str, options: &Options) -> Result<(), Box<dyn Error>> {
    let object = std::fs::read(file)?;
    let report = inspect_object(&object, &options.allowlist)?;
    println!("{report}");
    for violation in report.dormant_violations() {
        println!("if it were loaded: {violation}");
    }
    audit_object(&object, &options.allowlist)?;
    if !options.load {
        return Ok(());
    }
    let mut open = open_object("audited", &object)?;
    let reports = audit_prepared(&mut open, &options.allowlist)?;
    println!("prepared for this kernel: passed");
    let loaded = open.load()?;
    for report in reports.iter().filter(|report| report.is_loaded) {
        let program = loaded.progs().find(|program| *program.name() == *report.name);
        let program = program.ok_or(format!("program {} was not loaded", report.name))?;
        println!("{}: {}", report.name, compare_loaded(program.as_fd(), report)?);
    }
    Ok(())
}

fn main() -> ExitCode {
    let options = match options() {
        Ok(Some(options)) => options,
        Ok(None) => {
            println!("{HELP}");
            return ExitCode::SUCCESS;
        }
        Err(e) => {
            eprintln!("error: {e}\n\n{HELP}");
            return ExitCode::from(2);
        }
    };
    let mut passed = true;
    for file in &options.files {
        println!("{file}");
        match audit(file, &options) {
            Ok(()) => println!("passed\n"),
            Err(e) => {
                passed = false;
                let refused =
                    e.downcast_ref::<BpfError>().is_some_and(|e| e.kind() == BpfErrorKind::Audit);
                let verdict = if refused { "" } else { "error: " };
                println!("{verdict}{}\n", ErrorChain::new(&*e));
            }
        }
    }
    if passed { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
