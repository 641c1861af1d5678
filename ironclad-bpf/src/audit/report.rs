use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use super::allowlist::Allowlist;
use super::insn::Insn;
use super::offence::{Offence, SourceLine, Violation};
use crate::uapi::{AttachType, Helper, ProgramType};

/// How many violations of one program are listed; further ones are counted.
const VIOLATIONS_MAX: usize = 64;

/// What the audit saw of a program.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct ProgramReport {
    /// The name of its function.
    pub name: String,
    /// The section that it stands in, which names its type.
    pub section: String,
    /// Its type.
    pub program_type: ProgramType,
    /// What it is verified to be attached to.
    pub attach_type: AttachType,
    /// Whether it may sleep.
    pub is_sleepable: bool,
    /// Whether it is going to be loaded. What is not (a section with `?` in front, or
    /// `set_autoload(false)`) is reported, but is no reason to refuse the object.
    pub is_loaded: bool,
    /// Instructions, those of the functions that it calls included.
    pub instructions: usize,
    /// The helpers that it calls, and from how many places.
    pub helpers: BTreeMap<Helper, usize>,
    /// The kernel functions (kfuncs) that it calls.
    pub kfuncs: BTreeSet<String>,
    /// Calls that libbpf replaced by ones the kernel refuses if it can reach them.
    pub poisoned: usize,
    /// What is wrong with it, at most 64.
    pub violations: Vec<Violation>,
    /// How many more there are.
    pub more_violations: usize,
    /// As they will be loaded; empty for an object file, where they are not final.
    pub(super) insns: Vec<Insn>,
}

/// What an instruction uses that is for the allowlist to judge.
#[derive(Clone, Debug)]
pub(super) enum Use {
    Helper(u32),
    Kfunc(String),
    Variable(String),
    Poison,
    Bad(Offence),
}

/// Where an instruction stands.
#[derive(Default)]
pub(super) struct Place {
    pub(super) function: Option<String>,
    pub(super) instruction: Option<usize>,
    pub(super) line: Option<SourceLine>,
}

impl ProgramReport {
    pub(super) fn new(
        name: String,
        section: String,
        program_type: ProgramType,
        attach_type: AttachType,
    ) -> Self {
        let is_sleepable = is_sleepable(&section);
        Self {
            name,
            section,
            program_type,
            attach_type,
            is_sleepable,
            is_loaded: true,
            instructions: 0,
            helpers: BTreeMap::new(),
            kfuncs: BTreeSet::new(),
            poisoned: 0,
            violations: Vec::new(),
            more_violations: 0,
            insns: Vec::new(),
        }
    }

    pub(super) fn judge_program(&mut self, allowlist: &Allowlist) {
        let offences =
            allowlist.judge_program(self.program_type, self.attach_type, self.is_sleepable);
        for offence in offences {
            self.violation(Place::default(), offence);
        }
    }

    pub(super) fn judge(
        &mut self,
        allowlist: &Allowlist,
        used: &Use,
        place: impl FnOnce() -> Place,
    ) {
        let offence = match used {
            Use::Helper(id) => {
                *self.helpers.entry(Helper(*id)).or_default() += 1;
                allowlist.judge_helper(self.program_type, *id)
            }
            Use::Kfunc(name) => {
                self.kfuncs.insert(name.clone());
                allowlist.judge_kfunc(self.program_type, name)
            }
            Use::Variable(name) => allowlist.judge_variable(self.program_type, name),
            Use::Poison => {
                self.poisoned += 1;
                None
            }
            Use::Bad(offence) => Some(offence.clone()),
        };
        if let Some(offence) = offence {
            self.violation(place(), offence);
        }
    }

    fn violation(&mut self, place: Place, offence: Offence) {
        if self.violations.len() == VIOLATIONS_MAX {
            self.more_violations += 1;
            return;
        }
        let Place { function, instruction, line } = place;
        self.violations.push(Violation {
            program: self.name.clone(),
            program_type: self.program_type,
            function,
            instruction,
            line,
            offence,
        });
    }
}

/// libbpf's table of sections: those of a kind that ends in `.s`, and `syscall`.
fn is_sleepable(section: &str) -> bool {
    let kind = section.split('/').next().unwrap_or(section);
    kind.ends_with(".s") || kind == "syscall"
}

impl fmt::Display for ProgramReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({}", self.name, self.program_type)?;
        // Most types have but one place, and leave the number zero.
        if self.attach_type.0 != 0 {
            write!(f, " for {}", self.attach_type)?;
        }
        if self.is_sleepable {
            write!(f, ", sleepable")?;
        }
        write!(f, "): {} instructions", self.instructions)?;
        if !self.is_loaded {
            write!(f, ", not loaded")?;
        }
        for (helper, places) in &self.helpers {
            write!(f, "\n  {helper} ×{places}")?;
        }
        for kfunc in &self.kfuncs {
            write!(f, "\n  {kfunc} (kernel function)")?;
        }
        if self.poisoned > 0 {
            write!(f, "\n  {} calls replaced by libbpf as unreachable here", self.poisoned)?;
        }
        Ok(())
    }
}

/// What the audit saw of an object.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct ObjectReport {
    /// The license that it declares.
    pub license: Option<String>,
    /// Its programs, in the order of the file.
    pub programs: Vec<ProgramReport>,
}

impl ObjectReport {
    /// What is wrong with the programs that would be loaded.
    pub fn violations(&self) -> impl Iterator<Item = &Violation> {
        self.programs.iter().filter(|program| program.is_loaded).flat_map(|it| &it.violations)
    }

    /// What would be wrong if the programs that are not loaded were.
    pub fn dormant_violations(&self) -> impl Iterator<Item = &Violation> {
        self.programs.iter().filter(|program| !program.is_loaded).flat_map(|it| &it.violations)
    }
}

impl fmt::Display for ObjectReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let license = self.license.as_deref().unwrap_or("none");
        write!(f, "{} programs, license {license}", self.programs.len())?;
        self.programs.iter().try_for_each(|program| write!(f, "\n{program}"))
    }
}

/// As many as a person reads. Where everything is wrong, it is for one reason.
const SHOWN: usize = 3;

/// The programs of an object that may not be loaded. Displays the first violations, each on a line of its
/// own, and how many more there are.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Refusal {
    /// What is wrong with the programs that would be loaded; at least one.
    pub violations: Vec<Violation>,
    /// How many more there are.
    pub more: usize,
}

impl Refusal {
    /// Refuses programs of which one that would be loaded is wrong.
    pub(super) fn of(programs: &[ProgramReport]) -> Option<Self> {
        let loaded = || programs.iter().filter(|program| program.is_loaded);
        let violations: Vec<_> = loaded().flat_map(|it| it.violations.clone()).collect();
        let more = loaded().map(|it| it.more_violations).sum();
        (!violations.is_empty()).then_some(Self { violations, more })
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (number, violation) in self.violations.iter().take(SHOWN).enumerate() {
            let separator = if number == 0 { "" } else { "\n" };
            write!(f, "{separator}{violation}")?;
        }
        match self.violations.len().saturating_sub(SHOWN) + self.more {
            0 => Ok(()),
            more => write!(f, "\nand {more} more"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_of_many_violations_are_shown() {
        let violation = |number| Violation {
            program: "one".to_owned(),
            program_type: ProgramType::XDP,
            function: None,
            instruction: Some(number),
            line: None,
            offence: Offence::UnknownHelper(7),
        };
        let shown = |count, more| {
            let violations = (0..count).map(violation).collect();
            Refusal { violations, more }.to_string()
        };
        assert!(!shown(3, 0).contains("more"));
        assert!(shown(3, 2).ends_with("\nand 2 more"));
        let many = shown(100, 2);
        assert!(many.ends_with("\nand 99 more"), "{many}");
        assert_eq!(many.lines().count(), 4, "{many}");
    }

    #[test]
    fn sleepable_sections() {
        for section in ["lsm.s/file_open", "fentry.s/x", "syscall", "uprobe.multi.s//x:y"] {
            assert!(is_sleepable(section), "{section}");
        }
        for section in ["lsm/file.s", "xdp", "tracepoint/syscalls/sys_enter_x", "fentry/syscall"] {
            assert!(!is_sleepable(section), "{section}");
        }
    }
}
