//! Protection from the OOM killer.

use std::io;

use ironclad_bpf::pseudo_fs::PROC;

const FILE: &str = "self/oom_score_adj";
/// `OOM_SCORE_ADJ_MIN` of include/uapi/linux/oom.h: never.
const NEVER: &str = "-1000";

/// While this value exists, the OOM killer does not choose this process. Children inherit the setting.
pub(crate) struct OomProtection {
    former: String,
}

impl OomProtection {
    pub(crate) fn new() -> io::Result<Self> {
        let former = PROC.read_to_string(FILE)?.trim().to_owned();
        PROC.write(FILE, NEVER.as_bytes())?;
        Ok(Self { former })
    }
}

impl Drop for OomProtection {
    fn drop(&mut self) {
        if let Err(error) = PROC.write(FILE, self.former.as_bytes()) {
            tracing::warn!(%error, former = self.former, "/proc/{FILE} stays at {NEVER}");
        }
    }
}
