mod audit;
mod cgroups;
mod counters;
mod describe;
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
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use ironclad_bpf::shield::{PolicyProgram, Shared};
use ironclad_bpf::socket::PacketSockets;
use ironclad_bpf::{LinkLayer, PinDirectory, Program, TestRun, XdpLink, XdpMode};
use ironclad_core::ErrorChain;
use ironclad_core::audit::{AuditAction, AuditLog};
use ironclad_policy::trust::{Trust, UnsignedWarning};
use ironclad_policy::{CompiledPolicy, PolicyPart};

use crate::builder::ShieldBuilder;
use crate::error::ShieldError;
use crate::slots::Slots;
use crate::sockets::Sockets;
use crate::sockets::follow::Follower;
use describe::Names;
use interfaces::{Followed, Patterns};

pub use cgroups::CgroupStatus;
pub use counters::{Count, Counters, LossCount, PrefixCount, ReasonCount, RuleCount};
pub use describe::{DescribedEvent, NamedRule};
pub use explain::{ExplainedEvent, ExplainedSocket};
pub use interfaces::{InterfaceChange, InterfaceStatus, UnprotectedInterface};
pub use learn::Learning;
pub use status::Status;
pub use swap::ApplyOptions;

/// A running firewall. Share it between threads and tasks as it is; every method takes `&self`.
///
/// Dropping it detaches, unless it was built [`persistent`](ShieldBuilder::persistent).
pub struct Shield {
    core: Core,
    /// None where neither paths nor interfaces are followed.
    follower: Option<Follower>,
    trust: Trust,
    unsigned: UnsignedWarning,
    /// Parts of policies that are accepted and not enforced here.
    unenforced: Vec<PolicyPart>,
    /// Whether it was started with interfaces.
    has_interfaces: bool,
}

/// The part of a Shield that it shares with the thread that follows paths and interfaces.
#[derive(Clone)]
struct Core {
    audit: AuditLog,
    mode: Option<XdpMode>,
    patterns: Arc<Patterns>,
    shared: Arc<Shared>,
    directory: Option<Arc<PinDirectory>>,
    control: Arc<Mutex<Control>>,
}

impl Core {
    fn lock(&self) -> MutexGuard<'_, Control> {
        lock(&self.control)
    }
}

fn packet_hooks(packets: &PacketSockets) -> Vec<String> {
    packets.programs().map(|(_, link)| link.hook().to_owned()).collect()
}

fn lock(control: &Mutex<Control>) -> MutexGuard<'_, Control> {
    // The state is consistent between any two statements that can panic.
    control.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The state behind the lock.
struct Control {
    slots: Slots<u32>,
    /// By slot.
    policies: [Option<Loaded>; 2],
    links: Vec<XdpLink>,
    /// None where Shield was started without cgroups.
    sockets: Option<Sockets>,
    next_generation: u64,
    /// Whether every policy has a program: an interface is protected, or was, or a test run needed it.
    has_links: bool,
    /// Whether policies have a program for frames that begin with the IP header: an interface has such.
    has_ip_links: bool,
    followed: Followed,
    names: Names,
}

struct Loaded {
    number: u64,
    /// None where no interface is protected and the policy treats packets as an empty one does.
    program: Option<PolicyProgram>,
    /// None where another agent loaded it and this agent was started with another policy.
    policy: Option<CompiledPolicy>,
}

impl Shield {
    /// Describes a firewall. `instance` names it in bpffs and in audit records: an
    /// [`InstanceName`](ironclad_core::InstanceName).
    pub fn builder(instance: &str) -> ShieldBuilder {
        ShieldBuilder::new(instance)
    }

    /// What the policy in force does with an Ethernet frame, by a run of the attached program in the
    /// kernel. It counts and reports as it would on the wire.
    ///
    /// # Errors
    /// `ShieldErrorKind::Bpf`; the kernel takes frames from 14 to 3,520 bytes.
    pub fn test_run(&self, frame: &[u8], repeat: u32) -> Result<TestRun, ShieldError> {
        self.core.decide(&mut self.core.lock(), LinkLayer::Ethernet)?;
        Ok(self.dispatcher().test_run(frame, repeat)?)
    }

    /// Like [`test_run`](Self::test_run), of a packet that begins with the IP header, as at TUN devices
    /// and WireGuard.
    ///
    /// # Errors
    /// `ShieldErrorKind::Bpf`; the kernel takes packets of 14 bytes and more.
    pub fn test_run_ip(&self, packet: &[u8], repeat: u32) -> Result<TestRun, ShieldError> {
        self.core.decide(&mut self.core.lock(), LinkLayer::Ip)?;
        Ok(self.core.shared.dispatcher_for(LinkLayer::Ip).test_run(packet, repeat)?)
    }

    /// The program that is attached to interfaces with Ethernet headers. Where none is protected, it may
    /// have no policy to call before [`protect`](Self::protect) or [`test_run`](Self::test_run).
    pub fn dispatcher(&self) -> &Program {
        self.core.shared.dispatcher()
    }

    fn log_failed_detach(&self, hook: &str, failed: &ShieldError) {
        let (instance, error) = (self.core.audit.instance(), ErrorChain::new(failed));
        tracing::error!(instance, %error, "detaching from {hook}");
    }

    /// Detaches from every interface and removes all pins.
    ///
    /// # Errors
    /// `ShieldErrorKind::Bpf` where the kernel refuses.
    pub fn stop(mut self) -> Result<(), ShieldError> {
        // It would attach again what is detached here.
        self.follower = None;
        let links = std::mem::take(&mut self.core.lock().links);
        for link in links {
            let interface = link.interface().name.clone();
            link.detach()?;
            self.core.record_detach(&interface)?;
        }
        let cgroups: Vec<PathBuf> = {
            let control = self.core.lock();
            let known = control.sockets.iter().flat_map(Sockets::cgroups);
            known.map(|known| known.path.clone()).collect()
        };
        cgroups.iter().try_for_each(|cgroup| self.unprotect_cgroup(cgroup))?;
        let packets = self.core.lock().sockets.as_mut().and_then(Sockets::take_packets);
        if let Some(packets) = packets {
            let hooks = packet_hooks(&packets);
            packets.detach(self.core.directory.as_deref())?;
            self.core.record_packets_detach(&hooks)?;
        }
        if let Some(directory) = &self.core.directory {
            directory.unpin()?;
            self.core
                .record(AuditAction::Unpin { path: directory.path().display().to_string() })?;
        }
        Ok(())
    }
}

impl Drop for Shield {
    /// Detaches, and records that. Pinned links stay attached.
    fn drop(&mut self) {
        self.follower = None;
        let links = std::mem::take(&mut self.core.lock().links);
        for link in links.into_iter().filter(|link| !link.is_pinned()) {
            let name = link.interface().name.clone();
            let detached = link.detach().map_err(ShieldError::from);
            if let Err(failed) = detached.and_then(|()| self.core.record_detach(&name)) {
                self.log_failed_detach(&name, &failed);
            }
        }
        // Closing the links detaches.
        let sockets = self.core.lock().sockets.take();
        let packets = sockets.as_ref().and_then(Sockets::packets);
        if let Some(packets) = packets.filter(|packets| !packets.is_pinned()) {
            if let Err(failed) = self.core.record_packets_detach(&packet_hooks(packets)) {
                self.log_failed_detach("BPF LSM", &failed);
            }
        }
        let known = sockets.iter().flat_map(Sockets::cgroups);
        for cgroup in known.filter(|known| !known.links.is_pinned()) {
            if let Err(failed) = self.core.record_cgroup_detach(&cgroup.path) {
                self.log_failed_detach("a cgroup", &failed);
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
        f.debug_struct("Shield")
            .field("instance", &self.core.audit.instance())
            .finish_non_exhaustive()
    }
}
