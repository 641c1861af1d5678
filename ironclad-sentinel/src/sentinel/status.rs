use ironclad_bpf::BpfError;
use ironclad_bpf::sentinel::Canary;
use ironclad_core::abi::Loss;
use ironclad_policy::Provenance;

use super::Sentinel;
use crate::error::SentinelError;
use crate::resolve;
use crate::status::{Degraded, HookState, HookStatus, KernelStatus, LossCount, Status};
use crate::volumes;

impl Sentinel {
    /// The state of this Sentinel. Tests each hook.
    ///
    /// # Errors
    /// `SentinelErrorKind::Bpf` where the kernel refuses.
    pub fn status(&self) -> Result<Status, SentinelError> {
        self.watched.test_hooks()?;
        self.watched.check_mounts()?;
        self.watched.check_swap()?;
        let (policy, scopes) = {
            let now = self.lock();
            (now.policy.clone(), now.scopes.clone())
        };
        // Other threads do not wait for these.
        let mut missing_paths = resolve::absent(policy.files());
        let volumes = volumes::of(&scopes).map_err(|source| {
            let step = "reading /proc/self/mountinfo";
            BpfError::system(step, source)
        })?;
        let kernel = KernelStatus::read();
        let now = self.lock();
        let attached = self.watched.guard.links().iter().map(|link| {
            let name = link.hook().to_owned();
            let canary = now.canaries.iter().find(|it| it.hook.name() == name);
            let not_tested = canary.and_then(|it| it.not_tested.clone());
            let state = match canary {
                Some(Canary { inactive: Some(why), .. }) => HookState::Inactive(why.clone()),
                Some(Canary { refused_elsewhere: Some(why), .. }) => {
                    HookState::RefusedElsewhere(why.clone())
                }
                Some(Canary { not_tested: None, .. }) => HookState::InForce,
                _ => HookState::Attached,
            };
            let answered = canary.and_then(|it| now.last_active.get(&it.hook)).copied();
            HookStatus { name, state, answered_ns: answered, not_tested }
        });
        let missing = self.watched.guard.missing().iter().map(|it| HookStatus {
            name: it.hook.clone(),
            state: HookState::Missing { is_optional: it.is_optional },
            answered_ns: None,
            not_tested: None,
        });
        let watch = now
            .watch_error
            .iter()
            .chain(&now.wake_error)
            .map(|why| Degraded::Watch { why: why.clone() });
        let mounts = now.mounts_over.iter().cloned().map(Degraded::MountOver);
        missing_paths.extend_from_slice(&now.missing);
        let mut status = Status {
            instance: self.watched.audit.instance().to_owned(),
            degraded: watch.chain(mounts).collect(),
            kernel,
            is_armed: self.watched.guard.is_armed(),
            hooks: attached.chain(missing).collect(),
            policy: now.policy.id().to_string(),
            provenance: now.provenance.unwrap_or(Provenance::Unsigned),
            open_for: self.watched.guard.is_open_for(),
            labels: now.tables.labels(),
            volumes,
            baseline: now.baseline.clone(),
            missing: missing_paths,
            preopened: now.preopened.descriptors.clone(),
            held: now.preopened.held.clone(),
            foreign: now.foreign.clone(),
            alarms_lost: self.watched.guard.alarms_lost(),
            losses: self.losses()?,
        };
        status.find_degraded();
        Ok(status)
    }

    fn losses(&self) -> Result<Vec<LossCount>, SentinelError> {
        let mut found = Vec::new();
        for loss in Loss::ALL {
            let cpus = self.processes.losses.lookup_all(&(loss as u32))?.unwrap_or_default();
            found.push(LossCount { loss, count: cpus.iter().sum() });
        }
        found.retain(|it| it.count != 0);
        Ok(found)
    }
}
