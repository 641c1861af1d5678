mod audit;
mod cgroups;
mod counters;
mod events;
mod explain;
mod interfaces;
mod learn;
mod packet_image;
mod paths;
mod start;
mod status;
mod swap;

use std::path::PathBuf;
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use ironclad_bpf::shield::{PolicyProgram, Shared};
use ironclad_bpf::{PinDirectory, Program, TestRun, XdpLink, XdpMode};
use ironclad_core::audit::{AuditAction, AuditSink};
use ironclad_policy::CompiledPolicy;

use crate::builder::ShieldBuilder;
use crate::error::ShieldError;
use crate::slots::Slots;
use crate::sockets::Sockets;
use crate::sockets::follow::Follower;
use crate::trust::Trust;

pub use cgroups::CgroupStatus;
pub use counters::{Count, Counters, LossCount, PrefixCount, ReasonCount, RuleCount};
pub use explain::{ExplainedEvent, ExplainedSocket};
pub use interfaces::{InterfaceChange, InterfaceStatus};
pub use learn::Learning;
pub use status::Status;

/// A running firewall. Share it between threads and tasks as it is; every method takes `&self`.
///
/// Dropping it detaches, unless it was built [`persistent`](ShieldBuilder::persistent).
pub struct Shield {
    instance: String,
    audit: Arc<dyn AuditSink>,
    mode: Option<XdpMode>,
    shared: Shared,
    directory: Option<PinDirectory>,
    control: Arc<Mutex<Control>>,
    /// None where no paths are to be followed.
    follower: Option<Follower>,
    trust: Trust,
    /// Whether the last policy was said to be unsigned.
    is_told_unsigned: AtomicBool,
}

fn lock(control: &Mutex<Control>) -> MutexGuard<'_, Control> {
    // What the lock guards is consistent between any two statements that can panic.
    control.lock().unwrap_or_else(PoisonError::into_inner)
}

/// What changes only under the lock.
struct Control {
    slots: Slots<u32>,
    /// What each slot holds.
    policies: [Option<Loaded>; 2],
    links: Vec<XdpLink>,
    /// None where no cgroup is to be asked.
    sockets: Option<Sockets>,
    next_generation: u64,
}

struct Loaded {
    number: u64,
    program: PolicyProgram,
    /// None where another agent loaded it and this one was not given the same policy.
    policy: Option<CompiledPolicy>,
}

impl Shield {
    /// Describes a firewall. `instance` names it in bpffs and in audit records: letters, digits,
    /// `-` and `_`.
    pub fn builder(instance: &str) -> ShieldBuilder {
        ShieldBuilder::new(instance)
    }

    fn lock(&self) -> MutexGuard<'_, Control> {
        lock(&self.control)
    }

    /// What the policy in force does with a frame, by a run of the attached program in the kernel.
    /// It counts and reports as it would on the wire.
    ///
    /// # Errors
    /// [`ShieldError::Bpf`]; the kernel takes frames of 14 bytes and more.
    pub fn test_run(&self, frame: &[u8], repeat: u32) -> Result<TestRun, ShieldError> {
        Ok(self.dispatcher().test_run(frame, repeat)?)
    }

    /// The program that is attached.
    pub fn dispatcher(&self) -> &Program {
        self.shared.dispatcher()
    }

    /// Detaches from every interface and removes all pins.
    ///
    /// # Errors
    /// [`ShieldError::Bpf`] where the kernel refuses.
    pub fn stop(self) -> Result<(), ShieldError> {
        let links = std::mem::take(&mut self.lock().links);
        for link in links {
            let interface = link.interface().name.clone();
            link.detach()?;
            self.record_detach(&interface)?;
        }
        let cgroups: Vec<PathBuf> = {
            let control = self.lock();
            let known = control.sockets.iter().flat_map(Sockets::cgroups);
            known.map(|known| known.path.clone()).collect()
        };
        cgroups.iter().try_for_each(|cgroup| self.unprotect_cgroup(cgroup))?;
        let packets = self.lock().sockets.as_mut().and_then(Sockets::take_packets);
        if let Some(packets) = packets {
            let hook = packets.link().hook().to_owned();
            packets.detach(self.directory.as_ref())?;
            self.record_packets_detach(&hook)?;
        }
        if let Some(directory) = &self.directory {
            directory.unpin()?;
            self.record(AuditAction::Unpin { path: directory.path().display().to_string() })?;
        }
        Ok(())
    }
}

impl Drop for Shield {
    /// Detaches, and leaves a record of it. What is pinned stays.
    fn drop(&mut self) {
        self.follower = None;
        let links = std::mem::take(&mut self.lock().links);
        for link in links.into_iter().filter(|link| !link.is_pinned()) {
            let name = link.interface().name.clone();
            let detached = link.detach().map_err(ShieldError::from);
            if let Err(failed) = detached.and_then(|()| self.record_detach(&name)) {
                tracing::error!(instance = self.instance, %failed, "detaching from {name}");
            }
        }
        // Closing the links detaches.
        let sockets = self.lock().sockets.take();
        let packets = sockets.as_ref().and_then(Sockets::packets);
        if let Some(packets) = packets.filter(|packets| !packets.link().is_pinned()) {
            if let Err(failed) = self.record_packets_detach(packets.link().hook()) {
                tracing::error!(instance = self.instance, %failed, "detaching from BPF LSM");
            }
        }
        let known = sockets.iter().flat_map(Sockets::cgroups);
        for cgroup in known.filter(|known| !known.links.is_pinned()) {
            if let Err(failed) = self.record_cgroup_detach(&cgroup.path) {
                tracing::error!(instance = self.instance, %failed, "detaching from a cgroup");
            }
        }
    }
}

impl Control {
    fn in_force(&self, shared: &Shared) -> Option<&Loaded> {
        self.policies[shared.selector().in_force() as usize].as_ref()
    }
}

impl std::fmt::Debug for Shield {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Shield").field("instance", &self.instance).finish_non_exhaustive()
    }
}
