use crate::error::PolicyError;

/// How large a compiled policy may become. What is over is refused before anything is loaded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Limits {
    /// Bytes of kernel memory for a policy's own maps. Default 512 MiB.
    pub max_bytes: u64,
    /// Distinct prefixes. Default 8 million.
    pub max_prefixes: u64,
    /// Keys in the tuple hash. Default 1 million.
    pub max_tuples: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Self { max_bytes: 512 << 20, max_prefixes: 8_000_000, max_tuples: 1_000_000 }
    }
}

impl Limits {
    /// With another limit on memory.
    #[must_use]
    pub fn max_bytes(mut self, bytes: u64) -> Self {
        self.max_bytes = bytes;
        self
    }

    /// With another limit on prefixes.
    #[must_use]
    pub fn max_prefixes(mut self, prefixes: u64) -> Self {
        self.max_prefixes = prefixes;
        self
    }

    /// With another limit on tuples.
    #[must_use]
    pub fn max_tuples(mut self, tuples: u64) -> Self {
        self.max_tuples = tuples;
        self
    }
}

pub(crate) fn check(
    what: &'static str,
    value: u64,
    limit: u64,
    next: &'static str,
) -> Result<(), PolicyError> {
    if value > limit { Err(PolicyError::Limit { what, value, limit, next }) } else { Ok(()) }
}

/// Kernel memory of a policy's own maps, in bytes.
///
/// Arrays take what their elements take. An element of a preallocated hash takes key and value,
/// each rounded up to 8 bytes, and 48 for `struct htab_elem`, plus 16 a bucket; an `LPM_TRIE` node
/// takes 40 for `struct lpm_trie_node` with its key and value, rounded up to the allocator's sizes
/// (64, 96), and there are up to two nodes for a prefix.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize)]
#[non_exhaustive]
pub struct Memory {
    /// The flat table.
    pub flat: u64,
    /// The entries, 16 bytes for each distinct prefix.
    pub entries: u64,
    /// The tries, at most.
    pub tries: u64,
    /// The tuple hash.
    pub tuples: u64,
}

impl Memory {
    /// All of it.
    pub fn total(&self) -> u64 {
        self.flat + self.entries + self.tries + self.tuples
    }

    pub(crate) fn of(
        words: usize,
        entries: usize,
        lpm4: usize,
        lpm6: usize,
        tuples: usize,
    ) -> Self {
        let hash =
            |n: u64| if n == 0 { 0 } else { n * (48 + 40 + 16) + n.next_power_of_two() * 16 };
        Self {
            flat: words as u64 * 4,
            entries: entries as u64 * 16,
            tries: 2 * (lpm4 as u64 * 64 + lpm6 as u64 * 64),
            tuples: hash(tuples as u64),
        }
    }
}
