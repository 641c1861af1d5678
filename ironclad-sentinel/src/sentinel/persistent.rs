use std::path::{Path, PathBuf};
use std::sync::Arc;

use ironclad_bpf::sentinel::Secret;
use ironclad_bpf::{BpfError, PinDirectory, cgroup_id};
use ironclad_core::abi;
use ironclad_core::audit::AuditAction;
use ironclad_policy::CompiledPolicy;

use super::Sentinel;
use crate::builder::{Launch, SentinelBuilder};
use crate::error::{Failure, SentinelError, SentinelErrorKind};
use crate::privilege;
use crate::secret_store::SecretStore;

pub(super) const SUFFIX: &str = "-sentinel";

/// The pins and the state directory of a persistent instance.
pub(super) struct Persistent {
    pub(super) directory: PinDirectory,
    /// The directory of the pins of all instances.
    pub(super) pins: PathBuf,
    pub(super) state: PathBuf,
    pub(super) secrets: SecretStore,
    /// The id of the cgroup in which agents are started; 0: any.
    group: u64,
    /// The secret of the earlier agent, which is valid until the next one is stored.
    presented: Option<Secret>,
}

impl Persistent {
    /// Opens the pins. Presents the secret of an earlier agent before: only a trusted process may open them.
    pub(super) fn open(builder: &SentinelBuilder) -> Result<Option<Self>, SentinelError> {
        if !builder.persistent {
            privilege::may_load()?;
            return Ok(None);
        }
        let group = builder.launch_group.as_deref().map(cgroup_id).transpose()?.unwrap_or(0);
        let state = builder.state();
        let pins = builder.bpffs.join("ironclad");
        let name = format!("{}{SUFFIX}", builder.instance);
        let secrets = SecretStore::new(&state);
        secrets.prepare()?;
        let mut presented = None;
        // Of any ABI version.
        let exists = std::fs::symlink_metadata(pins.join(&name)).is_ok();
        if exists {
            presented = secrets.read()?;
            presented.iter().try_for_each(Secret::present)?;
        }
        privilege::may_load().map_err(|error| match error.kind() {
            SentinelErrorKind::Refused if exists && presented.is_none() => {
                let instance = builder.instance.clone();
                Failure::NoSecret { instance, state: state.clone() }.into()
            }
            _ => error,
        })?;
        let directory = PinDirectory::open(&builder.bpffs, &name)?;
        Ok(Some(Self { directory, pins, state: real(&state)?, secrets, group, presented }))
    }
}

pub(super) fn real(state: &Path) -> Result<PathBuf, BpfError> {
    let step = "checking the agent's directory";
    std::fs::canonicalize(state).map_err(|source| BpfError::system(step, source))
}

impl Sentinel {
    /// Pins a persistent instance, and stores a secret for the next agent.
    pub(super) fn persist(
        &mut self,
        launch: Launch,
        is_adopted: bool,
        policy: &CompiledPolicy,
    ) -> Result<(), SentinelError> {
        let Some(persistent) = &self.persistent else { return Ok(()) };
        let launch = match launch {
            Launch::Init => abi::LAUNCH_INIT,
            Launch::Trusted => abi::LAUNCH_TRUSTED,
        };
        self.watched.guard.launch(launch, persistent.group);
        // The earlier secret is valid until the next one is stored.
        if let Some(presented) = &persistent.presented {
            self.watched.guard.only_restart_secret(presented)?;
        }
        let secret = Secret::new()?;
        self.watched.guard.add_restart_secret(&secret)?;
        if let Err(error) = persistent.secrets.write(&secret, is_adopted) {
            self.watched.guard.remove_secret(&secret)?;
            return Err(error);
        }
        self.watched.guard.only_restart_secret(&secret)?;
        let path = persistent.directory.path();
        if is_adopted {
            let (path, policy) = (path.display().to_string(), policy.id().to_string());
            return self.record(&AuditAction::Adopt { path, policy });
        }
        let (object, path) = ("sentinel".to_owned(), path.display().to_string());
        self.record(&AuditAction::Pin { object, path })?;
        // No thread shares it yet.
        if let Some(watched) = Arc::get_mut(&mut self.watched) {
            watched.guard.persist(&mut self.processes, &persistent.directory)?;
        }
        Ok(())
    }
}
