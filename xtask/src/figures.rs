//! The figures of docs/benchmarks.md, measured by `benches/figures.rs`.

use std::process::ExitCode;

use crate::command::{cargo, line};
use crate::failure::{Context, Failure, Result};
use crate::setup::{self, Purpose};

/// Ends as the measurement ends.
pub(crate) fn run(arguments: &[String]) -> Result<ExitCode> {
    setup::ensure(Purpose::Race)?;
    if !setup::is_root() {
        return Err(Failure::new(
            "the figures are measured in the kernel, which only root may: sudo cargo xtask figures",
        ));
    }
    let mut bench = cargo(["bench", "--quiet", "--bench", "figures", "--"]);
    let status = bench.args(arguments).status().context(line(&bench))?;
    Ok(status.code().and_then(|code| u8::try_from(code).ok()).unwrap_or(1).into())
}
