//! A slot's tables as they are in the kernel, not as they were written.
use std::fmt;

use ironclad_core::abi::{self, SockIdKey, SockIdVal, SockPolicy, SockRow, SockRule};
use zerocopy::{FromBytes, IntoBytes};

use super::SocketShared;
use super::shared::CELL;
use crate::error::BpfError;
use crate::mapping::Mapping;

/// The tables of a slot. Reading does not wait: [`is_current`](Self::is_current) reports whether
/// what was read is of one policy.
pub struct SlotTables<'a> {
    shared: &'a SocketShared,
    slot: usize,
    policy: Box<SockPolicy>,
}

impl SocketShared {
    /// Reads a slot.
    pub fn read_slot(&self, slot: u32) -> SlotTables<'_> {
        let slot = slot as usize;
        SlotTables { shared: self, slot, policy: Box::new(read(&self.policy, slot)) }
    }
}

/// The element with this number.
fn read<T: FromBytes + IntoBytes>(mapping: &Mapping, number: usize) -> T {
    let mut words = vec![0u32; size_of::<T>() / 4];
    mapping.read(number * size_of::<T>(), &mut words);
    let mut value = T::new_zeroed();
    value.as_mut_bytes().copy_from_slice(words.as_bytes());
    value
}

impl SlotTables<'_> {
    /// All that is no table.
    pub fn policy(&self) -> &SockPolicy {
        &self.policy
    }

    /// Whether the slot has held this policy, and executables have meant the same, since it was
    /// read.
    pub fn is_current(&self) -> bool {
        let now: SockPolicy = read(&self.shared.policy, self.slot);
        (now.generation, now.epoch) == (self.policy.generation, self.policy.epoch)
    }

    /// A row; none behind the last that there is room for.
    pub fn row(&self, number: u32) -> Option<SockRow> {
        let each = self.shared.rows_each;
        let number = number as usize;
        (number < each).then(|| read(&self.shared.rows, self.slot * each + number))
    }

    /// The row of a port, behind the first of ports.
    pub fn port(&self, port: u16) -> u32 {
        let first = self.slot * abi::SOCK_PORT_CELLS * 32;
        let at = 2 * (first + usize::from(port));
        let mut word = [0u32];
        self.shared.ports.read(at & !3, &mut word);
        let half = &word.as_bytes()[at & 2..][..2];
        u32::from(u16::from_ne_bytes([half[0], half[1]]))
    }

    /// A word of the flat table of addresses; 0 behind the last that there is room for.
    pub fn flat(&self, word: usize) -> u32 {
        let each = self.shared.cells_each * CELL / 4;
        if word < each { read(&self.shared.flat, self.slot * each + word) } else { 0 }
    }

    /// A rule that decides, by its number among those.
    pub fn rule(&self, number: usize) -> Option<SockRule> {
        let each = abi::SOCK_RULES_MAX;
        (number < each).then(|| read(&self.shared.rules, self.slot * each + number))
    }

    /// A rule that reports and decides nothing, by its number among those.
    pub fn log(&self, number: usize) -> Option<SockRule> {
        let each = abi::SOCK_LOGS_MAX;
        (number < each).then(|| read(&self.shared.logs, self.slot * each + number))
    }

    /// What a value that a rule may name means.
    ///
    /// # Errors
    /// `BpfErrorKind::Map` where the kernel refuses.
    pub fn id(&self, dim: usize, value: [u64; 2]) -> Result<Option<SockIdVal>, BpfError> {
        let generation = self.policy.generation as u32;
        self.shared.ids.lookup(&SockIdKey { generation, dim: dim as u32, value })
    }
}

impl fmt::Debug for SlotTables<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SlotTables").field("slot", &self.slot).finish_non_exhaustive()
    }
}
