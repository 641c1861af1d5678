//! The example that shows all of it, from a machine with nothing but Rust.

use std::process::ExitCode;

use crate::command::{cargo, line, output_bytes};
use crate::failure::{Context, Failure, Result};
use crate::setup::{self, Purpose};
use crate::{kernels, test, vm};

/// For the tour of Sentinel on an emulated machine.
const TOUR_SECONDS: u64 = 900;

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

/// The tour of attacks on an agent that Sentinel guards, in a virtual machine: ends as it ends.
pub(crate) fn sentinel(kernel: &str, arguments: &[String]) -> Result<ExitCode> {
    setup::ensure(Purpose::Test)?;
    let kernels = kernels::fetch(&[kernel.to_owned()], false)?;
    let mut build = cargo(["build", "--example", "fortress"]);
    let messages = output_bytes(build.arg("--message-format=json-render-diagnostics"))?;
    let program = test::executable(&messages, "fortress").context("cargo built no fortress")?;
    let program = program.to_string_lossy().into_owned();
    let words = [&[program], arguments].concat();
    let job = vm::Job { timeout_seconds: TOUR_SECONDS, ..vm::Job::default() };
    let status = vm::command_line(&kernels[0], &words, &[], job)?;
    Ok(status.and_then(|status| u8::try_from(status).ok()).unwrap_or(1).into())
}
