//! What is published: each crate compiles from its tarball alone, with the oldest Rust that we promise and
//! without clang, and carries the same programs as are compiled from the sources in it.
//!
//! `cargo package` by itself would build every tarball a second time, with the newest Rust.

use std::path::{Path, PathBuf};

use serde_json::Value;

use super::{msrv, passes};
use crate::command::{cargo, command, create_dir, output, read, run, write};
use crate::failure::{Context, Result};
use crate::test::{FEATURES, Outcome};

/// A crate that is published.
pub(super) struct Package {
    pub(super) name: String,
    version: String,
}

impl Package {
    fn dir(&self) -> String {
        format!("{}-{}", self.name, self.version)
    }
}

pub(super) fn check() -> Result<Outcome> {
    let text = output(&mut cargo(["metadata", "--no-deps", "--format-version=1"]))?;
    let metadata: Value = serde_json::from_str(&text).context("cargo metadata")?;
    let target = metadata["target_directory"].as_str().context("no target directory")?;
    let target = Path::new(target).join("package-check");
    let packages = published(&metadata)?;
    prebuild()?;

    let mut package = cargo(["package", "--quiet", "--allow-dirty", "--no-verify"]);
    package.arg("--target-dir").arg(&target);
    for published in &packages {
        package.args(["--package", &published.name]);
    }
    if let failed @ Outcome::Failed(_) = passes(&mut package)? {
        return Ok(failed);
    }
    let workspace = unpack(&target, &packages)?;
    for package in &packages {
        for file in ["README.md", "LICENSE-APACHE", "LICENSE-MIT"] {
            if !workspace.join(package.dir()).join(file).is_file() {
                return Ok(Outcome::Failed(format!(
                    "the tarball of {} has no {file}",
                    package.name
                )));
            }
        }
    }
    // A clang that is not there. The first command compiles what the second documents.
    for arguments in [
        &["check", "--workspace", "--features", FEATURES][..],
        &["doc", "--no-deps", "--package", PROGRAMS],
    ] {
        msrv::run(&workspace, arguments, Some("/nonexistent"))?;
    }
    let from_sources = ["check", "--package", PROGRAMS, "--features", "build-bpf"];
    let messages = [&from_sources[..], &["--message-format", "json"]].concat();
    let out = out_dir(&msrv::run(&workspace, &messages, None)?)?;
    let programs = packages.iter().find(|it| it.name == PROGRAMS).context("no such package")?;
    same(&workspace.join(programs.dir()).join("prebuilt/x86_64"), &out)
}

/// The package with the eBPF programs.
const PROGRAMS: &str = "ironclad-bpf";

/// Compiles the eBPF programs for all architectures into the directory that its package carries.
pub(crate) fn prebuild() -> Result<()> {
    run(&mut cargo(["run", "--quiet", "--package", PROGRAMS, "--example", "compile_programs"]))
}

/// Where the build script of the programs' package has written to, by cargo's messages.
fn out_dir(messages: &str) -> Result<PathBuf> {
    let messages = messages.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
    let mut dirs = messages.filter_map(|message| {
        let is_ours = message["package_id"].as_str()?.contains(PROGRAMS);
        message["out_dir"].as_str().filter(|_| is_ours).map(PathBuf::from)
    });
    dirs.next().context("cargo has run no build script")
}

/// Whether each object of a directory has the same bytes in the other.
fn same(packed: &Path, built: &Path) -> Result<Outcome> {
    let mut count = 0;
    for entry in std::fs::read_dir(packed).context(packed.display())? {
        let entry = entry.context(packed.display())?;
        let other = built.join(entry.file_name());
        if read(&entry.path())? != read(&other)? {
            let (one, other) = (entry.path(), other.display());
            return Ok(Outcome::Failed(format!("{} is not {other}", one.display())));
        }
        count += 1;
    }
    Ok(match count {
        0 => Outcome::Failed(format!("{} has no programs", packed.display())),
        _ => Outcome::Passed,
    })
}

pub(super) fn published(metadata: &Value) -> Result<Vec<Package>> {
    let packages = metadata["packages"].as_array().context("cargo metadata has no packages")?;
    let is_published = |package: &&Value| package["publish"].is_null();
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let package = |it: &Value| Package { name: text(&it["name"]), version: text(&it["version"]) };
    Ok(packages.iter().filter(is_published).map(package).collect())
}

/// The tarballs, unpacked side by side in a workspace in which they find each other.
fn unpack(target: &Path, packages: &[Package]) -> Result<PathBuf> {
    let workspace = target.join("unpacked");
    if workspace.exists() {
        std::fs::remove_dir_all(&workspace).context(workspace.display())?;
    }
    create_dir(&workspace)?;
    let (mut members, mut patches) = (String::new(), String::new());
    for package in packages {
        let dir = package.dir();
        let tarball = target.join("package").join(format!("{dir}.crate"));
        // With the present time: cargo compares the times of files, and gives those in a tarball none.
        output(command("tar", ["-x", "-m", "-f"]).arg(&tarball).arg("-C").arg(&workspace))?;
        members += &format!("    \"{dir}\",\n");
        patches += &format!("{} = {{ path = \"{dir}\" }}\n", package.name);
    }
    let manifest = format!(
        "[workspace]\nresolver = \"3\"\nmembers = [\n{members}]\n\n[patch.crates-io]\n{patches}"
    );
    write(&workspace.join("Cargo.toml"), manifest)?;
    std::fs::copy("Cargo.lock", workspace.join("Cargo.lock")).context("Cargo.lock")?;
    Ok(workspace)
}
