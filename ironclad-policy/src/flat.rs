//! The flat table: longest-prefix match without pointers, compiled here and read by the kernel.
//!
//! Its layout is that of `bpf-src/include/ironclad/abi/flat.h`: 64-byte cells of sixteen 32-bit
//! words, references of three bits of kind and 29 of index, roots of 65,536 slots indexed by the
//! first sixteen bits of an address, and below them nodes that decide eight bits each.

use std::net::IpAddr;

use ironclad_core::{Family, abi};

/// A prefix and the entry that it leads to. `bits` are left-aligned in 128 bits in both families.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Leaf {
    pub(crate) bits: u128,
    pub(crate) length: u8,
    pub(crate) entry: u32,
}

/// A longest-prefix-match table in the kernel's layout.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FlatTable {
    words: Vec<u32>,
    root4: Option<u32>,
    root6: Option<u32>,
}

const CELL_WORDS: usize = 16;
const KIND_SHIFT: u32 = abi::FLAT_KIND_SHIFT;
const INDEX_MASK: u32 = abi::FLAT_INDEX_MASK;
/// Nine bits in each of seven lanes.
const LANES: u32 = 7;

fn reference(kind: u32, index: u32) -> u32 {
    kind << KIND_SHIFT | index
}

impl FlatTable {
    /// Builds the table of prefixes sorted by bits and length, all distinct.
    pub(crate) fn build(v4: &[Leaf], v6: &[Leaf]) -> Self {
        let mut builder = Builder::default();
        let root4 = (!v4.is_empty()).then(|| builder.root(v4));
        let root6 = (!v6.is_empty()).then(|| builder.root(v6));
        Self { words: builder.words, root4, root6 }
    }

    /// The cells, sixteen words each, in the machine's byte order.
    pub fn words(&self) -> &[u32] {
        &self.words
    }

    /// The number of 64-byte cells.
    pub fn cells(&self) -> usize {
        self.words.len() / CELL_WORDS
    }

    /// First cell of a family's root; `None` where no prefix is of that family.
    pub fn root(&self, family: Family) -> Option<u32> {
        match family {
            Family::V4 => self.root4,
            Family::V6 => self.root6,
        }
    }

    /// The entry of the longest prefix that covers `addr`, 0 for none.
    pub fn lookup(&self, addr: IpAddr) -> u32 {
        let root = match addr {
            IpAddr::V4(_) => self.root4,
            IpAddr::V6(_) => self.root6,
        };
        root.map_or(0, |root| lookup(|at| self.words[at], root, addr))
    }
}

/// The entry of the longest prefix that covers `addr`, 0 for none, in a table whose words `word`
/// reads: step by step what `bpf-src/lib/flat.h` does.
pub(crate) fn lookup(word: impl Fn(usize) -> u32, root: u32, addr: IpAddr) -> u32 {
    let (bits, steps) = match addr {
        IpAddr::V4(a) => (u128::from(u32::from(a)) << 96, 2),
        IpAddr::V6(a) => (u128::from(a), 16),
    };
    let word64 = |at: usize| word64([word(at), word(at + 1)]);
    let slot = root as usize * CELL_WORDS + 2 * (bits >> 112) as usize;
    if word(slot + 1) >> (bits >> 107 & 31) & 1 == 0 {
        return 0;
    }
    let mut at = word(slot);
    let mut depth = 2;
    for _ in 0..steps {
        let (kind, index) = (at >> KIND_SHIFT, (at & INDEX_MASK) as usize);
        let byte = (bits >> (120 - 8 * (depth & 15))) as u32 & 0xff;
        let (half_cell, cell) = (index * 8, index * CELL_WORDS);
        match kind {
            abi::FLAT_KIND_LEAF => return at,
            abi::FLAT_KIND_SKIP => {
                let half = if word(half_cell + 6) == 0 { (bits >> 64) as u64 } else { bits as u64 };
                if (half ^ word64(half_cell)) & word64(half_cell + 2) != 0 {
                    return word(half_cell + 5);
                }
                at = word(half_cell + 4);
                depth = word(half_cell + 7) & 15;
            }
            abi::FLAT_KIND_RUNS => {
                at = word(half_cell + begun(word64(half_cell + 6), byte));
                depth += 1;
            }
            abi::FLAT_KIND_WIDE => {
                let run = begun(word64(cell + 12), byte) + begun(word64(cell + 14), byte);
                at = word(cell + run);
                depth += 1;
            }
            _ => {
                let run: u32 = (0..=byte)
                    .map(|b| (word64(cell + 2 * (b as usize >> 6)) >> (b & 63) & 1) as u32)
                    .sum();
                at = word((word(cell + 9).wrapping_add(run)) as usize);
                depth += 1;
            }
        }
    }
    if at >> KIND_SHIFT == abi::FLAT_KIND_LEAF { at } else { 0 }
}

/// How many runs have begun at `byte`, of those that the lanes hold.
fn begun(starts: u64, byte: u32) -> usize {
    (0..LANES).filter(|lane| starts >> (9 * lane) & 0x1ff <= u64::from(byte)).count()
}

fn word64(words: [u32; 2]) -> u64 {
    let mut bytes = [0; 8];
    bytes[..4].copy_from_slice(&words[0].to_ne_bytes());
    bytes[4..].copy_from_slice(&words[1].to_ne_bytes());
    u64::from_ne_bytes(bytes)
}

fn words64(value: u64) -> [u32; 2] {
    let bytes = value.to_ne_bytes();
    let half =
        |at: usize| u32::from_ne_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]]);
    [half(0), half(4)]
}

/// Which of the 32 ranges of its root slot a prefix longer than 16 bits touches.
fn touches(leaf: &Leaf) -> u32 {
    let first = (leaf.bits >> 107) as u32 & 31;
    let ranges = 1u64 << 21u8.saturating_sub(leaf.length);
    (((1 << ranges) - 1) << first) as u32
}

/// A mask of the bits `from..to` of an address, left-aligned.
fn mask(from: u32, to: u32) -> u128 {
    let upto = |n: u32| if n == 0 { 0 } else { u128::MAX << (128 - n) };
    upto(to) & !upto(from)
}

#[derive(Default)]
struct Builder {
    words: Vec<u32>,
    /// The second half of a cell whose first half is in use, as an index of half cells.
    half: Option<u32>,
}

impl Builder {
    fn cells(&mut self, count: usize) -> usize {
        let at = self.words.len();
        self.words.resize(at + count * CELL_WORDS, 0);
        at
    }

    fn half_cell(&mut self, kind: u32, node: [u32; 8]) -> u32 {
        let index = match self.half.take() {
            Some(index) => index,
            None => {
                let index = (self.cells(1) / 8) as u32;
                self.half = Some(index + 1);
                index
            }
        };
        self.words[index as usize * 8..index as usize * 8 + 8].copy_from_slice(&node);
        reference(kind, index)
    }

    fn skip(&mut self, key: u128, from: u32, to: u32, hit: u32, miss: u32, depth: u32) -> u32 {
        let low = from >= 64;
        let mask = mask(from, to);
        let half = |n: u128| if low { n as u64 } else { (n >> 64) as u64 };
        let ([k0, k1], [m0, m1]) = (words64(half(key & mask)), words64(half(mask)));
        self.half_cell(abi::FLAT_KIND_SKIP, [k0, k1, m0, m1, hit, miss, u32::from(low), depth])
    }

    fn root(&mut self, leaves: &[Leaf]) -> u32 {
        let base = self.cells(abi::FLAT_ROOT_CELLS as usize);
        let mut rest = leaves;
        while let Some(first) = rest.first() {
            let slot = (first.bits >> 112) as usize;
            let at = base + 2 * slot;
            if first.length <= 16 {
                let count = 1usize << (16 - first.length);
                for covered in self.words[at..at + 2 * count].chunks_exact_mut(2) {
                    covered.copy_from_slice(&[first.entry, u32::MAX]);
                }
                rest = &rest[1..];
                continue;
            }
            let deeper = rest.iter().take_while(|l| (l.bits >> 112) as usize == slot).count();
            let (inside, behind) = rest.split_at(deeper);
            let below = self.node(inside, 2, self.words[at]);
            self.words[at] = below;
            self.words[at + 1] |= inside.iter().fold(0, |touched, leaf| touched | touches(leaf));
            rest = behind;
        }
        (base / CELL_WORDS) as u32
    }

    /// The reference that decides addresses whose first `depth` bytes are those of `leaves`.
    fn node(&mut self, mut leaves: &[Leaf], depth: u32, mut inherited: u32) -> u32 {
        let from = 8 * depth;
        while let Some(first) = leaves.first().filter(|l| u32::from(l.length) <= from) {
            inherited = first.entry;
            leaves = &leaves[1..];
        }
        let (Some(first), Some(last)) = (leaves.first(), leaves.last()) else { return inherited };
        // An IPv6 node compares one half of the address.
        let end_of_half = if from < 64 { 64 } else { 128 };
        let shortest = leaves.iter().map(|l| u32::from(l.length)).min().unwrap_or(0);
        if leaves.len() == 1 {
            let length = u32::from(first.length);
            if length <= end_of_half {
                return self.skip(first.bits, from, length, first.entry, inherited, length / 8);
            }
        }
        let common = (first.bits ^ last.bits).leading_zeros().min(shortest);
        let to = common.min(end_of_half) / 8;
        if to > depth {
            let hit = self.node(leaves, to, inherited);
            return self.skip(first.bits, from, 8 * to, hit, inherited, to);
        }
        let mut slots = [inherited; 256];
        let mut rest = leaves;
        while let Some(first) = rest.first() {
            let slot = (first.bits >> (120 - from)) as usize & 0xff;
            let length = u32::from(first.length);
            if length <= from + 8 {
                let count = 1usize << (from + 8 - length);
                slots[slot..slot + count].fill(first.entry);
                rest = &rest[1..];
                continue;
            }
            let deeper = rest
                .iter()
                .take_while(|l| (l.bits >> (120 - from)) as usize & 0xff == slot)
                .count();
            slots[slot] = self.node(&rest[..deeper], depth + 1, slots[slot]);
            rest = &rest[deeper..];
        }
        self.encode(&slots)
    }

    fn encode(&mut self, slots: &[u32; 256]) -> u32 {
        let mut runs = [0u32; 256];
        let mut first = [0u8; 256];
        let mut count = 0;
        for (byte, &slot) in slots.iter().enumerate() {
            if byte == 0 || runs[count - 1] != slot {
                runs[count] = slot;
                first[count] = byte as u8;
                count += 1;
            }
        }
        // Runs `from` to `from + 6` in seven lanes.
        let lanes = |from: usize| {
            (0..LANES as usize).fold(0u64, |lanes, lane| {
                let run = from + lane;
                let start = if run < count { u64::from(first[run]) } else { 256 };
                lanes | start << (9 * lane)
            })
        };
        match count {
            1 => runs[0],
            2..=abi::FLAT_RUNS_MAX => {
                let [low, high] = words64(lanes(1));
                let [a, b, c, d, e, f] = [runs[0], runs[1], runs[2], runs[3], runs[4], runs[5]];
                self.half_cell(abi::FLAT_KIND_RUNS, [a, b, c, d, e, f, low, high])
            }
            _ if count <= abi::FLAT_WIDE_MAX => {
                let at = self.cells(1);
                self.words[at..at + count].copy_from_slice(&runs[..count]);
                self.words[at + 12..at + 14].copy_from_slice(&words64(lanes(1)));
                self.words[at + 14..at + 16].copy_from_slice(&words64(lanes(8)));
                reference(abi::FLAT_KIND_WIDE, (at / CELL_WORDS) as u32)
            }
            _ => self.bitmap(&runs[..count], &first[..count]),
        }
    }

    fn bitmap(&mut self, runs: &[u32], first: &[u8]) -> u32 {
        // At an even cell: processors fetch lines in pairs, and the references are the next.
        if (self.words.len() / CELL_WORDS) % 2 == 1 {
            self.cells(1);
        }
        let at = self.cells(1 + runs.len().div_ceil(CELL_WORDS));
        let base = at + CELL_WORDS;
        self.words[base..base + runs.len()].copy_from_slice(runs);
        let mut starts = [0u64; 4];
        for &byte in &first[1..] {
            starts[usize::from(byte >> 6)] |= 1 << (byte & 63);
        }
        let mut ranks = [0u8; 4];
        for word in 1..4 {
            ranks[word] = ranks[word - 1] + starts[word - 1].count_ones() as u8;
        }
        for (word, &bits) in starts.iter().enumerate() {
            self.words[at + 2 * word..at + 2 * word + 2].copy_from_slice(&words64(bits));
        }
        self.words[at + 8] = u32::from_ne_bytes(ranks);
        self.words[at + 9] = base as u32;
        reference(abi::FLAT_KIND_BITMAP, (at / CELL_WORDS) as u32)
    }
}
