//! The example that shows all of it, from a machine with nothing but Rust.

use std::process::ExitCode;

use crate::command::{cargo, line};
use crate::failure::{Context, Failure, Result};
use crate::setup::{self, Purpose};

/// Ends as the example ends.
pub(crate) fn run(arguments: &[String]) -> Result<ExitCode> {
    setup::ensure(Purpose::Test)?;
    if !setup::is_root() {
        return Err(Failure::new(
            "the demo loads programs into the kernel and makes network namespaces, which only root \
             may: sudo cargo xtask demo",
        ));
    }
    let mut example = cargo(["run", "--release", "--example", "full_firewall", "--"]);
    let status = example.args(arguments).status().context(line(&example))?;
    Ok(status.code().and_then(|code| u8::try_from(code).ok()).unwrap_or(1).into())
}
