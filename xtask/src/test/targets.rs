//! Programs of kernel tests: which there are, and their files.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde_json::Value;

use crate::command::{cargo, output, output_bytes};
use crate::failure::{Context, Result};

/// The target of a package's kernel tests.
const TARGET: &str = "kernel";

/// The program of a package's kernel tests.
pub(crate) struct Binary {
    pub(crate) package: String,
    pub(crate) file: PathBuf,
    /// The package's directory, where it runs.
    pub(crate) dir: PathBuf,
}

/// Builds the kernel tests of the workspace's packages; those of one package, where one is named.
pub(crate) fn build(package: Option<&str>) -> Result<Vec<Binary>> {
    let mut wanted = packages()?;
    wanted.retain(|name, _| package.is_none_or(|package| name == package));
    let mut build = super::cargo_test([
        "--no-run",
        "--test",
        TARGET,
        "--message-format=json-render-diagnostics",
    ]);
    let messages = output_bytes(&mut build)?;
    wanted
        .into_iter()
        .map(|(package, dir)| {
            let file = executable_in(&messages, TARGET, Some(&dir));
            let file = file.context(format_args!("cargo built no kernel tests of {package}"))?;
            Ok(Binary { package, file, dir })
        })
        .collect()
}

/// Packages that have the target, and their directories.
fn packages() -> Result<BTreeMap<String, PathBuf>> {
    let text = output(&mut cargo(["metadata", "--no-deps", "--format-version=1"]))?;
    let metadata: Value = serde_json::from_str(&text).context("cargo metadata")?;
    let mut packages = BTreeMap::new();
    for package in list(&metadata["packages"]) {
        let is_wanted = |target: &Value| {
            list(&target["kind"]).iter().any(|kind| kind == "test") && target["name"] == TARGET
        };
        let dir = Path::new(text_of(&package["manifest_path"])).parent();
        if let Some(dir) = dir.filter(|_| list(&package["targets"]).iter().any(is_wanted)) {
            packages.insert(text_of(&package["name"]).to_owned(), dir.to_owned());
        }
    }
    Ok(packages)
}

/// The file of a target that Cargo has built, by what it says.
pub(crate) fn executable(messages: &[u8], name: &str) -> Option<PathBuf> {
    executable_in(messages, name, None)
}

fn executable_in(messages: &[u8], name: &str, dir: Option<&Path>) -> Option<PathBuf> {
    messages.split(|&byte| byte == b'\n').find_map(|line| {
        let message: Value = serde_json::from_slice(line).ok()?;
        let file = message["executable"].as_str()?;
        let is_it = message["target"]["name"] == name
            && dir.is_none_or(|dir| {
                Path::new(text_of(&message["manifest_path"])).parent() == Some(dir)
            });
        is_it.then(|| file.into())
    })
}

fn list(value: &Value) -> &[Value] {
    value.as_array().map_or(&[], Vec::as_slice)
}

fn text_of(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}
