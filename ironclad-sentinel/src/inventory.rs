//! Programs that others loaded before Sentinel was armed.

use std::collections::BTreeSet;
use std::path::Path;
use std::time::{Duration, Instant};

use ironclad_bpf::BpfError;
use ironclad_bpf::inventory::{Inventory, LoadedProgram};
use ironclad_core::audit::AuditAction;
use serde::Serialize;

use crate::error::SentinelError;

/// What becomes of a start where others have programs loaded that could undo Sentinel, or read what it
/// keeps: of the types that it refuses to others from then on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum OnSuspect {
    /// They are reported: by [`Status::foreign`](crate::Status::foreign) and audit records.
    #[default]
    Report,
    /// The start is refused.
    Refuse,
}

/// What others had loaded when Sentinel was armed.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct Foreign {
    /// Programs, by id.
    pub programs: Vec<ForeignProgram>,
    /// How many links they have.
    pub links: usize,
    /// Ids of programs that somebody refuses to show to this process: another Sentinel, or who does as
    /// it does. All are suspects.
    pub closed: Vec<u32>,
    /// How many maps there were on this host, Sentinel's among them.
    pub maps: usize,
}

/// A program that somebody else has loaded.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct ForeignProgram {
    /// What the kernel says of it.
    #[serde(flatten)]
    pub program: LoadedProgram,
    /// Whether it could undo Sentinel, or read what it keeps, by its type.
    pub is_suspect: bool,
}

/// How long the kernel may take to release programs that nobody uses any more, those of an agent that
/// has just ended among them: grace periods of RCU.
const LETTING_GO: Duration = Duration::from_millis(500);

impl ForeignProgram {
    /// Whether nobody is seen to keep it: it may be on its way out.
    fn is_kept_by_nobody(&self) -> bool {
        self.program.attached.is_empty() && self.program.holders.is_empty()
    }

    fn attached(&self) -> String {
        let places: Vec<_> = self.program.attached.iter().map(ToString::to_string).collect();
        if places.is_empty() { "not known".to_owned() } else { places.join(", ") }
    }
}

impl Foreign {
    /// Lists them; `gate` has bit n for programs of type n that are suspects. Of suspects that nobody
    /// keeps, those are listed that are there still after a while.
    pub(crate) fn take(own: &BTreeSet<u32>, bpffs: &Path, gate: u64) -> Result<Self, BpfError> {
        let until = Instant::now() + LETTING_GO;
        loop {
            let found = Self::look(own, bpffs, gate)?;
            let goes = found.suspects().any(ForeignProgram::is_kept_by_nobody);
            if !goes || Instant::now() >= until {
                return Ok(found);
            }
            std::thread::sleep(LETTING_GO / 50);
        }
    }

    fn look(own: &BTreeSet<u32>, bpffs: &Path, gate: u64) -> Result<Self, BpfError> {
        let Inventory { programs, links, closed, maps, .. } = Inventory::take(own, bpffs)?;
        let programs = programs.into_iter().map(|program| {
            let number = program.program_type.0;
            // Types that are newer than the gate's word are not known to be harmless.
            ForeignProgram { is_suspect: number > 63 || gate >> number & 1 == 1, program }
        });
        Ok(Self { programs: programs.collect(), links: links.len(), closed, maps })
    }

    /// Those that could undo Sentinel.
    pub fn suspects(&self) -> impl Iterator<Item = &ForeignProgram> {
        self.programs.iter().filter(|it| it.is_suspect)
    }

    /// Names the first suspect, and what to do.
    pub(crate) fn refuse(&self) -> Result<(), SentinelError> {
        if let Some(found) = self.suspects().next() {
            let program = &found.program;
            let holders: Vec<_> = program.holders.iter().map(ToString::to_string).collect();
            let next = match holders.is_empty() {
                true => format!(
                    "find who attached it (`bpftool link`, `bpftool perf`, `bpftool prog show id {}`) and end that",
                    program.id
                ),
                false => format!("end or remove {}", holders.join(", ")),
            };
            return Err(SentinelError::Suspect {
                program: program.name.clone(),
                id: program.id,
                what: format!("of type {}, attached: {}", program.program_type, found.attached()),
                next,
            });
        }
        match self.closed.first() {
            None => Ok(()),
            Some(&id) => Err(SentinelError::Suspect {
                program: String::new(),
                id,
                what: "which somebody refuses to show".to_owned(),
                next: "end the agent that guards it".to_owned(),
            }),
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
