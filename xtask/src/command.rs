//! Other programs: run, with errors that name the command line and its last words.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use crate::failure::{Context, Failure, Result};

/// A command from a program and its arguments.
pub(crate) fn command<I, S>(program: impl AsRef<OsStr>, args: I) -> Command
where
    I: IntoIterator<Item = S>,
    S: AsRef<OsStr>,
{
    let mut command = Command::new(program);
    command.args(args);
    command
}

/// The cargo that runs us.
pub(crate) fn cargo<S: AsRef<OsStr>>(args: impl IntoIterator<Item = S>) -> Command {
    command(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()), args)
}

/// Runs it on this terminal.
pub(crate) fn run(command: &mut Command) -> Result<()> {
    let status = command.status().context(line(command))?;
    if status.success() {
        return Ok(());
    }
    Err(Failure::new(format!("{} failed with {status}", line(command))))
}

/// Its standard output; what it says on standard error is part of the error.
pub(crate) fn output(command: &mut Command) -> Result<String> {
    let bytes = output_bytes(command)?;
    String::from_utf8(bytes).context(format_args!("output of {}", line(command)))
}

pub(crate) fn output_bytes(command: &mut Command) -> Result<Vec<u8>> {
    let Output { status, stdout, stderr } =
        command.stdin(Stdio::null()).output().context(line(command))?;
    if status.success() {
        return Ok(stdout);
    }
    let said = tail(&String::from_utf8_lossy(&stderr), 20);
    Err(Failure::new(format!("{} failed with {status}:\n{said}", line(command))))
}

/// The last lines of a text.
pub(crate) fn tail(text: &str, lines: usize) -> String {
    let all: Vec<_> = text.trim_end().lines().collect();
    all[all.len().saturating_sub(lines)..].join("\n")
}

/// As a person would type it.
pub(crate) fn line(command: &Command) -> String {
    let words = std::iter::once(command.get_program()).chain(command.get_args());
    words.map(|word| word.to_string_lossy()).collect::<Vec<_>>().join(" ")
}

/// Where a program is. Root's directories are searched too: they are not on every user's path.
pub(crate) fn find(program: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path)
        .chain(["/usr/sbin", "/sbin"].map(PathBuf::from))
        .map(|dir| dir.join(program))
        .find(|file| file.is_file())
}

/// Where cargo keeps its configuration and what it has fetched.
pub(crate) fn cargo_home() -> PathBuf {
    let home = || PathBuf::from(std::env::var_os("HOME").unwrap_or_default()).join(".cargo");
    std::env::var_os("CARGO_HOME").map_or_else(home, PathBuf::from)
}

/// Creates a directory and its parents.
pub(crate) fn create_dir(path: &Path) -> Result<()> {
    std::fs::create_dir_all(path).context(format_args!("creating {}", path.display()))
}

pub(crate) fn write(path: &Path, contents: impl AsRef<[u8]>) -> Result<()> {
    std::fs::write(path, contents).context(format_args!("writing {}", path.display()))
}

pub(crate) fn read(path: &Path) -> Result<Vec<u8>> {
    std::fs::read(path).context(format_args!("reading {}", path.display()))
}

pub(crate) fn read_text(path: &Path) -> Result<String> {
    std::fs::read_to_string(path).context(format_args!("reading {}", path.display()))
}
