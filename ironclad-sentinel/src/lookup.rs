//! Looks up paths and patterns without entering a file system that a process or another host serves: a server that does
//! not answer would stop the agent. Users can mount such file systems in their own directories (FUSE).

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::ffi::OsStringExt;
use std::path::{Component, Path, PathBuf};

use glob::Pattern;
use ironclad_bpf::paths::{Entry, entries};
use ironclad_bpf::pseudo_fs::PROC;
use rustix::fs::{FileType, Mode, OFlags, ResolveFlags, fstat, open, openat, openat2, readlinkat};
use rustix::io::Errno;

use crate::volumes::{self, Mount};

/// As many symbolic links as the kernel follows in one path.
const LINKS_MAX: usize = 40;
/// A directory where a file system is mounted at its first use.
const AUTOFS: &str = "autofs";
/// Opens a file as a place, which asks no server.
const PLACE: OFlags = OFlags::PATH.union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC);

/// Why nothing is looked up in a file system of this kind. None for file systems of the kernel's own.
pub(crate) fn served(kind: &str) -> Option<String> {
    const BY_PROCESS: [&str; 3] = ["fuse", "fuseblk", AUTOFS];
    const BY_HOST: [&str; 10] =
        ["nfs", "nfs4", "cifs", "smb3", "9p", "ceph", "afs", "coda", "orangefs", "virtiofs"];
    let whose = match kind {
        _ if BY_PROCESS.contains(&kind) || kind.starts_with("fuse.") => "a process",
        _ if BY_HOST.contains(&kind) => "another host",
        _ => return None,
    };
    Some(format!("is on {kind}, which {whose} serves"))
}

/// Why a path was not looked up to its end.
#[derive(Debug)]
pub(crate) enum Unreached {
    /// At this mount point begins what is not entered.
    Served {
        at: PathBuf,
        why: String,
    },
    Failed(io::Error),
}

impl From<io::Error> for Unreached {
    fn from(error: io::Error) -> Self {
        Self::Failed(error)
    }
}

impl From<Errno> for Unreached {
    fn from(error: Errno) -> Self {
        Self::Failed(error.into())
    }
}

impl From<Unreached> for io::Error {
    fn from(unreached: Unreached) -> Self {
        match unreached {
            Unreached::Served { at, why } => Self::other(format!("`{}` {why}", at.display())),
            Unreached::Failed(error) => error,
        }
    }
}

/// A file, and its path without symbolic links.
#[derive(Debug)]
pub(crate) struct Found {
    pub(crate) path: PathBuf,
    pub(crate) is_dir: bool,
    file: OwnedFd,
}

/// What a pattern matches.
#[derive(Debug, Default)]
pub(crate) struct Matches {
    /// Paths that match. They may lead through symbolic links, also to what is missing.
    pub(crate) paths: BTreeSet<PathBuf>,
    /// Mount points that were not entered, and why.
    pub(crate) served: BTreeMap<PathBuf, String>,
}

/// The mounts by which paths are looked up.
pub(crate) struct Lookup<'a> {
    by_path: HashMap<&'a Path, Vec<&'a Mount>>,
}

impl<'a> Lookup<'a> {
    pub(crate) fn new(mounts: &'a [Mount]) -> Self {
        let mut by_path: HashMap<_, Vec<_>> = HashMap::new();
        for mount in mounts {
            by_path.entry(mount.at.as_path()).or_default().push(mount);
        }
        Self { by_path }
    }

    /// Follows an absolute path, with its symbolic links.
    pub(crate) fn find(&self, path: &Path) -> Result<Found, Unreached> {
        self.follow(path, false)
    }

    /// What a directory that was found contains by a name, without following a symbolic link.
    pub(crate) fn find_in(&self, dir: &Found, name: &OsStr) -> Result<Found, Unreached> {
        let (file, kind) = self.step(dir, name, false)?;
        Ok(Found { path: dir.path.join(name), is_dir: kind == FileType::Directory, file })
    }

    /// The same as [`find`](Self::find) for a path that a rule names: file systems that are mounted at their first use are
    /// mounted.
    pub(crate) fn find_named(&self, path: &Path) -> Result<Found, Unreached> {
        self.follow(path, true)
    }

    fn follow(&self, path: &Path, automount: bool) -> Result<Found, Unreached> {
        let file = open("/", PLACE, Mode::empty())?;
        let root = Found { path: "/".into(), is_dir: true, file };
        let (mut walked, mut links) = (vec![root], 0);
        let mut left = names(path);
        while let Some(name) = left.pop_front() {
            if name == ".." {
                walked.truncate(walked.len().saturating_sub(1).max(1));
                continue;
            }
            let dir = walked.last().expect("the root");
            let (file, kind) = self.step(dir, &name, automount)?;
            if kind != FileType::Symlink {
                let is_dir = kind == FileType::Directory;
                walked.push(Found { path: dir.path.join(name), is_dir, file });
                continue;
            }
            links += 1;
            if links > LINKS_MAX {
                return Err(Errno::LOOP.into());
            }
            let target = OsString::from_vec(readlinkat(&file, "", Vec::new())?.into_bytes());
            let target = Path::new(&target);
            if target.is_absolute() {
                walked.truncate(1);
            }
            names(target).into_iter().rev().for_each(|name| left.push_front(name));
        }
        let found = walked.pop().expect("the root");
        match found.is_dir || !path.as_os_str().as_encoded_bytes().ends_with(b"/") {
            true => Ok(found),
            false => Err(Errno::NOTDIR.into()),
        }
    }

    /// Opens a name of a directory as a place, which asks no server, where nothing served is mounted.
    fn step(
        &self,
        dir: &Found,
        name: &OsStr,
        automount: bool,
    ) -> Result<(OwnedFd, FileType), Unreached> {
        let opened = openat2(&dir.file, name, PLACE, Mode::empty(), ResolveFlags::NO_XDEV);
        let file = match opened {
            Err(Errno::XDEV) => self.enter(dir, name, automount)?,
            opened => opened?,
        };
        let kind = FileType::from_raw_mode(fstat(&file)?.st_mode);
        Ok((file, kind))
    }

    /// The same for a mount point.
    fn enter(&self, dir: &Found, name: &OsStr, automount: bool) -> Result<OwnedFd, Unreached> {
        let at = dir.path.join(name);
        let mounts = self.by_path.get(at.as_path()).map(Vec::as_slice).unwrap_or_default();
        let is_automount = |mount: &&Mount| automount && mount.kind == AUTOFS;
        let asks = mounts.iter().all(|mount| served(&mount.kind).is_some() && !is_automount(mount));
        // Already the open of a place may ask the server of NFS.
        if let Some(why) = mounts.last().filter(|_| asks).and_then(|mount| served(&mount.kind)) {
            return Err(Unreached::Served { at, why });
        }
        let trigger = match mounts.iter().any(is_automount) {
            true => OFlags::DIRECTORY,
            false => OFlags::empty(),
        };
        let file = openat(&dir.file, name, PLACE | trigger, Mode::empty())?;
        let id = mount_id(&file)?;
        let kind = match mounts.iter().find(|mount| mount.id == id) {
            Some(mount) => Some(mount.kind.clone()),
            None => volumes::mounts()?.into_iter().find(|it| it.id == id).map(|it| it.kind),
        };
        match kind.map(|kind| served(&kind)) {
            Some(None) => Ok(file),
            Some(Some(why)) => Err(Unreached::Served { at, why }),
            None => Err(Unreached::Served { at, why: "was mounted meanwhile".to_owned() }),
        }
    }

    /// Expands an absolute pattern as `glob::glob` does, but `**` leads through no symbolic link, which users could loop.
    pub(crate) fn matches(&self, pattern: &str) -> io::Result<Matches> {
        let wrong = |e: glob::PatternError| io::Error::new(io::ErrorKind::InvalidInput, e);
        let parts = pattern.split('/').filter(|part| !matches!(*part, "" | "."));
        let parts: Vec<_> = parts.map(Part::new).collect::<Result<_, _>>().map_err(wrong)?;
        let mut matches = Matches::default();
        self.expand(Path::new("/"), &parts, &mut matches)?;
        if pattern.ends_with('/') {
            matches.paths.retain(|path| self.find(path).is_ok_and(|found| found.is_dir));
        }
        Ok(matches)
    }

    fn expand(&self, path: &Path, parts: &[Part<'_>], matches: &mut Matches) -> io::Result<()> {
        match parts {
            [] => match self.find(path) {
                Ok(_) => drop(matches.paths.insert(path.to_owned())),
                Err(Unreached::Served { at, why }) => drop(matches.served.insert(at, why)),
                Err(Unreached::Failed(_)) if self.is_link(path) => {
                    matches.paths.insert(path.to_owned());
                }
                Err(Unreached::Failed(_)) => {}
            },
            [Part::Name(name), rest @ ..] => self.expand(&path.join(name), rest, matches)?,
            [Part::Wild(wild), rest @ ..] => {
                for Entry { name, .. } in self.entries(path, matches)? {
                    if name.to_str().is_some_and(|name| wild.matches(name)) {
                        self.expand(&path.join(name), rest, matches)?;
                    }
                }
            }
            [Part::Below, Part::Below, ..] => self.expand(path, &parts[1..], matches)?,
            [Part::Below, rest @ ..] => {
                for Entry { name, is_dir, .. } in self.entries(path, matches)? {
                    let next = path.join(&name);
                    if is_dir {
                        self.expand(&next, parts, matches)?;
                    }
                    match rest.split_first() {
                        None if is_dir => self.expand(&next, &[], matches)?,
                        Some((first, more)) if first.is_matched_by(&name) => {
                            self.expand(&next, more, matches)?;
                        }
                        _ => {}
                    }
                }
            }
        }
        Ok(())
    }

    /// Whether a path names a symbolic link, wherever it leads.
    fn is_link(&self, path: &Path) -> bool {
        let (Some(dir), Some(name)) = (path.parent(), path.file_name()) else { return false };
        let found = self.find(dir).and_then(|dir| self.step(&dir, name, false));
        found.is_ok_and(|(_, kind)| kind == FileType::Symlink)
    }

    /// What a directory contains. Nothing of what is no directory, or is not entered.
    fn entries(&self, path: &Path, matches: &mut Matches) -> io::Result<Vec<Entry>> {
        match self.find(path) {
            Ok(dir) if dir.is_dir => dir.entries("".as_ref()).map_err(|e| {
                io::Error::new(e.kind(), format!("reading `{}`: {e}", path.display()))
            }),
            Err(Unreached::Served { at, why }) => {
                matches.served.insert(at, why);
                Ok(Vec::new())
            }
            Ok(_) | Err(Unreached::Failed(_)) => Ok(Vec::new()),
        }
    }
}

impl Found {
    /// What a directory contains that is below this one: see [`entries`].
    pub(crate) fn entries(&self, below: &Path) -> io::Result<Vec<Entry>> {
        entries(&self.file, below)
    }

    /// The device that it is, as stat(2) has it.
    pub(crate) fn device(&self) -> io::Result<u64> {
        Ok(fstat(&self.file)?.st_rdev)
    }

    /// A descriptor of the place, by which nothing is read.
    pub(crate) fn into_place(self) -> File {
        self.file.into()
    }

    /// The device and the inode.
    pub(crate) fn id(&self) -> io::Result<(u64, u64)> {
        let is = fstat(&self.file)?;
        Ok((is.st_dev, is.st_ino))
    }
}

/// A component of a pattern.
#[derive(Debug)]
enum Part<'a> {
    Name(&'a str),
    Wild(Pattern),
    /// `**`: the directory, and all directories below it.
    Below,
}

impl<'a> Part<'a> {
    fn new(text: &'a str) -> Result<Self, glob::PatternError> {
        Ok(match text {
            "**" => Self::Below,
            text if text.contains(['*', '?', '[']) => Self::Wild(Pattern::new(text)?),
            text => Self::Name(text),
        })
    }

    fn is_matched_by(&self, name: &OsStr) -> bool {
        match self {
            Self::Name(own) => name == *own,
            Self::Wild(wild) => name.to_str().is_some_and(|name| wild.matches(name)),
            Self::Below => false,
        }
    }
}

fn names(path: &Path) -> VecDeque<OsString> {
    let name = |part| match part {
        Component::Normal(name) => Some(name.to_owned()),
        Component::ParentDir => Some("..".into()),
        _ => None,
    };
    path.components().filter_map(name).collect()
}

/// The id of the mount that a file was opened by.
fn mount_id(file: &OwnedFd) -> io::Result<u32> {
    let text = PROC.read_to_string(format!("thread-self/fdinfo/{}", file.as_raw_fd()))?;
    let id = text.lines().find_map(|line| line.strip_prefix("mnt_id:")?.trim().parse().ok());
    id.ok_or_else(|| io::Error::other("fdinfo shows no id of a mount"))
}

#[cfg(test)]
mod tests;
