//! The directories that paths lead through, as the kernel walks them, and the file that it executes at the end.
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::ffi::OsString;
use std::os::fd::AsFd;
use std::path::{Component, Path, PathBuf};

use rustix::fs::{FileType, Mode, OFlags, fstat, open};
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
