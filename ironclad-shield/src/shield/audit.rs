//! Audit records of what Shield loads, attaches and detaches.
use std::path::Path;
use std::time::Duration;

use ironclad_bpf::Program;
use ironclad_bpf::shield::Shared;
use ironclad_bpf::socket::PacketSockets;
use ironclad_core::abi::Generation;
use ironclad_core::audit::AuditAction;
use ironclad_policy::CompiledPolicy;

use super::Core;
use crate::error::ShieldError;
use crate::sockets::SocketPolicy;

impl Core {
    pub(super) fn record(&self, action: AuditAction) -> Result<(), ShieldError> {
        Ok(self.audit.record(&action)?)
    }

    pub(super) fn record_load(&self, program: &Program) -> Result<(), ShieldError> {
        let info = program.info();
        self.record(AuditAction::Load {
            program: info.name.clone(),
            tag: info.tag.clone(),
            instructions: info.xlated_len / 8,
        })
    }

    pub(super) fn record_upgrade(&self) -> Result<(), ShieldError> {
        self.lock().links.iter().try_for_each(|link| {
            let layer = Shared::layer_of(link)?;
            self.record(AuditAction::Replace {
                program: self.shared.dispatcher_for(layer).info().name.clone(),
                hook: "xdp".to_owned(),
                interface: link.interface().name.clone(),
            })
        })
    }

    /// Records what was loaded for socket rules, and the hooks that it is attached to.
    pub(super) fn record_sockets(&self, adopted: bool) -> Result<(), ShieldError> {
        let control = self.lock();
        let Some(sockets) = &control.sockets else { return Ok(()) };
        let processes = sockets.processes();
        processes.programs().chain(sockets.programs()).try_for_each(|p| self.record_load(p))?;
        processes.programs().zip(processes.links()).try_for_each(|(program, link)| {
            self.record(AuditAction::Attach {
                program: program.info().name.clone(),
                hook: "tracepoint".to_owned(),
                interface: link.hook().to_owned(),
                mode: "link".to_owned(),
            })
        })?;
        for cgroup in sockets.cgroups().iter().filter(|_| adopted) {
            for program in sockets.programs() {
                self.record(AuditAction::Replace {
                    program: program.info().name.clone(),
                    hook: "cgroup".to_owned(),
                    interface: cgroup.path.display().to_string(),
                })?;
            }
        }
        sockets.packets().map_or(Ok(()), |packets| self.record_packets(packets))
    }

    /// Records what a policy writes into maps, and that it comes into force.
    pub(super) fn record_swap(
        &self,
        policy: &CompiledPolicy,
        generation: &Generation,
        sockets: Option<&SocketPolicy>,
        provisional: Option<Duration>,
    ) -> Result<(), ShieldError> {
        let number = generation.number;
        self.record(AuditAction::MapWrite {
            map: "ic_flat, ic_entries, ic_tuples".to_owned(),
            elements: u64::from(generation.cells)
                + u64::from(generation.entries)
                + u64::from(generation.tuples),
            purpose: format!("policy {} of generation {number}", policy.id()),
        })?;
        if let Some(sockets) = sockets {
            self.record(AuditAction::MapWrite {
                map: "ic_sock_policy, ic_sock_rows, ic_sock_ids, …".to_owned(),
                elements: sockets.elements() as u64,
                purpose: format!("socket rules of generation {number}"),
            })?;
        }
        self.record(AuditAction::Swap {
            generation: number,
            policy: policy.id().to_string(),
            provisional_ms: provisional.map(|d| d.as_millis() as u64),
        })
    }

    pub(super) fn record_packets(&self, packets: &PacketSockets) -> Result<(), ShieldError> {
        packets.programs().try_for_each(|(program, link)| {
            self.record_load(program)?;
            self.record(AuditAction::Attach {
                program: program.info().name.clone(),
                hook: "lsm".to_owned(),
                interface: link.hook().to_owned(),
                mode: "link".to_owned(),
            })
        })
    }

    pub(super) fn record_packets_detach(&self, hooks: &[String]) -> Result<(), ShieldError> {
        hooks.iter().try_for_each(|hook| {
            let (hook, interface) = ("lsm".to_owned(), hook.clone());
            self.record(AuditAction::Detach { hook, interface })
        })
    }

    pub(super) fn record_cgroup_detach(&self, directory: &Path) -> Result<(), ShieldError> {
        let interface = directory.display().to_string();
        self.record(AuditAction::Detach { hook: "cgroup".to_owned(), interface })
    }

    pub(super) fn record_detach(&self, name: &str) -> Result<(), ShieldError> {
        self.record(AuditAction::Detach { hook: "xdp".to_owned(), interface: name.to_owned() })
    }
}
