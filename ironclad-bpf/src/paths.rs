//! The ways that paths go, as the kernel walks them.
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::ffi::OsString;
use std::path::{Component, Path, PathBuf};

/// As many symbolic links as the kernel follows on one way.
const LINKS_MAX: usize = 40;

/// The directories on the ways of absolute paths, each with the names that are looked up in it. Symbolic
/// links are followed; what is not there is taken for a directory.
pub fn ways<'a>(
    paths: impl IntoIterator<Item = &'a Path>,
) -> BTreeMap<PathBuf, BTreeSet<OsString>> {
    let mut ways: BTreeMap<PathBuf, BTreeSet<OsString>> = BTreeMap::new();
    for path in paths {
        let (mut dir, mut links) = (PathBuf::from("/"), 0);
        let mut left: VecDeque<OsString> = names(path);
        while let Some(name) = left.pop_front() {
            if name == ".." {
                dir.pop();
                continue;
            }
            ways.entry(dir.clone()).or_default().insert(name.clone());
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
    ways
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
