//! Names for the numbers of an alarm.

use std::fmt;
use std::path::PathBuf;

use ironclad_bpf::probe::kernel_function;
use ironclad_core::abi::{self, FileId};
use ironclad_events::SentinelRecord;
use serde::Serialize;

use crate::Sentinel;
use crate::error::SentinelError;

/// An alarm with the names of executables and rules. `Display` prints one line.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct ExplainedAlarm {
    /// The alarm.
    pub event: SentinelRecord,
    /// The executable of the process: a label, as of [`Sentinel::exe_path`].
    pub exe: Option<PathBuf>,
    /// The executable of its parent: likewise.
    pub parent: Option<PathBuf>,
    /// The kernel function that a program calls, where the program was refused for it.
    pub function: Option<String>,
    /// The rules that matched, by their names in the policy in force.
    pub rules: Vec<String>,
}

impl fmt::Display for ExplainedAlarm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.event)?;
        if let Some(function) = &self.function {
            write!(f, ", kernel function {function}")?;
        }
        for (what, path) in [("executes", &self.exe), ("started by", &self.parent)] {
            if let Some(path) = path {
                write!(f, ", {what} {}", path.display().to_string().escape_debug())?;
            }
        }
        match &self.rules[..] {
            [] => Ok(()),
            rules => write!(f, ": {}", rules.join(", ")),
        }
    }
}

impl Sentinel {
    /// The path of an executable. A label and no proof: the path is the argument of the first execve(2), or
    /// else what `/proc` shows of a process that executes the file. The path may belong to another root
    /// directory, or have been replaced since. None where no path is known.
    ///
    /// # Errors
    /// `SentinelErrorKind::Bpf` where the kernel refuses.
    pub fn exe_path(&self, exe: &FileId) -> Result<Option<PathBuf>, SentinelError> {
        match *exe == FileId::NONE {
            true => Ok(None),
            false => Ok(self.processes().exe_path(exe)?),
        }
    }

    /// An alarm with the names of executables and rules. Call it soon, while the process runs and the policy
    /// is in force.
    ///
    /// # Errors
    /// `SentinelErrorKind::Bpf` where the kernel refuses.
    pub fn explain_event(&self, event: &SentinelRecord) -> Result<ExplainedAlarm, SentinelError> {
        Ok(ExplainedAlarm {
            exe: self.exe_path(&event.exe)?,
            parent: self.exe_path(&event.parent)?,
            function: event.kfunc().and_then(kernel_function),
            rules: event.rules.iter().map(|&index| self.rule_name(index)).collect(),
            event: event.clone(),
        })
    }

    fn rule_name(&self, index: usize) -> String {
        let own = match u32::try_from(index) {
            Ok(abi::OWN_LOCKED) => "the agent's audit file",
            Ok(abi::OWN_MOUNTS) => "mounts with protected files",
            Ok(abi::OWN_GROUP) => "the agent's cgroup",
            Ok(abi::OWN_EXECUTABLE) => "the agent's executable",
            Ok(abi::OWN_CODE) => "the agent's libraries",
            Ok(abi::OWN_STATE) => "the agent's state",
            Ok(abi::OWN_PINS) => "the agent's pins",
            _ => {
                let rule = self.rule(index);
                let named = rule.map(|rule| format!("rule {} ({})", rule.id, rule.name));
                return named.unwrap_or_else(|| format!("rule #{}", index + 1));
            }
        };
        own.to_owned()
    }
}
