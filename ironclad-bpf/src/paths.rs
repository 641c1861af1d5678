//! The directories that paths lead through, as the kernel walks them, and the file that it executes at the end.
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::ffi::OsString;
use std::io;
use std::os::fd::AsFd;
use std::os::unix::ffi::OsStringExt;
use std::path::{Component, Path, PathBuf};

use rustix::fs::{
    AtFlags, Dir, FileType, Mode, OFlags, ResolveFlags, StatxFlags, fstat, open, openat2, statx,
};
use rustix::io::pread;

use crate::pseudo_fs::reopen;

/// As many symbolic links as the kernel follows in one path.
const LINKS_MAX: usize = 40;
/// As much of a file as the kernel reads to find what executes it.
const BEGINNING: usize = 256;

/// The directories that absolute paths lead through, each with the names that are looked up in it. Symbolic
/// links are followed; what is not there is taken for a directory.
pub fn components<'a>(
    paths: impl IntoIterator<Item = &'a Path>,
) -> BTreeMap<PathBuf, BTreeSet<OsString>> {
    let mut components: BTreeMap<PathBuf, BTreeSet<OsString>> = BTreeMap::new();
    for path in paths {
        let (mut dir, mut links) = (PathBuf::from("/"), 0);
        let mut left: VecDeque<OsString> = names(path);
        while let Some(name) = left.pop_front() {
            if name == ".." {
                dir.pop();
                continue;
            }
            components.entry(dir.clone()).or_default().insert(name.clone());
            let next = dir.join(&name);
            match std::fs::read_link(&next) {
                Ok(_) if links == LINKS_MAX => break,
                Ok(target) => {
                    links += 1;
                    if target.is_absolute() {
                        dir = PathBuf::from("/");
                    }
                    names(&target).into_iter().rev().for_each(|name| left.push_front(name));
                }
                Err(_) => dir = next,
            }
        }
    }
    components
}

fn names(path: &Path) -> VecDeque<OsString> {
    path.components()
        .filter_map(|part| match part {
            Component::Normal(name) => Some(name.to_owned()),
            Component::ParentDir => Some("..".into()),
            _ => None,
        })
        .collect()
}

/// An entry of a directory: itself, not what is mounted there or what a symbolic link leads to.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Entry {
    /// Its name.
    pub name: OsString,
    /// Whether it is a directory.
    pub is_dir: bool,
    /// Whether it is a regular file.
    pub is_file: bool,
    /// Whether it has more names; false of directories.
    pub has_links: bool,
    /// Its inode.
    pub inode: u64,
}

/// What a directory `below` another contains; the other's content where the path is empty. No mount is entered, and no
/// symbolic link followed: a file system that a process serves may never answer.
///
/// Needs Linux 5.6.
///
/// # Errors
/// Those of openat2(2), `EXDEV` where the path leads through a mount, and of getdents64(2).
pub fn entries(dir: impl AsFd, below: &Path) -> io::Result<Vec<Entry>> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let below = if below.as_os_str().is_empty() { Path::new(".") } else { below };
    let resolve = ResolveFlags::NO_XDEV | ResolveFlags::NO_SYMLINKS;
    let dir = openat2(dir, below, flags, Mode::empty(), resolve)?;
    let mut found = Vec::new();
    for entry in Dir::read_from(&dir)? {
        let entry = entry?;
        let name = OsString::from_vec(entry.file_name().to_bytes().to_vec());
        if name == "." || name == ".." {
            continue;
        }
        let (mut kind, mut has_links) = (entry.file_type(), false);
        // Of a mount point statx(2) has the attributes of what is mounted.
        if kind != FileType::Directory {
            let flags = AtFlags::SYMLINK_NOFOLLOW | AtFlags::NO_AUTOMOUNT;
            let wanted = StatxFlags::TYPE | StatxFlags::NLINK;
            // Removed meanwhile.
            let Ok(is) = statx(&dir, &name, flags | AtFlags::STATX_DONT_SYNC, wanted) else {
                continue;
            };
            kind = FileType::from_raw_mode(is.stx_mode.into());
            has_links = is.stx_nlink > 1;
        }
        let (is_dir, is_file) = (kind == FileType::Directory, kind == FileType::RegularFile);
        found.push(Entry { name, is_dir, is_file, has_links, inode: entry.ino() });
    }
    Ok(found)
}

/// The line that names the interpreter, where the file is a script. None of what cannot be read.
///
/// A process that runs a script executes the script's interpreter: a rule that
/// names the script matches no process.
pub fn interpreter(path: &Path) -> Option<String> {
    // Opening a device or a pipe has effects: its type is checked first.
    let found = open(path, OFlags::PATH | OFlags::CLOEXEC, Mode::empty()).ok()?;
    if FileType::from_raw_mode(fstat(&found).ok()?.st_mode) != FileType::RegularFile {
        return None;
    }
    let file = reopen(found.as_fd()).ok()?;
    let mut beginning = [0; BEGINNING];
    let length = pread(&file, &mut beginning, 0).ok()?;
    let line = beginning[..length].strip_prefix(b"#!")?.split(|&byte| byte == b'\n').next()?;
    Some(format!("#!{}", line.escape_ascii()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mounts_are_listed_and_not_entered() {
        let root = std::fs::File::open("/").unwrap();
        let found = entries(&root, "".as_ref()).unwrap();
        assert!(found.iter().any(|it| it.name == "proc" && it.is_dir));
        let error = entries(&root, "proc".as_ref()).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::CrossesDevices);
    }

    #[test]
    fn scripts_are_recognised_by_their_first_bytes() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("file");
        let long = [&b"#!/bin/"[..], &[b'x'; 1000]].concat();
        for (text, interpreter) in [
            (&b"\x7fELF"[..], None),
            (b"", None),
            (b"#", None),
            (b" #!/bin/sh\n", None),
            (b"#!", Some("#!")),
            (b"#!/bin/sh -e\necho", Some("#!/bin/sh -e")),
            (b"#!/bin/\x1b[2J\n", Some("#!/bin/\\x1b[2J")),
            (&long, Some(&*format!("#!/bin/{}", "x".repeat(BEGINNING - 7)))),
        ] {
            std::fs::write(&path, text).unwrap();
            assert_eq!(super::interpreter(&path).as_deref(), interpreter);
        }
        assert_eq!(interpreter(dir.path()), None);
        assert_eq!(interpreter(&dir.path().join("none")), None);
    }
}
