mod explain;
mod learn;

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use ironclad_bpf::shield::{PolicyProgram, Selector, Shared};
use ironclad_bpf::socket::{PacketSockets, SocketPins};
use ironclad_bpf::{
    EventRing, Interface, PinDirectory, Program, TestRun, XdpLink, XdpMode, boottime_ns,
    network_namespace,
};
use ironclad_core::audit::{AuditAction, AuditSink};
use ironclad_core::{Cidr, PolicyId, RuleId};
use ironclad_events::{EventPump, EventReceiver, Overflow};
#[cfg(feature = "signed")]
use ironclad_policy::document::Sources;
use ironclad_policy::socket::CompiledSockets;
use ironclad_policy::{CompiledPolicy, Provenance};
use serde::Serialize;

use crate::builder::ShieldBuilder;
use crate::contents::{self, Contents, Look};
use crate::counters::{Counters, PrefixCount, read_losses, read_reasons, read_rule};
use crate::error::ShieldError;
use crate::files::refuse_scripts;
use crate::follow::{Follow, Follower};
use crate::image;
use crate::pump;
use crate::slots::Slots;
use crate::sockets::{PathChange, SocketCount, SocketPolicy, Sockets};
use crate::trust::{Trust, warn_unsigned};

pub use explain::{ExplainedEvent, ExplainedSocket};
pub use learn::Learning;

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

/// What the thread that follows paths has of a Shield.
struct Followed {
    instance: String,
    audit: Arc<dyn AuditSink>,
    control: Arc<Mutex<Control>>,
}

impl Follow for Followed {
    fn paths(&mut self) -> Result<Vec<PathBuf>, ShieldError> {
        lock(&self.control).sockets.as_ref().map_or(Ok(Vec::new()), Sockets::paths)
    }

    fn refresh(&mut self, stop: &AtomicBool) -> Result<(), ShieldError> {
        refresh(&self.instance, &*self.audit, &self.control, stop).map(drop)
    }
}

fn lock(control: &Mutex<Control>) -> MutexGuard<'_, Control> {
    // What the lock guards is consistent between any two statements that can panic.
    control.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Takes the lock with what the files contain that a policy has pinned; where it is none, those that
/// the policies in the kernel have. They are read without the lock.
fn lock_with_contents<'a>(
    control: &'a Mutex<Control>,
    policy: Option<&CompiledSockets>,
    stop: &AtomicBool,
) -> Result<(MutexGuard<'a, Control>, Contents), ShieldError> {
    /// Whoever changes files has them read no more often. One that was changed since is denied until
    /// the next look, which whoever follows paths takes at once.
    const READS: u32 = 2;
    let mut read = Contents::default();
    let mut left = READS;
    loop {
        let control = lock(control);
        let Some(sockets) = &control.sockets else { return Ok((control, read)) };
        let unread = match sockets.contents(policy, &read, left == 0)? {
            Look::Contents(contents) => return Ok((control, contents)),
            Look::Unread(paths) => paths,
        };
        let open_files = sockets.processes().open_files_handle();
        drop(control);
        contents::read(&open_files, &unread, stop, &mut read)?;
        left -= 1;
    }
}

/// Lets policies mean what paths lead to now.
fn refresh(
    instance: &str,
    audit: &dyn AuditSink,
    control: &Mutex<Control>,
    stop: &AtomicBool,
) -> Result<Vec<PathChange>, ShieldError> {
    let (mut control, contents) = lock_with_contents(control, None, stop)?;
    let Some(sockets) = &mut control.sockets else { return Ok(Vec::new()) };
    let changes = sockets.refresh(&contents)?;
    for PathChange { path, is_there } in &changes {
        let outcome = if *is_there { "resolves to a new target" } else { "no longer resolves" };
        let action = AuditAction::MapWrite {
            map: "ic_sock_ids".to_owned(),
            elements: 1,
            purpose: format!("{} {outcome}", path.display()),
        };
        tracing::info!(instance, "{action}");
        audit.record(instance, &action)?;
    }
    Ok(changes)
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

/// What is in force.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct Status {
    /// The generation: counts up with each policy of the instance.
    pub generation: u64,
    /// The policy.
    pub policy: PolicyId,
    /// Whether somebody signed it; unsigned also where an earlier agent put it into force, and this one
    /// was given another.
    pub provenance: Provenance,
    /// How long a provisional policy has left; none where the policy in force is final.
    pub provisional: Option<Duration>,
    /// Protected interfaces.
    pub interfaces: Vec<InterfaceStatus>,
    /// Cgroups whose processes are asked.
    pub cgroups: Vec<CgroupStatus>,
    /// Distinct prefixes in force.
    pub prefixes: u64,
    /// Files, cgroups and containers that socket rules in force name and that are not there,
    /// as the rules write them; a directory, pipe or device is no file. No process matches such a rule
    /// until there is something.
    pub missing: Vec<PathBuf>,
    /// Files in whose place there is another content than the one pinned by SHA-256: who executes them
    /// is denied.
    pub mismatched: Vec<PathBuf>,
    /// Why socket rules decide nothing in cgroups below the root, where that is so, and what to
    /// do: before Linux 5.15, and before 5.10.226 of the stable ones, whoever marks sockets by `net_cls`
    /// or `net_prio` switches them off until the host is restarted.
    pub inactive: Option<String>,
}

/// A protected interface.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct InterfaceStatus {
    /// The interface.
    pub interface: Interface,
    /// How it is attached.
    pub mode: XdpMode,
    /// False where the interface was removed: see [`Shield::refresh_interfaces`].
    pub alive: bool,
}

/// A cgroup whose processes the socket rules decide for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct CgroupStatus {
    /// Its directory.
    pub path: PathBuf,
    /// Its id, which is the inode number of the directory.
    pub id: u64,
    /// False where it was removed.
    pub alive: bool,
}

/// What became of a protected interface.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(tag = "change", rename_all = "kebab-case")]
#[non_exhaustive]
pub enum InterfaceChange {
    /// It was removed. It is protected again as soon as one of its name appears.
    Gone {
        /// The name.
        interface: String,
    },
    /// One of its name appeared and is protected now.
    Reattached {
        /// The name.
        interface: String,
        /// How.
        mode: XdpMode,
    },
    /// One of its name appeared but could not be protected.
    Unprotected {
        /// The name.
        interface: String,
        /// Why, and what to do.
        error: String,
    },
}

impl Shield {
    /// Describes a firewall. `instance` names it in bpffs and in audit records: letters, digits,
    /// `-` and `_`.
    pub fn builder(instance: &str) -> ShieldBuilder {
        ShieldBuilder::new(instance)
    }

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

    fn record(&self, action: AuditAction) -> Result<(), ShieldError> {
        tracing::info!(instance = self.instance, "{action}");
        Ok(self.audit.record(&self.instance, &action)?)
    }

    fn record_load(&self, program: &Program) -> Result<(), ShieldError> {
        let info = program.info();
        self.record(AuditAction::Load {
            program: info.name.clone(),
            tag: info.tag.clone(),
            instructions: info.xlated_len / 8,
        })
    }

    /// What was loaded for socket rules, and what it is attached to by now.
    fn record_sockets(&self, adopted: bool) -> Result<(), ShieldError> {
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

    fn record_upgrade(&self) -> Result<(), ShieldError> {
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

    fn lock(&self) -> MutexGuard<'_, Control> {
        lock(&self.control)
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

    /// Makes final what the kernel has done at a deadline; drops what nothing refers to.
    fn settle(&self, control: &mut Control) -> Result<bool, ShieldError> {
        let selector = self.shared.selector();
        let expired = selector.is_expired();
        if selector.deadline_ns != 0 && !expired {
            return Ok(false);
        }
        let active = selector.in_force();
        if expired {
            self.shared.select_if(selector, Selector { active, fallback: active, deadline_ns: 0 });
            let generation = self.shared.generation(active).number;
            self.record(AuditAction::Revert {
                generation,
                reason: "the deadline passed without confirmation".to_owned(),
            })?;
        }
        let other = 1 - active;
        if control.policies[other as usize].is_some() {
            self.retire(control, other)?;
        }
        Ok(expired)
    }

    /// Empties a slot that is no longer selected, once no packet is in it.
    fn retire(&self, control: &mut Control, slot: u32) -> Result<(), ShieldError> {
        self.shared.wait_for_packets()?;
        self.shared.clear_slot(slot)?;
        if let Some(sockets) = &mut control.sockets {
            sockets.clear_slot(slot)?;
        }
        control.policies[slot as usize] = None;
        Ok(())
    }

    /// Replaces the whole policy. Each packet sees the old one or the new one.
    ///
    /// # Errors
    /// [`ShieldError::ProvisionalPending`] while a provisional policy waits; otherwise what the
    /// kernel said. The old policy is in force then. [`ShieldError::Unsigned`] where signed bundles
    /// alone are taken.
    pub fn apply(&self, policy: &CompiledPolicy) -> Result<(), ShieldError> {
        self.trust.only_signed("apply_signed")?;
        self.swap(policy, None)
    }

    /// Like [`apply`](Self::apply), with the policy of a bundle that is verified, and whose serial is
    /// kept, before.
    ///
    /// # Errors
    /// [`ShieldError::NoTrust`], [`ShieldError::Bundle`] where it is not taken,
    /// [`ShieldError::NotApplied`] with what [`apply`](Self::apply) would say.
    #[cfg(feature = "signed")]
    pub fn apply_signed(
        &self,
        bundle: &[u8],
        signatures: &[&str],
        sources: &mut Sources<'_>,
    ) -> Result<(), ShieldError> {
        let taken = self.trust.take(bundle, signatures, (&self.instance, &*self.audit))?;
        taken.put(sources, |policy| self.swap(policy, None))
    }

    /// Replaces the whole policy until `deadline` has passed. Unless [`confirm`](Self::confirm) is
    /// called before, the kernel itself returns to the previous policy, whether or not this
    /// process is alive.
    ///
    /// # Errors
    /// As of [`apply`](Self::apply), and [`ShieldError::Deadline`].
    pub fn apply_provisional(
        &self,
        policy: &CompiledPolicy,
        deadline: Duration,
    ) -> Result<(), ShieldError> {
        self.trust.only_signed("apply_provisional_signed")?;
        self.swap(policy, Some(checked(deadline)?))
    }

    /// Like [`apply_provisional`](Self::apply_provisional), with the policy of a bundle as
    /// [`apply_signed`](Self::apply_signed) takes it. Its serial is kept, also where the kernel returns
    /// to the previous policy.
    ///
    /// # Errors
    /// As of [`apply_signed`](Self::apply_signed), and [`ShieldError::Deadline`].
    #[cfg(feature = "signed")]
    pub fn apply_provisional_signed(
        &self,
        bundle: &[u8],
        signatures: &[&str],
        sources: &mut Sources<'_>,
        deadline: Duration,
    ) -> Result<(), ShieldError> {
        let deadline = checked(deadline)?;
        let taken = self.trust.take(bundle, signatures, (&self.instance, &*self.audit))?;
        taken.put(sources, |policy| self.swap(policy, Some(deadline)))
    }

    /// Once, and again where a signed one was there meanwhile.
    fn warn_unsigned(&self, policy: &CompiledPolicy) -> Result<(), ShieldError> {
        let is_unsigned = policy.provenance() == Provenance::Unsigned;
        if self.is_told_unsigned.swap(is_unsigned, Ordering::Relaxed) {
            return Ok(());
        }
        warn_unsigned(&self.instance, &*self.audit, policy)
    }

    fn swap(
        &self,
        policy: &CompiledPolicy,
        provisional: Option<Duration>,
    ) -> Result<(), ShieldError> {
        self.warn_unsigned(policy)?;
        // Before files are read, and again: they are read without the lock.
        self.may_swap(&mut self.lock(), policy)?;
        let silent = CompiledSockets::silent();
        let rules = policy.sockets().unwrap_or(&silent);
        refuse_scripts(rules)?;
        let (mut control, contents) =
            lock_with_contents(&self.control, Some(rules), &AtomicBool::new(false))?;
        let selector = self.may_swap(&mut control, policy)?;
        let (active, slot) = (selector.active, 1 - selector.active);
        let first = control.policies[active as usize].is_none();
        // The first policy goes into the slot that is selected already.
        let slot = if first { active } else { slot };

        self.watch_packets(&mut control, policy)?;
        fn ids(policy: &CompiledPolicy) -> impl Iterator<Item = u32> {
            policy.rules().iter().skip(1).map(|rule| rule.id.0)
        }
        let in_use: BTreeSet<u32> = control
            .policies
            .iter()
            .flatten()
            .filter_map(|loaded| loaded.policy.as_ref())
            .flat_map(ids)
            .collect();
        let (rules, slots) = (&self.shared.rules, &self.shared.rule_slots);
        let clear = |slot: u32| rules.clear(&slot);
        control.slots.assign(slots, &ids(policy).collect(), &in_use, clear)?;
        let number = control.next_generation;
        let loaded = image::load(&self.shared, policy, &control.slots, number);
        let (program, generation) = refused(&*self.audit, &self.instance, "ic_policy", loaded)?;
        self.record_load(program.program())?;
        let sockets =
            Self::prepare_sockets(&self.instance, &mut control, policy, &contents, number)?;
        self.record(AuditAction::MapWrite {
            map: "ic_flat, ic_entries, ic_tuples".to_owned(),
            elements: u64::from(generation.cells)
                + u64::from(generation.entries)
                + u64::from(generation.tuples),
            purpose: format!("policy {} of generation {number}", policy.id()),
        })?;
        if let Some(sockets) = &sockets {
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
        })?;
        self.shared.fill_slot(slot, program.program(), &generation)?;
        if let (Some(all), Some(sockets)) = (&mut control.sockets, &sockets) {
            all.fill_slot(slot, sockets)?;
        }
        control.next_generation += 1;
        control.policies[slot as usize] =
            Some(Loaded { number, program, policy: Some(policy.clone()) });
        let deadline_ns = match provisional {
            // The first policy has none to return to.
            Some(after) if !first => boottime_ns() + after.as_nanos() as u64,
            _ => 0,
        };
        let fallback = if deadline_ns == 0 { slot } else { active };
        self.shared.select(Selector { active: slot, fallback, deadline_ns });
        if deadline_ns == 0 && !first {
            self.retire(&mut control, active)?;
        }
        self.follower.iter().for_each(Follower::wake);
        Ok(())
    }

    /// Whether a policy may take the place of the one in force.
    fn may_swap(
        &self,
        control: &mut Control,
        policy: &CompiledPolicy,
    ) -> Result<Selector, ShieldError> {
        self.settle(control)?;
        let selector = self.shared.selector();
        if selector.deadline_ns != 0 {
            let left = selector.deadline_ns.saturating_sub(boottime_ns());
            return Err(ShieldError::ProvisionalPending { left: Duration::from_nanos(left) });
        }
        if policy.sockets().is_some() && control.sockets.is_none() {
            return Err(ShieldError::NoCgroup);
        }
        Ok(selector)
    }

    /// Sees packet sockets from now on, where a policy that is about to be decides of them. The one
    /// in force goes on as before: it says itself whether it does.
    fn watch_packets(
        &self,
        control: &mut Control,
        policy: &CompiledPolicy,
    ) -> Result<(), ShieldError> {
        let Some((sockets, rules)) = control.sockets.as_mut().zip(policy.sockets()) else {
            return Ok(());
        };
        let pins = self.directory.as_ref().filter(|pins| pins.has_sockets());
        let watched = sockets.watch_packets(&self.shared, rules, pins);
        match refused(&*self.audit, &self.instance, "ic_packet", watched)? {
            Some(new) => self.record_packets(new),
            None => Ok(()),
        }
    }

    fn record_packets(&self, packets: &PacketSockets) -> Result<(), ShieldError> {
        self.record_load(packets.program())?;
        self.record(AuditAction::Attach {
            program: packets.program().info().name.clone(),
            hook: "lsm".to_owned(),
            interface: packets.link().hook().to_owned(),
            mode: "link".to_owned(),
        })
    }

    fn record_packets_detach(&self, hook: &str) -> Result<(), ShieldError> {
        let interface = hook.to_owned();
        self.record(AuditAction::Detach { hook: "lsm".to_owned(), interface })
    }

    /// The socket rules of a policy that is about to be, where cgroups ask.
    fn prepare_sockets(
        instance: &str,
        control: &mut Control,
        policy: &CompiledPolicy,
        contents: &Contents,
        number: u64,
    ) -> Result<Option<SocketPolicy>, ShieldError> {
        let Some(sockets) = &mut control.sockets else { return Ok(None) };
        let loaded = sockets.prepare(policy, contents, number)?;
        let others = loaded.compiled().shadowed().count().saturating_sub(1);
        if let Some((rule, first)) = loaded.compiled().shadowed().next() {
            tracing::warn!(
                instance,
                others,
                "{rule} never matches: {first} decides of everything before it"
            );
        }
        for what in loaded.missing() {
            let what = what.display();
            tracing::warn!(
                instance,
                "{what} is not there (a directory is no file, and paths of cgroups begin at the root of their hierarchy): rules that name it match no process until it is"
            );
        }
        for (path, why) in loaded.mismatches() {
            let path = path.display();
            tracing::warn!(instance, "{path} is not the file that is pinned, {why}: it is denied");
        }
        Ok(Some(loaded))
    }

    /// Makes a provisional policy final.
    ///
    /// # Errors
    /// [`ShieldError::NotProvisional`], or [`ShieldError::Expired`] where it is too late.
    pub fn confirm(&self) -> Result<(), ShieldError> {
        let mut control = self.lock();
        let selector = self.provisional(&mut control)?;
        let kept = Selector { active: selector.active, fallback: selector.active, deadline_ns: 0 };
        if !self.shared.select_if(selector, kept) {
            return Err(ShieldError::Expired);
        }
        let generation = self.shared.generation(selector.active).number;
        self.retire(&mut control, selector.fallback)?;
        self.record(AuditAction::Confirm { generation })
    }

    /// Returns from a provisional policy to the previous one at once.
    ///
    /// # Errors
    /// [`ShieldError::NotProvisional`], or [`ShieldError::Expired`] where it has returned already.
    pub fn revert(&self) -> Result<(), ShieldError> {
        let mut control = self.lock();
        let selector = self.provisional(&mut control)?;
        let back =
            Selector { active: selector.fallback, fallback: selector.fallback, deadline_ns: 0 };
        self.shared.select(back);
        let generation = self.shared.generation(selector.fallback).number;
        self.retire(&mut control, selector.active)?;
        self.record(AuditAction::Revert { generation, reason: "by request".to_owned() })
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
            tracing::error!(instance = self.instance, %failed, "undoing a start");
        }
        Err(error)
    }

    fn provisional(&self, control: &mut Control) -> Result<Selector, ShieldError> {
        if self.settle(control)? {
            return Err(ShieldError::Expired);
        }
        let selector = self.shared.selector();
        if selector.deadline_ns == 0 { Err(ShieldError::NotProvisional) } else { Ok(selector) }
    }

    /// Attaches to one more interface of the calling thread's network namespace; nothing happens
    /// where it is protected already.
    ///
    /// # Errors
    /// [`ShieldError::Bpf`], naming whose program holds the hook where it is taken.
    pub fn protect(&self, name: &str) -> Result<(), ShieldError> {
        let mut control = self.lock();
        let interface = Interface::by_name(name)?;
        let is_same = |link: &XdpLink| link.interface().is(name, interface.namespace);
        if let Some(at) = control.links.iter().position(is_same) {
            let link = &control.links[at];
            if link.is_alive()? && link.interface().index == interface.index {
                return Ok(());
            }
            // The link of an interface that was removed, and its hook with it, or was renamed.
            control.links.remove(at).detach()?;
            self.record_detach(name)?;
        }
        let dispatcher = self.shared.dispatcher();
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

    /// Detaches from an interface of the calling thread's network namespace.
    ///
    /// # Errors
    /// [`ShieldError::NotProtected`] with the interfaces that are, [`ShieldError::Bpf`] where the kernel
    /// refuses.
    pub fn unprotect(&self, name: &str) -> Result<(), ShieldError> {
        if self.detach_interface(name)? {
            return Ok(());
        }
        let control = self.lock();
        let interfaces = control.links.iter().map(|link| link.interface().name.clone()).collect();
        Err(ShieldError::NotProtected { interface: name.to_owned(), interfaces })
    }

    /// False where it is not protected.
    fn detach_interface(&self, name: &str) -> Result<bool, ShieldError> {
        let mut control = self.lock();
        let here = network_namespace()?;
        let Some(at) = control.links.iter().position(|link| link.interface().is(name, here)) else {
            return Ok(false);
        };
        control.links.remove(at).detach()?;
        self.record_detach(name).map(|()| true)
    }

    /// Lets the policy's socket rules decide for one more cgroup, by its directory; nothing
    /// happens where they do already.
    ///
    /// # Errors
    /// [`ShieldError::NoCgroup`] where Shield was started without any, [`ShieldError::Inactive`] where the
    /// kernel would not call its hooks, [`ShieldError::Bpf`].
    pub fn protect_cgroup(&self, directory: &Path) -> Result<(), ShieldError> {
        let mut control = self.lock();
        let sockets = control.sockets.as_mut().ok_or(ShieldError::NoCgroup)?;
        sockets.refuse_inactive(directory)?;
        let pins = self.directory.as_ref().filter(|pins| pins.has_sockets());
        if !sockets.attach(directory, pins)? {
            return Ok(());
        }
        for program in sockets.programs() {
            self.record(AuditAction::Attach {
                program: program.info().name.clone(),
                hook: "cgroup".to_owned(),
                interface: directory.display().to_string(),
                mode: "link".to_owned(),
            })?;
        }
        Ok(())
    }

    /// Asks the socket rules no more for a cgroup; nothing happens where they are not asked.
    ///
    /// # Errors
    /// [`ShieldError::Bpf`] where bpffs or the kernel refuses, [`ShieldError::Audit`].
    pub fn unprotect_cgroup(&self, directory: &Path) -> Result<(), ShieldError> {
        let mut control = self.lock();
        let Some(sockets) = &mut control.sockets else { return Ok(()) };
        match sockets.detach(directory)? {
            true => self.record_cgroup_detach(directory),
            false => Ok(()),
        }
    }

    fn record_cgroup_detach(&self, directory: &Path) -> Result<(), ShieldError> {
        let interface = directory.display().to_string();
        self.record(AuditAction::Detach { hook: "cgroup".to_owned(), interface })
    }

    /// Looks where the files and cgroups that rules name are by now, and lets the rules mean
    /// those. A thread does it within moments of each change, unless
    /// [`follow_paths`](ShieldBuilder::follow_paths) was turned off.
    ///
    /// A process that executed a file before its path led elsewhere keeps what rules say of it.
    ///
    /// # Errors
    /// [`ShieldError::Bpf`] where the kernel refuses; [`ShieldError::Audit`].
    pub fn refresh_paths(&self) -> Result<Vec<PathChange>, ShieldError> {
        refresh(&self.instance, &*self.audit, &self.control, &AtomicBool::new(false))
    }

    /// What socket rules decided, the default first.
    ///
    /// # Errors
    /// [`ShieldError::Bpf`] where the kernel refuses to tell.
    pub fn socket_counts(&self) -> Result<Vec<SocketCount>, ShieldError> {
        let control = self.lock();
        let policy = control.in_force(&self.shared).and_then(|loaded| loaded.policy.as_ref());
        match &control.sockets {
            Some(sockets) => sockets.counts(policy.and_then(CompiledPolicy::sockets)),
            None => Ok(Vec::new()),
        }
    }

    fn record_detach(&self, name: &str) -> Result<(), ShieldError> {
        self.record(AuditAction::Detach { hook: "xdp".to_owned(), interface: name.to_owned() })
    }

    /// Looks after interfaces that were removed or re-created under their name, and protects the
    /// latter again. Call it from the namespace of the interfaces, when `ip monitor link` would
    /// speak, or from time to time.
    ///
    /// # Errors
    /// [`ShieldError::Bpf`] where the kernel refuses to tell; what one interface lacks is in its
    /// [`InterfaceChange`].
    pub fn refresh_interfaces(&self) -> Result<Vec<InterfaceChange>, ShieldError> {
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
                    Err(e) => InterfaceChange::Unprotected { interface, error: e.to_string() },
                }
            })
            .collect())
    }

    fn mode_of(&self, name: &str) -> Option<XdpMode> {
        let (control, here) = (self.lock(), network_namespace().ok()?);
        control.links.iter().find(|link| link.interface().is(name, here)).map(XdpLink::mode)
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

    /// Addresses whose packets no policy ever blocks, for packets from now on; at most eight of each
    /// family.
    ///
    /// # Errors
    /// [`ShieldError::Bpf`] with the limit; then the former addresses stand.
    pub fn set_gateways(&self, addresses: &[IpAddr]) -> Result<(), ShieldError> {
        let _control = self.lock();
        self.shared.set_gateways(addresses)?;
        self.record(AuditAction::MapWrite {
            map: "ic_state".to_owned(),
            elements: addresses.len() as u64,
            purpose: format!("gateways {addresses:?}"),
        })
    }

    /// Addresses whose packets no policy ever blocks.
    pub fn gateways(&self) -> Vec<IpAddr> {
        let _control = self.lock();
        self.shared.gateways()
    }

    /// What is in force, right now.
    ///
    /// # Errors
    /// [`ShieldError::Bpf`] where the kernel refuses to tell.
    pub fn status(&self) -> Result<Status, ShieldError> {
        let mut control = self.lock();
        self.settle(&mut control)?;
        let selector = self.shared.selector();
        let generation = self.shared.generation(selector.in_force());
        let interfaces = control
            .links
            .iter()
            .map(|link| {
                Ok(InterfaceStatus {
                    interface: link.interface().clone(),
                    mode: link.mode(),
                    alive: link.is_alive()?,
                })
            })
            .collect::<Result<_, ShieldError>>()?;
        let cgroups = control.sockets.iter().flat_map(Sockets::cgroups);
        let cgroups = cgroups
            .map(|known| {
                let alive = known.links.is_alive()?;
                Ok(CgroupStatus { path: known.path.clone(), id: known.links.id, alive })
            })
            .collect::<Result<_, ShieldError>>()?;
        let inactive = match &mut control.sockets {
            Some(sockets) => sockets.inactive()?,
            None => None,
        };
        let policy = control.in_force(&self.shared).and_then(|loaded| loaded.policy.as_ref());
        let provenance = policy.map_or(Provenance::Unsigned, CompiledPolicy::provenance);
        let sockets = control.sockets.as_ref();
        Ok(Status {
            inactive,
            provenance,
            missing: sockets.map(|known| known.missing(selector.in_force())).unwrap_or_default(),
            mismatched: sockets
                .map(|known| known.mismatched(selector.in_force()))
                .unwrap_or_default(),
            generation: generation.number,
            policy: PolicyId(generation.policy),
            provisional: (selector.deadline_ns != 0)
                .then(|| Duration::from_nanos(selector.deadline_ns.saturating_sub(boottime_ns()))),
            interfaces,
            cgroups,
            prefixes: u64::from(generation.entries).saturating_sub(1),
        })
    }

    /// All counters.
    ///
    /// # Errors
    /// [`ShieldError::Bpf`] where the kernel refuses to tell.
    pub fn counters(&self) -> Result<Counters, ShieldError> {
        let control = self.lock();
        let policy = control.in_force(&self.shared).and_then(|loaded| loaded.policy.as_ref());
        let known = policy.map(CompiledPolicy::rules).unwrap_or_default();
        let mut rules = Vec::new();
        for (id, slot) in control.slots.iter() {
            let id = RuleId(id);
            let rule = known.iter().skip(1).find(|rule| rule.id == id);
            rules.push(read_rule(&self.shared, slot, id, rule)?);
        }
        Ok(Counters {
            reasons: read_reasons(&self.shared)?,
            rules,
            losses: read_losses(&self.shared)?,
        })
    }

    /// The prefixes of the policy in force that decided or reported most packets, at most `limit`,
    /// the busiest first. Counts begin anew with each policy.
    pub fn busiest_prefixes(&self, limit: usize) -> Vec<PrefixCount> {
        let control = self.lock();
        let Some(loaded) = control.in_force(&self.shared) else { return Vec::new() };
        let Some(policy) = &loaded.policy else { return Vec::new() };
        let mut counts: Vec<PrefixCount> = (1..loaded.program.entries())
            .filter_map(|entry| {
                let packets = loaded.program.entry_packets(entry).filter(|&packets| packets > 0)?;
                let rule = policy.rules()[policy.entry_rule(entry)].id;
                Some(PrefixCount { cidr: policy.entry_cidr(entry)?, rule, packets })
            })
            .collect();
        counts.sort_by_key(|count| (std::cmp::Reverse(count.packets), count.cidr));
        counts.truncate(limit);
        counts
    }

    /// Kernel memory of the maps of the policy in force, in bytes, as the kernel accounts it.
    ///
    /// # Errors
    /// [`ShieldError::Bpf`] where the kernel refuses to tell.
    pub fn policy_memory(&self) -> Result<u64, ShieldError> {
        let control = self.lock();
        match control.in_force(&self.shared) {
            Some(loaded) => Ok(loaded.program.kernel_memory()?),
            None => Ok(0),
        }
    }

    /// The policy in force, where this process compiled it or adopted the same.
    pub fn policy(&self) -> Option<CompiledPolicy> {
        let control = self.lock();
        control.in_force(&self.shared).and_then(|loaded| loaded.policy.clone())
    }

    /// The rule that an event's slot stands for; none for slot 0 and for slots of rules that are gone.
    pub fn rule_of_slot(&self, slot: u32) -> Option<RuleId> {
        self.lock().slots.owner(slot).map(RuleId)
    }

    /// The socket rule that an event names by its place, where the event's generation is in force.
    pub fn socket_rule(&self, generation: u64, rule: usize) -> Option<RuleId> {
        let control = self.lock();
        let loaded = control.policies.iter().flatten().find(|l| l.number == generation)?;
        Some(loaded.policy.as_ref()?.sockets()?.rules().get(rule)?.id)
    }

    /// The prefix that an event's entry stands for, where the event's generation is in force.
    pub fn prefix_of_entry(&self, generation: u64, entry: u32) -> Option<Cidr> {
        let control = self.lock();
        let loaded = control.policies.iter().flatten().find(|l| l.number == generation)?;
        loaded.policy.as_ref()?.entry_cidr(entry as usize)
    }

    /// A reader of the instance's events. Records go to one reader only: open one.
    ///
    /// Its descriptor can be polled by an async runtime; see [`EventRing`].
    ///
    /// # Errors
    /// [`ShieldError::Bpf`] where the ring buffer cannot be mapped.
    pub fn event_ring(&self) -> Result<EventRing, ShieldError> {
        Ok(EventRing::new(self.shared.events())?)
    }

    /// Reads events in a thread of its own and hands them to a channel of `capacity` events.
    /// Records go to one reader only: call it once, or read an [`event_ring`](Self::event_ring).
    ///
    /// # Errors
    /// [`ShieldError::Bpf`] where the ring buffer cannot be mapped, [`ShieldError::Thread`].
    pub fn events(
        &self,
        capacity: usize,
        overflow: Overflow,
    ) -> Result<(EventPump, EventReceiver), ShieldError> {
        pump::start(self.event_ring()?, capacity, overflow)
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

/// A time that a policy may have to be confirmed.
fn checked(deadline: Duration) -> Result<Duration, ShieldError> {
    const MOST: Duration = Duration::from_secs(365 * 24 * 60 * 60);
    match (Duration::from_millis(1)..=MOST).contains(&deadline) {
        true => Ok(deadline),
        false => Err(ShieldError::Deadline(deadline)),
    }
}

/// Leaves a record of a program that was not loaded.
fn refused<T, E: Into<ShieldError>>(
    audit: &dyn AuditSink,
    instance: &str,
    program: &str,
    loaded: Result<T, E>,
) -> Result<T, ShieldError> {
    loaded.map_err(|error| {
        let error = error.into();
        let action = AuditAction::Refuse { program: program.to_owned(), reason: error.to_string() };
        // The first error is the one to tell; a sink that fails too is told beside it.
        if let Err(failed) = audit.record(instance, &action) {
            tracing::error!(%failed, "{action}");
        }
        error
    })
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
