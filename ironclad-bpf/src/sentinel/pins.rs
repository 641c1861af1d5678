use std::collections::BTreeSet;
use std::fs::{self, DirBuilder};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use crate::clock::boottime_ns;
use crate::error::BpfError;
use crate::hook::HookLink;
use crate::map::Map;
use crate::persistent::{LINK_DIRECTORY_PREFIX, LOSSES, PROCESS, PinnedMaps, SENTINEL, pin_names};
use crate::pin::{PinDirectory, names_in, remove_pins};
use crate::socket::Inherited;

/// What the hooks begin with that keep the table of processes.
const TRACEPOINT: &str = "sched_process";

/// What an earlier agent of an instance has pinned for Sentinel, about to be adopted.
#[derive(Debug)]
pub struct GuardPins {
    pub(super) maps: PinnedMaps,
    /// Where the links are to be that take the place of the former ones.
    links: PathBuf,
    former: Vec<PathBuf>,
}

impl GuardPins {
    /// Finds them; `None` where the instance has none. This process has to be trusted.
    ///
    /// # Errors
    /// `BpfErrorKind::PinDirectory` where some are missing, or foreign ones are there.
    pub fn find(directory: &PinDirectory) -> Result<Option<Self>, BpfError> {
        let names = pin_names(&[&SENTINEL, &[LOSSES], &PROCESS]);
        let Some(mut former) = directory.sentinel(&names)? else { return Ok(None) };
        // Of several, all but the oldest are of agents that were cut off while they took over. What they
        // attached is too much, but for the table of processes, which the last of them may keep.
        former.sort_by_key(|dir| (dir.as_os_str().len(), dir.clone()));
        for dir in former.iter().skip(1) {
            for name in names_in(dir)?.into_iter().filter(|name| !name.contains(TRACEPOINT)) {
                let path = dir.join(name);
                fs::remove_file(&path).map_err(|source| BpfError::pin(path, "removing", source))?;
            }
        }
        let links = directory.path().join(links_name());
        DirBuilder::new()
            .mode(0o700)
            .create(&links)
            .map_err(|source| BpfError::pin(links.clone(), "creating the directory", source))?;
        let maps = PinnedMaps::in_directory(directory.path());
        Ok(Some(Self { maps, links, former }))
    }

    /// The counters of losses.
    ///
    /// # Errors
    /// `BpfErrorKind::Pin` where the pin cannot be opened.
    pub fn losses(&self) -> Result<Map<u32, u64>, BpfError> {
        Map::new(self.maps.open(LOSSES)?, LOSSES)
    }

    /// What the table of processes adopts.
    ///
    /// # Errors
    /// `BpfErrorKind::Pin` where a pin cannot be opened.
    pub fn inherited(&self) -> Result<Inherited, BpfError> {
        let mut former = Vec::new();
        for dir in &self.former {
            for name in names_in(dir)? {
                let link = HookLink::open(&dir.join(name))?;
                if link.hook().starts_with(TRACEPOINT) {
                    former.push(link);
                }
            }
        }
        Ok(Inherited { maps: self.maps.clone(), links: self.links.clone(), former })
    }

    /// Programs that it has attached.
    ///
    /// # Errors
    /// `BpfErrorKind::Pin` where a pin cannot be opened, `BpfErrorKind::System`.
    pub fn programs(&self) -> Result<BTreeSet<u32>, BpfError> {
        let mut found = BTreeSet::new();
        for dir in &self.former {
            for name in names_in(dir)? {
                found.insert(HookLink::open(&dir.join(name))?.program_id()?);
            }
        }
        Ok(found)
    }

    pub(super) fn links(&self) -> &Path {
        &self.links
    }

    pub(super) fn pin(&self, link: &mut HookLink) -> Result<(), BpfError> {
        link.pin(&self.links.join(link.pin_name()))
    }

    /// The former links end; those that took their place are in force.
    pub(super) fn supersede(self) -> Result<(), BpfError> {
        self.former.iter().try_for_each(|dir| remove_pins(dir))
    }
}

/// The name of a directory of links.
pub(super) fn links_name() -> String {
    format!("{LINK_DIRECTORY_PREFIX}{}", boottime_ns())
}
