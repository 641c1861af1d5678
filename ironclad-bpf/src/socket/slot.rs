use std::mem::offset_of;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::sync::atomic::Ordering;

use ironclad_core::abi::{self, SockIdKey, SockIdVal, SockPolicy, SockRow, SockRule};
use zerocopy::{Immutable, IntoBytes};

use super::SocketShared;
use crate::error::BpfError;
use crate::map::Map;
use crate::mapping::Mapping;
use crate::sys;

/// What a slot's tables are filled with.
#[derive(Clone, Debug)]
pub struct SocketContent<'a> {
    /// All that is no table, its generation and epoch included.
    pub policy: &'a SockPolicy,
    /// The rows.
    pub rows: &'a [SockRow],
    /// The flat table of addresses, sixteen words a cell; may be empty.
    pub flat: &'a [u32],
    /// The row of each port, or none.
    pub ports: &'a [u16],
    /// Rules that decide.
    pub rules: &'a [SockRule],
    /// Rules that report and decide nothing.
    pub logs: &'a [SockRule],
    /// What is named by value; keys with the generation's lower half.
    pub ids: &'a [(SockIdKey, SockIdVal)],
}

/// One cache line of a flat table.
type Cell = [u32; 16];

const FLAT: &str = "ic_sock_flat";

/// An array for a flat table of so many cells.
fn cells(count: u32) -> Result<OwnedFd, BpfError> {
    let flags = libbpf_sys::BPF_F_MMAPABLE | libbpf_sys::BPF_F_INNER_MAP;
    let size = size_of::<Cell>() as u32;
    sys::map_create(libbpf_sys::BPF_MAP_TYPE_ARRAY, FLAT, 4, size, count, flags, None)
        .map_err(|e| BpfError::map(FLAT, "creation", e))
}

/// The map of each slot's flat table. Not left to libbpf: from 5.15 to 6.1 the kernel takes an inner
/// map that has types for another kind than one that has none.
pub(super) fn flat_of_slots() -> Result<OwnedFd, BpfError> {
    let like = cells(1)?;
    sys::map_create(libbpf_sys::BPF_MAP_TYPE_ARRAY_OF_MAPS, FLAT, 4, 4, 2, 0, Some(like.as_fd()))
        .map_err(|e| BpfError::map(FLAT, "creation", e))
}

/// A frozen table of its own for a slot, filled before any program can see it.
fn table(words: &[u32]) -> Result<OwnedFd, BpfError> {
    let failed = |step| move |e| BpfError::map(FLAT, step, e);
    let bytes = words.as_bytes();
    let fd = cells((bytes.len() / size_of::<Cell>()) as u32)?;
    let mut mapping = Mapping::new(fd.as_fd(), bytes.len(), true).map_err(failed("mapping"))?;
    mapping.fill(bytes);
    // A frozen map cannot be written by anybody any more, ourselves included.
    drop(mapping);
    sys::map_freeze(fd.as_fd()).map_err(failed("freezing"))?;
    Ok(fd)
}

/// The words of plain data, whose size is a multiple of four bytes.
fn words<T: IntoBytes + Immutable + ?Sized>(data: &T) -> Vec<u32> {
    let word = |four: &[u8]| u32::from_ne_bytes([four[0], four[1], four[2], four[3]]);
    data.as_bytes().chunks_exact(4).map(word).collect()
}

impl SocketShared {
    /// Fills a slot, which must not be in force and have no process in it.
    ///
    /// # Errors
    /// [`BpfError::Limit`] or [`BpfError::Map`]; then the slot is empty.
    pub fn fill_slot(&self, slot: u32, content: &SocketContent<'_>) -> Result<(), BpfError> {
        let filled = self.try_fill(slot, content);
        if filled.is_err() {
            self.clear_slot(slot)?;
        }
        filled
    }

    fn try_fill(&self, slot: u32, content: &SocketContent<'_>) -> Result<(), BpfError> {
        let SocketContent { policy, rows, flat, ports, rules, logs, ids } = content;
        for (what, value, limit) in [
            ("socket rules", rules.len(), abi::SOCK_RULES_MAX),
            ("socket rules that only log", logs.len(), abi::SOCK_LOGS_MAX),
            ("ports", ports.len(), abi::SOCK_PORT_CELLS * 32),
            ("rows of socket rules", rows.len(), self.rows_each),
        ] {
            if value > limit {
                return Err(BpfError::Limit { what, value: value as u64, limit: limit as u64 });
            }
        }
        if !flat.is_empty() {
            put(&self.flat, slot, &table(flat)?)?;
        }
        let at = |slot: u32, each: usize, size: usize| slot as usize * each * size;
        self.rows.write(at(slot, self.rows_each, size_of::<SockRow>()), &words(*rows));
        self.ports.write(at(slot, abi::SOCK_PORT_CELLS, 64), &words(*ports));
        let size = size_of::<SockRule>();
        self.rules.write(at(slot, abi::SOCK_RULES_MAX, size), &words(*rules));
        self.logs.write(at(slot, abi::SOCK_LOGS_MAX, size), &words(*logs));
        ids.iter().try_for_each(|(key, val)| self.ids.update(key, val))?;
        // What says that there is a policy comes last.
        let begin = slot as usize * size_of::<SockPolicy>();
        let generation = offset_of!(SockPolicy, generation);
        let mut all = words(*policy);
        all[generation / 4..generation / 4 + 2].fill(0);
        self.policy.write(begin, &all);
        self.policy.u64_at(begin + generation).store(policy.generation, Ordering::Release);
        Ok(())
    }

    /// Empties a slot, which must not be in force and have no process in it.
    ///
    /// # Errors
    /// [`BpfError::Map`] where the kernel refuses.
    pub fn clear_slot(&self, slot: u32) -> Result<(), BpfError> {
        let begin = slot as usize * size_of::<SockPolicy>();
        let generation = self.policy.u64_at(begin + offset_of!(SockPolicy, generation));
        let was = generation.swap(0, Ordering::AcqRel) as u32;
        self.flat.delete(&slot)?;
        for key in self.ids.keys()?.iter().filter(|key| key.generation == was) {
            self.ids.delete(key)?;
        }
        Ok(())
    }

    /// Lets no process of a slot's policy go on with what executables meant before. Call it after
    /// each change of what they mean, with a number that no policy of the instance had before.
    pub fn begin_epoch(&self, slot: u32, epoch: u32) {
        let begin = slot as usize * size_of::<SockPolicy>();
        self.policy.u32_at(begin + offset_of!(SockPolicy, epoch)).store(epoch, Ordering::Release);
    }
}

fn put(outer: &Map<u32, u32>, slot: u32, inner: &OwnedFd) -> Result<(), BpfError> {
    outer.update(&slot, &(inner.as_raw_fd() as u32))
}
