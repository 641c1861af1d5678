//! The kernel's tables of file rules, and a copy of their content.

use std::collections::{BTreeMap, BTreeSet};

use ironclad_bpf::BpfError;
use ironclad_bpf::sentinel::Guard;
use ironclad_core::abi::{Exemption, FileId, FilePolicy, Label, NameKey, NameVal};

use crate::resolve::Coverage;

/// The content of the kernel's tables, both halves.
#[derive(Debug, Default)]
pub(crate) struct Tables {
    labels: BTreeMap<FileId, Label>,
    names: BTreeMap<NameKey, NameVal>,
    exemptions: BTreeMap<FileId, Exemption>,
    volumes: BTreeMap<u32, NameVal>,
    mounts: BTreeSet<u32>,
}

impl Tables {
    /// Reads what an earlier agent wrote.
    pub(crate) fn read(guard: &Guard) -> Result<Self, BpfError> {
        let files = guard.files();
        let mut this = Self::default();
        for id in files.labels.keys()? {
            if let Some(label) = files.labels.lookup(&id)? {
                this.labels.insert(id, label);
            }
        }
        for key in files.names.keys()? {
            if let Some(val) = files.names.lookup(&key)? {
                this.names.insert(key, val);
            }
        }
        for id in guard.exemptions().keys()? {
            if let Some(exemptions) = guard.exemptions().lookup(&id)? {
                this.exemptions.insert(id, exemptions);
            }
        }
        for device in files.volumes.keys()? {
            if let Some(val) = files.volumes.lookup(&device)? {
                this.volumes.insert(device, val);
            }
        }
        this.mounts = files.mounts.keys()?.into_iter().collect();
        Ok(this)
    }

    /// Writes the half that is not in force, and puts it in force. If a table is full, the other half stays in
    /// force.
    pub(crate) fn apply(
        &mut self,
        guard: &Guard,
        coverage: &Coverage,
        policy: FilePolicy,
    ) -> Result<(), BpfError> {
        let half = (guard.word() & 1 ^ 1) as usize;
        self.write(guard, coverage, half)?;
        guard.files().policy.update(&(half as u32), &policy)?;
        guard.flip()?;
        for mount in self.mounts.difference(&coverage.mounts) {
            guard.files().mounts.delete(mount)?;
        }
        self.mounts.clone_from(&coverage.mounts);
        self.remove_unused(guard, half)
    }

    fn write(&mut self, guard: &Guard, coverage: &Coverage, half: usize) -> Result<(), BpfError> {
        let files = guard.files();
        let ids: BTreeSet<_> = self.labels.keys().chain(coverage.files.keys()).copied().collect();
        for id in ids {
            let covered = coverage.files.get(&id).copied().unwrap_or_default();
            let mut label = self.labels.get(&id).copied().unwrap_or_default();
            label.own[half] = covered.own;
            label.below[half] = covered.below;
            label.flags[half] = covered.flags;
            label.names[half] = covered.names;
            if self.labels.get(&id) != Some(&label) {
                files.label(&id, &label)?;
                self.labels.insert(id, label);
            }
        }
        let names: BTreeSet<_> = self.names.keys().chain(coverage.names.keys()).copied().collect();
        for name in names {
            let mut val = self.names.get(&name).copied().unwrap_or_default();
            val.rules[half] = coverage.names.get(&name).copied().unwrap_or_default();
            if self.names.get(&name) != Some(&val) {
                files.names.update(&name, &val)?;
                self.names.insert(name, val);
            }
        }
        let volumes = &coverage.volumes;
        let devices: BTreeSet<_> = self.volumes.keys().chain(volumes.keys()).copied().collect();
        for device in devices {
            let mut val = self.volumes.get(&device).copied().unwrap_or_default();
            val.rules[half] = volumes.get(&device).copied().unwrap_or_default();
            if self.volumes.get(&device) != Some(&val) {
                files.volumes.update(&device, &val)?;
                self.volumes.insert(device, val);
            }
        }
        for mount in &coverage.mounts {
            if !self.mounts.contains(mount) {
                files.mounts.update(mount, &1)?;
                self.mounts.insert(*mount);
            }
        }
        let ids: BTreeSet<_> =
            self.exemptions.keys().chain(coverage.exemptions.keys()).copied().collect();
        for id in ids {
            let mut exemptions = self.exemptions.get(&id).copied().unwrap_or_default();
            (exemptions.rules[half], exemptions.may[half]) =
                coverage.exemptions.get(&id).copied().unwrap_or_default();
            if self.exemptions.get(&id) != Some(&exemptions) {
                guard.exemptions().update(&id, &exemptions)?;
                self.exemptions.insert(id, exemptions);
            }
        }
        Ok(())
    }

    /// Removes entries that the half in force does not use.
    fn remove_unused(&mut self, guard: &Guard, half: usize) -> Result<(), BpfError> {
        let files = guard.files();
        let is_idle = |label: &Label| {
            label.own[half] == 0
                && label.below[half] == 0
                && label.flags[half] == 0
                && label.names[half] == 0
        };
        let idle: Vec<_> =
            self.labels.iter().filter(|(_, label)| is_idle(label)).map(|(id, _)| *id).collect();
        for id in idle {
            files.labels.delete(&id)?;
            self.labels.remove(&id);
        }
        let idle = self.names.iter().filter(|(_, val)| val.rules[half] == 0);
        let idle: Vec<_> = idle.map(|(name, _)| *name).collect();
        for name in idle {
            files.names.delete(&name)?;
            self.names.remove(&name);
        }
        let idle = self.volumes.iter().filter(|(_, val)| val.rules[half] == 0);
        let idle: Vec<_> = idle.map(|(device, _)| *device).collect();
        for device in idle {
            files.volumes.delete(&device)?;
            self.volumes.remove(&device);
        }
        let idle = self.exemptions.iter();
        let idle: Vec<_> = idle
            .filter(|(_, it)| it.rules[half] == 0 && it.may[half] == 0)
            .map(|(id, _)| *id)
            .collect();
        for id in idle {
            guard.exemptions().delete(&id)?;
            self.exemptions.remove(&id);
        }
        Ok(())
    }

    /// The number of labelled files and directories.
    pub(crate) fn labels(&self) -> usize {
        self.labels.len()
    }
}
