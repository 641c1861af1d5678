//! `ironclad-core/src/abi/generated.rs`: the Rust mirror of the headers in `bpf-src/include/ironclad/abi/`.

mod emit;
mod forms;
mod parse;
mod prose;
#[cfg(test)]
mod tests;

use std::path::Path;

use crate::command::{read_text, write};
use crate::failure::{Context, Result};
use crate::test::Outcome;

const DIR: &str = "bpf-src/include/ironclad/abi";
const GENERATED: &str = "ironclad-core/src/abi/generated.rs";

/// In the order in which they include each other.
const HEADERS: [&str; 6] = ["base.h", "flat.h", "shield.h", "process.h", "socket.h", "sentinel.h"];

/// Makes the Rust mirror anew.
pub(crate) fn generate() -> Result<()> {
    write(GENERATED.as_ref(), module()?)
}

/// Whether the mirror is that of the headers.
pub(crate) fn check() -> Result<Outcome> {
    let (here, made) = (read_text(GENERATED.as_ref())?, module()?);
    if here == made {
        return Ok(Outcome::Passed);
    }
    let mut pairs = (1..).zip(here.lines().zip(made.lines()));
    let how = match pairs.find(|(_, (here, made))| here != made) {
        Some((number, (here, made))) => format!("line {number}: '{here}' should be '{made}'"),
        None => "the length differs".to_owned(),
    };
    Ok(Outcome::Failed(format!("{GENERATED}: {how}: run cargo xtask abi")))
}

fn module() -> Result<String> {
    let mut found: Vec<_> = std::fs::read_dir(DIR)
        .context(DIR)?
        .map(|entry| Ok(entry.context(DIR)?.file_name().to_string_lossy().into_owned()))
        .collect::<Result<_>>()?;
    found.retain(|name| !HEADERS.contains(&name.as_str()));
    if let [unknown, ..] = found.as_slice() {
        return Err(format!("{DIR}/{unknown} is not in the list of xtask/src/abi/mod.rs").into());
    }
    let headers: Vec<_> = HEADERS
        .iter()
        .map(|name| {
            let path = Path::new(DIR).join(name);
            parse::header(name, &read_text(&path)?).context(DIR)
        })
        .collect::<Result<_>>()?;
    emit::module(&headers)
}
