use std::collections::BTreeMap;
use std::path::PathBuf;

use ironclad_core::abi::{self, FileId, SocketOp};

use super::SocketAction;
use super::bits::{Rows, RuleSet};
use super::compile::{CompiledSockets, Named};
use crate::flat::FlatTable;

/// What paths mean on this host, now.
#[derive(Clone, Debug, Default)]
pub struct Bound {
    /// Identities of the files of [`CompiledSockets::files`]; those that are not there are absent.
    pub files: BTreeMap<PathBuf, FileId>,
    /// Ids and depths of the control groups of [`CompiledSockets::cgroups`], likewise. The root has
    /// depth 0.
    pub cgroups: BTreeMap<String, (u64, u32)>,
    /// The bit, 0 to 31, of each of [`CompiledSockets::lineages`].
    pub lineages: Vec<u8>,
}

/// Socket rules as the kernel reads them. Cells are numbered from 0; a row is `stride` cells.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct SocketImage {
    /// Bit d: some rule asks of dimension d.
    pub dims: u32,
    /// Cells of a row.
    pub stride: u32,
    /// Words of the summary that say anything.
    pub summary: u32,
    /// Steps of the longest search.
    pub steps: u32,
    /// First cell of each dimension's row of what no rule names.
    pub none: [u32; abi::DIM_MAX],
    /// First cell of the row of each operation and protocol.
    pub kind: Vec<u32>,
    /// The rows, eight words a cell.
    pub rows: Vec<u64>,
    /// For each port, the number of its row behind that of [`abi::DIM_PORT`]; empty where unused.
    pub ports: Vec<u16>,
    /// First cells of the rows of executables.
    pub exes: Vec<(FileId, u32)>,
    /// Of parents' executables.
    pub parents: Vec<(FileId, u32)>,
    /// Of users.
    pub uids: Vec<(u32, u32)>,
    /// Of groups.
    pub gids: Vec<(u32, u32)>,
    /// Of control groups, by id.
    pub cgroups: Vec<(u64, u32)>,
    /// Of names of threads.
    pub comms: Vec<([u8; 16], u32)>,
    /// Bit n: a rule names a control group of depth n.
    pub levels: u32,
    /// Bits of the lineages that begin with each executable.
    pub lineages: Vec<(FileId, u64)>,
}

impl CompiledSockets {
    /// Where each address leads: its class is the number of its row behind that of
    /// [`abi::DIM_WHERE`].
    pub fn addresses(&self) -> &FlatTable {
        &self.addresses.table
    }

    /// What the kernel reads, with what paths mean now.
    pub fn image(&self, bound: &Bound) -> SocketImage {
        let count = self.rules.len();
        let words = count.div_ceil(64);
        let logs = self.rules.iter().filter(|rule| rule.action == SocketAction::Log).count();
        let mut rows = Rows::new(count);
        let mut image = SocketImage {
            dims: 0,
            stride: rows.stride(),
            summary: words.div_ceil(64) as u32,
            steps: (words.div_ceil(64) + words + logs + 2) as u32,
            none: [0; abi::DIM_MAX],
            kind: Vec::new(),
            rows: Vec::new(),
            ports: Vec::new(),
            exes: Vec::new(),
            parents: Vec::new(),
            uids: Vec::new(),
            gids: Vec::new(),
            cgroups: Vec::new(),
            comms: Vec::new(),
            levels: 0,
            lineages: Vec::new(),
        };
        let mut ask = |dim: usize, first: u32, image: &mut SocketImage| {
            image.dims |= 1 << dim;
            image.none[dim] = first;
        };

        let kinds: Vec<u32> = self.kinds.rows.iter().map(|row| rows.push(row)).collect();
        ask(abi::DIM_KIND, kinds[0], &mut image);
        image.kind = self.kinds.class.iter().map(|&class| kinds[usize::from(class)]).collect();
        if self.is_where_asked {
            let first: Vec<u32> = self.wheres.iter().map(|row| rows.push(row)).collect();
            ask(abi::DIM_WHERE, first[0], &mut image);
        }
        if let Some(ports) = &self.ports {
            let first: Vec<u32> = ports.rows.iter().map(|row| rows.push(row)).collect();
            ask(abi::DIM_PORT, first[0], &mut image);
            image.ports.clone_from(&ports.class);
        }
        for (dim, named) in [(abi::DIM_EXE, &self.exes), (abi::DIM_PARENT, &self.parents)] {
            if !named.is_asked() {
                continue;
            }
            ask(dim, rows.push(&named.free), &mut image);
            let found = files(named, bound, &mut rows);
            if dim == abi::DIM_EXE {
                image.exes = found;
            } else {
                image.parents = found;
            }
        }
        for (dim, named) in [(abi::DIM_UID, &self.uids), (abi::DIM_GID, &self.gids)] {
            if !named.is_asked() {
                continue;
            }
            ask(dim, rows.push(&named.free), &mut image);
            let found = named.rows().map(|(id, row)| (*id, rows.push(&row))).collect();
            if dim == abi::DIM_UID {
                image.uids = found;
            } else {
                image.gids = found;
            }
        }
        if self.cgroups.is_asked() {
            ask(abi::DIM_CGROUP, rows.push(&self.cgroups.free), &mut image);
            for path in self.cgroups.by_value.keys() {
                let Some(&(id, level)) = bound.cgroups.get(path) else { continue };
                // Whoever is in a group is in those around it.
                let around = self.cgroups.by_value.iter().filter(|(outer, _)| is_in(path, outer));
                let row = self.cgroups.free.with(around.flat_map(|(_, rules)| rules).copied());
                image.cgroups.push((id, rows.push(&row)));
                image.levels |= 1 << level.min(31);
            }
        }
        if self.comms.is_asked() {
            ask(abi::DIM_COMM, rows.push(&self.comms.free), &mut image);
            for (comm, row) in self.comms.rows() {
                let mut name = [0; 16];
                name[..comm.len()].copy_from_slice(comm.as_bytes());
                image.comms.push((name, rows.push(&row)));
            }
        }
        self.lineage_rows(bound, &mut rows, &mut image, &mut ask);
        image.rows = rows.into_words();
        image
    }

    /// A row for each value of each byte of a process's lineage.
    fn lineage_rows(
        &self,
        bound: &Bound,
        rows: &mut Rows,
        image: &mut SocketImage,
        ask: &mut impl FnMut(usize, u32, &mut SocketImage),
    ) {
        let bits = || self.lineages.iter().zip(&bound.lineages);
        for byte in 0..abi::SOCK_LINEAGES {
            let here: Vec<(u8, &Vec<usize>)> = bits()
                .filter(|(_, bit)| usize::from(**bit) / 8 == byte)
                .map(|((_, rules), bit)| (bit % 8, rules))
                .collect();
            if here.is_empty() {
                continue;
            }
            // Rules whose lineage another byte tells of are satisfied here by any value.
            let elsewhere = bits().filter(|(_, bit)| usize::from(**bit) / 8 != byte);
            let free = self.not_lineage.with(elsewhere.flat_map(|((_, rules), _)| rules).copied());
            for value in 0..256u32 {
                let set = here.iter().filter(|(bit, _)| value >> bit & 1 == 1);
                let row = free.with(set.flat_map(|(_, rules)| rules.iter()).copied());
                let first = rows.push(&row);
                if value == 0 {
                    ask(abi::DIM_LINEAGE + byte, first, image);
                }
            }
        }
        let mut begins: BTreeMap<FileId, u64> = BTreeMap::new();
        for ((files, _), bit) in bits() {
            for id in files.iter().filter_map(|file| bound.files.get(file)) {
                *begins.entry(*id).or_default() |= 1 << bit;
            }
        }
        image.lineages = begins.into_iter().collect();
    }
}

/// Several paths may be one file.
fn files(named: &Named<PathBuf>, bound: &Bound, rows: &mut Rows) -> Vec<(FileId, u32)> {
    let mut by_file: BTreeMap<FileId, RuleSet> = BTreeMap::new();
    for (path, rules) in &named.by_value {
        if let Some(id) = bound.files.get(path) {
            let set = by_file.entry(*id).or_insert_with(|| named.free.clone());
            *set = set.with(rules.iter().copied());
        }
    }
    by_file.into_iter().map(|(id, set)| (id, rows.push(&set))).collect()
}

fn is_in(path: &str, outer: &str) -> bool {
    let outer = outer.trim_end_matches('/');
    path.strip_prefix(outer).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

/// What a process asks, as [`SocketImage::matches`] takes it.
#[derive(Clone, Debug, Default)]
pub struct SocketQuery {
    /// The first cell of the row of each dimension.
    pub rows: [u32; abi::DIM_MAX],
}

impl SocketImage {
    /// The first cell of the row of an operation and protocol.
    pub fn kind_row(&self, op: SocketOp, protocol: u8) -> u32 {
        self.kind[op as usize * abi::SOCK_PROTOCOLS + usize::from(protocol)]
    }

    /// Numbers of the rules that match, in their order.
    pub fn matches(&self, query: &SocketQuery) -> Vec<usize> {
        let word = |index: usize| {
            (0..abi::DIM_MAX)
                .filter(|dim| self.dims >> dim & 1 == 1)
                .map(|dim| self.rows[query.rows[dim] as usize * 8 + index])
                .fold(u64::MAX, |bits, row| bits & row)
        };
        let mut found = Vec::new();
        let words = self.stride as usize * 8 - abi::SOCK_SUMMARY_WORDS;
        for number in 0..words {
            let bits = word(abi::SOCK_SUMMARY_WORDS + number);
            found.extend((0..64).filter(|bit| bits >> bit & 1 == 1).map(|bit| number * 64 + bit));
        }
        found
    }
}
