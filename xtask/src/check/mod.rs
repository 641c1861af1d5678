//! What holds for the tree as a whole, beside its tests.

pub(crate) mod api;
mod msrv;
pub(crate) mod package;
pub(crate) mod tree;

use std::path::PathBuf;
use std::process::Command;
use std::time::Instant;

use crate::command::{cargo, command, line, output, tail};
use crate::failure::{Context, Failure, Result};
use crate::test::{Outcome, Report, Row};
use crate::vmlinux::{self, Comparison};
use crate::{abi, attacks, docs, tools};

type Check = fn() -> Result<Outcome>;

/// In the order of how soon they fail.
const CHECKS: [(&str, Check); 12] = [
    ("rustfmt", rustfmt),
    ("clang-format", clang_format),
    ("tree", tree::check),
    ("docs", docs::check),
    ("threat model", attacks::check),
    ("abi", abi::check),
    ("vmlinux.h", generated),
    ("clippy", clippy),
    ("default features", default_features),
    ("public API", api::check),
    ("cargo-deny", deny),
    ("cargo package", package::check),
];

/// The names of all checks.
pub(crate) fn names() -> impl Iterator<Item = &'static str> {
    CHECKS.iter().map(|(name, _)| *name)
}

/// Runs those named, all if none is, and adds a row for each.
pub(crate) fn run(only: &[String], report: &mut Report) -> Result<()> {
    if let Some(unknown) = only.iter().find(|name| names().all(|known| known != *name)) {
        let known: Vec<_> = names().collect();
        let known = known.join(", ");
        return Err(Failure::new(format!("no check '{unknown}': there are {known}")));
    }
    for (name, check) in CHECKS {
        if !only.is_empty() && !only.iter().any(|wanted| wanted == name) {
            continue;
        }
        let started = Instant::now();
        let outcome = check().unwrap_or_else(|error| Outcome::Failed(error.to_string()));
        report.add(Row::single("check", name, outcome, started.elapsed().as_secs_f64()));
    }
    Ok(())
}

/// Makes the tree look as `rustfmt` and `clang-format` want it.
pub(crate) fn format() -> Result<()> {
    for manifest in ["Cargo.toml", "fuzz/Cargo.toml"] {
        output(&mut cargo(["fmt", "--all", "--manifest-path", manifest]))?;
    }
    output(command("clang-format-19", ["-i"]).args(c_sources()?))?;
    Ok(())
}

fn passes(check: &mut Command) -> Result<Outcome> {
    let ended = check.output().context(line(check))?;
    if ended.status.success() {
        return Ok(Outcome::Passed);
    }
    let said = [ended.stdout, ended.stderr].concat();
    let said = String::from_utf8_lossy(&said);
    eprintln!("---- {}\n{}", line(check), tail(&said, 100));
    Ok(Outcome::Failed(format!("ended with {}:\n{}", ended.status, tail(&said, 15))))
}

fn rustfmt() -> Result<Outcome> {
    for manifest in ["Cargo.toml", "fuzz/Cargo.toml"] {
        let mut check = cargo(["fmt", "--all", "--check", "--manifest-path", manifest]);
        if let failed @ Outcome::Failed(_) = passes(&mut check)? {
            return Ok(failed);
        }
    }
    Ok(Outcome::Passed)
}

fn clang_format() -> Result<Outcome> {
    passes(command("clang-format-19", ["--dry-run", "-Werror"]).args(c_sources()?))
}

/// Ours: what is generated has no style.
fn c_sources() -> Result<Vec<PathBuf>> {
    let files = tree::files()?.into_iter();
    let is_ours = |path: &PathBuf| {
        let extension = path.extension().and_then(|extension| extension.to_str());
        matches!(extension, Some("c" | "h")) && !path.starts_with("bpf-src/vmlinux")
    };
    Ok(files.filter(is_ours).collect())
}

fn generated() -> Result<Outcome> {
    let mut gone = None;
    for (path, comparison) in vmlinux::check()? {
        let path = path.display();
        match comparison {
            Comparison::Same => {}
            Comparison::Differs(how) => return Ok(Outcome::Failed(format!("{path}: {how}"))),
            Comparison::NotComparable(why) => gone = Some(format!("{path}: {why}")),
        }
    }
    Ok(gone.map_or(Outcome::Passed, Outcome::Skipped))
}

fn clippy() -> Result<Outcome> {
    let arguments = ["clippy", "--quiet", "--workspace", "--all-targets", "--all-features"];
    passes(cargo(arguments).args(["--", "-D", "warnings"]))
}

/// What the README's example is built with, each product alone, and the smallest build of the crate of policies.
fn default_features() -> Result<Outcome> {
    for arguments in [
        &["--package", "ironclad", "--lib", "--examples"][..],
        &["--package", "ironclad", "--lib", "--no-default-features", "--features", "shield"],
        &["--package", "ironclad", "--lib", "--no-default-features", "--features", "sentinel"],
        &["--package", "ironclad-policy", "--lib", "--no-default-features"],
    ] {
        let mut check = cargo(["clippy", "--quiet"]);
        check.args(arguments).args(["--", "-D", "warnings"]);
        if let failed @ Outcome::Failed(_) = passes(&mut check)? {
            return Ok(failed);
        }
    }
    Ok(Outcome::Passed)
}

fn deny() -> Result<Outcome> {
    let deny = tools::path(&tools::CARGO_DENY)?;
    passes(&mut command(deny, ["--locked", "check", "bans", "licenses", "sources"]))
}
