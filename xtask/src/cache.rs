//! What is downloaded or built once and kept outside the repository.

use std::fs::File;
use std::path::{Path, PathBuf};

use rustix::fs::{FlockOperation, flock};

use crate::command::create_dir;
use crate::failure::{Context, Failure, Result};

/// A directory of the cache, created if need be: `$IRONCLAD_CACHE`, `$XDG_CACHE_HOME/ironclad` or
/// `~/.cache/ironclad`.
pub(crate) fn dir(name: &str) -> Result<PathBuf> {
    let env = |name| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    let root = env("IRONCLAD_CACHE")
        .or_else(|| Some(env("XDG_CACHE_HOME")?.join("ironclad")))
        .or_else(|| Some(env("HOME")?.join(".cache/ironclad")))
        .context("no place for the cache: set IRONCLAD_CACHE to a directory")?;
    let root = std::path::absolute(&root).context(root.display())?;
    let here = std::env::current_dir().context("current directory")?;
    if root.starts_with(&here) {
        return Err(Failure::new(format!(
            "the cache {} lies inside the repository: set IRONCLAD_CACHE to a directory outside",
            root.display()
        )));
    }
    let dir = root.join(name);
    create_dir(&dir)?;
    Ok(dir)
}

/// Held until dropped: one process at a time fills a directory.
pub(crate) struct Lock(#[allow(dead_code, reason = "closing the file unlocks it")] File);

impl Lock {
    pub(crate) fn wait(dir: &Path) -> Result<Self> {
        let path = dir.join("lock");
        let file = File::create(&path).context(path.display())?;
        flock(&file, FlockOperation::LockExclusive).context(path.display())?;
        Ok(Self(file))
    }
}
