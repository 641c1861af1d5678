//! Programs that the lab calls.

use std::process::Command;

use crate::error::LabError;

/// Runs a command. The error has its standard error.
pub(crate) fn run(program: &str, args: &[&str]) -> Result<String, LabError> {
    let command = || format!("{program} {}", args.join(" "));
    let output = Command::new(program)
        .args(args)
        .output()
        .map_err(|e| LabError::Command { command: command(), message: e.to_string() })?;
    if !output.status.success() {
        let message = String::from_utf8_lossy(&output.stderr).trim().to_owned();
        return Err(LabError::Command { command: command(), message });
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}
