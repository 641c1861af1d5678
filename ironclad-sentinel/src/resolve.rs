//! From the paths of rules to what the kernel knows files by.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsString;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use ironclad_bpf::paths::ways;
use ironclad_bpf::socket::Processes;
use ironclad_core::abi::{self, FileId, NameKey};
use ironclad_policy::file::{CompiledFiles, FileAction, FileRuleInfo, FileScope};

use crate::baseline::{Kind, Scope, Scopes};
use crate::error::SentinelError;
use crate::own::{self, OwnPath};
use crate::status::{Missing, MissingKind};
use crate::volumes::{self, Mount};

/// What one half of a label is to say.
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
    /// Rules that do not bind an executable, and what else it may.
    pub(crate) exemptions: BTreeMap<FileId, (u64, u32)>,
    pub(crate) mounts: BTreeSet<u32>,
    /// Which rules speak of a device, of what it lies on, and of what commands that.
    pub(crate) volumes: BTreeMap<u32, u64>,
}

/// A path that some rules cover.
#[derive(Default)]
struct Wanted {
    rules: u64,
    /// Those that cover what is below it as well.
    below: u64,
    /// Whether any of them denies: then the way to it stays as it is.
    is_guarded: bool,
}

/// Looks all paths up. Sentinel's own rules come with their bit.
pub(crate) fn resolve(
    files: Option<&CompiledFiles>,
    own: &[OwnPath],
    processes: &Processes,
) -> Result<Coverage, SentinelError> {
    let mounts = volumes::mounts()
        .map_err(|source| ironclad_bpf::BpfError::system("reading /proc/self/mountinfo", source))?;
    let mut wanted: BTreeMap<PathBuf, Wanted> = BTreeMap::new();
    let mut want = |path: PathBuf, bit: u64, is_tree: bool, is_guarded: bool| {
        let entry = wanted.entry(path).or_default();
        entry.rules |= bit;
        entry.below |= if is_tree { bit } else { 0 };
        entry.is_guarded |= is_guarded;
    };
    let mut coverage = Coverage::default();
    for (number, rule) in files.iter().flat_map(|files| files.rules()).enumerate() {
        let bit = 1 << number;
        for scope in &rule.scopes {
            match scope {
                FileScope::File(path) => {
                    want(real(rule, path, Kind::File)?, bit, false, rule.denies());
                }
                FileScope::Tree(path) => {
                    let real = real(rule, path, Kind::Tree)?;
                    if let Some(why) =
                        unusable(&real, &mounts).filter(|_| rule.action == FileAction::Deny)
                    {
                        return Err(refused(&described(rule), path, why.to_owned()));
                    }
                    want(real, bit, true, rule.denies());
                }
                FileScope::Glob(pattern) => {
                    for path in matches(rule, pattern)? {
                        want(real(rule, &path, Kind::Glob)?, bit, false, rule.denies());
                    }
                }
                _ => {}
            }
        }
    }
    for own in own {
        want(own.path.clone(), own.bit, own.is_tree, true);
    }

    // Everything whose identity is asked for, at once.
    let mut asked: Vec<PathBuf> = Vec::new();
    let mut covers: Vec<(PathBuf, Covered)> = Vec::new();
    let mut names: Vec<(PathBuf, OsString, u64)> = Vec::new();
    for (path, wanted) in &wanted {
        let covered = Covered { own: wanted.rules, below: wanted.below, ..Covered::default() };
        covers.push((path.clone(), covered));
        if wanted.below != 0 {
            below(path, wanted.below, &mounts, &mut covers);
        }
        if let (Some(dir), Some(name)) = (path.parent(), path.file_name()) {
            names.push((dir.to_owned(), name.to_owned(), wanted.rules));
        }
    }
    let guarded = wanted.iter().filter(|(_, wanted)| wanted.is_guarded);
    let asked_ways: Vec<&Path> = guarded
        .map(|(path, _)| path.as_path())
        .chain(files.iter().flat_map(|files| files.rules()).filter(|rule| rule.denies()).flat_map(
            |rule| {
                rule.scopes.iter().filter_map(|scope| match scope {
                    FileScope::File(path) | FileScope::Tree(path) => Some(path.as_path()),
                    _ => None,
                })
            },
        ))
        .collect();
    let around = |mount: &&Mount| {
        wanted.iter().any(|(path, wanted)| {
            let is_below = wanted.below != 0 && mount.at.starts_with(path);
            wanted.is_guarded && (path.starts_with(&mount.at) || is_below)
        })
    };
    for mount in mounts.iter().filter(around) {
        coverage.mounts.insert(mount.id);
        if let (Some(dir), Some(name)) = (mount.at.parent(), mount.at.file_name()) {
            names.push((dir.to_owned(), name.to_owned(), own::MOUNTS));
        }
    }
    for (dir, steps) in ways(asked_ways) {
        let way = Covered { flags: abi::LABEL_PATH_COMPONENT, ..Covered::default() };
        for name in steps {
            let path = dir.join(name);
            if fs::symlink_metadata(&path).is_ok_and(|it| it.is_symlink()) {
                covers.push((path, way));
            }
        }
        covers.push((dir, way));
    }
    for (dir, name, _) in &names {
        let bit = 1 << (name.len() % 32);
        covers.push((dir.clone(), Covered { names: bit, ..Covered::default() }));
    }
    let exceptions = files.map(CompiledFiles::exceptions).unwrap_or_default();
    asked.extend(covers.iter().map(|(path, _)| path.clone()));
    let paths: Vec<&Path> = asked.iter().map(PathBuf::as_path).collect();
    let found = processes.identify_themselves(&paths)?;
    let id_of: BTreeMap<&Path, FileId> =
        paths.iter().zip(&found).filter_map(|(path, id)| Some((*path, (*id)?))).collect();
    for (path, more) in &covers {
        let Some(id) = id_of.get(path.as_path()) else { continue };
        let known = coverage.files.entry(*id).or_default();
        known.own |= more.own;
        known.below |= more.below;
        known.flags |= more.flags;
        known.names |= more.names;
    }
    for (dir, name, rules) in names {
        if let Some(id) = id_of.get(dir.as_path()) {
            let key = NameKey::new(*id, name.as_bytes());
            *coverage.names.entry(key).or_default() |= rules;
        }
    }
    let exes: Vec<&Path> = exceptions.keys().copied().collect();
    for (path, id) in exes.iter().zip(processes.identify(&exes)?) {
        let rules = exceptions[path];
        match id {
            Some(id) => coverage.exemptions.entry(id).or_default().0 |= rules,
            None => {
                let rule =
                    files.and_then(|files| files.rules().get(rules.trailing_zeros() as usize));
                return Err(refused(
                    &rule.map(described).unwrap_or_default(),
                    path,
                    "is exempt, and there is no such file".to_owned(),
                ));
            }
        }
    }
    Ok(coverage)
}

/// What rules name, and where that leads.
pub(crate) fn scopes(files: Option<&CompiledFiles>) -> Result<Scopes, SentinelError> {
    let mut found = BTreeSet::new();
    for rule in files.iter().flat_map(|files| files.rules()) {
        for scope in &rule.scopes {
            let (kind, named, real) = match scope {
                FileScope::File(path) => (Kind::File, path.clone(), real(rule, path, Kind::File)?),
                FileScope::Tree(path) => (Kind::Tree, path.clone(), real(rule, path, Kind::Tree)?),
                FileScope::Glob(pattern) => (Kind::Glob, pattern.into(), real_pattern(pattern)),
                _ => continue,
            };
            found.insert(Scope { kind, named, real });
        }
    }
    Ok(Scopes(found.into_iter().collect()))
}

/// A pattern of paths without symbolic links, as far as it names directories.
fn real_pattern(pattern: &str) -> PathBuf {
    let wild = pattern.find(['*', '?', '[']).unwrap_or(pattern.len());
    let end = pattern[..wild].rfind('/').unwrap_or(0);
    let dir = fs::canonicalize(&pattern[..end]).ok();
    match dir.as_deref().and_then(Path::to_str) {
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
    SentinelError::Path { rule: rule.to_owned(), path: path.to_owned(), what }
}

/// The path without symbolic links. Of a file that is not there, its directory has to be.
fn real(rule: &FileRuleInfo, path: &Path, kind: Kind) -> Result<PathBuf, SentinelError> {
    let is_tree = kind == Kind::Tree;
    let refused = |what: String| refused(&described(rule), path, what);
    let real = match fs::canonicalize(path) {
        Ok(real) => real,
        Err(e) if e.kind() == std::io::ErrorKind::NotFound && !is_tree => {
            // A link to what is not there would lead past its own name.
            if fs::symlink_metadata(path).is_ok() {
                return Err(refused("is a symbolic link that leads to no file".to_owned()));
            }
            let (dir, name) = path
                .parent()
                .zip(path.file_name())
                .ok_or_else(|| refused("is no path of a file".to_owned()))?;
            let dir = fs::canonicalize(dir)
                .map_err(|e| refused(format!("would lie in a directory that is not there ({e}): create it, or name the file once it is")))?;
            dir.join(name)
        }
        Err(e) if is_tree && e.kind() == std::io::ErrorKind::NotFound => {
            return Err(refused(
                "is not there, and a tree has to be: create the directory first".to_owned(),
            ));
        }
        Err(e) if is_tree => {
            return Err(refused(format!("cannot be covered with all below it: {e}")));
        }
        Err(e) if e.kind() == std::io::ErrorKind::NotADirectory => {
            return Err(refused(format!(
                "cannot be covered: {e}; a path that ends in `/` names a directory, and so does what has another below it"
            )));
        }
        Err(e) => return Err(refused(format!("cannot be covered: {e}"))),
    };
    if kind == Kind::File && real.is_dir() {
        return Err(refused("is a directory: cover it as a tree".to_owned()));
    }
    if is_tree && !real.is_dir() {
        return Err(refused("is no directory: cover it as a file".to_owned()));
    }
    let there = if real.exists() { real.as_path() } else { real.parent().unwrap_or(&real) };
    match volumes::unfit(there) {
        Some(why) => Err(refused(why)),
        None => Ok(real),
    }
}

/// Why a host cannot be used where nobody may change what is below.
fn unusable(real: &Path, mounts: &[Mount]) -> Option<&'static str> {
    if real == Path::new("/") {
        return Some(
            "is all that the host has, with what everybody writes to: cover the directories that are not to change, such as /etc and /usr",
        );
    }
    let is_devices = volumes::at(mounts, real).is_some_and(|mount| mount.kind == "devtmpfs");
    (is_devices || real == Path::new("/dev")).then_some(
        "holds devices that everybody writes to, such as /dev/null and terminals: cover single devices as files",
    )
}

/// Files of rules that are not there.
pub(crate) fn absent(files: Option<&CompiledFiles>) -> Vec<Missing> {
    let mut found = Vec::new();
    for rule in files.iter().flat_map(|files| files.rules()) {
        let files = rule.scopes.iter().filter_map(|scope| match scope {
            FileScope::File(path) if fs::metadata(path).is_err() => Some(path.clone()),
            _ => None,
        });
        let kind = MissingKind::File;
        found.extend(files.map(|path| Missing { path, by: described(rule), kind }));
    }
    found
}

/// Patterns that match nothing, and directories that they match.
pub(crate) fn missing(files: Option<&CompiledFiles>) -> Vec<Missing> {
    let mut found = Vec::new();
    for rule in files.iter().flat_map(|files| files.rules()) {
        let mut tell = |path, kind| found.push(Missing { path, by: described(rule), kind });
        for scope in &rule.scopes {
            let FileScope::Glob(pattern) = scope else { continue };
            let matched = matches(rule, pattern).unwrap_or_default();
            if matched.is_empty() {
                tell(pattern.into(), MissingKind::Pattern);
            }
            let directories = matched.into_iter().filter(|path| path.is_dir());
            directories.for_each(|path| tell(path, MissingKind::Directory));
        }
    }
    found
}

fn matches(rule: &FileRuleInfo, pattern: &str) -> Result<Vec<PathBuf>, SentinelError> {
    let wrong = |what: String| SentinelError::Pattern {
        rule: described(rule),
        pattern: pattern.to_owned(),
        what,
    };
    let found = glob::glob(pattern).map_err(|e| wrong(e.to_string()))?;
    found.map(|path| path.map_err(|e| wrong(e.to_string()))).collect()
}

/// What lies in a directory and is not found by the way to it: other file systems that are mounted
/// there, and files that have other names elsewhere. What the kernel makes up is none of it.
fn below(root: &Path, rules: u64, mounts: &[Mount], covers: &mut Vec<(PathBuf, Covered)>) {
    let mut roots = vec![root.to_owned()];
    let points = mounts.iter().filter(|mount| volumes::passed_over(&mount.kind).is_none());
    let points = points.map(|mount| &mount.at);
    roots.extend(points.filter(|at| at.starts_with(root) && *at != root).cloned());
    for mounted in &roots[1..] {
        covers.push((mounted.clone(), Covered { own: rules, below: rules, ..Covered::default() }));
    }
    for root in roots {
        let Ok(device) = fs::symlink_metadata(&root).map(|it| it.dev()) else { continue };
        let mut left = vec![root];
        while let Some(dir) = left.pop() {
            let Ok(entries) = fs::read_dir(&dir) else { continue };
            for entry in entries.flatten() {
                let Ok(it) = entry.metadata() else { continue };
                if it.is_dir() && it.dev() == device {
                    left.push(entry.path());
                } else if !it.is_dir() && it.nlink() > 1 {
                    covers.push((entry.path(), Covered { own: rules, ..Covered::default() }));
                }
            }
        }
    }
}
