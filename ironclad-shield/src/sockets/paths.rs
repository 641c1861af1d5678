//! Resolves the paths that rules name, when a policy is applied and after files have changed.
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf, absolute};

use ironclad_bpf::boottime_ns;
use ironclad_core::abi;
use ironclad_policy::CompiledPolicy;
use ironclad_policy::socket::{Bound, BoundFile, CompiledSockets, SocketImage};
use serde::Serialize;

use super::bindings::{self, Bindings, Former};
use super::cgroup_paths::cgroup_root;
use super::contents::{self, Checked, Contents};
use super::{Sockets, containers};
use crate::error::ShieldError;

/// The policy of a slot, and how its paths are resolved.
pub(super) struct SlotBound {
    pub(super) policy: CompiledPolicy,
    pub(super) bound: Bound,
    /// Last cgroup of each container: a container that is restarted has the same one.
    pub(super) last_seen: BTreeMap<String, String>,
    pub(super) bindings: Bindings,
}

/// Resolved paths, and files whose content is not the one that a rule pins, with the reason.
pub(super) struct Paths {
    pub(super) bound: Bound,
    pub(super) mismatches: Vec<(PathBuf, &'static str)>,
}

/// A path of a rule that leads to another file or cgroup than before.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[non_exhaustive]
pub struct PathChange {
    /// The path of a file or cgroup, or the id of a container, as the rule names it.
    pub path: PathBuf,
    /// Whether it exists.
    pub is_there: bool,
}

impl Sockets {
    /// Paths of protected cgroups, and of files and cgroups that the policies in the kernel name.
    pub(crate) fn paths(&self) -> Result<Vec<PathBuf>, ShieldError> {
        let protected = self.cgroups.iter().filter_map(|known| absolute(&known.path).ok());
        let (mut paths, mut groups) = (protected.collect::<BTreeSet<_>>(), BTreeSet::new());
        for known in self.bound.iter().flatten() {
            let Some(compiled) = known.policy.sockets() else { continue };
            paths.extend(compiled.files().cloned());
            groups.extend(compiled.cgroups().chain(known.last_seen.values()));
        }
        if !groups.is_empty() {
            let root = cgroup_root()?;
            paths.extend(groups.iter().map(|path| root.join(path.trim_start_matches('/'))));
        }
        Ok(paths.into_iter().collect())
    }

    /// Files, cgroups and containers that rules in a slot name and that do not exist.
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

    /// The contents of the files that `policy` pins; without one, of those that the policies in the
    /// kernel pin. The contents of unchanged files are known then.
    pub(crate) fn contents(
        &self,
        policy: Option<&CompiledSockets>,
        read: &Contents,
        is_last: bool,
    ) -> Result<Checked, ShieldError> {
        let in_kernel = || self.bound.iter().flatten().filter(|_| policy.is_none());
        let policies = in_kernel().filter_map(|slot| slot.policy.sockets()).chain(policy);
        let pinned = policies.flat_map(CompiledSockets::pinned).collect();
        let known: Vec<_> = in_kernel().map(|slot| &slot.bound.files).collect();
        contents::check(&self.processes.open_files_handle(), &pinned, &known, read, is_last)
    }

    /// Resolves paths again, and updates the policies in the kernel.
    pub(crate) fn refresh(&mut self, contents: &Contents) -> Result<Vec<PathChange>, ShieldError> {
        let mut changes = BTreeSet::new();
        self.inactive()?;
        // An entry of a process whose exit the kernel missed takes room of running ones.
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
        changes.extend(changed_paths(compiled, &known.bound, &bound));
        let number = self.shared.in_use(slot).map_or(0, |used| used.generation);
        let mut image = bindings::image(compiled, &bound, &self.former)?;
        image.ids.iter_mut().for_each(|(key, _)| key.generation = number as u32);
        self.initialize_ancestry(&image)?;
        let mut bindings = known.bindings.clone();
        let change = bindings.change(&image);
        let epoch = self.next_epoch;
        self.next_epoch += 1;
        self.shared.change_slot(slot, &change, epoch)?;
        known.bindings = bindings;
        known.last_seen.extend(bound.containers.clone());
        known.bound = bound;
        Ok(())
    }

    /// Records the files that paths have ceased to lead to.
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
        // Paths that lead to a former file again.
        let leads_again =
            |one: &Former| is.files.get(&one.path).is_some_and(|known| known.id == one.file.id);
        self.former.retain(|one| !leads_again(one));
    }

    /// Forgets former files that no process executes.
    fn forget_former(&mut self) -> Result<(), ShieldError> {
        if self.former.is_empty() {
            return Ok(());
        }
        let mut running = BTreeSet::new();
        for pid in self.processes.table.keys()? {
            let process = self.processes.table.lookup(&pid)?;
            running.extend(process.into_iter().flat_map(|process| [process.exe, process.parent]));
        }
        // A walk over the table may miss a process that forks meanwhile; two in a row do not.
        for one in &mut self.former {
            one.unseen = if running.contains(&one.file.id) { 0 } else { one.unseen + 1 };
        }
        self.former.retain(|one| one.unseen < 2);
        Ok(())
    }

    /// Resolves the paths of rules.
    ///
    /// A pinned file whose content is unchanged keeps the ctimes at which it was read, by which the
    /// kernel recognizes processes that executed it before.
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
        // A directory or a pipe cannot be executed.
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

    /// Enters the ancestry bits of these files into running processes.
    pub(super) fn initialize_ancestry(&self, image: &SocketImage) -> Result<(), ShieldError> {
        let mut is_new = false;
        for (file, bits) in &image.ancestries {
            // Other policies may need the bits that a file has.
            let known = self.processes.ancestries.lookup(file)?.unwrap_or(0);
            if known & bits != *bits {
                self.processes.ancestries.update(file, &(known | bits))?;
                is_new = true;
            }
        }
        if is_new {
            // A process that is forked between the visit of its parent and the end of the first round
            // has the bits that its parent had before.
            self.processes.seed()?;
            self.processes.seed()?;
        }
        Ok(())
    }
}

/// Paths of rules that `was` and `is` resolve differently.
fn changed_paths(compiled: &CompiledSockets, was: &Bound, is: &Bound) -> Vec<PathChange> {
    fn change<T: PartialEq>(path: &Path, was: Option<T>, is: Option<T>) -> Option<PathChange> {
        (was != is).then(|| PathChange { path: path.to_owned(), is_there: is.is_some() })
    }
    let files =
        compiled.files().filter_map(|path| change(path, was.files.get(path), is.files.get(path)));
    let cgroups = compiled
        .cgroups()
        .filter_map(|path| change(Path::new(path), was.cgroups.get(path), is.cgroups.get(path)));
    let cgroup = |bound: &Bound, id| bound.cgroups.get(bound.containers.get(id)?).copied();
    let containers = compiled
        .containers()
        .filter_map(|id| change(Path::new(id), cgroup(was, id), cgroup(is, id)));
    files.chain(cgroups).chain(containers).collect()
}

/// Files, cgroups and containers that rules name and that do not exist.
pub(super) fn missing(compiled: &CompiledSockets, bound: &Bound) -> Vec<PathBuf> {
    let files = compiled.files().filter(|path| !bound.files.contains_key(*path)).cloned();
    let cgroups = compiled.cgroups().filter(|path| !bound.cgroups.contains_key(*path));
    let containers = compiled.containers().filter(|id| !bound.containers.contains_key(*id));
    files.chain(cgroups.chain(containers).map(PathBuf::from)).collect()
}

/// Ctimes at which a file had its present content, before the last change of its inode.
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
