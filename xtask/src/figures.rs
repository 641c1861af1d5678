//! The figures of docs/benchmarks.md and the race, measured by `benches/figures.rs`.

use std::process::ExitCode;

use crate::command::{cargo, line};
use crate::failure::{Context, Failure, Result};
use crate::opensnitch;
use crate::setup::{self, Purpose};

/// Measures the figures.
pub(crate) fn run(arguments: &[String]) -> Result<ExitCode> {
    bench("figures", arguments)
}

/// Races the firewalls of others and ours.
pub(crate) fn race(arguments: &[String]) -> Result<ExitCode> {
    bench("race", &[&["race".to_owned()], arguments].concat())
}

/// Ends as the measurement ends.
fn bench(task: &str, arguments: &[String]) -> Result<ExitCode> {
    setup::ensure(Purpose::Race)?;
    if !setup::is_root() {
        return Err(Failure::new(format!(
            "this is measured in the kernel, which only root may: sudo cargo xtask {task}"
        )));
    }
    let mut bench = cargo(["bench", "--quiet", "--bench", "figures", "--"]);
    if task == "figures" {
        match opensnitch::root() {
            Ok(root) => drop(bench.env("IRONCLAD_OPENSNITCH", root)),
            // The figure that needs it is left out, aloud.
            Err(error) => eprintln!("no OpenSnitch: {error}"),
        }
    }
    let status = bench.args(arguments).status().context(line(&bench))?;
    Ok(status.code().and_then(|code| u8::try_from(code).ok()).unwrap_or(1).into())
}
