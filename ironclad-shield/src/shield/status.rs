//! The status of an instance.
use std::path::PathBuf;
use std::time::Duration;

use ironclad_bpf::boottime_ns;
use ironclad_bpf::shield::Shared;
use ironclad_core::PolicyId;
use ironclad_policy::{CompiledPolicy, Provenance};
use serde::Serialize;

use super::{CgroupStatus, InterfaceStatus, Shield, UnprotectedInterface};
use crate::error::ShieldError;
use crate::sockets::Sockets;

/// The policy in force, and what it protects.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct Status {
    /// The generation: counts up with each policy of the instance.
    pub generation: u64,
    /// The policy.
    pub policy: PolicyId,
    /// Whether it is signed. Unsigned also where an earlier agent applied it, and this agent was started with
    /// another policy.
    pub provenance: Provenance,
    /// How long a provisional policy has left; none where the policy in force is final.
    pub provisional: Option<Duration>,
    /// Protected interfaces.
    pub interfaces: Vec<InterfaceStatus>,
    /// Interfaces that match a pattern, or that appeared under the name of a protected one, and could not
    /// be protected.
    pub unprotected: Vec<UnprotectedInterface>,
    /// Cgroups whose processes the socket rules decide for.
    pub cgroups: Vec<CgroupStatus>,
    /// Distinct prefixes in force.
    pub prefixes: u64,
    /// Files, cgroups and containers that socket rules in force name and that do not exist, as the rules
    /// write them. A directory, pipe or device is no file. Such a rule matches no process until they
    /// exist.
    pub missing: Vec<PathBuf>,
    /// Files whose content is not the one that a rule pins by SHA-256: processes that execute them are
    /// denied.
    pub mismatched: Vec<PathBuf>,
    /// Why socket rules are inactive in cgroups below the root, where they are, and what to do.
    /// Before Linux 5.15, and before 5.10.226 of the stable kernels, a process that marks sockets by
    /// `net_cls` or `net_prio` switches their hooks off until the host is restarted.
    pub inactive: Option<String>,
}

impl Shield {
    /// The policy in force, and what it protects.
    ///
    /// # Errors
    /// `ShieldErrorKind::Bpf` where the kernel refuses.
    pub fn status(&self) -> Result<Status, ShieldError> {
        let mut control = self.core.lock();
        self.reconcile(&mut control)?;
        let selector = self.core.shared.selector();
        let generation = self.core.shared.generation(selector.in_force());
        let interfaces = control
            .links
            .iter()
            .map(|link| {
                Ok(InterfaceStatus {
                    interface: link.interface().clone(),
                    mode: link.mode(),
                    link_layer: Shared::layer_of(link)?,
                    alive: link.is_alive()?,
                    moved: link.is_away(),
                    gaps: control.followed.gaps(link.interface()),
                })
            })
            .collect::<Result<_, ShieldError>>()?;
        let cgroups = control.sockets.iter().flat_map(Sockets::cgroups);
        let cgroups = cgroups
            .map(|known| {
                let alive = known.links.is_alive()?;
                let (path, id) = (known.path.clone(), known.links.id);
                let (gaps, unchecked) = (known.gaps, known.unchecked);
                let covered = known.is_covered()?;
                Ok(CgroupStatus { path, id, alive, covered, gaps, unchecked })
            })
            .collect::<Result<_, ShieldError>>()?;
        let inactive = match &mut control.sockets {
            Some(sockets) => sockets.inactive()?,
            None => None,
        };
        let policy = control.in_force(&self.core.shared).and_then(|loaded| loaded.policy.as_ref());
        let provenance = policy.map_or(Provenance::Unsigned, CompiledPolicy::provenance);
        let sockets = control.sockets.as_ref();
        Ok(Status {
            inactive,
            unprotected: control.followed.unprotected(),
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
        let control = self.core.lock();
        control.in_force(&self.core.shared).and_then(|loaded| loaded.policy.clone())
    }
}
