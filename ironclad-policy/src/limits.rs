use crate::error::{Failure, PolicyError};

/// Events a second that a rule reports unless it says otherwise.
pub const EVENTS_PER_SECOND: u32 = 10;

/// How large a compiled policy may become, and how much room the first policy of an instance makes for
/// socket rules of later ones. What is over is refused before anything is loaded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Limits {
    /// Bytes of kernel memory for a policy's own maps, and for its part of those of socket rules: see
    /// [`Memory`]. Default 512 MiB.
    pub max_bytes: u64,
    /// Distinct prefixes. Default 8 million.
    pub max_prefixes: u64,
    /// Keys in the tuple hash. Default 1 million.
    pub max_tuples: u64,
    /// The number of socket rules of two policies that have their own counters, at most 32,768.
    /// Default: twice what the policy has, and at least 4,096.
    pub socket_rule_slots: Option<u32>,
    /// Rows for the socket rules of one policy, of 1,568 bytes each: one for each distinct set of
    /// rules that an address, a port, a file, a user and so on satisfies; at most 65,536. Default:
    /// twice what the policy needs, and at least 1,024.
    pub socket_rows: Option<u32>,
    /// Cells for the addresses of the socket rules of one policy, of 64 bytes each: all countries
    /// take about 50,000. Default: twice what the policy needs, and at least 65,536.
    pub socket_cells: Option<u32>,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            max_bytes: 512 << 20,
            max_prefixes: 8_000_000,
            max_tuples: 1_000_000,
            socket_rule_slots: None,
            socket_rows: None,
            socket_cells: None,
        }
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

    /// With room for the counters of so many socket rules.
    #[must_use]
    pub fn socket_rule_slots(mut self, slots: u32) -> Self {
        self.socket_rule_slots = Some(slots);
        self
    }

    /// With room for so many rows of socket rules.
    #[must_use]
    pub fn socket_rows(mut self, rows: u32) -> Self {
        self.socket_rows = Some(rows);
        self
    }

    /// With room for so many cells of addresses of socket rules.
    #[must_use]
    pub fn socket_cells(mut self, cells: u32) -> Self {
        self.socket_cells = Some(cells);
        self
    }
}

pub(crate) fn check(
    what: &'static str,
    value: u64,
    limit: u64,
    next: &'static str,
) -> Result<(), PolicyError> {
    match value > limit {
        true => Err(Failure::Limit { what, value, limit, next }.into()),
        false => Ok(()),
    }
}

/// Kernel memory of a policy's own maps, in bytes, and of what it fills of the maps of socket rules.
/// Those have room for two policies, of twice what the first needs unless the embedder says
/// otherwise.
///
/// Arrays take what their elements take. An element of a preallocated hash takes key and value,
/// each rounded up to 8 bytes, and 48 for `struct htab_elem`, plus 16 a bucket; an `LPM_TRIE` node
/// takes 40 for `struct lpm_trie_node` with its key and value, rounded up to the allocator's sizes
/// (64, 96), and there are up to two nodes for a prefix. An element of a hash that is not preallocated
/// takes the same as of one that is, rounded up to those sizes, too (128 here).
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
    /// What the socket rules fill.
    pub sockets: SocketMemory,
}

/// Kernel memory that socket rules fill, in bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize)]
#[non_exhaustive]
pub struct SocketMemory {
    /// Rows, at most: 1,568 bytes for each distinct answer of each dimension.
    pub rows: u64,
    /// The table of addresses.
    pub addresses: u64,
    /// The rows of ports.
    pub ports: u64,
    /// Executables, users, groups, cgroups and names that rules name.
    pub names: u64,
    /// The rules.
    pub rules: u64,
}

impl SocketMemory {
    /// All of it.
    pub fn total(&self) -> u64 {
        self.rows + self.addresses + self.ports + self.names + self.rules
    }
}

impl Memory {
    /// All of it.
    pub fn total(&self) -> u64 {
        self.flat + self.entries + self.tries + self.tuples + self.sockets.total()
    }

    /// Refuses what is over the limit, and names what is largest.
    pub(crate) fn check(&self, limits: &Limits) -> Result<(), PolicyError> {
        let sockets = &self.sockets;
        let parts = [
            (
                self.flat + self.entries + self.tries,
                "most of it for the prefixes of sets: raise `max_bytes` (in a policy file `policy-limits.max-bytes`), or use fewer or shorter lists",
            ),
            (
                self.tuples,
                "most of it for tuples: raise `max_bytes` (in a policy file `policy-limits.max-bytes`), or use wider prefixes",
            ),
            (
                sockets.rows,
                "most of it for the rows of socket rules, one for each distinct answer: raise `max_bytes` (in a policy file `policy-limits.max-bytes`), or let rules share executables, accounts, addresses and ports",
            ),
            (
                sockets.addresses,
                "most of it for the addresses of socket rules: raise `max_bytes` (in a policy file `policy-limits.max-bytes`), or use fewer or shorter lists",
            ),
            (
                sockets.ports + sockets.names + sockets.rules,
                "most of it for the ports, names and numbers of socket rules: raise `max_bytes` (in a policy file `policy-limits.max-bytes`), or use fewer rules",
            ),
        ];
        let largest = parts.into_iter().max_by_key(|(bytes, _)| *bytes);
        let next = largest.map_or("", |(_, next)| next);
        check("bytes of kernel memory", self.total(), limits.max_bytes, next)
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
            sockets: SocketMemory::default(),
        }
    }
}
