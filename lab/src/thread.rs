//! Scheduling of the current thread.

use std::fs::read_link;

use crate::command::run;
use crate::error::LabError;

/// Gives the current thread a real-time priority (`SCHED_FIFO`), so that it waits for the kernel and not for the
/// CPU. It should sleep most of the time. Needs util-linux.
///
/// # Errors
/// [`LabError`] where there is no `/proc`, no `chrt`, or no right to do so.
pub fn run_before_others() -> Result<(), LabError> {
    // A link to "<process>/task/<thread>".
    let link = read_link("/proc/thread-self")
        .map_err(|source| LabError::System { step: "reading /proc/thread-self", source })?;
    let thread = link.file_name().unwrap_or_default().to_string_lossy();
    run("chrt", &["--fifo", "--pid", "10", &thread]).map(drop)
}
