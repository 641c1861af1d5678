//! Resolves the paths of rules to what the kernel knows files by.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsString;
use std::fs;
use std::io::{self, ErrorKind};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use ironclad_bpf::BpfError;
use ironclad_bpf::paths::components;
use ironclad_bpf::pseudo_fs::{self, PROC, PseudoFs, SECURITY, SYS};
use ironclad_bpf::socket::Processes;
use ironclad_core::abi::{self, FileId, NameKey};
use ironclad_policy::file::{CompiledFiles, FileAction, FileRuleInfo, FileScope};
use siphasher::sip::SipHasher13;

use crate::baseline::{Kind, Scope, Scopes};
use crate::error::{Failure, SentinelError};
use crate::lookup::{Lookup, Matches, Unreached};
use crate::own::{self, OwnPath};
use crate::status::{Missing, MissingKind};
use crate::volumes::{self, Mount};

/// The content of one half of a label.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Covered {
    pub(crate) own: u64,
    pub(crate) below: u64,
    pub(crate) flags: u32,
    pub(crate) names: u32,
}

/// What rules cover on this host.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Coverage {
    pub(crate) files: BTreeMap<FileId, Covered>,
    pub(crate) names: BTreeMap<NameKey, u64>,
    /// Rules that an executable is exempt from, and its permissions.
    pub(crate) exemptions: BTreeMap<FileId, (u64, u32)>,
    pub(crate) mounts: BTreeSet<u32>,
    /// Paths that no mount may cover, and whether that is so of everything below them.
    pub(crate) uncovered: BTreeMap<PathBuf, bool>,
    /// The rules that cover a device, its backing devices, and the devices that send commands to them.
    pub(crate) volumes: BTreeMap<u32, u64>,
    /// Backing files of loop devices that can write.
    pub(crate) loops: BTreeSet<FileId>,
    /// External logs and journals, and the file systems that have each open.
    pub(crate) beside: BTreeMap<u32, BTreeSet<u32>>,
}

impl Coverage {
    /// Whether a mount is on the path to a protected file, or below a protected directory.
    pub(crate) fn is_over(&self, mount: &Mount) -> bool {
        let mut paths = self.uncovered.iter();
        paths.any(|(path, is_tree)| {
            path.starts_with(&mount.at) || (*is_tree && mount.at.starts_with(path))
        })
    }
}

/// The paths that rules cover.
type Wanted = BTreeMap<PathBuf, Rules>;

/// The rules that cover a path.
#[derive(Default)]
struct Rules {
    all: u64,
    /// Rules that cover what is below the path as well.
    below: u64,
    /// Whether any of them denies: then the components of the path are protected, too.
    denies: bool,
}

/// Labels and names, by paths.
#[derive(Default)]
struct Covers {
    labels: Vec<(PathBuf, Covered)>,
    names: Vec<(PathBuf, OsString, u64)>,
}

/// Refuses rules on paths that cannot be covered.
pub(crate) fn check(files: Option<&CompiledFiles>) -> Result<(), SentinelError> {
    wanted(files, &[], &mounts()?).map(drop)
}

pub(crate) fn mounts() -> Result<Vec<Mount>, SentinelError> {
    let failed = |source| BpfError::system("reading /proc/self/mountinfo", source);
    Ok(volumes::mounts().map_err(failed)?)
}

/// Resolves all paths of rules, and of Sentinel's own. `name_key` is [`Guard::name_key`](ironclad_bpf::sentinel::Guard::name_key).
pub(crate) fn resolve(
    files: Option<&CompiledFiles>,
    own: &[OwnPath],
    processes: &Processes,
    name_key: [u64; 2],
) -> Result<Coverage, SentinelError> {
    let mounts = mounts()?;
    let wanted = wanted(files, own, &mounts)?;
    let mut coverage = Coverage::default();
    let mut covers = Covers::default();
    covers.add_wanted(&wanted, &mounts);
    covers.add_mounts(&wanted, &mounts, &mut coverage.mounts);
    covers.add_path_components(&wanted, files);
    let denying = wanted.iter().filter(|(_, rules)| rules.denies);
    coverage.uncovered = denying.map(|(path, rules)| (path.clone(), rules.below != 0)).collect();
    covers.add_pseudo_fs(&mounts, &mut coverage.mounts)?;
    for (dir, name, _) in &covers.names {
        let names = 1 << (name.len() % 32);
        covers.labels.push((dir.clone(), Covered { names, ..Covered::default() }));
    }
    covers.identify(processes, name_key, &mut coverage)?;
    exempt(files, processes, &mut coverage)?;
    Ok(coverage)
}

/// The paths of all rules, without symbolic links.
fn wanted(
    files: Option<&CompiledFiles>,
    own: &[OwnPath],
    mounts: &[Mount],
) -> Result<Wanted, SentinelError> {
    let lookup = Lookup::new(mounts);
    let mut wanted = Wanted::new();
    let mut want = |path: PathBuf, bit: u64, is_tree: bool, denies: bool| {
        let rules = wanted.entry(path).or_default();
        rules.all |= bit;
        rules.below |= if is_tree { bit } else { 0 };
        rules.denies |= denies;
    };
    for (index, rule) in files.iter().flat_map(|files| files.rules()).enumerate() {
        let bit = 1 << index;
        for scope in &rule.scopes {
            match scope {
                FileScope::File(path) => {
                    want(real(rule, path, Kind::File, &lookup)?, bit, false, rule.denies());
                }
                FileScope::Tree(path) => {
                    let real = real(rule, path, Kind::Tree, &lookup)?;
                    let why = unusable(&real, mounts);
                    if let Some(why) = why.filter(|_| rule.action == FileAction::Deny) {
                        return Err(refused(&described(rule), path, why.to_owned()));
                    }
                    want(real, bit, true, rule.denies());
                }
                FileScope::Glob(pattern) => {
                    for path in matches(rule, pattern, &lookup)?.paths {
                        want(real(rule, &path, Kind::Glob, &lookup)?, bit, false, rule.denies());
                    }
                }
                _ => {}
            }
        }
    }
    for own in own {
        want(own.path.clone(), own.bit, own.is_tree, true);
    }
    Ok(wanted)
}

impl Covers {
    fn add_wanted(&mut self, wanted: &Wanted, mounts: &[Mount]) {
        for (path, rules) in wanted {
            let covered = Covered { own: rules.all, below: rules.below, ..Covered::default() };
            self.labels.push((path.clone(), covered));
            if rules.below != 0 {
                below(path, rules.below, mounts, &mut self.labels);
            }
            if let (Some(dir), Some(name)) = (path.parent(), path.file_name()) {
                self.names.push((dir.to_owned(), name.to_owned(), rules.all));
            }
        }
    }

    /// Mounts above and below protected paths: their ids, and the names of their mount points.
    fn add_mounts(&mut self, wanted: &Wanted, mounts: &[Mount], ids: &mut BTreeSet<u32>) {
        let holds_protected = |mount: &&Mount| {
            wanted.iter().any(|(path, rules)| {
                let is_below = rules.below != 0 && mount.at.starts_with(path);
                rules.denies && (path.starts_with(&mount.at) || is_below)
            })
        };
        for mount in mounts.iter().filter(holds_protected) {
            ids.insert(mount.id);
            if let (Some(dir), Some(name)) = (mount.at.parent(), mount.at.file_name()) {
                self.names.push((dir.to_owned(), name.to_owned(), own::MOUNTS));
            }
        }
    }

    /// Directories and symbolic links that protected paths lead through.
    fn add_path_components(&mut self, wanted: &Wanted, files: Option<&CompiledFiles>) {
        let denying = files.iter().flat_map(|files| files.rules()).filter(|rule| rule.denies());
        let named = denying.flat_map(|rule| &rule.scopes).filter_map(|scope| match scope {
            FileScope::File(path) | FileScope::Tree(path) => Some(path.as_path()),
            _ => None,
        });
        let protected = wanted.iter().filter(|(_, rules)| rules.denies);
        let paths: Vec<&Path> = protected.map(|(path, _)| path.as_path()).chain(named).collect();
        let covered = Covered { flags: abi::LABEL_PATH_COMPONENT, ..Covered::default() };
        for (dir, names) in components(paths) {
            for name in names {
                let path = dir.join(name);
                if fs::symlink_metadata(&path).is_ok_and(|it| it.is_symlink()) {
                    self.labels.push((path, covered));
                }
            }
            self.labels.push((dir, covered));
        }
    }

    /// The mounts of procfs, sysfs and securityfs, and their roots. Programs protect what the agent reads below the
    /// roots of procfs and sysfs: many of its inodes have no number that lasts.
    fn add_pseudo_fs(
        &mut self,
        mounts: &[Mount],
        ids: &mut BTreeSet<u32>,
    ) -> Result<(), SentinelError> {
        pseudo_fs::check_paths()
            .map_err(|source| BpfError::system("checking the kernel's files", source))?;
        let at = [&PROC, &SYS, &SECURITY].map(PseudoFs::at);
        for mount in mounts.iter().filter(|mount| at.contains(&&*mount.at)) {
            ids.insert(mount.id);
            if let (Some(dir), Some(name)) = (mount.at.parent(), mount.at.file_name()) {
                self.names.push((dir.to_owned(), name.to_owned(), own::MOUNTS));
            }
            let flags = abi::LABEL_PATH_COMPONENT;
            let covered = Covered { own: own::MOUNTS, flags, ..Covered::default() };
            self.labels.push((mount.at.clone(), covered));
        }
        Ok(())
    }

    /// Finds the identities of all paths in one pass.
    fn identify(
        self,
        processes: &Processes,
        name_key: [u64; 2],
        coverage: &mut Coverage,
    ) -> Result<(), SentinelError> {
        let paths: Vec<&Path> = self.labels.iter().map(|(path, _)| path.as_path()).collect();
        let found = processes.identify_themselves(&paths)?;
        let id_of: BTreeMap<&Path, FileId> =
            paths.iter().zip(&found).filter_map(|(path, id)| Some((*path, (*id)?))).collect();
        for (path, more) in &self.labels {
            let Some(id) = id_of.get(path.as_path()) else { continue };
            let known = coverage.files.entry(*id).or_default();
            known.own |= more.own;
            known.below |= more.below;
            known.flags |= more.flags;
            known.names |= more.names;
        }
        for (dir, name, rules) in &self.names {
            if let Some(id) = id_of.get(dir.as_path()) {
                let key = key_of_name(*id, name.as_bytes(), name_key);
                *coverage.names.entry(key).or_default() |= rules;
            }
        }
        Ok(())
    }
}

/// The key of a name in a directory: the hash of `ic_name_hash()` in C.
fn key_of_name(dir: FileId, name: &[u8], [one, two]: [u64; 2]) -> NameKey {
    let hash = SipHasher13::new_with_keys(one, two).hash(name);
    NameKey { dir, hash, len: name.len() as u32, _pad: 0 }
}

/// Adds the exempt executables of rules.
fn exempt(
    files: Option<&CompiledFiles>,
    processes: &Processes,
    coverage: &mut Coverage,
) -> Result<(), SentinelError> {
    let exemptions = files.map(CompiledFiles::exceptions).unwrap_or_default();
    let paths: Vec<&Path> = exemptions.keys().copied().collect();
    for (path, id) in paths.iter().zip(processes.identify(&paths)?) {
        let rules = exemptions[path];
        let Some(id) = id else {
            let rule = files.and_then(|files| files.rules().get(rules.trailing_zeros() as usize));
            let rule = rule.map(described).unwrap_or_default();
            let what = "is exempt, and there is no such file".to_owned();
            return Err(refused(&rule, path, what));
        };
        coverage.exemptions.entry(id).or_default().0 |= rules;
    }
    Ok(())
}

/// The scopes of all rules, with and without symbolic links.
pub(crate) fn scopes(files: Option<&CompiledFiles>) -> Result<Scopes, SentinelError> {
    let (mounts, mut found) = (mounts()?, BTreeSet::new());
    let lookup = Lookup::new(&mounts);
    for rule in files.iter().flat_map(|files| files.rules()) {
        let real = |path: &Path, kind| real(rule, path, kind, &lookup);
        for scope in &rule.scopes {
            let (kind, named, real) = match scope {
                FileScope::File(path) => (Kind::File, path.clone(), real(path, Kind::File)?),
                FileScope::Tree(path) => (Kind::Tree, path.clone(), real(path, Kind::Tree)?),
                FileScope::Glob(pattern) => {
                    (Kind::Glob, pattern.into(), real_pattern(pattern, &lookup))
                }
                _ => continue,
            };
            found.insert(Scope { kind, named, real });
        }
    }
    Ok(Scopes(found.into_iter().collect()))
}

/// A pattern without symbolic links before its first wildcard.
fn real_pattern(pattern: &str, lookup: &Lookup<'_>) -> PathBuf {
    let wild = pattern.find(['*', '?', '[']).unwrap_or(pattern.len());
    let end = pattern[..wild].rfind('/').unwrap_or(0);
    let dir = lookup.find(Path::new(&pattern[..end])).ok();
    match dir.as_ref().and_then(|dir| dir.path.to_str()) {
        Some(dir) => format!("{}{}", glob::Pattern::escape(dir), &pattern[end..]).into(),
        None => pattern.into(),
    }
}

pub(crate) fn described(rule: &FileRuleInfo) -> String {
    match &rule.described_at {
        Some(place) => format!("rule {} (`{}`, {place})", rule.id, rule.name),
        None => format!("rule {} (`{}`)", rule.id, rule.name),
    }
}

fn refused(rule: &str, path: &Path, what: String) -> SentinelError {
    Failure::Path { rule: rule.to_owned(), path: path.to_owned(), what }.into()
}

/// The path without symbolic links. A file may be missing, its directory may not.
fn real(
    rule: &FileRuleInfo,
    path: &Path,
    kind: Kind,
    lookup: &Lookup<'_>,
) -> Result<PathBuf, SentinelError> {
    let is_tree = kind == Kind::Tree;
    let refused = |what: String| refused(&described(rule), path, what);
    let find = |path: &Path| match kind {
        Kind::Glob => lookup.find(path).map_err(io::Error::from),
        _ => lookup.find_named(path).map_err(io::Error::from),
    };
    let found = match find(path) {
        Ok(found) => found,
        Err(e) if e.kind() == ErrorKind::NotFound && !is_tree => {
            // The name of a dangling link is not the name of its target.
            if fs::symlink_metadata(path).is_ok() {
                return Err(refused("is a symbolic link to a missing file".to_owned()));
            }
            let (dir, name) = path
                .parent()
                .zip(path.file_name())
                .ok_or_else(|| refused("is no path of a file".to_owned()))?;
            let dir = find(dir).map_err(|e| {
                refused(format!("is in a directory that does not exist ({e}): create it first"))
            })?;
            return match volumes::unsupported(&dir.path).or_else(|| volumes::folds_case(&dir.path))
            {
                Some(why) => Err(refused(why)),
                None => Ok(dir.path.join(name)),
            };
        }
        Err(e) if is_tree && e.kind() == ErrorKind::NotFound => {
            return Err(refused("does not exist: create the directory first".to_owned()));
        }
        Err(e) if is_tree => {
            return Err(refused(format!("cannot be covered as a tree: {e}")));
        }
        Err(e) if e.kind() == ErrorKind::NotADirectory => {
            return Err(refused(format!(
                "cannot be covered: {e}; a path that ends with `/` names a directory, and so does the parent of another path"
            )));
        }
        Err(e) => return Err(refused(format!("cannot be covered: {e}"))),
    };
    if kind == Kind::File && found.is_dir {
        return Err(refused("is a directory: cover it as a tree".to_owned()));
    }
    if is_tree && !found.is_dir {
        return Err(refused("is no directory: cover it as a file".to_owned()));
    }
    let dir = found.path.parent().filter(|_| !is_tree);
    let by_name = || dir.and_then(volumes::folds_case);
    match volumes::unsupported(&found.path).or_else(by_name) {
        Some(why) => Err(refused(why)),
        None => Ok(found.path),
    }
}

/// Why a host is unusable where a rule denies changes below a directory.
fn unusable(real: &Path, mounts: &[Mount]) -> Option<&'static str> {
    if real == Path::new("/") {
        return Some(
            "is the root of the host, with files that every process writes to: cover single directories, such as /etc and /usr",
        );
    }
    let is_devices = volumes::at(mounts, real).is_some_and(|mount| mount.kind == "devtmpfs");
    (is_devices || real == Path::new("/dev")).then_some(
        "has devices that every process writes to, such as /dev/null and terminals: cover single devices as files",
    )
}

/// Files of rules that are missing, or on file systems that are not entered.
pub(crate) fn absent(files: Option<&CompiledFiles>) -> Vec<Missing> {
    let mut found = Vec::new();
    let mounts = mounts().unwrap_or_default();
    let lookup = Lookup::new(&mounts);
    for rule in files.iter().flat_map(|files| files.rules()) {
        for scope in &rule.scopes {
            let FileScope::File(path) = scope else { continue };
            let (path, kind) = match lookup.find(path) {
                Ok(_) => continue,
                Err(Unreached::Served { at, .. }) => (at, MissingKind::Served),
                Err(Unreached::Failed(_)) => (path.clone(), MissingKind::File),
            };
            found.push(Missing { path, by: described(rule), kind });
        }
    }
    found
}

/// Patterns without a match, and what patterns match and rules do not cover.
pub(crate) fn missing(files: Option<&CompiledFiles>) -> Vec<Missing> {
    let mut found = Vec::new();
    let mounts = mounts().unwrap_or_default();
    let lookup = Lookup::new(&mounts);
    for rule in files.iter().flat_map(|files| files.rules()) {
        let mut add = |path, kind| found.push(Missing { path, by: described(rule), kind });
        for scope in &rule.scopes {
            let FileScope::Glob(pattern) = scope else { continue };
            let matched = matches(rule, pattern, &lookup).unwrap_or_default();
            if matched.paths.is_empty() {
                add(pattern.into(), MissingKind::Pattern);
            }
            let is_dir = |path: &PathBuf| lookup.find(path).is_ok_and(|found| found.is_dir);
            let directories = matched.paths.into_iter().filter(is_dir);
            directories.for_each(|path| add(path, MissingKind::Directory));
            matched.served.into_keys().for_each(|at| add(at, MissingKind::Served));
        }
    }
    found
}

fn matches(
    rule: &FileRuleInfo,
    pattern: &str,
    lookup: &Lookup<'_>,
) -> Result<Matches, SentinelError> {
    lookup.matches(pattern).map_err(|e| {
        let (rule, pattern, what) = (described(rule), pattern.to_owned(), e.to_string());
        Failure::Pattern { rule, pattern, what }.into()
    })
}

/// Adds what the label of a directory does not cover below it: other file systems that are mounted there, and
/// files with several hard links. Pseudo file systems stay uncovered, and so does what a process or another host serves.
fn below(root: &Path, rules: u64, mounts: &[Mount], covers: &mut Vec<(PathBuf, Covered)>) {
    let mut roots = vec![root.to_owned()];
    let is_covered = |mount: &&Mount| volumes::not_covered(&mount.kind).is_none();
    let points = mounts.iter().filter(is_covered).map(|mount| &mount.at);
    roots.extend(points.filter(|at| at.starts_with(root) && *at != root).cloned());
    for mounted in &roots[1..] {
        covers.push((mounted.clone(), Covered { own: rules, below: rules, ..Covered::default() }));
    }
    let lookup = Lookup::new(mounts);
    for root in roots {
        let Ok(root) = lookup.find(&root) else { continue };
        let mut left = vec![PathBuf::new()];
        while let Some(dir) = left.pop() {
            // What is mounted in the directory is another root.
            for entry in root.entries(&dir).into_iter().flatten() {
                let path = dir.join(&entry.name);
                if entry.is_dir {
                    left.push(path);
                } else if entry.has_links {
                    let covered = Covered { own: rules, ..Covered::default() };
                    covers.push((root.path.join(path), covered));
                }
            }
        }
    }
}
