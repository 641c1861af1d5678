//! Protected interfaces, and gateways.
use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use ironclad_bpf::shield::{PolicyProgram, Shared};
use ironclad_bpf::{Displaced, Interface, LinkLayer, Program, XdpLink, XdpMode, network_namespace};
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
    /// The interface, under the name that it has now.
    pub interface: Interface,
    /// How it is attached.
    pub mode: XdpMode,
    /// What its frames begin with.
    pub link_layer: LinkLayer,
    /// False where the interface was removed.
    pub alive: bool,
    /// True where it was moved to another network namespace, and is protected there: `interface` says where it was.
    pub moved: bool,
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
    /// It was renamed, and stays protected. An interface that appears under the former name is protected as
    /// well.
    Renamed {
        /// The name.
        interface: String,
        /// The name before.
        former: String,
    },
    /// It was moved to another network namespace, and stays protected. An interface that appears under its
    /// name is protected as well.
    Moved {
        /// The name that it had.
        interface: String,
    },
    /// It was in another network namespace, and is in this one now.
    Returned {
        /// The name.
        interface: String,
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
    /// It has the name of a protected one that was removed, renamed or moved away.
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
    /// Names that were unprotected by request, by namespace and name.
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
        self.core.locate(&mut self.core.lock())?;
        self.core.protect(&interface)?;
        self.core.lock().followed.released.remove(&key(&interface));
        Ok(())
    }

    /// Detaches from an interface of the calling thread's network namespace, or from one of that name which
    /// was moved away where there is no other. One of its name is not protected again, also where it matches a
    /// pattern.
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

    /// Finds interfaces that were removed, renamed or moved to another namespace, protects those that were created again under their name, and
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
        let Interface { name, namespace, .. } = interface;
        let layer = interface.link_layer()?;
        self.decide(&mut control, layer)?;
        let dispatcher = self.shared.dispatcher_for(layer);
        for link in &control.links {
            if link.is_at(interface)? {
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
        if control.links.iter().any(|link| link.was_made_for(name, *namespace)) {
            *control.followed.gaps.entry(key(interface)).or_default() += 1;
        }
        self.detach_removed(&mut control, name, *namespace)?;
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

    /// Drops links of that name whose interface was removed, and its hook with it. One that was renamed or
    /// moved away keeps its link.
    fn detach_removed(
        &self,
        control: &mut Control,
        name: &str,
        namespace: u64,
    ) -> Result<(), ShieldError> {
        let is_removed =
            |link: &XdpLink| Ok(link.was_made_for(name, namespace) && !link.is_alive()?);
        self.detach_where(control, is_removed).map(drop)
    }

    /// Drops links whose interface was removed after another one of its name was protected.
    fn detach_replaced(&self, control: &mut Control, here: u64) -> Result<(), ShieldError> {
        let mut replaced = Vec::new();
        let (mut alive, mut removed) = (Vec::new(), Vec::new());
        for link in &control.links {
            if link.is_alive()? { &mut alive } else { &mut removed }.push(link);
        }
        for link in removed {
            let Interface { name, namespace, .. } = link.interface();
            let is_replaced = alive.iter().any(|other| other.was_made_for(name, *namespace));
            if *namespace == here && is_replaced {
                replaced.push(name.clone());
            }
        }
        replaced.iter().try_for_each(|name| self.detach_removed(control, name, here))
    }

    /// How many links it detached.
    fn detach_where(
        &self,
        control: &mut Control,
        is_it: impl Fn(&XdpLink) -> Result<bool, ShieldError>,
    ) -> Result<usize, ShieldError> {
        let (mut at, mut detached) = (0, 0);
        while let Some(link) = control.links.get(at) {
            if !is_it(link)? {
                at += 1;
                continue;
            }
            let name = link.interface().name.clone();
            control.links.remove(at).detach()?;
            self.record_detach(&name)?;
            detached += 1;
        }
        Ok(detached)
    }

    /// Finds the protected interfaces of the calling thread's network namespace under the names that they
    /// have now. Returns all interfaces of the namespace, and what it found of the protected ones.
    pub(super) fn locate(
        &self,
        control: &mut Control,
    ) -> Result<(Vec<Interface>, Vec<InterfaceChange>), ShieldError> {
        let (here, found) = (network_namespace()?, Interface::all()?);
        let (mut taken, mut changes) = (Vec::new(), Vec::new());
        // Those that were here: another that was moved away may have had the number of one of them.
        control.links.sort_by_key(XdpLink::is_away);
        for link in &mut control.links {
            let displaced = link.follow(here, &found, &taken)?;
            let interface = link.interface();
            if interface.namespace == here && !link.is_away() {
                taken.push(interface.index);
            }
            if let Some(displaced) = displaced {
                changes.push(self.report_displaced(interface.name.clone(), displaced)?);
            }
        }
        Ok((found, changes))
    }

    fn report_displaced(
        &self,
        interface: String,
        displaced: Displaced,
    ) -> Result<InterfaceChange, ShieldError> {
        let (name, what, change) = match displaced {
            Displaced::Renamed { former } => {
                let what = format!("it is named {interface} now");
                (former.clone(), what, InterfaceChange::Renamed { interface, former })
            }
            Displaced::Returned => {
                let what = "it is back from another network namespace".to_owned();
                (interface.clone(), what, InterfaceChange::Returned { interface })
            }
            _ => {
                let what = "it was moved to another network namespace".to_owned();
                (interface.clone(), what, InterfaceChange::Moved { interface })
            }
        };
        let instance = self.audit.instance();
        tracing::warn!(instance, "interface {name} stays protected: {what}");
        self.record(AuditAction::Displaced {
            hook: "xdp".to_owned(),
            interface: name,
            change: what,
        })?;
        Ok(change)
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
        self.locate(&mut control)?;
        let is_away =
            !control.links.iter().any(|it| it.interface().is(name, here) && !it.is_away());
        let is_it =
            |link: &XdpLink| Ok(link.interface().is(name, here) && link.is_away() == is_away);
        let is_detached = self.detach_where(&mut control, is_it)? > 0;
        if is_detached {
            control.followed.released.insert((here, name.to_owned()));
        }
        Ok(is_detached)
    }

    /// Without `retry`, an interface that could not be protected before is left as it is.
    pub(super) fn refresh_interfaces(
        &self,
        retry: bool,
    ) -> Result<Vec<InterfaceChange>, ShieldError> {
        let here = network_namespace()?;
        let (found, mut changes) = {
            let mut control = self.lock();
            let located = self.locate(&mut control)?;
            self.detach_replaced(&mut control, here)?;
            located
        };
        changes.extend(self.gone(here, &found)?);
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
        let Interface { name, namespace, .. } = interface;
        if !retry && control.followed.unprotected.contains_key(interface) {
            return Ok(None);
        }
        for link in &control.links {
            if link.is_at(interface)? {
                return Ok(Some(Wanted::Already));
            }
        }
        if control.followed.released.contains(&key(interface)) {
            return Ok(None);
        }
        let is_again = control.links.iter().any(|link| link.was_made_for(name, *namespace));
        let is_new = self.patterns.include(interface).then_some(Wanted::New);
        Ok(if is_again { Some(Wanted::Again) } else { is_new })
    }
}
