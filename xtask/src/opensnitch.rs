//! OpenSnitch, for the figures that have it beside Shield. It is unpacked and not installed: installed
//! it would start, and ask about every connection of this machine.

use std::path::{Path, PathBuf};

use crate::apt;
use crate::cache::{self, Lock};
use crate::command::{command, output, output_bytes};
use crate::failure::{Context, Result};

/// The daemon and the libraries that Debian's minimal systems do not have.
const PACKAGES: [&str; 4] = ["opensnitch", "libnetfilter-queue1", "libnfnetlink0", "libmnl0"];

/// Where this Debian's package is unpacked.
pub(crate) fn root() -> Result<PathBuf> {
    let dir = cache::dir("opensnitch")?;
    let _lock = Lock::wait(&dir)?;
    let root = dir.join("root");
    if !root.join("usr/bin/opensnitchd").is_file() {
        let unpacked = tempfile::tempdir_in(&dir).context("temporary directory")?;
        if download(unpacked.path()).is_err() {
            output(&mut command("apt-get", ["update", "-q"]))?;
            download(unpacked.path())?;
        }
        let fresh = unpacked.path().join("root");
        apt::unpack_all(unpacked.path(), &fresh)?;
        if root.exists() {
            std::fs::remove_dir_all(&root).context(root.display())?;
        }
        std::fs::rename(&fresh, &root).context(root.display())?;
    }
    Ok(root)
}

fn download(into: &Path) -> Result<()> {
    let mut download = command("apt-get", ["download", "-q"]);
    output_bytes(download.args(PACKAGES).current_dir(into)).map(drop)
}
