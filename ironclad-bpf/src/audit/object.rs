//! The audit of an object file, without libbpf, kernel or privileges.
use std::collections::BTreeSet;
use std::ffi::CString;

use super::allowlist::Allowlist;
use super::elf::{self, Function, ObjectFile, Target};
use super::insn::{Insn, Op, ops};
use super::lines::LineTable;
use super::offence::Offence;
use super::report::{ObjectReport, Place, ProgramReport, Refusal, Use};
use crate::error::{BpfError, Failure};
use crate::uapi::{AttachType, ProgramType};

/// Audits an object file. Reads nothing else, needs no privileges and no kernel, and is safe on
/// whatever bytes: no C sees them.
///
/// Every program that would be loaded is judged with the functions that it calls or takes the address
/// of, calls that can never be reached included. Programs that libbpf does not load by itself
/// (`SEC("?…")`) are reported, but do not make the object be refused.
///
/// An object file is not yet what the kernel gets: [`audit_prepared`](super::audit_prepared) judges
/// that, and [`compare_loaded`](super::compare_loaded) checks the kernel's copy afterwards.
///
/// # Errors
/// `BpfErrorKind::Audit` with each program, instruction and what is wrong with it;
/// `BpfErrorKind::Object` where the file cannot be read.
pub fn audit_object(object: &[u8], allowlist: &Allowlist) -> Result<ObjectReport, BpfError> {
    let report = inspect_object(object, allowlist)?;
    match Refusal::of(&report.programs) {
        Some(refusal) => Err(Failure::Refused(refusal).into()),
        None => Ok(report),
    }
}

/// As [`audit_object`], but returns the report of an object that is to be refused, too.
///
/// # Errors
/// `BpfErrorKind::Object` where the file cannot be read.
pub fn inspect_object(object: &[u8], allowlist: &Allowlist) -> Result<ObjectReport, BpfError> {
    let file = elf::read(object).map_err(|what| Failure::Unreadable { what })?;
    let code = Code::of(&file);
    let reached = code.reached(&file);
    let mut programs = Vec::new();
    for (section, walked) in file.sections.iter().zip(&code.programs) {
        let (program_type, attach_type) = type_of(&section.name);
        for (function, walked) in section.programs.iter().zip(walked) {
            let mut report = ProgramReport::new(
                function.name.clone(),
                section.name.clone(),
                program_type,
                attach_type,
            );
            report.is_loaded = section.is_loaded;
            report.judge_program(allowlist);
            walked.judge(&mut report, allowlist, function, None, &section.lines);
            // What is part of no program for all that is seen here may be for libbpf.
            let mut functions = code.reach(walked);
            if section.is_loaded {
                functions.extend((0..file.text.len()).filter(|it| !reached.contains(it)));
            }
            for index in functions {
                let (function, walked) = (&file.text[index], &code.text[index]);
                let name = Some(&function.name);
                walked.judge(&mut report, allowlist, function, name, &file.text_lines);
            }
            programs.push(report);
        }
    }
    if programs.is_empty() {
        // Without any other section, the code in `.text` is a program of no type.
        for (function, walked) in file.text.iter().zip(&code.text) {
            let (program_type, attach_type) = (ProgramType::UNSPEC, AttachType(0));
            let section = ".text".to_owned();
            let mut report =
                ProgramReport::new(function.name.clone(), section, program_type, attach_type);
            report.judge_program(allowlist);
            walked.judge(&mut report, allowlist, function, None, &file.text_lines);
            programs.push(report);
        }
    }
    if programs.is_empty() {
        let what = "has no programs: nothing to audit".to_owned();
        return Err(Failure::Unreadable { what }.into());
    }
    Ok(ObjectReport { license: file.license, programs })
}

/// What libbpf takes a section's programs for.
fn type_of(section: &str) -> (ProgramType, AttachType) {
    let (mut program_type, mut attach_type) = (0, 0);
    let Ok(name) = CString::new(section) else {
        return (ProgramType::UNSPEC, AttachType(0));
    };
    crate::log::to_tracing();
    // SAFETY: a NUL-terminated name that is only read, and two places to write to.
    let found = unsafe {
        libbpf_sys::libbpf_prog_type_by_name(name.as_ptr(), &mut program_type, &mut attach_type)
    };
    if found < 0 {
        return (ProgramType::UNSPEC, AttachType(0));
    }
    (ProgramType(program_type), AttachType(attach_type))
}

/// What each function uses, and which it calls.
struct Code {
    /// By section and program.
    programs: Vec<Vec<Walked>>,
    text: Vec<Walked>,
}

#[derive(Default)]
struct Walked {
    uses: Vec<(usize, Use)>,
    /// Functions of `.text`, by index.
    calls: BTreeSet<usize>,
}

impl Code {
    fn of(file: &ObjectFile) -> Self {
        let index = TextIndex::of(&file.text);
        let walk = |function| Walked::of(function, false, &index);
        let programs =
            file.sections.iter().map(|section| section.programs.iter().map(walk).collect());
        let text = file.text.iter().map(|function| Walked::of(function, true, &index));
        Self { programs: programs.collect(), text: text.collect() }
    }

    /// All functions of `.text` that a program calls or takes the address of, directly or through other functions.
    fn reach(&self, program: &Walked) -> BTreeSet<usize> {
        let mut reached = BTreeSet::new();
        let mut next: Vec<_> = program.calls.iter().copied().collect();
        while let Some(function) = next.pop() {
            if reached.insert(function) {
                next.extend(&self.text[function].calls);
            }
        }
        reached
    }

    /// Those that some program reaches. An exception callback becomes part of its program without
    /// being called: where there are such, nothing is known to be unused or another program's only.
    fn reached(&self, file: &ObjectFile) -> BTreeSet<usize> {
        if file.has_exception_callbacks {
            return BTreeSet::new();
        }
        self.programs.iter().flatten().flat_map(|program| self.reach(program)).collect()
    }
}

/// Functions of `.text` by where they start.
struct TextIndex(Vec<(usize, usize, usize)>);

impl TextIndex {
    fn of(text: &[Function]) -> Self {
        let mut ranges: Vec<_> = text
            .iter()
            .enumerate()
            .map(|(index, f)| (f.start, f.start + f.insns.len(), index))
            .collect();
        ranges.sort();
        Self(ranges)
    }

    /// The functions that hold an instruction: more than one where one has several names.
    fn at(&self, instruction: i64) -> impl Iterator<Item = usize> + '_ {
        let instruction = usize::try_from(instruction).unwrap_or(usize::MAX);
        let until = self.0.partition_point(|&(start, ..)| start <= instruction);
        let ranges = self.0[..until].iter();
        ranges.filter(move |&&(_, end, _)| instruction < end).map(|&(.., index)| index)
    }
}

impl Walked {
    fn of(function: &Function, is_text: bool, text: &TextIndex) -> Self {
        let mut walked = Self::default();
        for (index, op) in ops(&function.insns) {
            let insn = function.insns[index];
            let used = match function.targets.get(&index) {
                Some(target) => walked.relocated(insn, &op, target, text),
                None => {
                    let base = if is_text { function.start as i64 } else { 0 };
                    walked.fixed(&op, |target| text.at(base + target).collect(), is_text)
                }
            };
            walked.uses.extend(used.map(|used| (index, used)));
        }
        walked
    }

    /// An instruction that stays as it is.
    fn fixed(
        &mut self,
        op: &Op,
        functions: impl Fn(i64) -> Vec<usize>,
        is_text: bool,
    ) -> Option<Use> {
        match op {
            Op::Plain | Op::Second => None,
            Op::Helper(id) => Some(Use::Helper(*id)),
            // Nothing has been replaced yet: these are numbers like any other.
            Op::Poison => Some(Use::Bad(Offence::StrangeRelocation(
                "is missing: it carries a mark that only libbpf sets",
            ))),
            Op::Call { target } => {
                let called = if is_text { functions(*target) } else { Vec::new() };
                self.call(called, *target)
            }
            Op::Kfunc { id, .. } => Some(Use::Bad(hard_coded(*id))),
            Op::Variable { id, .. } => Some(Use::Bad(hard_coded(*id))),
            Op::Map { fd, .. } => Some(Use::Bad(Offence::ForeignMap(*fd))),
            Op::Function { target } => Some(Use::Bad(Offence::OutsideCode(*target))),
            Op::Bad(offence) => Some(Use::Bad(offence.clone())),
        }
    }

    /// An instruction that a relocation completes.
    fn relocated(&mut self, insn: Insn, op: &Op, target: &Target, text: &TextIndex) -> Option<Use> {
        let strange = |what| Some(Use::Bad(Offence::StrangeRelocation(what)));
        let is_load = insn.is_ld_imm64();
        if let Op::Bad(offence) = op {
            return Some(Use::Bad(offence.clone()));
        }
        if !(is_load || insn.is_call()) || *op == Op::Second {
            return strange("is of an instruction that takes none");
        }
        // clang writes calls as calls inside of the program and loads as loads of numbers.
        if is_load != (insn.src == 0) || insn.src > 1 {
            return strange("turns an instruction of another kind");
        }
        match target {
            Target::Ambiguous => strange("competes with another"),
            Target::Extern(name) if !is_load => Some(Use::Kfunc(name.clone())),
            Target::Extern(name) if is_configuration(name) => None,
            Target::Extern(name) => Some(Use::Variable(name.clone())),
            Target::Data if is_load => None,
            Target::Data => strange("calls data"),
            Target::Text(offset) => {
                let offset = (offset / 8) as i64;
                let imm = i64::from(insn.imm);
                let at = if is_load { offset + imm / 8 } else { offset + imm + 1 };
                self.call(text.at(at).collect(), at)
            }
        }
    }

    fn call(&mut self, functions: Vec<usize>, target: i64) -> Option<Use> {
        let is_outside = functions.is_empty();
        self.calls.extend(functions);
        is_outside.then_some(Use::Bad(Offence::OutsideCode(target)))
    }

    fn judge(
        &self,
        report: &mut ProgramReport,
        allowlist: &Allowlist,
        function: &Function,
        name: Option<&String>,
        lines: &LineTable,
    ) {
        report.instructions += function.insns.len();
        for (index, used) in &self.uses {
            report.judge(allowlist, used, || Place {
                function: name.cloned(),
                instruction: Some(*index),
                line: lines.at(function.start + index),
            });
        }
    }
}

fn hard_coded(id: u32) -> Offence {
    Offence::Nameless { id, why: "the number is written into the file, without a name" }
}

/// What libbpf answers from the kernel's configuration and version.
fn is_configuration(name: &str) -> bool {
    name.starts_with("CONFIG_") || name.starts_with("LINUX_")
}
