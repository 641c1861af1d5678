//! Executables that are exempt from rules.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use ironclad_bpf::paths::interpreter;
use ironclad_core::abi;
use ironclad_policy::file::CompiledFiles;

use crate::error::{Failure, SentinelError};
use crate::status::{Missing, MissingKind};
use crate::{own, resolve};

/// Executables that the builder names, and that are exempt from Sentinel's own rules.
#[derive(Clone, Debug, Default)]
pub(crate) struct Executables {
    pub(crate) updaters: Vec<PathBuf>,
    pub(crate) may_stop: Vec<PathBuf>,
    pub(crate) group_managers: Vec<PathBuf>,
    /// Those of systemd that Sentinel covers: [`own::executors`].
    pub(crate) executors: BTreeSet<PathBuf>,
}

impl Executables {
    /// Executables, Sentinel's own rules that each is exempt from, and its permissions.
    pub(super) fn exemptions(&self) -> impl Iterator<Item = (&Path, u64, u32)> {
        let updaters = self.updaters.iter().map(|path| (path.as_path(), own::UPDATED, 0));
        let stop = abi::MAY_KILL | abi::MAY_GROUP;
        let stoppers = self.may_stop.iter().map(move |path| (path.as_path(), own::MANAGED, stop));
        let managers = self.group_managers.iter();
        let managers = managers.map(|path| (path.as_path(), own::MANAGED, abi::MAY_GROUP));
        updaters.chain(stoppers).chain(managers)
    }

    /// Each with the method that named it.
    fn named(&self) -> impl Iterator<Item = (&'static str, &PathBuf)> {
        let lists = [
            ("`.updater(…)`", &self.updaters),
            ("`.may_stop(…)`", &self.may_stop),
            ("`.group_manager(…)`", &self.group_managers),
        ];
        lists.into_iter().flat_map(|(by, paths)| paths.iter().map(move |path| (by, path)))
    }

    pub(super) fn missing(&self) -> impl Iterator<Item = Missing> {
        self.named().filter(|(_, path)| !path.is_file()).map(|(by, path)| Missing {
            path: path.clone(),
            by: by.to_owned(),
            kind: MissingKind::Executable,
        })
    }

    /// Refuses exempt executables, those of rules included, that are scripts or directories: no process executes them.
    pub(super) fn check(&self, files: Option<&CompiledFiles>) -> Result<(), SentinelError> {
        let rules = files.iter().flat_map(|files| files.rules());
        let exemptions = rules.flat_map(|rule| rule.except.iter().map(move |path| (rule, path)));
        for (rule, path) in exemptions {
            check_executable(|| resolve::described(rule), path)?;
        }
        self.named().try_for_each(|(by, path)| check_executable(|| by.to_owned(), path))
    }
}

pub(super) fn check_executable(
    by: impl FnOnce() -> String,
    path: &Path,
) -> Result<(), SentinelError> {
    if path.is_dir() {
        let what =
            "is a directory, which no process executes: name the executables in it".to_owned();
        return Err(Failure::Path { rule: by(), path: path.to_owned(), what }.into());
    }
    match interpreter(path) {
        Some(interpreter) => {
            Err(Failure::Script { by: by(), path: path.to_owned(), interpreter }.into())
        }
        None => Ok(()),
    }
}
