//! The tables of a policy in a slot, as files are replaced and cgroups created again while it is in
//! force.
use std::collections::{BTreeMap, HashMap};
use std::path::PathBuf;

use ironclad_bpf::socket::SlotChange;
use ironclad_core::abi::{self, FileId, SockIdKey, SockIdVal, SockRow};
use ironclad_policy::socket::{Bound, BoundFile, CompiledSockets, SocketImage};
use sha2::{Digest, Sha256};
use zerocopy::IntoBytes;

use crate::error::ShieldError;

/// A file that a path led to earlier. The path still names processes that executed it before the path
/// led to another file: an upgrade takes no rights from running processes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Former {
    pub(crate) path: PathBuf,
    pub(crate) file: BoundFile,
    /// `CLOCK_BOOTTIME` when the change was noticed.
    pub(crate) until_ns: u64,
    /// How many walks over the process table in a row have found no process that executes it.
    pub(crate) unseen: u32,
}

/// The tables of a policy, former files included.
pub(crate) fn image(
    compiled: &CompiledSockets,
    bound: &Bound,
    former: &[Former],
) -> Result<SocketImage, ShieldError> {
    let mut image = compiled.image(bound)?;
    let is_named = |one: &&Former| compiled.files().any(|path| *path == one.path);
    let mut by_file: BTreeMap<FileId, Vec<&Former>> = BTreeMap::new();
    for one in former.iter().filter(is_named) {
        by_file.entry(one.file.id).or_default().push(one);
    }
    for (id, led_here) in by_file {
        // Resolved as before.
        let mut then = bound.clone();
        for one in &led_here {
            then.files.insert(one.path.clone(), one.file);
        }
        let until_ns = led_here.iter().map(|one| one.until_ns).max().unwrap_or(0);
        let then = compiled.image(&then)?;
        for (key, val) in then.ids {
            let is_file = [abi::DIM_EXE, abi::DIM_PARENT].contains(&(key.dim as usize));
            if !is_file || key.value != id.words() {
                continue;
            }
            // A path may lead to it again.
            if image.ids.iter().any(|(known, _)| *known == key) {
                continue;
            }
            let mut enter = |row: u32| {
                image.rows.push(then.rows[row as usize]);
                image.rows.len() as u32 - 1
            };
            let row = enter(val.row);
            let changed_row = if val.changed_row == val.row { row } else { enter(val.changed_row) };
            image.ids.push((key, SockIdVal { until_ns, row, changed_row, ..val }));
        }
    }
    Ok(image)
}

/// The entries of a slot's tables that depend on paths.
#[derive(Clone, Debug)]
pub(crate) struct Bindings {
    /// Rows by the digest of their content.
    rows: HashMap<[u8; 32], u32>,
    next_row: u32,
    ids: BTreeMap<SockIdKey, SockIdVal>,
}

fn digest(row: &SockRow) -> [u8; 32] {
    Sha256::digest(row.as_bytes()).into()
}

impl Bindings {
    /// Those of an image that is in a slot, with its generation.
    pub(crate) fn of(image: &SocketImage) -> Self {
        let numbered = (0..).zip(&image.rows);
        Self {
            rows: numbered.map(|(number, row)| (digest(row), number)).collect(),
            next_row: image.rows.len() as u32,
            ids: image.ids.iter().copied().collect(),
        }
    }

    /// The change of the slot to another image of the same policy. Rows that are not referred to any more
    /// stay.
    pub(crate) fn change(&mut self, image: &SocketImage) -> SlotChange {
        let mut change = SlotChange { first_row: self.next_row, ..SlotChange::default() };
        let mut enter = |number: u32| {
            let row = &image.rows[number as usize];
            *self.rows.entry(digest(row)).or_insert_with(|| {
                change.rows.push(*row);
                self.next_row += 1;
                self.next_row - 1
            })
        };
        let wanted: BTreeMap<SockIdKey, SockIdVal> = image
            .ids
            .iter()
            .map(|(key, val)| {
                let (row, changed_row) = (enter(val.row), enter(val.changed_row));
                (*key, SockIdVal { row, changed_row, ..*val })
            })
            .collect();
        let is_new = |(key, val): &(&SockIdKey, &SockIdVal)| self.ids.get(key) != Some(*val);
        change.set = wanted.iter().filter(is_new).map(|(key, val)| (*key, *val)).collect();
        change.gone = self.ids.keys().filter(|key| !wanted.contains_key(key)).copied().collect();
        change.level = image.policy.level;
        change.levels = image.policy.levels;
        self.ids = wanted;
        change
    }
}
