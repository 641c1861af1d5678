//! Starts an instance: loads it, or adopts what an earlier agent has pinned.
use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use ironclad_bpf::shield::{PolicyProgram, Shared};
use ironclad_bpf::socket::SocketPins;
use ironclad_bpf::{LinkLayer, PinDirectory, network_namespace};
use ironclad_core::audit::{AuditAction, AuditLog};
use ironclad_core::{ErrorChain, InstanceName, PolicyId};
use ironclad_policy::trust::UnsignedWarning;
use ironclad_policy::{CompiledPolicy, PolicySource};

use super::describe::Names;
use super::interfaces::{Followed, Patterns};
use super::{Control, Core, Loaded, Shield, Status};
use crate::builder::ShieldBuilder;
use crate::error::{ShieldError, ShieldErrorKind};
use crate::slots::Slots;
use crate::sockets::Sockets;
use crate::sockets::follow::Follower;

/// The rules of the policy in force and of the next.
const PACKET_RULES: (&str, &str) =
    ("rules", "keep the ids of rules that stay, or let several sets and tuples share an id");

impl Shield {
    pub(crate) fn start(
        config: ShieldBuilder,
        source: PolicySource<'_>,
    ) -> Result<Self, ShieldError> {
        let name = InstanceName::new(config.instance.as_str())?;
        let audit = AuditLog::new(name.as_str(), Arc::clone(&config.audit));
        config.trust.resolve(source, &audit, |policy| {
            let (this, is_adopted, has_pinned_sockets) = Self::load(&config, &audit, policy)?;
            this.put_into_force(&config, policy, is_adopted, has_pinned_sockets)
        })
    }

    /// Loads the programs and maps, or adopts pinned ones; whether it did, and whether socket rules
    /// were among them.
    fn load(
        config: &ShieldBuilder,
        audit: &AuditLog,
        policy: &CompiledPolicy,
    ) -> Result<(Self, bool, bool), ShieldError> {
        let directory = match config.persistent {
            true => Some(PinDirectory::open(&config.bpffs, &config.instance)?),
            false => None,
        };
        let adopted = match &directory {
            Some(directory) => Shared::adopt(directory)?,
            None => None,
        };
        let is_adopted = adopted.is_some();
        let (mut shared, links) = match adopted {
            Some(found) => found,
            None => {
                let loaded = Shared::load(config.shared).map_err(ShieldError::from);
                (audit.refused("ic_xdp", loaded)?, Vec::new())
            }
        };
        // The links keep the old dispatcher until each has the new one.
        let is_upgraded = is_adopted && shared.upgrade_dispatcher(directory.as_ref(), &links)?;
        let mut pins = match &directory {
            Some(directory) if is_adopted => SocketPins::find(directory)?,
            _ => None,
        };
        let sockets = match config.cgroups.is_empty() && pins.is_none() {
            true => None,
            false => {
                let options = config.socket_options(policy);
                let loaded = Sockets::load(&shared, options, directory.as_ref(), pins.as_mut());
                Some(audit.refused("ic_connect4", loaded)?)
            }
        };
        let has_interfaces =
            !(config.interfaces.is_empty() && config.interface_patterns.is_empty());
        let core = Core {
            audit: audit.clone(),
            mode: config.mode,
            patterns: Arc::new(Patterns::new(&config.interface_patterns)?),
            control: Arc::new(Mutex::new(Control {
                slots: Slots::read(&shared.rule_slots, PACKET_RULES)?,
                policies: [None, None],
                has_links: has_interfaces || !links.is_empty(),
                links,
                sockets,
                next_generation: 1,
                has_ip_links: false,
                followed: Followed::default(),
                names: Names::default(),
            })),
            shared: Arc::new(shared),
            directory: directory.map(Arc::new),
        };
        let unsigned = UnsignedWarning::default();
        unsigned.check(policy, &core.audit)?;
        if is_upgraded {
            core.record_upgrade()?;
        }
        let this = Self {
            core,
            follower: None,
            trust: config.trust.clone(),
            unsigned,
            unenforced: config.unenforced.clone(),
            has_interfaces,
        };
        Ok((this, is_adopted, pins.is_some()))
    }

    /// Applies the policy, attaches, and pins where that is wanted.
    fn put_into_force(
        mut self,
        config: &ShieldBuilder,
        policy: &CompiledPolicy,
        is_adopted: bool,
        has_pinned_sockets: bool,
    ) -> Result<Self, ShieldError> {
        match is_adopted {
            true => self.adopt_policies(policy)?,
            false => self.core.record_load(self.dispatcher())?,
        }
        self.core.record_sockets(has_pinned_sockets)?;
        self.apply_all_or_nothing(config, policy)?;
        if !is_adopted {
            self.persist_all()?;
        }
        if !config.interface_patterns.is_empty() {
            self.core.refresh_interfaces(true)?;
        }
        let follows_paths = config.follow_paths && self.core.lock().sockets.is_some();
        if follows_paths || config.follow_interfaces {
            let core = self.core.clone();
            self.follower = Some(Follower::start(core, follows_paths, config.follow_interfaces)?);
        }
        Ok(self)
    }

    /// Adopts the policies in the kernel.
    fn adopt_policies(&self, policy: &CompiledPolicy) -> Result<(), ShieldError> {
        let mut control = self.core.lock();
        for slot in 0..2u32 {
            let generation = self.core.shared.generation(slot);
            if generation.number == 0 {
                continue;
            }
            let program = PolicyProgram::adopt(&self.core.shared, slot)?;
            control.next_generation = control.next_generation.max(generation.number + 1);
            let of_ip = program.as_ref().and_then(|it| it.program_for(LinkLayer::Ip));
            control.has_ip_links |= of_ip.is_some();
            let is_known = generation.policy == policy.id().0;
            if is_known {
                let Control { names, slots, .. } = &mut *control;
                names.add(generation.number, policy, slots);
            }
            control.policies[slot as usize] = Some(Loaded {
                number: generation.number,
                program,
                policy: is_known.then(|| policy.clone()),
            });
        }
        let in_force = self.core.shared.generation(self.core.shared.selector().in_force());
        let path = match &self.core.directory {
            Some(directory) => directory.path().display().to_string(),
            None => String::new(),
        };
        self.core
            .record(AuditAction::Adopt { path, policy: PolicyId(in_force.policy).to_string() })?;
        self.core.locate(&mut control)?;
        // An agent that died between two steps may have left a policy that the selector does not name.
        self.reconcile(&mut control)?;
        Ok(())
    }

    /// Puts into force what the builder describes; where a step fails, an adopted instance is left
    /// as it was found.
    fn apply_all_or_nothing(
        &self,
        config: &ShieldBuilder,
        policy: &CompiledPolicy,
    ) -> Result<(), ShieldError> {
        /// Until then an agent that dies half-way has changed nothing.
        const TO_ATTACH: Duration = Duration::from_secs(600);
        if self.status()?.policy != policy.id() {
            // A provisional policy that was not confirmed, and is not this agent's.
            use ShieldErrorKind::{Expired, NotProvisional};
            match self.revert() {
                Err(error) if !matches!(error.kind(), NotProvisional | Expired) => {
                    return Err(error);
                }
                _ => {}
            }
        }
        let before = Before {
            status: self.status()?,
            gateways: self.gateways(),
            namespace: network_namespace()?,
        };
        let Status { generation, policy: found, provisional, .. } = &before.status;
        // With socket rules, a policy that is in force already is applied again: files may have been
        // replaced while no agent ran.
        let is_bound = self.core.lock().sockets.is_some() && provisional.is_none();
        let replaces = *generation != 0 && (*found != policy.id() || is_bound);
        let ShieldBuilder { gateways, interfaces, cgroups, .. } = config;
        // Gateways first: the policy may block every other address.
        let done = gateways
            .as_ref()
            .map_or(Ok(()), |gateways| self.set_gateways(gateways))
            .and_then(|()| match *generation {
                0 => self.swap(policy, None),
                _ if replaces => self.swap(policy, Some(TO_ATTACH)),
                _ => Ok(()),
            })
            .and_then(|()| interfaces.iter().try_for_each(|name| self.protect(name)))
            .and_then(|()| cgroups.iter().try_for_each(|dir| self.protect_cgroup(dir)))
            .and_then(|()| self.persist_sockets())
            .and_then(|()| if replaces { self.confirm() } else { Ok(()) });
        done.inspect_err(|_| self.undo(config, &before, replaces))
    }

    /// Logs what cannot be undone: the error that ended the start is the one to return.
    fn undo(&self, config: &ShieldBuilder, before: &Before, replaces: bool) {
        let Before { status, gateways, namespace } = before;
        let is_new = |name: &&String| {
            !status.interfaces.iter().any(|known| known.interface.is(name, *namespace))
        };
        let is_new_cgroup =
            |dir: &&PathBuf| !status.cgroups.iter().any(|known| known.path == **dir);
        let undone = [
            config
                .interfaces
                .iter()
                .filter(is_new)
                .try_for_each(|name| self.core.detach_interface(name).map(drop)),
            config
                .cgroups
                .iter()
                .filter(is_new_cgroup)
                .try_for_each(|dir| self.unprotect_cgroup(dir)),
            match replaces.then(|| self.revert()) {
                Some(Err(error)) if error.kind() != ShieldErrorKind::NotProvisional => Err(error),
                _ => Ok(()),
            },
            self.set_gateways(gateways),
        ];
        for failed in undone.into_iter().filter_map(Result::err) {
            let error = ErrorChain::new(&failed);
            tracing::error!(instance = self.core.audit.instance(), %error, "undoing a start");
        }
    }

    /// Pins what socket rules need, where the instance is pinned and that is not.
    fn persist_sockets(&self) -> Result<(), ShieldError> {
        let Some(directory) = self.core.directory.as_ref().filter(|dir| dir.path().exists()) else {
            return Ok(());
        };
        let mut control = self.core.lock();
        let Some(sockets) = control.sockets.as_mut().filter(|_| !directory.has_sockets()) else {
            return Ok(());
        };
        directory.persist_sockets(&sockets.pins())?;
        sockets.persisted(directory);
        self.core.record(AuditAction::Pin {
            object: "socket rules' maps and links".to_owned(),
            path: directory.path().display().to_string(),
        })
    }

    fn persist_all(&self) -> Result<(), ShieldError> {
        let Some(directory) = &self.core.directory else { return Ok(()) };
        let Control { links, sockets, .. } = &mut *self.core.lock();
        let more = sockets.as_ref().map(Sockets::pins).unwrap_or_default();
        self.core.shared.persist(directory, links, more)?;
        sockets.iter_mut().for_each(|sockets| sockets.persisted(directory));
        self.core.record(AuditAction::Pin {
            object: "dispatcher, maps and links".to_owned(),
            path: directory.path().display().to_string(),
        })
    }
}

/// An instance as a start finds it.
struct Before {
    status: Status,
    gateways: Vec<IpAddr>,
    /// Of the calling thread.
    namespace: u64,
}
