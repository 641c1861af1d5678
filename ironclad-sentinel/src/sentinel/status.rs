use ironclad_bpf::BpfError;
use ironclad_policy::Provenance;

use super::Sentinel;
use crate::error::SentinelError;
use crate::resolve;
use crate::status::{Degraded, HookState, HookStatus, KernelStatus, Status};
use crate::volumes;

impl Sentinel {
    /// What it is and does; each hook is tried anew.
    ///
    /// # Errors
    /// [`SentinelError::Bpf`] where the kernel refuses.
    pub fn status(&self) -> Result<Status, SentinelError> {
        self.watched.look()?;
        let volumes = volumes::of(&self.lock().scopes).map_err(|source| {
            let step = "reading /proc/self/mountinfo";
            BpfError::system(step, source)
        })?;
        let kernel = KernelStatus::look();
        let now = self.lock();
        let attached = self.watched.guard.links().iter().map(|link| {
            let name = link.hook().to_owned();
            let canary = now.canaries.iter().find(|it| it.hook.name() == name);
            let state = match canary.map(|it| it.silent.clone()) {
                None => HookState::Attached,
                Some(None) => HookState::InForce,
                Some(Some(why)) => HookState::Silent(why),
            };
            let answered = canary.and_then(|it| now.answered.get(&it.hook)).copied();
            HookStatus { name, state, answered_ns: answered }
        });
        let missing = self.watched.guard.missing().iter().map(|it| HookStatus {
            name: it.hook.clone(),
            state: HookState::Missing { is_optional: it.is_optional },
            answered_ns: None,
        });
        let unwatched = now.unwatched.iter().map(|why| Degraded::Watch { why: why.clone() });
        let mut nowhere = resolve::absent(now.policy.files());
        nowhere.extend_from_slice(&now.missing);
        let mut status = Status {
            instance: self.watched.instance.clone(),
            degraded: unwatched.collect(),
            kernel,
            is_armed: self.watched.guard.is_armed(),
            hooks: attached.chain(missing).collect(),
            policy: now.policy.id().to_string(),
            provenance: now.provenance.unwrap_or(Provenance::Unsigned),
            open_for: self.watched.guard.is_open_for(),
            labels: now.tables.labels(),
            volumes,
            baseline: now.baseline.clone(),
            missing: nowhere,
            preopened: now.preopened.clone(),
            foreign: now.foreign.clone(),
            alarms_lost: self.watched.guard.alarms_lost(),
        };
        status.find_degraded();
        Ok(status)
    }
}
