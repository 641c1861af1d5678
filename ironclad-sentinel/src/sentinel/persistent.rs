use std::path::{Path, PathBuf};
use std::sync::Arc;

use ironclad_bpf::sentinel::Secret;
use ironclad_bpf::{BpfError, PinDirectory, cgroup_id};
use ironclad_core::abi;
use ironclad_core::audit::AuditAction;
use ironclad_policy::CompiledPolicy;

use super::Sentinel;
use crate::builder::{Launch, SentinelBuilder};
use crate::error::SentinelError;
use crate::privilege;
use crate::seal::SecretStore;

pub(super) const SUFFIX: &str = "-sentinel";

/// What a persistent instance has outside of this process.
pub(super) struct Kept {
    pub(super) directory: PinDirectory,
    /// Of all instances.
    pub(super) pins: PathBuf,
    pub(super) state: PathBuf,
    pub(super) seal: SecretStore,
    /// The cgroup that agents are started in, by id; 0: any.
    group: u64,
    /// That of the agent before, which is good until the next is there.
    presented: Option<Secret>,
}

impl Kept {
    /// Opens it; an earlier agent's secret entitles this process first, for no other process may.
    pub(super) fn open(builder: &SentinelBuilder) -> Result<Option<Self>, SentinelError> {
        if !builder.persistent {
            privilege::may_load()?;
            return Ok(None);
        }
        let group = builder.launch_group.as_deref().map(cgroup_id).transpose()?.unwrap_or(0);
        let state = builder.state();
        let pins = builder.bpffs.join("ironclad");
        let name = format!("{}{SUFFIX}", builder.instance);
        let seal = SecretStore::new(&state);
        seal.prepare()?;
        let mut presented = None;
        // Whatever version it is of.
        let was_there = std::fs::symlink_metadata(pins.join(&name)).is_ok();
        if was_there {
            presented = seal.read()?;
            presented.iter().try_for_each(Secret::present)?;
        }
        privilege::may_load().map_err(|error| match error {
            SentinelError::Refused { .. } if was_there && presented.is_none() => {
                SentinelError::NoSecret { instance: builder.instance.clone(), state: state.clone() }
            }
            error => error,
        })?;
        let directory = PinDirectory::open(&builder.bpffs, &name)?;
        Ok(Some(Self { directory, pins, state: real(&state)?, seal, group, presented }))
    }
}

pub(super) fn real(state: &Path) -> Result<PathBuf, BpfError> {
    let step = "looking at the agent's directory";
    std::fs::canonicalize(state).map_err(|source| BpfError::system(step, source))
}

impl Sentinel {
    /// Lets a persistent instance outlive this process, and a successor take over.
    pub(super) fn keep(
        &mut self,
        launch: Launch,
        is_adopted: bool,
        policy: &CompiledPolicy,
    ) -> Result<(), SentinelError> {
        let Some(kept) = &self.kept else { return Ok(()) };
        let launch = match launch {
            Launch::Init => abi::LAUNCH_INIT,
            Launch::Trusted => abi::LAUNCH_TRUSTED,
        };
        self.watched.guard.launch(launch, kept.group);
        // The former one is good until the next is there.
        if let Some(presented) = &kept.presented {
            self.watched.guard.only_restart_secret(presented)?;
        }
        let secret = Secret::new()?;
        self.watched.guard.add_restart_secret(&secret)?;
        if let Err(error) = kept.seal.write(&secret) {
            self.watched.guard.remove_secret(&secret)?;
            return Err(error);
        }
        self.watched.guard.only_restart_secret(&secret)?;
        let path = kept.directory.path();
        if is_adopted {
            let (path, policy) = (path.display().to_string(), policy.id().to_string());
            return self.record(&AuditAction::Adopt { path, policy });
        }
        let (object, path) = ("sentinel".to_owned(), path.display().to_string());
        self.record(&AuditAction::Pin { object, path })?;
        // The thread that shares it is not there yet.
        if let Some(watched) = Arc::get_mut(&mut self.watched) {
            watched.guard.persist(&mut self.processes, &kept.directory)?;
        }
        Ok(())
    }
}
