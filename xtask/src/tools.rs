//! Cargo's helpers that no Debian package has: built once, into the cache.

use std::path::PathBuf;

use crate::cache::{self, Lock};
use crate::command::{cargo, output};
use crate::failure::{Context, Result};

/// A program of crates.io, in the version that is known to work here.
pub(crate) struct Tool {
    name: &'static str,
    version: &'static str,
}

pub(crate) const CARGO_FUZZ: Tool = Tool { name: "cargo-fuzz", version: "0.13.2" };
pub(crate) const CARGO_DENY: Tool = Tool { name: "cargo-deny", version: "0.20.2" };

/// Where the tool is; builds it the first time.
pub(crate) fn path(tool: &Tool) -> Result<PathBuf> {
    let Tool { name, version } = tool;
    let dir = cache::dir("tools")?;
    let _lock = Lock::wait(&dir)?;
    let root = dir.join(format!("{name}-{version}"));
    let binary = root.join("bin").join(name);
    if !binary.is_file() {
        eprintln!("building {name} {version}");
        let mut install = cargo(["install", "--locked", "--quiet", "--version", version, "--root"]);
        // Unoptimised builds take half the time and run fast enough.
        output(install.arg(&root).args(["--profile", "dev", name]).env_remove("RUSTFLAGS"))
            .context(format_args!("{name} could not be built"))?;
    }
    Ok(binary)
}
