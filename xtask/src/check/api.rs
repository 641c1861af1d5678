//! What crates publish: a file of each crate's public items, which reviews see change.

use std::collections::BTreeSet;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use public_api::PublicApi;
use serde_json::Value;

use super::package::{self, Package};
use crate::command::{cargo, create_dir, output, read_text, write};
use crate::failure::{Context, Result};
use crate::test::Outcome;

const DIR: &str = "xtask/public-api";
/// Version of rustdoc's JSON that the `public-api` crate of Cargo.toml reads: that of Rust 1.95.
const FORMAT: u64 = 57;
/// Crates whose types and traits public signatures may have; crossbeam's are behind a feature.
const ALLOWED: [&str; 8] =
    ["alloc", "bitflags", "core", "crossbeam_channel", "ipnetwork", "serde", "serde_core", "std"];
/// A crate that the facade shows as unstable, and a crate whose types its signatures have.
const UNSTABLE: (&str, &str) = ("ironclad-bpf", "libbpf_rs");

/// Writes the files anew.
pub(crate) fn generate() -> Result<()> {
    create_dir(DIR.as_ref())?;
    for (package, json) in documented()? {
        write(&snapshot(&package), items(&json)?)?;
    }
    Ok(())
}

/// Compares the files with the crates, and looks for types of other crates in signatures. Fails on warnings of
/// rustdoc, too.
pub(super) fn check() -> Result<Outcome> {
    let mut found = Vec::new();
    for (package, json) in documented()? {
        let format = format_of(&json)?;
        if format != FORMAT {
            return Ok(Outcome::Skipped(format!(
                "this Rust writes version {format} of rustdoc's JSON, and xtask reads {FORMAT}"
            )));
        }
        let (path, items) = (snapshot(&package), items(&json)?);
        found.extend(
            foreign(&package, &items)
                .map(|line| format!("{package}: type of another crate: {line}")),
        );
        let known = read_text(&path).unwrap_or_default();
        found.extend(differences(&known, &items).map(|line| format!("{package}: {line}")));
    }
    if found.is_empty() {
        return Ok(Outcome::Passed);
    }
    found.truncate(40);
    let found = found.join("\n");
    Ok(Outcome::Failed(format!(
        "`cargo xtask api` writes {DIR} anew where this is meant:\n{found}"
    )))
}

fn snapshot(package: &str) -> PathBuf {
    Path::new(DIR).join(format!("{package}.txt"))
}

/// Published crates, and rustdoc's JSON of each.
fn documented() -> Result<Vec<(String, PathBuf)>> {
    let text = output(&mut cargo(["metadata", "--no-deps", "--format-version=1"]))?;
    let metadata: Value = serde_json::from_str(&text).context("cargo metadata")?;
    let target = metadata["target_directory"].as_str().context("no target directory")?;
    let target = Path::new(target);
    let wrapper = wrapper(target)?;
    let mut doc = cargo(["doc", "--quiet", "--workspace", "--lib", "--no-deps", "--all-features"]);
    // Rustdoc warns as it does of HTML.
    output(doc.env("RUSTDOC", wrapper).env("RUSTDOCFLAGS", "-D warnings"))?;
    let file = |Package { name, .. }: Package| {
        let json = target.join("doc").join(format!("{}.json", name.replace('-', "_")));
        (name, json)
    };
    Ok(package::published(&metadata)?.into_iter().map(file).collect())
}

/// JSON is an unstable output of rustdoc. The variable that permits it is set for rustdoc alone: seen by build
/// scripts, it would have most dependencies built anew.
fn wrapper(target: &Path) -> Result<PathBuf> {
    let file = target.join("rustdoc-json");
    let script = "#!/bin/sh\nRUSTC_BOOTSTRAP=1 exec \"${IRONCLAD_RUSTDOC:-rustdoc}\" \"$@\" \
                  -Z unstable-options --output-format json\n";
    write(&file, script)?;
    let permissions = std::fs::Permissions::from_mode(0o755);
    std::fs::set_permissions(&file, permissions).context(file.display())?;
    Ok(file)
}

fn format_of(json: &Path) -> Result<u64> {
    let json: Value = serde_json::from_str(&read_text(json)?).context(json.display())?;
    json["format_version"].as_u64().context("rustdoc's JSON has no version")
}

/// One line for each item, without what derives and blanket implementations add.
fn items(json: &Path) -> Result<String> {
    let api: PublicApi = public_api::Builder::from_rustdoc_json(json)
        .omit_blanket_impls(true)
        .omit_auto_trait_impls(true)
        .omit_auto_derived_impls(true)
        .build()
        .context(json.display())?;
    let api = api.to_string();
    Ok(api.lines().filter(|line| is_listed(line)).map(|line| line.to_owned() + "\n").collect())
}

/// Not the mirror of the C headers, which `cargo xtask abi` compares, nor what zerocopy derives.
fn is_listed(line: &str) -> bool {
    let item = line.split(" ironclad_").nth(1).unwrap_or_default();
    !item.starts_with("core::abi") && !line.contains("zerocopy")
}

/// Lines that name a crate which is neither of the family nor [`ALLOWED`].
fn foreign<'a>(package: &str, items: &'a str) -> impl Iterator<Item = &'a str> {
    let is_allowed = move |name: &str| {
        name.starts_with("ironclad") || ALLOWED.contains(&name) || (package, name) == UNSTABLE
    };
    items.lines().filter(move |line| crates(line).any(|name| !is_allowed(name)))
}

/// First parts of paths.
fn crates(line: &str) -> impl Iterator<Item = &str> {
    let is_name = |letter: char| letter.is_alphanumeric() || letter == '_';
    line.match_indices("::").filter_map(move |(end, _)| {
        let before = &line[..end];
        let start = before.rfind(|letter| !is_name(letter)).map_or(0, |at| at + 1);
        // Not in the middle of a path, and not a type's name.
        let is_first = !before[..start].ends_with("::");
        let name = &before[start..];
        (is_first && name.starts_with(|letter: char| letter.is_ascii_lowercase())).then_some(name)
    })
}

fn differences<'a>(known: &'a str, items: &'a str) -> impl Iterator<Item = String> + 'a {
    let lines = |text: &'a str| text.lines().collect::<BTreeSet<_>>();
    let (known, items) = (lines(known), lines(items));
    let gone = known.difference(&items).map(|line| format!("- {line}")).collect::<Vec<_>>();
    let new = items.difference(&known).map(|line| format!("+ {line}")).collect::<Vec<_>>();
    gone.into_iter().chain(new)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn types_of_other_crates_are_found() {
        let ours = "pub fn ironclad_core::f(x: core::option::Option<Self::Item>) -> T::Out";
        let theirs = "pub fn ironclad_core::g() -> &libbpf_rs::Map";
        assert_eq!(
            foreign("ironclad-core", &format!("{ours}\n{theirs}")).collect::<Vec<_>>(),
            [theirs]
        );
    }

    #[test]
    fn differences_are_named() {
        let found: Vec<_> = differences("a\nb", "b\nc").collect();
        assert_eq!(found, ["- a", "+ c"]);
    }
}
