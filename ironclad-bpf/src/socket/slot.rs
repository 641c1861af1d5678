use std::mem::offset_of;
use std::sync::atomic::Ordering;

use ironclad_core::abi::{self, SockIdKey, SockIdVal, SockPolicy, SockRow, SockRule};
use zerocopy::{FromBytes, Immutable, IntoBytes};

use super::shared::{CELL, SocketShared};
use crate::error::BpfError;
use crate::mapping::Mapping;

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

/// What changes in a slot when paths come to mean something else.
#[derive(Clone, Debug, Default)]
pub struct SlotChange {
    /// Number of the first of `rows`: behind the last that anything refers to.
    pub first_row: u32,
    /// More rows.
    pub rows: Vec<SockRow>,
    /// What values mean now.
    pub set: Vec<(SockIdKey, SockIdVal)>,
    /// Values that mean nothing any more.
    pub gone: Vec<SockIdKey>,
    /// [`SockPolicy::level`].
    pub level: [u8; 8],
    /// [`SockPolicy::levels`].
    pub levels: u32,
}

/// What a policy uses of what policies share.
#[derive(Clone, Debug)]
pub struct InUse {
    /// The policy's generation.
    pub generation: u64,
    /// Its rules, with their counters and buckets.
    pub rules: Vec<SockRule>,
    /// Bit n: a rule uses ancestry n.
    pub ancestries: u16,
}

fn read<T: FromBytes + IntoBytes>(from: &Mapping, offset: usize, to: &mut T) {
    let mut words = vec![0; size_of::<T>() / 4];
    from.read(offset, &mut words);
    to.as_mut_bytes().copy_from_slice(words.as_bytes());
}

/// The words of plain data of a multiple of four bytes.
fn words<T: IntoBytes + Immutable + ?Sized>(data: &T) -> Vec<u32> {
    let word = |four: &[u8]| u32::from_ne_bytes([four[0], four[1], four[2], four[3]]);
    data.as_bytes().chunks_exact(4).map(word).collect()
}

impl SocketShared {
    /// Fills a slot, which must not be in force and have no process in it.
    ///
    /// # Errors
    /// `BpfErrorKind::Limit` or `BpfErrorKind::Map`; then the slot is empty.
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
        ] {
            if value > limit {
                return Err(BpfError::limit(what, value as u64, limit as u64));
            }
        }
        self.has_rows(rows.len())?;
        let cells = flat.len() * 4 / CELL;
        if cells > self.cells_each {
            let (value, limit) = (cells as u64, self.cells_each as u64);
            return Err(BpfError::limit("cells of socket addresses", value, limit).with_hint(
                "an instance keeps its size: stop it, and start it with this policy, or with more \
                 `socket_cells` (in a policy file `policy-limits.socket-cells`)",
            ));
        }
        let at = |slot: u32, each: usize, size: usize| slot as usize * each * size;
        self.flat.write(at(slot, self.cells_each, CELL), flat);
        self.rows.write(at(slot, self.rows_each, size_of::<SockRow>()), &words(*rows));
        self.ports.write(at(slot, abi::SOCK_PORT_CELLS, 64), &words(*ports));
        let size = size_of::<SockRule>();
        self.rules.write(at(slot, abi::SOCK_RULES_MAX, size), &words(*rules));
        self.logs.write(at(slot, abi::SOCK_LOGS_MAX, size), &words(*logs));
        self.name(ids)?;
        // What says that there is a policy comes last.
        let begin = slot as usize * size_of::<SockPolicy>();
        let generation = offset_of!(SockPolicy, generation);
        let mut all = words(*policy);
        all[generation / 4..generation / 4 + 2].fill(0);
        self.policy.write(begin, &all);
        self.policy.u64_at(begin + generation).store(policy.generation, Ordering::Release);
        Ok(())
    }

    fn has_rows(&self, rows: usize) -> Result<(), BpfError> {
        if rows <= self.rows_each {
            return Ok(());
        }
        let error = BpfError::limit("rows of socket rules", rows as u64, self.rows_each as u64);
        Err(error.with_hint(match self.rows_each < abi::SOCK_ROWS_MAX as usize {
            true => {
                "an instance keeps its size: stop it, and start it with this policy, or with more \
                 `socket_rows` (in a policy file `policy-limits.socket-rows`)"
            }
            false => "let rules share executables, accounts, addresses and ports",
        }))
    }

    fn name(&self, ids: &[(SockIdKey, SockIdVal)]) -> Result<(), BpfError> {
        ids.iter().try_for_each(|(key, val)| self.ids.update(key, val)).map_err(|error| match error
        {
            error if error.errno() == Some(libc::E2BIG) => {
                let what = "files, users, groups, cgroups and names in the rules of two policies";
                let limit = u64::from(self.ids.info().max_entries);
                let value = limit + 1;
                BpfError::limit(what, value, limit)
                    .with_hint("an instance keeps its size: stop it, and start it with this policy")
            }
            other => other,
        })
    }

    /// Empties a slot, which must not be in force and have no process in it.
    ///
    /// # Errors
    /// `BpfErrorKind::Map` where the kernel refuses.
    pub fn clear_slot(&self, slot: u32) -> Result<(), BpfError> {
        let begin = slot as usize * size_of::<SockPolicy>();
        let generation = self.policy.u64_at(begin + offset_of!(SockPolicy, generation));
        let was = generation.swap(0, Ordering::AcqRel) as u32;
        for key in self.ids.keys()?.iter().filter(|key| key.generation == was) {
            self.ids.delete(key)?;
        }
        Ok(())
    }

    /// What a slot's policy uses of what policies share; `None` of an empty slot.
    pub fn in_use(&self, slot: u32) -> Option<InUse> {
        let begin = slot as usize * size_of::<SockPolicy>();
        let generation = self.policy.u64_at(begin + offset_of!(SockPolicy, generation));
        let generation = generation.load(Ordering::Acquire);
        if generation == 0 {
            return None;
        }
        let mut policy = SockPolicy::NONE;
        read(&self.policy, begin, &mut policy);
        let rule = |from: &Mapping, each: usize, number: usize| {
            let mut rule = SockRule::default();
            read(from, (slot as usize * each + number) * size_of::<SockRule>(), &mut rule);
            rule
        };
        let rules = (0..abi::SOCK_RULES_MAX.min(policy.rules as usize))
            .map(|number| rule(&self.rules, abi::SOCK_RULES_MAX, number))
            .chain(
                (0..abi::SOCK_LOGS_MAX.min(policy.logs.into()))
                    .map(|number| rule(&self.logs, abi::SOCK_LOGS_MAX, number)),
            );
        Some(InUse { generation, rules: rules.collect(), ancestries: policy.ancestries })
    }

    /// The last epoch of a slot, whether or not it holds a policy.
    pub fn epoch(&self, slot: u32) -> u32 {
        let begin = slot as usize * size_of::<SockPolicy>();
        self.policy.u32_at(begin + offset_of!(SockPolicy, epoch)).load(Ordering::Acquire)
    }

    /// Changes what paths mean in a slot that may be in force. `epoch` is a number that no policy of
    /// the instance had before: processes keep what was found for them until it changes.
    ///
    /// # Errors
    /// `BpfErrorKind::Limit` where there is no room for more rows, `BpfErrorKind::Map` where the kernel
    /// refuses; then paths mean what they did, as far as there is memory to say so.
    pub fn change_slot(&self, slot: u32, change: &SlotChange, epoch: u32) -> Result<(), BpfError> {
        self.has_rows(change.first_row as usize + change.rows.len())?;
        let keys = change.gone.iter().chain(change.set.iter().map(|(key, _)| key));
        let before = keys.map(|key| Ok((key, self.ids.lookup(key)?)));
        let before: Vec<_> = before.collect::<Result<_, BpfError>>()?;
        // What nothing refers to yet, then what refers to it, then what makes processes look again.
        let first = slot as usize * self.rows_each + change.first_row as usize;
        self.rows.write(first * size_of::<SockRow>(), &words(&*change.rows));
        let begin = slot as usize * size_of::<SockPolicy>();
        let level = self.policy.u64_at(begin + offset_of!(SockPolicy, level));
        let levels = self.policy.u32_at(begin + offset_of!(SockPolicy, levels));
        let level_before = level.swap(u64::from_ne_bytes(change.level), Ordering::AcqRel);
        let levels_before = levels.swap(change.levels, Ordering::AcqRel);
        // The former first: they leave room.
        let mut gone = change.gone.iter();
        let changed = gone.try_for_each(|key| self.ids.delete(key).map(drop));
        let changed = changed.and_then(|()| self.name(&change.set));
        if changed.is_err() {
            for (key, was) in before.into_iter().rev() {
                // Each on its own: what the kernel refuses here, too, stays as it is.
                let _ = match was {
                    Some(val) => self.ids.update(key, &val),
                    None => self.ids.delete(key).map(drop),
                };
            }
            level.store(level_before, Ordering::Release);
            levels.store(levels_before, Ordering::Release);
        }
        self.policy.u32_at(begin + offset_of!(SockPolicy, epoch)).store(epoch, Ordering::Release);
        changed
    }
}
