//! Nothing in the tree tells of the machine that it was written on.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use crate::command::{cargo_home, command, output};
use crate::failure::{Context, Result};
use crate::test::Outcome;

/// All files that git has or would take.
pub(crate) fn files() -> Result<Vec<PathBuf>> {
    let list = ["ls-files", "-z", "--cached", "--others", "--exclude-standard"];
    let names = output(&mut command("git", list))?;
    let paths = names.split('\0').filter(|name| !name.is_empty()).map(PathBuf::from);
    // A file that was removed and not yet committed is still listed.
    let paths: BTreeSet<_> = paths.filter(|path| path.is_file()).collect();
    Ok(paths.into_iter().collect())
}

pub(super) fn check() -> Result<Outcome> {
    let forbidden = forbidden()?;
    let mut found = Vec::new();
    for path in files()? {
        let Ok(text) = std::fs::read_to_string(&path) else { continue };
        for (number, line) in (1..).zip(text.lines()) {
            found.extend(
                forbidden
                    .iter()
                    .filter(|word| line.contains(word.as_str()))
                    .map(|word| format!("{}:{number} names {word}", path.display())),
            );
        }
    }
    Ok(match found.as_slice() {
        [] => Outcome::Passed,
        _ => Outcome::Failed(format!("of this machine alone: {}", found.join("; "))),
    })
}

/// Hosts that this machine gets packages from, and its own directories.
fn forbidden() -> Result<BTreeSet<String>> {
    let home = PathBuf::from(std::env::var_os("HOME").unwrap_or_default());
    let cargo = cargo_home();
    let mut configurations = vec![
        PathBuf::from("/etc/apt/sources.list"),
        PathBuf::from("/etc/pip.conf"),
        cargo.join("config"),
        cargo.join("config.toml"),
        home.join(".npmrc"),
        home.join(".config/pip/pip.conf"),
    ];
    for dir in ["/etc/apt/sources.list.d", "/etc/apt/apt.conf.d"] {
        let entries = std::fs::read_dir(dir).into_iter().flatten().flatten();
        configurations.extend(entries.map(|entry| entry.path()));
    }
    let texts = configurations.iter().filter_map(|file| std::fs::read_to_string(file).ok());
    let mut forbidden: BTreeSet<_> = texts.flat_map(|text| hosts(&text)).collect();
    let here = std::env::current_dir().context("current directory")?;
    // One component, like `/root`, is no one's alone.
    let is_telling = |path: &PathBuf| path.components().count() > 2;
    let dirs = [here, home, cargo].into_iter().filter(is_telling);
    forbidden.extend(dirs.map(|dir| Path::display(&dir).to_string()));
    Ok(forbidden)
}

/// Hosts of the URLs in lines that are not comments.
fn hosts(text: &str) -> Vec<String> {
    let lines = text.lines().filter(|line| !line.trim_start().starts_with(['#', ';', '/']));
    let urls = lines.flat_map(|line| line.split("://").skip(1));
    urls.filter_map(|rest| {
        let authority = rest.split(['/', ' ', '"', '\'', ';']).next()?;
        let host = authority.rsplit('@').next()?.split(':').next()?;
        (host.contains('.') && !host.starts_with("127.")).then(|| host.to_owned())
    })
    .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_of_configurations() {
        let text = "# http://comment.test/\nURIs: http://a.test/debian https://b.test:8080/x\n\
                    index = \"sparse+https://user@c.test/\"\nproxy = http://localhost:1\n";
        assert_eq!(hosts(text), ["a.test", "b.test", "c.test"]);
    }
}
