//! Files that were opened for writing before a rule covered them.

use std::path::Path;
use std::sync::{Mutex, MutexGuard, PoisonError};

use ironclad_core::abi::PreopenedDescriptor;
use zerocopy::FromBytes;

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

    /// The descriptors.
    pub(super) fn find(&self) -> Result<Vec<PreopenedDescriptor>, BpfError> {
        let bytes = self.find.iterate()?;
        Ok(bytes
            .chunks_exact(size_of::<PreopenedDescriptor>())
            .filter_map(|chunk| PreopenedDescriptor::read_from_bytes(chunk).ok())
            .collect())
    }

    /// Attaches the programs, and pins their links in `dir`.
    pub(super) fn attach(&self, dir: Option<&Path>) -> Result<Vec<HookLink>, BpfError> {
        let attach = |(program, name): &(Program, String)| {
            let mut link = HookLink::tracepoint(program, name)?;
            if let Some(dir) = dir {
                link.pin(&dir.join(link.pin_name()))?;
            }
            Ok(link)
        };
        self.programs.iter().map(attach).collect()
    }
}
