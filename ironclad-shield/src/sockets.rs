//! The side of Shield that knows processes: cgroup hooks, their policies, the table of processes.
use std::collections::{BTreeMap, BTreeSet};
use std::os::fd::BorrowedFd;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use ironclad_bpf::shield::Shared;
use ironclad_bpf::socket::{
    CgroupLinks, PacketSockets, Processes, SlotTables, SocketContent, SocketGroups, SocketOptions,
    SocketPins, SocketShared,
};
use ironclad_bpf::{BpfError, PinDirectory, Program, boottime_ns};
use ironclad_core::RuleId;
use ironclad_core::abi::{self, SockRule};
use ironclad_policy::CompiledPolicy;
use ironclad_policy::socket::{
    Bound, BoundFile, CompiledSockets, SocketAction, SocketImage, SocketRuleInfo,
};
use serde::Serialize;

use crate::bindings::{self, Bindings, Former};
use crate::cgroups::{self, CgroupPath};
use crate::containers;
use crate::contents::{self, Contents, Look};
use crate::error::ShieldError;
use crate::slots::Slots;

/// What one socket rule decided, or what no rule did.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct SocketCount {
    /// The rule; none for what the default decided, and for packets that name stops on their way.
    pub rule: Option<RuleId>,
    /// Its name; empty where it is not in force.
    pub name: String,
    /// Allowed.
    pub allowed: u64,
    /// Denied.
    pub denied: u64,
    /// Denied because the limit's bucket was empty.
    pub limited: u64,
    /// Would have been denied but for a dry run.
    pub would_deny: u64,
    /// Reported by a rule that decides nothing.
    pub logged: u64,
}

pub(crate) struct Sockets {
    processes: Processes,
    shared: SocketShared,
    rules: Slots<u32>,
    buckets: Slots<u64>,
    /// Bits of ancestries that processes may carry, one less than these.
    ancestries: Slots<u64>,
    /// Files that paths led to before.
    former: Vec<Former>,
    /// What each slot's policy is bound to, where this agent has filled it.
    bound: [Option<SlotBound>; 2],
    next_epoch: u32,
    cgroups: Vec<Protected>,
    /// What the kernel last knew of sockets' cgroups.
    groups: SocketGroups,
    is_loss_told: bool,
    /// None until a policy decides of them.
    packets: Option<PacketSockets>,
}

/// What paths mean to the policy of a slot.
struct SlotBound {
    policy: CompiledPolicy,
    bound: Bound,
    /// Where containers were seen last: one that is started again is there again.
    places: BTreeMap<String, String>,
    bindings: Bindings,
}

/// A path that rules name and that leads elsewhere than it did.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[non_exhaustive]
pub struct PathChange {
    /// A file's, or a cgroup's or a container's id as the rule names it.
    pub path: PathBuf,
    /// Whether there is anything.
    pub is_there: bool,
}

/// What rules name and is not there.
fn missing(compiled: &CompiledSockets, bound: &Bound) -> Vec<PathBuf> {
    let files = compiled.files().filter(|path| !bound.files.contains_key(*path)).cloned();
    let cgroups = compiled.cgroups().filter(|path| !bound.cgroups.contains_key(*path));
    let containers = compiled.containers().filter(|id| !bound.containers.contains_key(*id));
    files.chain(cgroups.chain(containers).map(PathBuf::from)).collect()
}

/// A cgroup that asks.
pub(crate) struct Protected {
    pub(crate) path: PathBuf,
    pub(crate) links: CgroupLinks,
}

/// A policy's socket rules, ready for a slot.
pub(crate) struct SocketPolicy {
    policy: CompiledPolicy,
    /// Where the policy says nothing of sockets.
    silent: CompiledSockets,
    bound: Bound,
    image: SocketImage,
    rules: Vec<SockRule>,
    logs: Vec<SockRule>,
    /// Pinned files that do not have the content that they should, and why.
    mismatches: Vec<(PathBuf, &'static str)>,
}

/// What paths mean on this host, and what is to be reported of them.
struct Paths {
    bound: Bound,
    mismatches: Vec<(PathBuf, &'static str)>,
}

impl SocketPolicy {
    pub(crate) fn compiled(&self) -> &CompiledSockets {
        self.policy.sockets().unwrap_or(&self.silent)
    }

    /// Elements that are written for it.
    pub(crate) fn elements(&self) -> usize {
        let SocketImage { rows, ports, ids, .. } = &self.image;
        let rules = self.rules.len() + self.logs.len();
        1 + rows.len() + ports.len() / 32 + ids.len() + rules + self.compiled().addresses().cells()
    }

    pub(crate) fn missing(&self) -> Vec<PathBuf> {
        missing(self.compiled(), &self.bound)
    }

    pub(crate) fn mismatches(&self) -> &[(PathBuf, &'static str)] {
        &self.mismatches
    }
}

impl Sockets {
    /// Loads the programs, and takes over what an earlier agent has pinned.
    pub(crate) fn load(
        shared: &Shared,
        options: SocketOptions,
        directory: Option<&PinDirectory>,
        mut pins: Option<&mut SocketPins>,
    ) -> Result<Self, ShieldError> {
        let processes =
            Processes::load(Some(&shared.losses), pins.as_deref_mut().map(SocketPins::inherited))?;
        let own = SocketShared::load(shared, &processes, options, pins.as_deref())?;
        let mut cgroups = Vec::new();
        for mut links in
            pins.as_deref_mut().map(|pins| own.adopt(pins)).transpose()?.into_iter().flatten()
        {
            let Some(CgroupPath { path, .. }) = cgroups::by_id(&cgroup_root()?, links.id) else {
                links.detach()?;
                continue;
            };
            let path = cgroup_root()?.join(path.trim_start_matches('/'));
            if !links.is_whole() {
                // Of an agent that knew fewer, or was killed between two of them.
                own.complete(&path, &mut links)?;
                directory.map_or(Ok(()), |pins| SocketShared::persist_cgroup(pins, &mut links))?;
            }
            cgroups.push(Protected { path, links });
        }
        let has_packets = pins.as_ref().is_some_and(|pins| pins.has_packets());
        let mut packets = has_packets
            .then(|| packets(shared, &processes, &own, &cgroups, directory))
            .transpose()?;
        pins.map_or(Ok(()), |pins| PacketSockets::supersede(pins, packets.as_mut()))?;
        Ok(Self {
            rules: Slots::read(&own.rule_slots, "socket rules")?,
            buckets: Slots::read(&own.bucket_slots, "limits")?,
            ancestries: Slots::read(&processes.ancestry_ids, "ancestries")?,
            former: Vec::new(),
            bound: [None, None],
            next_epoch: 1 + (0..2).map(|slot| own.epoch(slot)).max().unwrap_or(0),
            processes,
            shared: own,
            cgroups,
            groups: SocketGroups::Known,
            is_loss_told: false,
            packets,
        })
    }

    /// Whether the kernel calls no hooks of cgroups below the root any more. Once it does not,
    /// only a restart of the host helps.
    fn is_lost(&mut self) -> Result<bool, ShieldError> {
        if self.groups == SocketGroups::Known {
            self.groups = self.processes.socket_groups()?;
        }
        Ok(self.groups == SocketGroups::Lost)
    }

    /// Refuses a cgroup that nobody would ask for.
    pub(crate) fn refuse_inactive(&mut self, cgroup: &Path) -> Result<(), ShieldError> {
        // What belongs to no group belongs to the root.
        let is_root = std::fs::metadata(cgroup).is_ok_and(|found| found.ino() == ROOT_ID);
        match !is_root && self.is_lost()? {
            true => Err(ShieldError::Inactive { path: cgroup.to_owned(), why: LOST }),
            false => Ok(()),
        }
    }

    /// Why protected cgroups are not asked, where that is so. Told once, too.
    pub(crate) fn inactive(&mut self) -> Result<Option<String>, ShieldError> {
        let is_below = |known: &Protected| known.links.id != ROOT_ID;
        let is_lost = self.cgroups.iter().any(is_below) && self.is_lost()?;
        if is_lost && !self.is_loss_told {
            self.is_loss_told = true;
            tracing::error!("socket rules are off below the root cgroup: {LOST}");
        }
        Ok(is_lost.then(|| LOST.to_owned()))
    }

    /// What is attached to cgroups.
    pub(crate) fn programs(&self) -> &[Program] {
        self.shared.programs()
    }

    /// What keeps the table of processes.
    pub(crate) fn processes(&self) -> &Processes {
        &self.processes
    }

    /// The cgroups that ask.
    pub(crate) fn cgroups(&self) -> &[Protected] {
        &self.cgroups
    }

    fn position(&self, cgroup: &Path) -> Result<Option<usize>, ShieldError> {
        let id = std::fs::metadata(cgroup).map(|found| found.ino()).ok();
        for (at, known) in self.cgroups.iter().enumerate() {
            // A group of that path that was removed since and made again has another id.
            if known.path == cgroup && (id.is_none() || id == Some(known.links.id))
                || id == Some(known.links.id) && known.links.is_alive()?
            {
                return Ok(Some(at));
            }
        }
        Ok(None)
    }

    /// False where it is attached there already. Pins where the others are pinned.
    pub(crate) fn attach(
        &mut self,
        cgroup: &Path,
        directory: Option<&PinDirectory>,
    ) -> Result<bool, ShieldError> {
        if self.position(cgroup)?.is_some() {
            return Ok(false);
        }
        let mut links = self.shared.attach(cgroup)?;
        if let Some(packets) = &mut self.packets {
            packets.protect(cgroup)?;
        }
        if let Some(directory) = directory {
            if let Err(failed) = SocketShared::persist_cgroup(directory, &mut links) {
                self.unprotect_packets(links.id)?;
                return Err(failed.into());
            }
        }
        // What is left of a group that is gone.
        let is_gone = |known: &Protected| known.path == cgroup;
        let (gone, kept): (Vec<_>, Vec<_>) =
            std::mem::take(&mut self.cgroups).into_iter().partition(is_gone);
        self.cgroups = kept;
        for known in gone {
            self.unprotect_packets(known.links.id)?;
            known.links.detach()?;
        }
        self.cgroups.push(Protected { path: cgroup.to_owned(), links });
        Ok(true)
    }

    /// False where it is not attached there.
    pub(crate) fn detach(&mut self, cgroup: &Path) -> Result<bool, ShieldError> {
        let Some(at) = self.position(cgroup)? else { return Ok(false) };
        self.unprotect_packets(self.cgroups[at].links.id)?;
        self.cgroups.remove(at).links.detach()?;
        Ok(true)
    }

    fn unprotect_packets(&mut self, id: u64) -> Result<(), BpfError> {
        self.packets.as_mut().map_or(Ok(()), |packets| packets.unprotect(id))
    }

    /// What sees packet sockets.
    pub(crate) fn packets(&self) -> Option<&PacketSockets> {
        self.packets.as_ref()
    }

    pub(crate) fn take_packets(&mut self) -> Option<PacketSockets> {
        self.packets.take()
    }

    /// Sees packet sockets from now on, where the policy decides of them; `None` where nothing
    /// changes. Pins where the others are pinned.
    pub(crate) fn watch_packets(
        &mut self,
        shared: &Shared,
        policy: &CompiledSockets,
        directory: Option<&PinDirectory>,
    ) -> Result<Option<&PacketSockets>, ShieldError> {
        let Some(asked) = policy.packet_sockets() else { return Ok(None) };
        let refuse =
            |why: String| ShieldError::PacketSockets { asked_by: asked.asked_by.clone(), why };
        let new = match &self.packets {
            Some(_) => None,
            None => {
                let loaded =
                    packets(shared, &self.processes, &self.shared, &self.cgroups, directory);
                Some(loaded.map_err(|e| refuse(e.to_string()))?)
            }
        };
        if let Some(rule) = &asked.limited_by {
            let may_limit = new.as_ref().or(self.packets.as_ref()).map(PacketSockets::may_limit);
            if may_limit == Some(false) {
                let why = format!("{rule} limits them, which needs Linux 5.11");
                return Err(refuse(why));
            }
        }
        let Some(new) = new else { return Ok(None) };
        self.packets = Some(new);
        Ok(self.packets.as_ref())
    }

    /// What outlives an agent, with the names of the pins.
    pub(crate) fn pins(&self) -> Vec<(String, BorrowedFd<'_>)> {
        let links = self.cgroups.iter().map(|known| &known.links);
        self.shared.pins(&self.processes, self.packets.as_ref(), links)
    }

    /// All of it has been pinned.
    pub(crate) fn persisted(&mut self, directory: &PinDirectory) {
        let links = self.cgroups.iter_mut().map(|known| &mut known.links);
        SocketShared::persisted(directory, &mut self.processes, self.packets.as_mut(), links);
    }

    pub(crate) fn fill_slot(
        &mut self,
        slot: u32,
        policy: &SocketPolicy,
    ) -> Result<(), ShieldError> {
        self.bound[slot as usize] = None;
        self.shared.fill_slot(
            slot,
            &SocketContent {
                policy: &policy.image.policy,
                rows: &policy.image.rows,
                flat: policy.compiled().addresses().words(),
                ports: &policy.image.ports,
                rules: &policy.rules,
                logs: &policy.logs,
                ids: &policy.image.ids,
            },
        )?;
        self.bound[slot as usize] = Some(SlotBound {
            policy: policy.policy.clone(),
            bound: policy.bound.clone(),
            places: policy.bound.containers.clone(),
            bindings: Bindings::of(&policy.image),
        });
        Ok(())
    }

    /// Paths of files and of cgroups that the policies in the kernel name.
    pub(crate) fn paths(&self) -> Result<Vec<PathBuf>, ShieldError> {
        let (mut paths, mut groups) = (BTreeSet::new(), BTreeSet::new());
        for known in self.bound.iter().flatten() {
            let Some(compiled) = known.policy.sockets() else { continue };
            paths.extend(compiled.files().cloned());
            groups.extend(compiled.cgroups().chain(known.places.values()));
        }
        if !groups.is_empty() {
            let root = cgroup_root()?;
            paths.extend(groups.iter().map(|path| root.join(path.trim_start_matches('/'))));
        }
        Ok(paths.into_iter().collect())
    }

    /// What the rules in a slot name and is not there.
    pub(crate) fn missing(&self, slot: u32) -> Vec<PathBuf> {
        let known = self.bound[slot as usize].as_ref();
        let found = known.and_then(|known| Some(missing(known.policy.sockets()?, &known.bound)));
        found.unwrap_or_default()
    }

    /// Files of a slot's rules whose content is not the one that is pinned.
    pub(crate) fn mismatched(&self, slot: u32) -> Vec<PathBuf> {
        let Some(known) = &self.bound[slot as usize] else { return Vec::new() };
        let Some(compiled) = known.policy.sockets() else { return Vec::new() };
        let pinned = compiled.pinned().into_iter();
        let is_other = |path: &&Path| {
            let file = known.bound.files.get(*path);
            file.is_some_and(|file| !compiled.admits(path, file.sha256))
        };
        pinned.filter(is_other).map(Path::to_owned).collect()
    }

    /// What the files contain that a policy has pinned; where it is none, those that the policies in
    /// the kernel have. What is in their place as it was is known then.
    pub(crate) fn contents(
        &self,
        policy: Option<&CompiledSockets>,
        read: &Contents,
        is_last: bool,
    ) -> Result<Look, ShieldError> {
        let in_kernel = || self.bound.iter().flatten().filter(|_| policy.is_none());
        let policies = in_kernel().filter_map(|slot| slot.policy.sockets()).chain(policy);
        let pinned = policies.flat_map(CompiledSockets::pinned).collect();
        let known: Vec<_> = in_kernel().map(|slot| &slot.bound.files).collect();
        contents::look(&self.processes.open_files_handle(), &pinned, &known, read, is_last)
    }

    /// Looks where paths lead by now, and lets the policies in the kernel mean that.
    pub(crate) fn refresh(&mut self, contents: &Contents) -> Result<Vec<PathChange>, ShieldError> {
        let mut changes = BTreeSet::new();
        self.inactive()?;
        // Whose end the kernel has passed over takes room of those who run.
        self.processes.seed()?;
        self.forget_former()?;
        for slot in 0..2u32 {
            let Some(mut known) = self.bound[slot as usize].take() else { continue };
            let refreshed = self.refresh_slot(slot, &mut known, contents, &mut changes);
            self.bound[slot as usize] = Some(known);
            refreshed?;
        }
        Ok(changes.into_iter().collect())
    }

    fn refresh_slot(
        &mut self,
        slot: u32,
        known: &mut SlotBound,
        contents: &Contents,
        changes: &mut BTreeSet<PathChange>,
    ) -> Result<(), ShieldError> {
        let Some(compiled) = known.policy.sockets() else { return Ok(()) };
        let Paths { bound, mismatches } = self.bind(compiled, contents, Some(&known.bound))?;
        let Bound { files, cgroups, containers, .. } = &known.bound;
        if bound.files == *files && bound.cgroups == *cgroups && bound.containers == *containers {
            return Ok(());
        }
        let is_new = |path: &PathBuf| bound.files.get(path) != known.bound.files.get(path);
        for (path, why) in mismatches.iter().filter(|(path, _)| is_new(path)) {
            let path = path.display();
            tracing::warn!("{path} is not the file that is pinned, {why}: it is denied");
        }
        self.note_former(&known.bound, &bound);
        for path in compiled.files() {
            let (was, is) = (known.bound.files.get(path), bound.files.get(path));
            if was != is {
                changes.insert(PathChange { path: path.clone(), is_there: is.is_some() });
            }
        }
        for path in compiled.cgroups() {
            let (was, is) = (known.bound.cgroups.get(path), bound.cgroups.get(path));
            if was != is {
                changes.insert(PathChange { path: path.into(), is_there: is.is_some() });
            }
        }
        let group = |bound: &Bound, id| bound.cgroups.get(bound.containers.get(id)?).copied();
        for id in compiled.containers() {
            let (was, is) = (group(&known.bound, id), group(&bound, id));
            if was != is {
                changes.insert(PathChange { path: id.into(), is_there: is.is_some() });
            }
        }
        let number = self.shared.in_use(slot).map_or(0, |used| used.generation);
        let mut image = bindings::image(compiled, &bound, &self.former)?;
        image.ids.iter_mut().for_each(|(key, _)| key.generation = number as u32);
        self.descend(&image)?;
        let mut bindings = known.bindings.clone();
        let change = bindings.change(&image);
        let epoch = self.next_epoch;
        self.next_epoch += 1;
        self.shared.change_slot(slot, &change, epoch)?;
        known.bindings = bindings;
        known.places.extend(bound.containers.clone());
        known.bound = bound;
        Ok(())
    }

    /// Records the files that paths led to and lead to no more.
    fn note_former(&mut self, was: &Bound, is: &Bound) {
        let until_ns = boottime_ns();
        for (path, file) in &was.files {
            let leads_here =
                |to: &Bound| to.files.get(path).is_some_and(|known| known.id == file.id);
            let is_known = |one: &Former| one.path == *path && one.file.id == file.id;
            if !leads_here(is) && !self.former.iter().any(is_known) {
                self.former.push(Former { path: path.clone(), file: *file, until_ns, unseen: 0 });
            }
        }
        // A path that leads to a former file again.
        let leads_again =
            |one: &Former| is.files.get(&one.path).is_some_and(|known| known.id == one.file.id);
        self.former.retain(|one| !leads_again(one));
    }

    /// Forgets former files that nobody executes any more.
    fn forget_former(&mut self) -> Result<(), ShieldError> {
        if self.former.is_empty() {
            return Ok(());
        }
        let mut running = BTreeSet::new();
        for pid in self.processes.table.keys()? {
            let process = self.processes.table.lookup(&pid)?;
            running.extend(process.into_iter().flat_map(|process| [process.exe, process.parent]));
        }
        // A walk over the table may miss who forks meanwhile: two in a row do not.
        for one in &mut self.former {
            one.unseen = if running.contains(&one.file.id) { 0 } else { one.unseen + 1 };
        }
        self.former.retain(|one| one.unseen < 2);
        Ok(())
    }

    /// Lets processes that descend from these files know it.
    fn descend(&self, image: &SocketImage) -> Result<(), ShieldError> {
        let mut is_new = false;
        for (file, bits) in &image.ancestries {
            // What other policies need of a file stays.
            let known = self.processes.ancestries.lookup(file)?.unwrap_or(0);
            if known & bits != *bits {
                self.processes.ancestries.update(file, &(known | bits))?;
                is_new = true;
            }
        }
        if is_new {
            // A process that is forked between its parent's turn and the end of the first round has
            // what its parent had.
            self.processes.seed()?;
            self.processes.seed()?;
        }
        Ok(())
    }

    /// What is in the kernel.
    pub(crate) fn read_slot(&self, slot: u32) -> SlotTables<'_> {
        self.shared.read_slot(slot)
    }

    pub(crate) fn clear_slot(&mut self, slot: u32) -> Result<(), ShieldError> {
        self.bound[slot as usize] = None;
        Ok(self.shared.clear_slot(slot)?)
    }

    /// Makes a policy's socket rules ready for a slot.
    pub(crate) fn prepare(
        &mut self,
        policy: &CompiledPolicy,
        contents: &Contents,
        number: u64,
    ) -> Result<SocketPolicy, ShieldError> {
        let silent = CompiledSockets::silent();
        let compiled = policy.sockets().unwrap_or(&silent);
        self.assign(compiled)?;
        let Paths { bound, mismatches } = self.bind(compiled, contents, None)?;
        let before: Vec<Bound> = self.bound.iter().flatten().map(|k| k.bound.clone()).collect();
        for mut was in before {
            // Of paths that only the other policy names, nothing new is known.
            was.files.retain(|path, _| compiled.files().any(|named| named == path));
            self.note_former(&was, &bound);
        }
        let mut image = bindings::image(compiled, &bound, &self.former)?;
        image.policy.generation = number;
        image.policy.epoch = self.next_epoch;
        self.next_epoch += 1;
        image.policy.rate = policy.settings().default_events_per_second;
        image.policy.dry_run = u8::from(policy.settings().dry_run);
        for (key, _) in &mut image.ids {
            key.generation = number as u32;
        }
        self.descend(&image)?;
        let (rules, logs) = self.rules(compiled);
        let policy = policy.clone();
        Ok(SocketPolicy { policy, silent, bound, image, rules, logs, mismatches })
    }

    /// Rules that decide, and rules that only report, as the kernel reads them.
    fn rules(&self, compiled: &CompiledSockets) -> (Vec<SockRule>, Vec<SockRule>) {
        let (mut rules, mut logs) = (Vec::new(), Vec::<SockRule>::new());
        for (number, rule) in compiled.in_order() {
            let raw = SockRule { number: number as u32 + 1, ..self.rule(rule) };
            match rule.action {
                SocketAction::Log => logs.push(raw),
                _ => rules.push(SockRule { logs: logs.len() as u8, ..raw }),
            }
        }
        (rules, logs)
    }

    /// Gives what outlives policies its place: counters, buckets, ancestries. What the policies that
    /// are in the kernel use keeps its own.
    fn assign(&mut self, compiled: &CompiledSockets) -> Result<(), ShieldError> {
        let (mut rules, mut buckets, mut ancestries) =
            (BTreeSet::new(), BTreeSet::new(), BTreeSet::new());
        for used in (0..2).filter_map(|slot| self.shared.in_use(slot)) {
            rules.extend(used.rules.iter().filter_map(|rule| self.rules.owner(rule.slot)));
            let limited = used.rules.iter().filter(|rule| rule.flags & abi::SOCK_RULE_LIMITED != 0);
            buckets.extend(limited.filter_map(|rule| self.buckets.owner(rule.bucket)));
            let bits = (0..16).filter(|bit| used.ancestries >> bit & 1 == 1);
            ancestries.extend(bits.filter_map(|bit| self.ancestries.owner(bit + 1)));
        }
        let wanted = compiled.rules().iter().map(|rule| rule.id.0).collect();
        let stats = &self.shared.stats;
        self.rules.assign(&self.shared.rule_slots, &wanted, &rules, |slot| stats.clear(&slot))?;
        let limited = compiled.rules().iter().filter(|rule| rule.limit.is_some());
        let wanted = limited.map(|rule| rule.bucket).collect();
        // What a bucket owes that was another's, the kernel forgives as far as this limit cannot owe it.
        self.buckets.assign(&self.shared.bucket_slots, &wanted, &buckets, |_| Ok(()))?;
        let wanted = compiled.ancestry_digests().into_iter().collect();
        let processes = &self.processes;
        // A bit that processes carry for another list would lie.
        let forget = |place: u32| processes.forget(1 << (place - 1));
        self.ancestries.assign(&processes.ancestry_ids, &wanted, &ancestries, forget)
    }

    /// What paths mean on this host, now, and the files that do not have the content that they should.
    ///
    /// A pinned file that has the content that it had keeps the moments at which it was seen so, by
    /// which the kernel tells who executed that.
    fn bind(
        &self,
        compiled: &CompiledSockets,
        contents: &Contents,
        known: Option<&Bound>,
    ) -> Result<Paths, ShieldError> {
        let pinned = compiled.pinned();
        let mut files: BTreeMap<PathBuf, BoundFile> = pinned
            .iter()
            .filter_map(|path| Some(((*path).to_owned(), *contents.files.get(*path)?)))
            .collect();
        let mut mismatches: Vec<(PathBuf, &'static str)> = pinned
            .iter()
            .filter_map(|path| Some(((*path).to_owned(), *contents.unknown.get(*path)?)))
            .collect();
        for file in files.values_mut().filter(|file| file.sha256.is_some()) {
            let slots = self.bound.iter().flatten().map(|slot| &slot.bound);
            let earlier = known.into_iter().chain(slots).flat_map(|bound| bound.files.values());
            file.formerly_ns = formerly(file, earlier);
        }
        for (path, file) in &files {
            if file.sha256.is_some() && !compiled.admits(path, file.sha256) {
                mismatches.push((path.clone(), "its content has another SHA-256"));
            }
        }
        // Nobody executes a directory or a pipe.
        let is_other = |path: &&Path| std::fs::metadata(path).is_ok_and(|found| !found.is_file());
        let paths: Vec<&Path> = compiled
            .files()
            .map(PathBuf::as_path)
            .filter(|path| !pinned.contains(path) && !is_other(path))
            .collect();
        for (path, id) in paths.iter().zip(self.processes.identify(&paths)?) {
            if let Some(id) = id {
                files.insert((*path).to_owned(), id.into());
            }
        }
        let bit = |digest| self.ancestries.of(digest).unwrap_or(1) as u8 - 1;
        let ancestries = compiled.ancestry_digests().into_iter().map(bit).collect();
        let mut bound = Bound { files, ancestries, ..Bound::default() };
        containers::bind(compiled, known, &mut bound)?;
        Ok(Paths { bound, mismatches })
    }

    fn rule(&self, rule: &SocketRuleInfo) -> SockRule {
        let flag = |is: bool, bit| if is { bit } else { 0 };
        let mut raw = SockRule {
            slot: u32::from(self.rules.of(rule.id.0).unwrap_or(0)),
            report_rate: rule.events_per_second,
            action: match rule.action {
                SocketAction::Deny => abi::SOCK_DENY,
                _ => abi::SOCK_ALLOW,
            },
            flags: flag(rule.report, abi::SOCK_RULE_REPORT)
                | flag(rule.dry_run, abi::SOCK_RULE_DRY),
            ..SockRule::default()
        };
        if let Some(limit) = &rule.limit {
            raw.flags |= abi::SOCK_RULE_LIMITED;
            raw.interval_ns = 1_000_000_000 / u64::from(limit.rate());
            raw.burst_ns = raw.interval_ns * u64::from(limit.at_once());
            raw.bucket = u32::from(self.buckets.of(rule.bucket).unwrap_or(0));
        }
        raw
    }

    pub(crate) fn counts(
        &self,
        compiled: Option<&CompiledSockets>,
    ) -> Result<Vec<SocketCount>, ShieldError> {
        let of_rules = self.rules.iter().map(|(id, slot)| (Some(RuleId(id)), u32::from(slot)));
        let known = compiled.map(CompiledSockets::rules).unwrap_or_default();
        std::iter::once((None, 0))
            .chain(of_rules)
            .map(|(rule, slot)| {
                let cpus = self.shared.stats.lookup_all(&slot)?.unwrap_or_default();
                let sum = |of: fn(&abi::SockStats) -> u64| cpus.iter().map(of).sum();
                let name = known.iter().find(|known| Some(known.id) == rule);
                Ok(SocketCount {
                    rule,
                    name: name.map(|known| known.name.clone()).unwrap_or_default(),
                    allowed: sum(|cpu| cpu.allowed),
                    denied: sum(|cpu| cpu.denied),
                    limited: sum(|cpu| cpu.limited),
                    would_deny: sum(|cpu| cpu.dry),
                    logged: sum(|cpu| cpu.logged),
                })
            })
            .collect()
    }
}

/// When a file had the content that it has, before the last change of its inode.
fn formerly<'a>(
    file: &BoundFile,
    earlier: impl Iterator<Item = &'a BoundFile>,
) -> [u64; abi::SOCK_CTIMES - 1] {
    let same = earlier.filter(|other| other.id == file.id && other.sha256 == file.sha256);
    let mut found = Vec::new();
    for ns in same.flat_map(|other| std::iter::once(other.changed_ns).chain(other.formerly_ns)) {
        if ns != 0 && ns != file.changed_ns && !found.contains(&ns) {
            found.push(ns);
        }
    }
    found.resize(abi::SOCK_CTIMES - 1, 0);
    found.try_into().unwrap_or_default()
}

/// What sees packet sockets, for the cgroups that ask.
fn packets(
    shared: &Shared,
    processes: &Processes,
    sockets: &SocketShared,
    cgroups: &[Protected],
    directory: Option<&PinDirectory>,
) -> Result<PacketSockets, BpfError> {
    let mut alive = Vec::new();
    for known in cgroups {
        if known.links.is_alive()? {
            alive.push(known.path.as_path());
        }
    }
    let mut new = PacketSockets::load(shared, processes, sockets, alive)?;
    directory.map_or(Ok(()), |directory| new.persist(directory))?;
    Ok(new)
}

/// Where the hierarchy of cgroups, version 2, is mounted.
pub(crate) fn cgroup_root() -> Result<PathBuf, ShieldError> {
    let failed = |source| BpfError::System { step: "reading /proc/thread-self/mountinfo", source };
    let mounts = std::fs::read_to_string("/proc/thread-self/mountinfo").map_err(failed)?;
    // Fields of proc(5): the root within the file system is the fourth, the place the fifth; behind
    // the hyphen comes the type.
    let root = mounts.lines().find_map(|line| {
        let (before, after) = line.split_once(" - ")?;
        let fields: Vec<&str> = before.split(' ').collect();
        let is_whole = after.starts_with("cgroup2 ") && fields.get(3) == Some(&"/");
        is_whole.then(|| PathBuf::from(fields[4]))
    });
    let root = root.ok_or_else(|| BpfError::NoCgroup {
        path: "/sys/fs/cgroup".into(),
        why: "no hierarchy of version 2 is mounted: `mount -t cgroup2 none /sys/fs/cgroup`".into(),
    })?;
    let failed = |source| BpfError::System { step: "looking at the root cgroup", source };
    if std::fs::metadata(&root).map_err(failed)?.ino() != ROOT_ID {
        // Its paths begin further down than the kernel counts from: rules would name others.
        return Err(ShieldError::Bpf(BpfError::NoCgroup {
            path: root,
            why: "this is seen from within a namespace of cgroups, and rules need the \
                  host's: start the agent outside of it (`docker run --cgroupns=host`)"
                .into(),
        }));
    }
    Ok(root)
}

/// Id of the root cgroup: cgroup2's first inode.
const ROOT_ID: u64 = 1;

/// What [`SocketGroups::Lost`] means, and what to do.
const LOST: &str = "since somebody marked sockets by net_cls or net_prio, this kernel calls the hooks of \
     the root cgroup alone. Restart it with cgroup_no_v1=net_cls,net_prio, or with Linux 5.15 or \
     5.10.226; until then protect the root";
