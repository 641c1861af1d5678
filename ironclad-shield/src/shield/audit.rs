//! Audit records of what Shield loads, attaches and detaches.
use std::path::Path;

use ironclad_bpf::Program;
use ironclad_bpf::socket::PacketSockets;
use ironclad_core::ErrorChain;
use ironclad_core::audit::{AuditAction, AuditSink};

use super::Shield;
use crate::error::ShieldError;

impl Shield {
    pub(super) fn record(&self, action: AuditAction) -> Result<(), ShieldError> {
        tracing::info!(instance = self.instance, "{action}");
        Ok(self.audit.record(&self.instance, &action)?)
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
        let names: Vec<String> =
            self.lock().links.iter().map(|link| link.interface().name.clone()).collect();
        names.into_iter().try_for_each(|interface| {
            self.record(AuditAction::Replace {
                program: self.dispatcher().info().name.clone(),
                hook: "xdp".to_owned(),
                interface,
            })
        })
    }

    /// What was loaded for socket rules, and what it is attached to by now.
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

    pub(super) fn record_packets(&self, packets: &PacketSockets) -> Result<(), ShieldError> {
        self.record_load(packets.program())?;
        self.record(AuditAction::Attach {
            program: packets.program().info().name.clone(),
            hook: "lsm".to_owned(),
            interface: packets.link().hook().to_owned(),
            mode: "link".to_owned(),
        })
    }

    pub(super) fn record_packets_detach(&self, hook: &str) -> Result<(), ShieldError> {
        let interface = hook.to_owned();
        self.record(AuditAction::Detach { hook: "lsm".to_owned(), interface })
    }

    pub(super) fn record_cgroup_detach(&self, directory: &Path) -> Result<(), ShieldError> {
        let interface = directory.display().to_string();
        self.record(AuditAction::Detach { hook: "cgroup".to_owned(), interface })
    }

    pub(super) fn record_detach(&self, name: &str) -> Result<(), ShieldError> {
        self.record(AuditAction::Detach { hook: "xdp".to_owned(), interface: name.to_owned() })
    }
}

/// Leaves a record of a program that was not loaded.
pub(super) fn refused<T, E: Into<ShieldError>>(
    audit: &dyn AuditSink,
    instance: &str,
    program: &str,
    loaded: Result<T, E>,
) -> Result<T, ShieldError> {
    loaded.map_err(|error| {
        let error = error.into();
        let reason = ErrorChain::new(&error).to_string();
        let action = AuditAction::Refuse { program: program.to_owned(), reason };
        // The first error is the one to tell; a sink that fails too is told beside it.
        if let Err(failed) = audit.record(instance, &action) {
            tracing::error!(%failed, "{action}");
        }
        error
    })
}
