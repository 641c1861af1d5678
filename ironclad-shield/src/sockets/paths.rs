//! What the paths that rules name mean on this host, when a policy is applied and later.
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use ironclad_bpf::boottime_ns;
use ironclad_core::abi;
use ironclad_policy::CompiledPolicy;
use ironclad_policy::socket::{Bound, BoundFile, CompiledSockets, SocketImage};
use serde::Serialize;

use super::bindings::{self, Bindings, Former};
use super::cgroup_paths::cgroup_root;
use super::contents::{self, Contents, Look};
use super::{Sockets, containers};
use crate::error::ShieldError;

/// What paths mean to the policy of a slot.
pub(super) struct SlotBound {
    pub(super) policy: CompiledPolicy,
    pub(super) bound: Bound,
    /// Where containers were seen last: one that is started again is there again.
    pub(super) places: BTreeMap<String, String>,
    pub(super) bindings: Bindings,
}

/// What paths mean on this host, and what is to be reported of them.
pub(super) struct Paths {
    pub(super) bound: Bound,
    pub(super) mismatches: Vec<(PathBuf, &'static str)>,
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

impl Sockets {
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
    pub(super) fn note_former(&mut self, was: &Bound, is: &Bound) {
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

    /// What paths mean on this host, now, and the files that do not have the content that they should.
    ///
    /// A pinned file that has the content that it had keeps the moments at which it was seen so, by
    /// which the kernel tells who executed that.
    pub(super) fn bind(
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

    /// Lets processes that descend from these files know it.
    pub(super) fn descend(&self, image: &SocketImage) -> Result<(), ShieldError> {
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
}

/// What rules name and is not there.
pub(super) fn missing(compiled: &CompiledSockets, bound: &Bound) -> Vec<PathBuf> {
    let files = compiled.files().filter(|path| !bound.files.contains_key(*path)).cloned();
    let cgroups = compiled.cgroups().filter(|path| !bound.cgroups.contains_key(*path));
    let containers = compiled.containers().filter(|id| !bound.containers.contains_key(*id));
    files.chain(cgroups.chain(containers).map(PathBuf::from)).collect()
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
