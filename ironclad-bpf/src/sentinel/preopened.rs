//! Files that were opened for writing before a rule covered them.

use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use ironclad_core::abi::{self, Held, OpenDescriptor};
use zerocopy::FromBytes;

use crate::error::BpfError;
use crate::hook::HookLink;
use crate::loader::Loaded;
use crate::map::Map;
use crate::program::Program;

/// The census of open files and devices, by the kernel's own counts.
#[derive(Clone, Debug, Default)]
pub struct Census {
    /// Descriptors of processes: of protected files for writing, and of block devices below them.
    pub descriptors: Vec<OpenDescriptor>,
    /// Protected files that are open for writing, block devices that are open, and devices that are mounted.
    pub held: Vec<Held>,
    /// Whether all were counted. They are not where the kernel changed a list meanwhile, or the list was too
    /// long.
    pub is_complete: bool,
}

/// The programs that find pre-opened descriptors, and those that check writes by them, which are attached when
/// there may be one.
#[derive(Debug)]
pub(super) struct Preopened {
    find: Program,
    census: Program,
    held: Map<u32, Held>,
    outcome: Map<u32, abi::Census>,
    /// With the names of their links.
    programs: Vec<(Program, String)>,
    links: Mutex<Vec<HookLink>>,
    checks_writes: AtomicBool,
}

/// In place of a device: all block devices.
const BLOCK_DEVICES: u32 = 0;
/// How often a census that the kernel disturbed is taken.
const ATTEMPTS: usize = 3;

impl Preopened {
    /// Takes its programs out of the object.
    pub(super) fn of(object: &mut Loaded, number: u64) -> Result<Self, BpfError> {
        Ok(Self {
            find: object.program("ic_preopened")?,
            census: object.program("ic_take_census")?,
            held: object.map("ic_held")?,
            outcome: object.map("ic_census")?,
            programs: vec![
                (object.program("ic_preopened_map")?, format!("{number}_mmap_before")),
                (object.program("ic_preopened_loop")?, format!("{number}_loop_before")),
                (object.program("ic_file_permission")?, format!("{number}_file_permission")),
            ],
            links: Mutex::default(),
            checks_writes: AtomicBool::new(false),
        })
    }

    pub(super) fn programs(&self) -> impl Iterator<Item = &Program> {
        self.programs.iter().map(|(program, _)| program).chain([&self.find, &self.census])
    }

    /// Empty until the programs are attached.
    pub(super) fn links(&self) -> MutexGuard<'_, Vec<HookLink>> {
        self.links.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Counts in the file systems of these devices, and all block devices.
    pub(super) fn census(&self, devices: &[u32]) -> Result<Census, BpfError> {
        let mut census = Census { is_complete: true, ..Census::default() };
        for &device in devices.iter().chain(&[BLOCK_DEVICES]) {
            let (held, is_complete) = self.count(device)?;
            census.held.extend(held);
            census.is_complete &= is_complete;
        }
        // Last: a file that is closed meanwhile has no descriptor, and counts as open otherwise.
        census.descriptors = self
            .find
            .iterate()?
            .chunks_exact(size_of::<OpenDescriptor>())
            .filter_map(|chunk| OpenDescriptor::read_from_bytes(chunk).ok())
            .collect();
        Ok(census)
    }

    /// What is open on one device, and whether all was counted.
    fn count(&self, device: u32) -> Result<(Vec<Held>, bool), BpfError> {
        let mut counted = (Vec::new(), false);
        for _ in 0..ATTEMPTS {
            let checks_writes = u32::from(self.checks_writes.load(Ordering::SeqCst));
            self.outcome
                .update(&0, &abi::Census { device, checks_writes, ..Default::default() })?;
            self.census.iterate()?;
            let outcome = self.outcome.lookup(&0)?.unwrap_or_default();
            let held = (0..outcome.held).filter_map(|index| self.held.lookup(&index).transpose());
            counted = (held.collect::<Result<_, _>>()?, outcome.is_incomplete == 0);
            if counted.1 {
                break;
            }
        }
        Ok(counted)
    }

    /// Has the programs check writes, where they are attached.
    pub(super) fn check_writes(&self, checks: bool) -> Result<(), BpfError> {
        self.checks_writes.store(checks, Ordering::SeqCst);
        let checks_writes = u32::from(checks);
        self.outcome.update(&0, &abi::Census { checks_writes, ..Default::default() })
    }

    /// Attaches the programs that check writes, and pins their links in `dir`.
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
