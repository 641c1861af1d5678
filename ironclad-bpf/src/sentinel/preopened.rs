//! Files that were opened for writing before a rule covered them.

use std::sync::{Mutex, MutexGuard, PoisonError};

use ironclad_core::abi::PreopenedDescriptor;
use zerocopy::FromBytes;

use super::guard::Guard;
use crate::error::BpfError;
use crate::hook::HookLink;
use crate::loader::Loaded;
use crate::program::Program;

/// The programs that check writes by pre-opened descriptors. They are attached when there is one.
#[derive(Debug)]
pub(super) struct Preopened {
    find: Program,
    /// With the names of their links.
    programs: Vec<(Program, String)>,
    links: Mutex<Vec<HookLink>>,
}

impl Preopened {
    /// Takes its programs out of the object.
    pub(super) fn of(object: &mut Loaded, number: u64) -> Result<Self, BpfError> {
        Ok(Self {
            find: object.program("ic_preopened")?,
            programs: vec![
                (object.program("ic_preopened_map")?, format!("{number}_mmap_before")),
                (object.program("ic_file_permission")?, format!("{number}_file_permission")),
            ],
            links: Mutex::default(),
        })
    }

    pub(super) fn programs(&self) -> impl Iterator<Item = &Program> {
        self.programs.iter().map(|(program, _)| program).chain([&self.find])
    }

    /// Empty until the programs are attached.
    pub(super) fn links(&self) -> MutexGuard<'_, Vec<HookLink>> {
        self.links.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Guard {
    /// Files that rules in force deny to write, and that other processes opened for writing before. Where
    /// there are any, writes are checked from now on, which costs every read and write of all processes a
    /// little.
    ///
    /// # Errors
    /// `BpfErrorKind::System`, `BpfErrorKind::Attach` where the kernel refuses.
    pub fn preopened(&self) -> Result<Vec<PreopenedDescriptor>, BpfError> {
        let bytes = self.preopened.find.iterate()?;
        let found: Vec<_> = bytes
            .chunks_exact(size_of::<PreopenedDescriptor>())
            .filter_map(|chunk| PreopenedDescriptor::read_from_bytes(chunk).ok())
            .collect();
        let mut links = self.preopened.links();
        if !found.is_empty() && links.is_empty() {
            let mut attached = Vec::new();
            for (program, name) in &self.preopened.programs {
                let mut link = HookLink::tracepoint(program, name)?;
                if let Some(dir) = &self.links_at {
                    link.pin(&dir.join(link.pin_name()))?;
                }
                attached.push(link);
            }
            self.guard_links(&attached)?;
            *links = attached;
        }
        Ok(found)
    }
}
