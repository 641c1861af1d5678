//! Programs that other processes loaded before Sentinel was armed.

use std::collections::BTreeSet;
use std::path::Path;
use std::time::{Duration, Instant};

use ironclad_bpf::BpfError;
use ironclad_bpf::inventory::{Inventory, LoadedProgram};
use ironclad_bpf::sentinel::GuardOptions;
use ironclad_core::abi;
use ironclad_core::audit::AuditAction;
use serde::Serialize;

use crate::error::{Failure, SentinelError};

/// What a start does where other processes have loaded suspect programs: programs of the types that an armed
/// Sentinel refuses, or with calls that it refuses, which could bypass Sentinel or read its state, and programs that
/// could rewrite addresses.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum OnSuspect {
    /// They are reported: by [`Status::foreign`](crate::Status::foreign) and audit records.
    #[default]
    Report,
    /// The start is refused.
    Refuse,
}

/// What other processes had loaded when Sentinel was armed.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct Foreign {
    /// Programs, by id.
    pub programs: Vec<ForeignProgram>,
    /// The number of their links.
    pub links: usize,
    /// Ids of programs that this process may not inspect, because another program of BPF LSM refuses it, such
    /// as that of another Sentinel. All are suspect.
    pub closed: Vec<u32>,
    /// The number of maps on this host, Sentinel's included.
    pub maps: usize,
}

/// A program that another process has loaded.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct ForeignProgram {
    /// What the kernel reports about it.
    #[serde(flatten)]
    pub program: LoadedProgram,
    /// Whether a program of its type, or with its calls, could bypass Sentinel, read its state, or rewrite addresses that
    /// Shield has checked.
    pub is_suspect: bool,
}

/// How long the kernel takes to release unreferenced programs, such as those of an agent that has just ended:
/// RCU grace periods.
const RELEASE_TIME: Duration = Duration::from_millis(500);

/// A program's name in messages: it may have none.
pub(crate) fn named(name: &str) -> String {
    if name.is_empty() { "an unnamed program".to_owned() } else { format!("program `{name}`") }
}

impl ForeignProgram {
    /// Whether no link and no descriptor refers to it: the kernel may be about to release it.
    fn is_unreferenced(&self) -> bool {
        self.program.attached.is_empty() && self.program.holders.is_empty()
    }

    /// A program that an armed Sentinel would not let other processes load. A type without a bit in
    /// [`GuardOptions::gate`] is not known to be harmless.
    fn of(program: LoadedProgram, options: &GuardOptions) -> Self {
        let (number, calls) = (program.program_type.0, &program.calls);
        let refuses = |bit| options.refuse & bit == bit;
        let reads = refuses(abi::REFUSE_CALLS | abi::REFUSE_MEMORY) && !calls.reading.is_empty();
        let acts = refuses(abi::REFUSE_CALLS) && !calls.acting.is_empty();
        let rewrites = refuses(abi::REFUSE_REWRITES) && program.rewrites_addresses;
        let is_refused = number > 63 || options.gate >> number & 1 == 1;
        Self { is_suspect: is_refused || acts || reads || rewrites, program }
    }

    /// Where it is attached, and what it calls that would be refused.
    fn attached(&self) -> String {
        let places: Vec<_> = self.program.attached.iter().map(ToString::to_string).collect();
        let places = if places.is_empty() { "not known".to_owned() } else { places.join(", ") };
        let calls = &self.program.calls;
        let names: Vec<_> = calls.acting.iter().chain(&calls.reading).map(String::as_str).collect();
        if names.is_empty() { places } else { format!("{places}; calls {}", names.join(", ")) }
    }
}

impl Foreign {
    /// Lists them. Suspect is what `options` refuse. An unreferenced suspect is listed if it still exists after
    /// [`RELEASE_TIME`].
    pub(crate) fn list(
        own: &BTreeSet<u32>,
        bpffs: &Path,
        options: &GuardOptions,
    ) -> Result<Self, BpfError> {
        let until = Instant::now() + RELEASE_TIME;
        loop {
            let found = Self::list_once(own, bpffs, options)?;
            let is_released = found.suspects().any(ForeignProgram::is_unreferenced);
            if !is_released || Instant::now() >= until {
                return Ok(found);
            }
            std::thread::sleep(RELEASE_TIME / 50);
        }
    }

    fn list_once(
        own: &BTreeSet<u32>,
        bpffs: &Path,
        options: &GuardOptions,
    ) -> Result<Self, BpfError> {
        let Inventory { programs, links, closed, maps, .. } = Inventory::take(own, bpffs)?;
        let programs = programs.into_iter().map(|it| ForeignProgram::of(it, options)).collect();
        Ok(Self { programs, links: links.len(), closed, maps })
    }

    /// Programs that could bypass Sentinel.
    pub fn suspects(&self) -> impl Iterator<Item = &ForeignProgram> {
        self.programs.iter().filter(|it| it.is_suspect)
    }

    /// Fails with the first suspect and the next step.
    pub(crate) fn refuse(&self) -> Result<(), SentinelError> {
        if let Some(found) = self.suspects().next() {
            let program = &found.program;
            let holders: Vec<_> = program.holders.iter().map(ToString::to_string).collect();
            let next = match holders.is_empty() {
                true => format!(
                    "find the process that attached it (`bpftool link`, `bpftool perf`, `bpftool prog show id {}`) and end it",
                    program.id
                ),
                false => format!("end or remove {}", holders.join(", ")),
            };
            return Err(Failure::Suspect {
                program: named(&program.name),
                id: program.id,
                what: format!("of type {}, attached: {}", program.program_type, found.attached()),
                next,
            }
            .into());
        }
        match self.closed.first() {
            None => Ok(()),
            Some(&id) => Err(Failure::Suspect {
                program: named(""),
                id,
                what: "which this process may not inspect".to_owned(),
                next: "end the agent that protects it".to_owned(),
            }
            .into()),
        }
    }

    pub(crate) fn records(&self) -> impl Iterator<Item = AuditAction> {
        let programs = self.programs.iter().map(|it| AuditAction::ForeignProgram {
            program: it.program.name.clone(),
            id: it.program.id,
            kind: it.program.program_type.to_string(),
            attached: it.attached(),
            tag: it.program.tag.clone(),
            uid: it.program.uid,
            is_suspect: it.is_suspect,
        });
        let closed = self.closed.iter().map(|&id| AuditAction::ForeignProgram {
            program: String::new(),
            id,
            kind: "not shown".to_owned(),
            attached: "not known".to_owned(),
            tag: String::new(),
            uid: 0,
            is_suspect: true,
        });
        programs.chain(closed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_suspect_without_a_name_is_called_unnamed() {
        let foreign = Foreign { closed: vec![7], ..Foreign::default() };
        let said = foreign.refuse().unwrap_err().to_string();
        assert!(said.starts_with("an unnamed program (id 7), which this process"), "{said}");
        assert_eq!(named("probe"), "program `probe`");
    }
}
