//! Other firewalls' commands, run in the calling thread's namespaces.

use std::process::{Command, Stdio};

use crate::common::Result;

/// Its standard output; the error has what it said.
pub(super) fn run(program: &str, args: &[&str]) -> Result<String> {
    let line = || format!("{program} {}", args.join(" "));
    let output = Command::new(program)
        .args(args)
        .stdin(Stdio::null())
        .output()
        .map_err(|e| format!("{}: {e}: is it installed (`cargo xtask setup`)?", line()))?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr);
        let said = said.trim().lines().next().unwrap_or_default();
        return Err(format!("`{}` failed with {}: {said}", line(), output.status).into());
    }
    Ok(String::from_utf8(output.stdout)?)
}

/// The number behind a word.
pub(super) fn number_after(text: &str, word: &str) -> Option<u64> {
    let mut words = text.split_whitespace().skip_while(|found| *found != word);
    words.nth(1)?.parse().ok()
}
