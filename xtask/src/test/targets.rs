//! Test targets that need a kernel: which there are, and their binaries.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde_json::Value;

use crate::command::{cargo, output, output_bytes};
use crate::failure::{Context, Result};

/// The feature without which these targets are not built.
const FEATURE: &str = "kernel-tests";

/// A test binary that was built.
pub(crate) struct Binary {
    /// As its source is called: `kernel_…` or `matrix_…`.
    pub(crate) name: String,
    pub(crate) file: PathBuf,
    /// Its package's directory, where it runs.
    pub(crate) dir: PathBuf,
}

/// Builds the workspace's test targets whose name begins with `prefix`; those of one package, where
/// one is named.
pub(crate) fn build(prefix: &str, package: Option<&str>) -> Result<Vec<Binary>> {
    let mut wanted = declared(prefix)?;
    wanted.retain(|name, _| package.is_none_or(|package| name == package));
    if wanted.is_empty() {
        return Ok(Vec::new());
    }
    let mut build = cargo(["test", "--no-run", "--message-format=json-render-diagnostics"]);
    for (package, names) in &wanted {
        build.args(["--package", package, "--features", &format!("{package}/{FEATURE}")]);
        names.iter().for_each(|name| {
            build.args(["--test", name]);
        });
    }
    let messages = output_bytes(&mut build)?;
    let mut binaries: Vec<_> = messages
        .split(|&byte| byte == b'\n')
        .filter_map(|line| binary(&serde_json::from_slice(line).ok()?))
        .filter(|binary| binary.name.starts_with(prefix))
        .collect();
    binaries.sort_by(|a, b| a.name.cmp(&b.name));
    // In a virtual machine they lie in one directory: of two, one would run twice.
    match binaries.windows(2).find(|pair| pair[0].name == pair[1].name) {
        Some(pair) => {
            Err(format!("two test targets are called {}: rename one", pair[0].name).into())
        }
        None => Ok(binaries),
    }
}

/// Packages with the feature, and their targets with the prefix.
fn declared(prefix: &str) -> Result<BTreeMap<String, Vec<String>>> {
    let text = output(&mut cargo(["metadata", "--no-deps", "--format-version=1"]))?;
    let metadata: Value = serde_json::from_str(&text).context("cargo metadata")?;
    let mut declared = BTreeMap::new();
    for package in list(&metadata["packages"]) {
        let is_wanted = |target: &&Value| {
            list(&target["kind"]).iter().any(|kind| kind == "test")
                && text_of(&target["name"]).starts_with(prefix)
        };
        let targets = list(&package["targets"]).iter().filter(is_wanted);
        let names: Vec<_> = targets.map(|target| text_of(&target["name"]).to_owned()).collect();
        if !names.is_empty() {
            declared.insert(text_of(&package["name"]).to_owned(), names);
        }
    }
    Ok(declared)
}

/// The file of a target that Cargo has built, by what it says.
pub(crate) fn executable(messages: &[u8], name: &str) -> Option<PathBuf> {
    let mut lines = messages.split(|&byte| byte == b'\n');
    lines.find_map(|line| {
        let binary = binary(&serde_json::from_slice(line).ok()?)?;
        (binary.name == name).then_some(binary.file)
    })
}

fn binary(message: &Value) -> Option<Binary> {
    let file = message["executable"].as_str()?.into();
    let dir = Path::new(message["manifest_path"].as_str()?).parent()?.to_owned();
    Some(Binary { name: message["target"]["name"].as_str()?.to_owned(), file, dir })
}

fn list(value: &Value) -> &[Value] {
    value.as_array().map_or(&[], Vec::as_slice)
}

fn text_of(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}
