//! What is in force.
use std::path::PathBuf;
use std::time::Duration;

use ironclad_bpf::boottime_ns;
use ironclad_core::PolicyId;
use ironclad_policy::{CompiledPolicy, Provenance};
use serde::Serialize;

use super::{CgroupStatus, InterfaceStatus, Shield};
use crate::error::ShieldError;
use crate::sockets::Sockets;

/// What is in force.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct Status {
    /// The generation: counts up with each policy of the instance.
    pub generation: u64,
    /// The policy.
    pub policy: PolicyId,
    /// Whether somebody signed it; unsigned also where an earlier agent put it into force, and this one
    /// was given another.
    pub provenance: Provenance,
    /// How long a provisional policy has left; none where the policy in force is final.
    pub provisional: Option<Duration>,
    /// Protected interfaces.
    pub interfaces: Vec<InterfaceStatus>,
    /// Cgroups whose processes are asked.
    pub cgroups: Vec<CgroupStatus>,
    /// Distinct prefixes in force.
    pub prefixes: u64,
    /// Files, cgroups and containers that socket rules in force name and that are not there,
    /// as the rules write them; a directory, pipe or device is no file. No process matches such a rule
    /// until there is something.
    pub missing: Vec<PathBuf>,
    /// Files in whose place there is another content than the one pinned by SHA-256: who executes them
    /// is denied.
    pub mismatched: Vec<PathBuf>,
    /// Why socket rules decide nothing in cgroups below the root, where that is so, and what to
    /// do: before Linux 5.15, and before 5.10.226 of the stable ones, whoever marks sockets by `net_cls`
    /// or `net_prio` switches them off until the host is restarted.
    pub inactive: Option<String>,
}

impl Shield {
    /// What is in force, right now.
    ///
    /// # Errors
    /// [`ShieldError::Bpf`] where the kernel refuses to tell.
    pub fn status(&self) -> Result<Status, ShieldError> {
        let mut control = self.lock();
        self.settle(&mut control)?;
        let selector = self.shared.selector();
        let generation = self.shared.generation(selector.in_force());
        let interfaces = control
            .links
            .iter()
            .map(|link| {
                Ok(InterfaceStatus {
                    interface: link.interface().clone(),
                    mode: link.mode(),
                    alive: link.is_alive()?,
                })
            })
            .collect::<Result<_, ShieldError>>()?;
        let cgroups = control.sockets.iter().flat_map(Sockets::cgroups);
        let cgroups = cgroups
            .map(|known| {
                let alive = known.links.is_alive()?;
                Ok(CgroupStatus { path: known.path.clone(), id: known.links.id, alive })
            })
            .collect::<Result<_, ShieldError>>()?;
        let inactive = match &mut control.sockets {
            Some(sockets) => sockets.inactive()?,
            None => None,
        };
        let policy = control.in_force(&self.shared).and_then(|loaded| loaded.policy.as_ref());
        let provenance = policy.map_or(Provenance::Unsigned, CompiledPolicy::provenance);
        let sockets = control.sockets.as_ref();
        Ok(Status {
            inactive,
            provenance,
            missing: sockets.map(|known| known.missing(selector.in_force())).unwrap_or_default(),
            mismatched: sockets
                .map(|known| known.mismatched(selector.in_force()))
                .unwrap_or_default(),
            generation: generation.number,
            policy: PolicyId(generation.policy),
            provisional: (selector.deadline_ns != 0)
                .then(|| Duration::from_nanos(selector.deadline_ns.saturating_sub(boottime_ns()))),
            interfaces,
            cgroups,
            prefixes: u64::from(generation.entries).saturating_sub(1),
        })
    }

    /// The policy in force, where this process compiled it or adopted the same.
    pub fn policy(&self) -> Option<CompiledPolicy> {
        let control = self.lock();
        control.in_force(&self.shared).and_then(|loaded| loaded.policy.clone())
    }
}
