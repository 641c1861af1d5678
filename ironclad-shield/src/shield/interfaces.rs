//! Protected interfaces, and gateways.
use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use ironclad_bpf::shield::{PolicyProgram, Shared};
use ironclad_bpf::{Interface, LinkLayer, Program, XdpLink, XdpMode, network_namespace};
use ironclad_core::ErrorChain;
use ironclad_core::audit::AuditAction;
#[cfg(doc)]
use ironclad_policy::CompiledPolicy;
use serde::Serialize;

use super::{Control, Core, Loaded, Shield, packet_image};
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
    /// False where the interface was removed.
    pub alive: bool,
    /// How often this agent has attached to another interface that appeared under the name.
    pub gaps: u64,
}

/// An interface that was to be protected and is not.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct UnprotectedInterface {
    /// The interface.
    pub interface: Interface,
    /// Why, and what to do.
    pub error: String,
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
    /// An interface that matches a pattern appeared and is protected now.
    Protected {
        /// The name.
        interface: String,
        /// How it is attached.
        mode: XdpMode,
    },
    /// An interface of its name, or one that matches a pattern, appeared but could not be protected.
    Unprotected {
        /// The name.
        interface: String,
        /// Why, and what to do.
        error: String,
    },
}

/// Patterns of interfaces' names, for one network namespace.
pub(super) struct Patterns {
    patterns: Vec<glob::Pattern>,
    /// That of the thread that started Shield.
    namespace: u64,
}

impl Patterns {
    pub(super) fn new(patterns: &[String]) -> Result<Self, ShieldError> {
        let parse = |pattern: &String| {
            let failed = |source| Failure::Pattern { pattern: pattern.clone(), source };
            Ok(glob::Pattern::new(pattern).map_err(failed)?)
        };
        let patterns = patterns.iter().map(parse).collect::<Result<_, ShieldError>>()?;
        Ok(Self { patterns, namespace: network_namespace()? })
    }

    fn include(&self, interface: &Interface) -> bool {
        interface.namespace == self.namespace
            && self.patterns.iter().any(|pattern| pattern.matches(&interface.name))
    }
}

/// Why an interface is to be protected.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Wanted {
    /// It matches a pattern.
    New,
    /// It has the name of a protected one that was removed.
    Again,
    /// It is protected, and its type may have changed.
    Already,
}

/// What became of interfaces that appeared.
#[derive(Debug, Default)]
pub(super) struct Followed {
    /// How often another interface appeared under a name, by namespace and name.
    gaps: BTreeMap<(u64, String), u64>,
    /// Interfaces that could not be protected, and why.
    unprotected: BTreeMap<Interface, String>,
    /// Names that match a pattern and were unprotected by request, by namespace and name.
    released: BTreeSet<(u64, String)>,
}

impl Followed {
    pub(super) fn gaps(&self, interface: &Interface) -> u64 {
        self.gaps.get(&key(interface)).copied().unwrap_or(0)
    }

    pub(super) fn unprotected(&self) -> Vec<UnprotectedInterface> {
        let one = |(interface, error): (&Interface, &String)| UnprotectedInterface {
            interface: interface.clone(),
            error: error.clone(),
        };
        self.unprotected.iter().map(one).collect()
    }
}

fn key(interface: &Interface) -> (u64, String) {
    (interface.namespace, interface.name.clone())
}

impl Shield {
    /// Attaches to one more interface of the calling thread's network namespace; nothing happens
    /// where it is protected already. Frames are parsed as its device type and kind say.
    ///
    /// # Errors
    /// `ShieldErrorKind::Bpf`, with the program and the instance that hold the hook where it is taken, and
    /// with the device where Shield does not know what its frames begin with.
    pub fn protect(&self, name: &str) -> Result<(), ShieldError> {
        let interface = Interface::by_name(name)?;
        self.core.protect(&interface)?;
        self.core.lock().followed.released.remove(&key(&interface));
        Ok(())
    }

    /// Detaches from an interface of the calling thread's network namespace. One of its name is not
    /// protected again, also where it matches a pattern.
    ///
    /// # Errors
    /// `ShieldErrorKind::NotProtected` with the protected interfaces, `ShieldErrorKind::Bpf` where the
    /// kernel refuses.
    pub fn unprotect(&self, name: &str) -> Result<(), ShieldError> {
        if self.core.detach_interface(name)? {
            let released = (network_namespace()?, name.to_owned());
            self.core.lock().followed.released.insert(released);
            return Ok(());
        }
        let control = self.core.lock();
        let interfaces = control.links.iter().map(|link| link.interface().name.clone()).collect();
        Err(Failure::NotProtected { interface: name.to_owned(), interfaces }.into())
    }

    /// Finds interfaces that were removed, protects those that were created again under their name, and
    /// new ones that match a pattern. A thread does so within moments, in the network namespace where Shield
    /// was started, unless [`follow_interfaces`](crate::ShieldBuilder::follow_interfaces) was turned off.
    /// For interfaces of another namespace call it from there, after link notifications of rtnetlink or from
    /// time to time.
    ///
    /// # Errors
    /// `ShieldErrorKind::Bpf` where the kernel refuses; the error of one interface is in its
    /// [`InterfaceChange`].
    pub fn refresh_interfaces(&self) -> Result<Vec<InterfaceChange>, ShieldError> {
        self.core.refresh_interfaces(true)
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
    pub(super) fn protect(&self, interface: &Interface) -> Result<(), ShieldError> {
        let mut control = self.lock();
        let Interface { name, namespace, index, .. } = interface;
        let layer = interface.link_layer()?;
        self.decide(&mut control, layer)?;
        let dispatcher = self.shared.dispatcher_for(layer);
        let is_same = |link: &XdpLink| link.interface().is(name, *namespace);
        let before = control.links.iter().position(is_same);
        if let Some(link) = before.map(|at| &control.links[at]) {
            if link.is_alive()? && link.interface().index == *index {
                // A device that takes its type from others, such as a bond, can change it.
                return match Shared::layer_of(link)? == layer {
                    true => Ok(()),
                    false => self.replace(link, dispatcher),
                };
            }
        }
        let mut link = match self.mode {
            Some(mode) => XdpLink::attach_mode(dispatcher, interface, mode)?,
            None => XdpLink::attach(dispatcher, interface)?,
        };
        if let Some(at) = before {
            // The interface was removed, and its hook with it, or was renamed.
            control.links.remove(at).detach()?;
            self.record_detach(name)?;
            *control.followed.gaps.entry(key(interface)).or_default() += 1;
        }
        if let Some(directory) = self.directory.as_ref().filter(|d| d.path().exists()) {
            self.shared.persist_link(directory, &mut link)?;
        }
        let action = AuditAction::Attach {
            program: dispatcher.info().name.clone(),
            hook: "xdp".to_owned(),
            interface: name.clone(),
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

    /// Has the policies in the kernel, and later ones, decide on frames that begin like this.
    pub(super) fn decide(
        &self,
        control: &mut Control,
        layer: LinkLayer,
    ) -> Result<(), ShieldError> {
        for (slot, loaded) in (0..).zip(&mut control.policies) {
            let Some(Loaded { number, program, .. }) = loaded else { continue };
            let program = match program {
                Some(program) => program,
                none => {
                    let empty = packet_image::load_empty(&self.shared, *number);
                    let empty = self.audit.refused("ic_policy", empty)?;
                    self.record_load(empty.program())?;
                    self.shared.fill_programs(slot, &empty)?;
                    none.insert(empty)
                }
            };
            if layer == LinkLayer::Ip {
                self.load_ip(program, Some(slot))?;
            }
        }
        control.has_links = true;
        control.has_ip_links |= layer == LinkLayer::Ip;
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

    /// Without `retry`, an interface that could not be protected before is left as it is.
    pub(super) fn refresh_interfaces(
        &self,
        retry: bool,
    ) -> Result<Vec<InterfaceChange>, ShieldError> {
        let here = network_namespace()?;
        let found = Interface::all()?;
        let mut changes = self.gone(here, &found)?;
        for interface in &found {
            if let Some(wanted) = self.wanted(interface, retry)? {
                changes.extend(self.follow(interface, wanted));
            }
        }
        Ok(changes)
    }

    /// Protects an interface, and says what changed.
    fn follow(&self, interface: &Interface, wanted: Wanted) -> Option<InterfaceChange> {
        let name = interface.name.clone();
        let protected = self.protect(interface);
        let mut control = self.lock();
        let before = control.followed.unprotected.remove(interface);
        if let Err(error) = protected {
            // Removed meanwhile.
            Interface::by_name(&name).ok().filter(|now| now == interface)?;
            let error = ErrorChain::new(&error).to_string();
            if before.as_ref() != Some(&error) {
                tracing::error!("interface {name} is not protected: {error}");
            }
            control.followed.unprotected.insert(interface.clone(), error.clone());
            return Some(InterfaceChange::Unprotected { interface: name, error });
        }
        let is_it = |link: &&XdpLink| link.interface() == interface;
        let mode = control.links.iter().find(is_it).map_or(XdpMode::Generic, XdpLink::mode);
        let instance = self.audit.instance();
        match wanted {
            Wanted::New => {
                tracing::info!(instance, %mode, "interface {name} appeared, and is protected");
                Some(InterfaceChange::Protected { interface: name, mode })
            }
            Wanted::Again => {
                tracing::warn!(
                    instance,
                    %mode,
                    "interface {name} was created again, and was not protected until now"
                );
                Some(InterfaceChange::Reattached { interface: name, mode })
            }
            Wanted::Already => None,
        }
    }

    /// Protected interfaces that do not exist any more.
    fn gone(&self, here: u64, found: &[Interface]) -> Result<Vec<InterfaceChange>, ShieldError> {
        let mut control = self.lock();
        control.followed.unprotected.retain(|it, _| it.namespace != here || found.contains(it));
        let mut gone = Vec::new();
        for link in control.links.iter().filter(|link| link.interface().namespace == here) {
            let name = &link.interface().name;
            if !found.iter().any(|it| it.name == *name) && !link.is_alive()? {
                gone.push(InterfaceChange::Gone { interface: name.clone() });
            }
        }
        Ok(gone)
    }

    /// Why an interface is to be protected; none where it is not, or was tried before.
    fn wanted(&self, interface: &Interface, retry: bool) -> Result<Option<Wanted>, ShieldError> {
        let control = self.lock();
        let Interface { name, namespace, index, .. } = interface;
        if !retry && control.followed.unprotected.contains_key(interface) {
            return Ok(None);
        }
        if let Some(link) = control.links.iter().find(|link| link.interface().is(name, *namespace))
        {
            let is_same = link.interface().index == *index && link.is_alive()?;
            return Ok(Some(if is_same { Wanted::Already } else { Wanted::Again }));
        }
        // One that was renamed stays protected under its former name.
        for link in &control.links {
            let known = link.interface();
            if (known.namespace, known.index) == (*namespace, *index) && link.is_alive()? {
                return Ok(None);
            }
        }
        let is_released = control.followed.released.contains(&key(interface));
        Ok((self.patterns.include(interface) && !is_released).then_some(Wanted::New))
    }
}
