//! Protection from the OOM killer.

use std::fs;
use std::io;

const FILE: &str = "/proc/self/oom_score_adj";
/// `OOM_SCORE_ADJ_MIN` of include/uapi/linux/oom.h: never.
const NEVER: &str = "-1000";

/// While this value exists, the OOM killer does not choose this process. Children inherit the setting.
pub(crate) struct OomProtection {
    former: String,
}

impl OomProtection {
    pub(crate) fn new() -> io::Result<Self> {
        let former = fs::read_to_string(FILE)?.trim().to_owned();
        fs::write(FILE, NEVER)?;
        Ok(Self { former })
    }
}

impl Drop for OomProtection {
    fn drop(&mut self) {
        if let Err(error) = fs::write(FILE, &self.former) {
            tracing::warn!(%error, former = self.former, "{FILE} stays at {NEVER}");
        }
    }
}
