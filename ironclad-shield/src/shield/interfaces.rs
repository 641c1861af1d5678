//! Protected interfaces, and gateways.
use std::net::IpAddr;

use ironclad_bpf::shield::{PolicyProgram, Shared};
use ironclad_bpf::{Interface, LinkLayer, Program, XdpLink, XdpMode, network_namespace};
use ironclad_core::ErrorChain;
use ironclad_core::audit::AuditAction;
#[cfg(doc)]
use ironclad_policy::CompiledPolicy;
use serde::Serialize;

use super::{Control, Core, Shield};
use crate::error::{Failure, ShieldError};

/// A protected interface.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct InterfaceStatus {
    /// The interface.
    pub interface: Interface,
    /// How it is attached.
    pub mode: XdpMode,
    /// What its frames begin with.
    pub link_layer: LinkLayer,
    /// False where the interface was removed: see [`Shield::refresh_interfaces`].
    pub alive: bool,
}

/// A change of a protected interface.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(tag = "change", rename_all = "kebab-case")]
#[non_exhaustive]
pub enum InterfaceChange {
    /// It was removed. An interface of its name is protected as soon as it appears.
    Gone {
        /// The name.
        interface: String,
    },
    /// An interface of its name appeared and is protected now.
    Reattached {
        /// The name.
        interface: String,
        /// How it is attached.
        mode: XdpMode,
    },
    /// An interface of its name appeared but could not be protected.
    Unprotected {
        /// The name.
        interface: String,
        /// Why, and what to do.
        error: String,
    },
}

impl Shield {
    /// Attaches to one more interface of the calling thread's network namespace; nothing happens
    /// where it is protected already. Frames are parsed as its device type and kind say.
    ///
    /// # Errors
    /// `ShieldErrorKind::Bpf`, with the program and the instance that hold the hook where it is taken, and
    /// with the device where Shield does not know what its frames begin with.
    pub fn protect(&self, name: &str) -> Result<(), ShieldError> {
        self.core.protect(name)
    }

    /// Detaches from an interface of the calling thread's network namespace.
    ///
    /// # Errors
    /// `ShieldErrorKind::NotProtected` with the protected interfaces, `ShieldErrorKind::Bpf` where the
    /// kernel refuses.
    pub fn unprotect(&self, name: &str) -> Result<(), ShieldError> {
        if self.core.detach_interface(name)? {
            return Ok(());
        }
        let control = self.core.lock();
        let interfaces = control.links.iter().map(|link| link.interface().name.clone()).collect();
        Err(Failure::NotProtected { interface: name.to_owned(), interfaces }.into())
    }

    /// Finds interfaces that were removed, and protects those that were created again under their
    /// name. Call it from the network namespace of the interfaces, after link notifications of rtnetlink,
    /// or from time to time.
    ///
    /// # Errors
    /// `ShieldErrorKind::Bpf` where the kernel refuses; the error of one interface is in its
    /// [`InterfaceChange`].
    pub fn refresh_interfaces(&self) -> Result<Vec<InterfaceChange>, ShieldError> {
        self.core.refresh_interfaces()
    }

    /// Addresses whose packets no policy ever blocks, for packets from now on; at most eight of each
    /// family. A policy has [its own](CompiledPolicy::gateways) beside them.
    ///
    /// # Errors
    /// `ShieldErrorKind::Bpf` with the limit; then the former addresses stay.
    pub fn set_gateways(&self, addresses: &[IpAddr]) -> Result<(), ShieldError> {
        let _control = self.core.lock();
        self.core.shared.set_gateways(addresses)?;
        self.core.record(AuditAction::MapWrite {
            map: "ic_state".to_owned(),
            elements: addresses.len() as u64,
            purpose: format!("gateways {addresses:?}"),
        })
    }

    /// Addresses whose packets no policy ever blocks, without those of the policy in force.
    pub fn gateways(&self) -> Vec<IpAddr> {
        let _control = self.core.lock();
        self.core.shared.gateways()
    }
}

impl Core {
    fn protect(&self, name: &str) -> Result<(), ShieldError> {
        let mut control = self.lock();
        let interface = Interface::by_name(name)?;
        let layer = interface.link_layer()?;
        if layer == LinkLayer::Ip {
            self.decide_ip(&mut control)?;
        }
        let dispatcher = self.shared.dispatcher_for(layer);
        let is_same = |link: &XdpLink| link.interface().is(name, interface.namespace);
        if let Some(at) = control.links.iter().position(is_same) {
            let link = &control.links[at];
            if link.is_alive()? && link.interface().index == interface.index {
                // A device that takes its type from others, such as a bond, can change it.
                return match Shared::layer_of(link)? == layer {
                    true => Ok(()),
                    false => self.replace(link, dispatcher),
                };
            }
            // The interface was removed, and its hook with it, or was renamed.
            control.links.remove(at).detach()?;
            self.record_detach(name)?;
        }
        let mut link = match self.mode {
            Some(mode) => XdpLink::attach_mode(dispatcher, &interface, mode)?,
            None => XdpLink::attach(dispatcher, &interface)?,
        };
        if let Some(directory) = self.directory.as_ref().filter(|d| d.path().exists()) {
            self.shared.persist_link(directory, &mut link)?;
        }
        let action = AuditAction::Attach {
            program: dispatcher.info().name.clone(),
            hook: "xdp".to_owned(),
            interface: name.to_owned(),
            mode: link.mode().to_string(),
        };
        control.links.push(link);
        self.record(action)
    }

    fn replace(&self, link: &XdpLink, dispatcher: &Program) -> Result<(), ShieldError> {
        link.replace(dispatcher)?;
        self.record(AuditAction::Replace {
            program: dispatcher.info().name.clone(),
            hook: "xdp".to_owned(),
            interface: link.interface().name.clone(),
        })
    }

    /// Has the policies in the kernel, and later ones, decide on frames that begin with the IP header.
    pub(super) fn decide_ip(&self, control: &mut Control) -> Result<(), ShieldError> {
        for (slot, loaded) in (0..).zip(&mut control.policies) {
            let Some(loaded) = loaded else { continue };
            self.load_ip(&mut loaded.program, Some(slot))?;
        }
        control.has_ip_links = true;
        Ok(())
    }

    pub(super) fn load_ip(
        &self,
        policy: &mut PolicyProgram,
        slot: Option<u32>,
    ) -> Result<(), ShieldError> {
        if policy.program_for(LinkLayer::Ip).is_some() {
            return Ok(());
        }
        let loaded = policy.load_ip(&self.shared, slot).map_err(ShieldError::from);
        self.audit.refused("ic_policy_ip", loaded)?;
        policy.program_for(LinkLayer::Ip).map_or(Ok(()), |program| self.record_load(program))
    }

    /// False where it is not protected.
    pub(super) fn detach_interface(&self, name: &str) -> Result<bool, ShieldError> {
        let mut control = self.lock();
        let here = network_namespace()?;
        let Some(at) = control.links.iter().position(|link| link.interface().is(name, here)) else {
            return Ok(false);
        };
        control.links.remove(at).detach()?;
        self.record_detach(name).map(|()| true)
    }

    fn refresh_interfaces(&self) -> Result<Vec<InterfaceChange>, ShieldError> {
        let mut dead = Vec::new();
        let here = network_namespace()?;
        for link in self.lock().links.iter().filter(|l| l.interface().namespace == here) {
            if !link.is_alive()? {
                dead.push(link.interface().name.clone());
            }
        }
        Ok(dead
            .into_iter()
            .map(|interface| {
                if Interface::by_name(&interface).is_err() {
                    return InterfaceChange::Gone { interface };
                }
                match self.protect(&interface) {
                    Ok(()) => InterfaceChange::Reattached {
                        mode: self.mode_of(&interface).unwrap_or(XdpMode::Generic),
                        interface,
                    },
                    Err(e) => InterfaceChange::Unprotected {
                        interface,
                        error: ErrorChain::new(&e).to_string(),
                    },
                }
            })
            .collect())
    }

    fn mode_of(&self, name: &str) -> Option<XdpMode> {
        let (control, here) = (self.lock(), network_namespace().ok()?);
        control.links.iter().find(|link| link.interface().is(name, here)).map(XdpLink::mode)
    }
}
