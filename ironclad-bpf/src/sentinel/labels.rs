use std::os::fd::{AsFd, OwnedFd};
use std::sync::atomic::Ordering;

use ironclad_core::abi::{FileId, FilePolicy, Label, NameKey, NameVal};

use crate::error::BpfError;
use crate::map::Map;
use crate::mapping::Mapping;

/// What file rules cover, and what they say of it: two halves, one of them in force.
#[derive(Debug)]
pub struct FileTables {
    /// By what files are.
    pub labels: Map<FileId, Label>,
    /// By the names that they have.
    pub names: Map<NameKey, NameVal>,
    /// Devices with directories that rules cover.
    pub volumes: Map<u32, NameVal>,
    /// The rules of each half.
    pub policy: Map<u32, FilePolicy>,
    /// Mounts through which protected files are reached, by number.
    pub mounts: Map<u32, u32>,
    bits: Mapping,
    words: u32,
}

impl FileTables {
    pub(super) fn new(
        labels: Map<FileId, Label>,
        bits: OwnedFd,
        words: u32,
        names: Map<NameKey, NameVal>,
        volumes: Map<u32, NameVal>,
        policy: Map<u32, FilePolicy>,
        mounts: Map<u32, u32>,
    ) -> Result<Self, BpfError> {
        let bits = Mapping::new(bits.as_fd(), words as usize * 8, true)
            .map_err(|e| BpfError::map("ic_label_bits", "mapping it", e))?;
        Ok(Self { labels, names, volumes, policy, mounts, bits, words })
    }

    /// Words of the filter before so many labels: sixteen bits each.
    pub(super) fn filter_words(labels: u32) -> u32 {
        (labels / 4).next_power_of_two().max(512)
    }

    /// Writes the label of a file, and lets it be found.
    ///
    /// # Errors
    /// `BpfErrorKind::Map` where there is no room.
    pub fn label(&self, file: &FileId, label: &Label) -> Result<(), BpfError> {
        self.labels.update(file, label)?;
        let hash = hash(file);
        let word = (hash >> 6) & (self.words - 1);
        self.bits.u64_at(word as usize * 8).fetch_or(1 << (hash & 63), Ordering::SeqCst);
        Ok(())
    }
}

/// `ic_label_hash()`.
fn hash(file: &FileId) -> u32 {
    let mixed = file.ino ^ u64::from(file.dev) << 32;
    (mixed.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 32) as u32
}
