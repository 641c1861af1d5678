//! The oldest Rust that we promise to build with, in the flesh: Debian's packages of it, unpacked in
//! the cache and run by the C library that they were built for.

use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use crate::apt::Apt;
use crate::cache::{self, Lock};
use crate::command::{cargo, command, create_dir, output, read_text, write};
use crate::failure::{Context, Failure, Result};

/// A release that has this version.
const SUITE: &str = "trixie";

/// Runs a command of cargo on the packages of a workspace that the arguments name; returns what it prints.
pub(super) fn run(workspace: &Path, arguments: &[&str], clang: Option<&str>) -> Result<String> {
    let promised = promised()?;
    let bin = toolchain()?.join("bin");
    let version = output(&mut command(bin.join("rustc"), ["--version"]))?;
    let found = version.split(' ').nth(1).unwrap_or_default();
    if !found.starts_with(&format!("{promised}.")) {
        return Err(Failure::new(format!(
            "Cargo.toml promises Rust {promised}, but {SUITE} has {found}: take the version from a \
             release that has it"
        )));
    }
    // Its own cargo cannot go through every proxy that ours can.
    output(&mut cargo(["fetch", "--locked"]))?;
    let target = std::env::var_os("CARGO_TARGET_DIR").map_or("target".into(), PathBuf::from);
    let target = std::path::absolute(target.join("oldest-rustc")).context("target directory")?;
    let mut command = command(bin.join("cargo"), arguments);
    command.args(["--quiet", "--offline"]).current_dir(workspace);
    command.envs(clang.map(|clang| ("CLANG", clang)));
    output(
        command
            .env("CARGO", bin.join("cargo"))
            .env("RUSTC", bin.join("rustc"))
            .env("RUSTDOC", bin.join("rustdoc"))
            .env("CARGO_TARGET_DIR", target)
            .env_remove("RUSTUP_TOOLCHAIN"),
    )
}

/// The workspace's `rust-version`.
fn promised() -> Result<String> {
    let manifest = read_text("Cargo.toml".as_ref())?;
    let version = manifest.lines().find_map(|line| line.strip_prefix("rust-version = "));
    Ok(version.context("Cargo.toml has no rust-version")?.trim_matches('"').to_owned())
}

/// The toolchain's directory; `bin` has programs that run anywhere.
fn toolchain() -> Result<PathBuf> {
    let parent = cache::dir("rustc")?;
    let _lock = Lock::wait(&parent)?;
    let dir = parent.join(SUITE);
    if dir.join("bin/rustdoc").is_file() {
        return Ok(dir);
    }
    let unpacked = tempfile::tempdir_in(&parent).context("temporary directory")?;
    Apt::update()?.unpack_closure(&["cargo", "rustc"], &unpacked.path().join("root"))?;
    let bin = unpacked.path().join("bin");
    create_dir(&bin)?;
    for program in ["cargo", "rustc", "rustdoc"] {
        wrap(&dir.join("root"), program, &bin.join(program))?;
    }
    // One of an earlier version of this tool lacks a program.
    if dir.exists() {
        std::fs::remove_dir_all(&dir).context(dir.display())?;
    }
    std::fs::rename(unpacked.keep(), &dir).context(dir.display())?;
    Ok(dir)
}

/// This machine's C library may be older than the one that the program needs.
fn wrap(root: &Path, program: &str, file: &Path) -> Result<()> {
    let script = format!(
        "#!/bin/sh\nroot='{}'\nlibraries=$root/usr/lib/x86_64-linux-gnu\n\
         exec \"$libraries/ld-linux-x86-64.so.2\" --library-path \"$libraries\" \
         \"$root/usr/bin/{program}\" \"$@\"\n",
        root.display()
    );
    write(file, script)?;
    let permissions = std::fs::Permissions::from_mode(0o755);
    std::fs::set_permissions(file, permissions).context(file.display())
}
