//! What an alarm says by numbers, in words.

use std::fmt;
use std::path::PathBuf;

use ironclad_core::abi::{self, FileId};
use ironclad_events::SentinelRecord;
use serde::Serialize;

use crate::Sentinel;
use crate::error::SentinelError;

/// An alarm with names for what the kernel tells by number. It displays as one line.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct ExplainedAlarm {
    /// What was explained.
    pub event: SentinelRecord,
    /// What the process executes: a label, as of [`Sentinel::exe_path`].
    pub exe: Option<PathBuf>,
    /// What its parent executed: likewise.
    pub parent: Option<PathBuf>,
    /// The rules that said so, by their names in the policy in force.
    pub rules: Vec<String>,
}

impl fmt::Display for ExplainedAlarm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.event)?;
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
    /// The path by which a file is executed. A label and no proof: it is what execve(2) was given first, or
    /// else what `/proc` says of a process that runs it; it may be of another root, or lead elsewhere by
    /// now. None where nobody knows one.
    ///
    /// # Errors
    /// [`SentinelError::Bpf`] where the kernel refuses.
    pub fn exe_path(&self, exe: &FileId) -> Result<Option<PathBuf>, SentinelError> {
        match *exe == FileId::NONE {
            true => Ok(None),
            false => Ok(self.processes().exe_path(exe)?),
        }
    }

    /// What an alarm says, with the names of executables and of rules: soon, while the process runs and
    /// its policy is in force.
    ///
    /// # Errors
    /// [`SentinelError::Bpf`] where the kernel refuses.
    pub fn explain_event(&self, event: &SentinelRecord) -> Result<ExplainedAlarm, SentinelError> {
        Ok(ExplainedAlarm {
            exe: self.exe_path(&event.exe)?,
            parent: self.exe_path(&event.parent)?,
            rules: event.rules.iter().map(|&place| self.rule_name(place)).collect(),
            event: event.clone(),
        })
    }

    fn rule_name(&self, place: usize) -> String {
        let own = match u32::try_from(place) {
            Ok(abi::OWN_MOUNTS) => "what is mounted with guarded files",
            Ok(abi::OWN_GROUP) => "the agent's cgroup",
            Ok(abi::OWN_EXECUTABLE) => "the agent's executable",
            Ok(abi::OWN_CODE) => "the agent's libraries",
            Ok(abi::OWN_STATE) => "the agent's state",
            Ok(abi::OWN_PINS) => "the agent's pins",
            _ => {
                let rule = self.rule(place);
                let named = rule.map(|rule| format!("rule {} ({})", rule.id, rule.name));
                return named.unwrap_or_else(|| format!("rule #{}", place + 1));
            }
        };
        own.to_owned()
    }
}
