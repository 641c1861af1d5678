//! Starts an instance: loads it, or adopts what an earlier agent has pinned.
use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use ironclad_bpf::shield::{PolicyProgram, Shared};
use ironclad_bpf::socket::SocketPins;
use ironclad_bpf::{PinDirectory, network_namespace};
use ironclad_core::ErrorChain;
use ironclad_core::PolicyId;
use ironclad_core::audit::AuditAction;
use ironclad_policy::CompiledPolicy;
#[cfg(feature = "signed")]
use ironclad_policy::document::Sources;

use super::audit::refused;
use super::paths::Followed;
use super::{Control, Loaded, Shield, Status};
use crate::builder::ShieldBuilder;
use crate::error::ShieldError;
use crate::slots::Slots;
use crate::sockets::Sockets;
use crate::sockets::follow::Follower;

impl Shield {
    #[cfg(feature = "signed")]
    pub(crate) fn start_signed(
        config: ShieldBuilder,
        bundle: &[u8],
        signatures: &[&str],
        sources: &mut Sources<'_>,
    ) -> Result<Self, ShieldError> {
        let trust = config.trust.clone();
        let taken = trust.take(bundle, signatures, (&config.instance, &*config.audit))?;
        taken.put(sources, |policy| Self::start(config, policy))
    }

    pub(crate) fn start(
        config: ShieldBuilder,
        policy: &CompiledPolicy,
    ) -> Result<Self, ShieldError> {
        let directory = match config.persistent {
            true => Some(PinDirectory::open(&config.bpffs, &config.instance)?),
            false => None,
        };
        let adopted = match &directory {
            Some(directory) => Shared::adopt(directory)?,
            None => None,
        };
        let was_adopted = adopted.is_some();
        let (mut shared, links) = match adopted {
            Some(found) => found,
            None => {
                let loaded = Shared::load(config.shared);
                (refused(&*config.audit, &config.instance, "ic_xdp", loaded)?, Vec::new())
            }
        };
        // The links go on with the old dispatcher until each has the new one.
        let upgraded = was_adopted && shared.upgrade_dispatcher(directory.as_ref(), &links)?;
        let mut pins = match &directory {
            Some(directory) if was_adopted => SocketPins::find(directory)?,
            _ => None,
        };
        let sockets = match config.cgroups.is_empty() && pins.is_none() {
            true => None,
            false => {
                let options = config.socket_options(policy);
                let loaded = Sockets::load(&shared, options, directory.as_ref(), pins.as_mut());
                Some(refused(&*config.audit, &config.instance, "ic_connect4", loaded)?)
            }
        };
        let mut this = Self {
            instance: config.instance,
            audit: config.audit,
            mode: config.mode,
            follower: None,
            control: Arc::new(Mutex::new(Control {
                slots: Slots::read(&shared.rule_slots, "rules")?,
                policies: [None, None],
                links,
                sockets,
                next_generation: 1,
            })),
            shared,
            directory,
            trust: config.trust,
            is_told_unsigned: AtomicBool::new(false),
        };
        this.warn_unsigned(policy)?;
        if upgraded {
            this.record_upgrade()?;
        }
        if was_adopted {
            this.adopt_policies(policy)?;
        } else {
            this.record_load(this.shared.dispatcher())?;
        }
        this.record_sockets(pins.is_some())?;
        this.put_into_force(policy, &config.gateways, &config.interfaces, &config.cgroups)?;
        if !was_adopted {
            this.persist_all()?;
        }
        if config.follow_paths && this.lock().sockets.is_some() {
            this.follower = Some(Follower::start(Followed {
                instance: this.instance.clone(),
                audit: Arc::clone(&this.audit),
                control: Arc::clone(&this.control),
            })?);
        }
        Ok(this)
    }

    /// Takes over programs, and the dispatcher's newer version where this build has one.
    fn adopt_policies(&self, policy: &CompiledPolicy) -> Result<(), ShieldError> {
        let mut control = self.lock();
        for slot in 0..2u32 {
            let generation = self.shared.generation(slot);
            let Some(program) = PolicyProgram::adopt(&self.shared, slot)? else { continue };
            control.next_generation = control.next_generation.max(generation.number + 1);
            control.policies[slot as usize] = Some(Loaded {
                number: generation.number,
                program,
                policy: (generation.policy == policy.id().0).then(|| policy.clone()),
            });
        }
        let in_force = self.shared.generation(self.shared.selector().in_force());
        let path = match &self.directory {
            Some(directory) => directory.path().display().to_string(),
            None => String::new(),
        };
        self.record(AuditAction::Adopt { path, policy: PolicyId(in_force.policy).to_string() })?;
        // An agent that died between two steps may have left a policy that nobody selects.
        self.settle(&mut control)?;
        Ok(())
    }

    /// What a start asks for, or nothing of it: an adopted instance is left as it was found.
    fn put_into_force(
        &self,
        policy: &CompiledPolicy,
        gateways: &Option<Vec<IpAddr>>,
        interfaces: &[String],
        cgroups: &[PathBuf],
    ) -> Result<(), ShieldError> {
        /// Until then an agent that dies half-way has changed nothing.
        const TO_ATTACH: Duration = Duration::from_secs(600);
        if self.status()?.policy != policy.id() {
            // Nobody confirmed it, and this agent was not given it.
            match self.revert() {
                Ok(()) | Err(ShieldError::NotProvisional | ShieldError::Expired) => {}
                Err(error) => return Err(error),
            }
        }
        let Status {
            generation,
            policy: found,
            interfaces: protected,
            cgroups: asking,
            provisional,
            ..
        } = self.status()?;
        // Where sockets have rules, a policy that is in force already is read anew: files may have
        // been replaced while no agent looked.
        let is_bound = self.lock().sockets.is_some() && provisional.is_none();
        let replaces = generation != 0 && (found != policy.id() || is_bound);
        let former = self.gateways();
        let here = network_namespace()?;
        // Gateways first: the policy may block all others.
        let done = gateways
            .as_ref()
            .map_or(Ok(()), |gateways| self.set_gateways(gateways))
            .and_then(|()| match generation {
                0 => self.swap(policy, None),
                _ if replaces => self.swap(policy, Some(TO_ATTACH)),
                _ => Ok(()),
            })
            .and_then(|()| interfaces.iter().try_for_each(|name| self.protect(name)))
            .and_then(|()| cgroups.iter().try_for_each(|dir| self.protect_cgroup(dir)))
            .and_then(|()| self.persist_sockets())
            .and_then(|()| if replaces { self.confirm() } else { Ok(()) });
        let Err(error) = done else { return Ok(()) };
        let is_new = |name: &&String| !protected.iter().any(|p| p.interface.is(name, here));
        let is_new_group = |dir: &&PathBuf| !asking.iter().any(|known| known.path == **dir);
        let undone = [
            interfaces
                .iter()
                .filter(is_new)
                .try_for_each(|name| self.detach_interface(name).map(drop)),
            cgroups.iter().filter(is_new_group).try_for_each(|dir| self.unprotect_cgroup(dir)),
            match replaces.then(|| self.revert()) {
                None | Some(Err(ShieldError::NotProvisional)) => Ok(()),
                Some(reverted) => reverted,
            },
            self.set_gateways(&former),
        ];
        // The first error is the one to tell; what could not be undone is told beside it.
        for failed in undone.into_iter().filter_map(Result::err) {
            tracing::error!(
                instance = self.instance,
                error = %ErrorChain::new(&failed),
                "undoing a start"
            );
        }
        Err(error)
    }

    fn persist_all(&self) -> Result<(), ShieldError> {
        let Some(directory) = &self.directory else { return Ok(()) };
        let Control { links, sockets, .. } = &mut *self.lock();
        let more = sockets.as_ref().map(Sockets::pins).unwrap_or_default();
        self.shared.persist(directory, links, more)?;
        sockets.iter_mut().for_each(|sockets| sockets.persisted(directory));
        self.record(AuditAction::Pin {
            object: "dispatcher, maps and links".to_owned(),
            path: directory.path().display().to_string(),
        })
    }

    /// Pins what socket rules need, where the instance is pinned and that is not.
    fn persist_sockets(&self) -> Result<(), ShieldError> {
        let Some(directory) = self.directory.as_ref().filter(|dir| dir.path().exists()) else {
            return Ok(());
        };
        let mut control = self.lock();
        let Some(sockets) = control.sockets.as_mut().filter(|_| !directory.has_sockets()) else {
            return Ok(());
        };
        directory.persist_sockets(&sockets.pins())?;
        sockets.persisted(directory);
        self.record(AuditAction::Pin {
            object: "socket rules' maps and links".to_owned(),
            path: directory.path().display().to_string(),
        })
    }
}
