use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::path::PathBuf;

use ironclad_core::Family;
use ironclad_core::abi::{self, FileId, SockIdKey, SockIdVal, SockPolicy, SockRow, SockRule};

use super::bits::{Place, RuleSet};
use super::compile::CompiledSockets;
use super::dimensions::Named;
use super::rule::{Exe, Group, Pin};
use crate::error::PolicyError;
use crate::flat::FlatTable;
use crate::limits::{SocketMemory, check};
use crate::sha256::Sha256Sum;

/// What paths mean on this host, now.
#[derive(Clone, Debug, Default)]
pub struct Bound {
    /// Identities of the files of [`CompiledSockets::files`]; those that are not there are absent.
    pub files: BTreeMap<PathBuf, BoundFile>,
    /// Ids and depths of the cgroups of [`CompiledSockets::cgroups`], likewise. The root has
    /// depth 0.
    pub cgroups: BTreeMap<String, (u64, u32)>,
    /// Paths of the cgroups of [`CompiledSockets::containers`], likewise; those are in `cgroups`,
    /// too.
    pub containers: BTreeMap<String, String>,
    /// The bit, 0 to 15, of each of [`CompiledSockets::ancestries`].
    pub ancestries: Vec<u8>,
}

/// A file of a [`Bound`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct BoundFile {
    /// Its identity.
    pub id: FileId,
    /// [`OpenFile::changed_ns`](abi::OpenFile::changed_ns) while it had the content that `sha256`
    /// tells: a process that executed the file with another content executes another content.
    pub changed_ns: u64,
    /// The same of earlier moments at which it had that content; zeros behind the last.
    pub formerly_ns: [u64; abi::SOCK_CTIMES - 1],
    /// Of its content, where [`CompiledSockets::pinned`] has it; none where that is not known: then
    /// no pin holds.
    pub sha256: Option<Sha256Sum>,
}

impl From<FileId> for BoundFile {
    /// A file of whose content nothing is known.
    fn from(id: FileId) -> Self {
        Self { id, ..Self::default() }
    }
}

/// Socket rules as the kernel reads them.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct SocketImage {
    /// All that is no table. Its generation, epoch, rate and dry run are the caller's to fill in.
    pub policy: Box<SockPolicy>,
    /// The rows.
    pub rows: Vec<SockRow>,
    /// For each port, the number of its row behind the first of ports; empty where unused.
    pub ports: Vec<u16>,
    /// What files, users, groups, cgroups and names mean; the generation is zero.
    pub ids: Vec<(SockIdKey, SockIdVal)>,
    /// Bits of the ancestries that begin with each executable.
    pub ancestries: Vec<(FileId, u64)>,
    /// Rows of what is looked up, which share one where they satisfy the same rules.
    shared: HashMap<RuleSet, u32>,
}

impl CompiledSockets {
    /// Where each address leads: its class is the number of its row behind the first of addresses.
    pub fn addresses(&self) -> &FlatTable {
        &self.addresses.table
    }

    /// Where a rule, by its place among all, has its number: true and the number among those that
    /// decide, or false and the number among those that only report.
    pub fn place(&self, rule: usize) -> (bool, usize) {
        match self.places[rule] {
            Place::Decides(number) => (true, number),
            Place::Logs(number) => (false, number),
        }
    }

    /// How many rows there may be in an [`image`](Self::image).
    pub fn rows_at_most(&self) -> usize {
        let tables = self.wheres.len()
            + self.ports.as_ref().map_or(0, |ports| ports.rows.len())
            + self.kinds.rows.len();
        let ancestries = self.ancestries.len().min(abi::SOCK_ANCESTRIES) * 256;
        // What files and cgroups are is not known before: at most a row each.
        let bound =
            self.exes.by_value.len() + self.parents.by_value.len() + self.groups.by_value.len();
        let named = self.uids.distinct() + self.gids.distinct() + self.comms.distinct();
        // Of each of these six dimensions, a row for all other values.
        1 + tables + bound + named + 6 + ancestries
    }

    /// Kernel memory of an [`image`](Self::image), at most.
    pub fn memory(&self) -> SocketMemory {
        // `struct htab_elem`, key and value, as the kernel's allocator rounds them up.
        const NAME: u64 = 128;
        const ELEMENT: usize = 48 + size_of::<SockIdKey>() + size_of::<SockIdVal>();
        const { assert!(ELEMENT > 96 && ELEMENT <= NAME as usize) };
        let rule = size_of::<SockRule>();
        SocketMemory {
            rows: (self.rows_at_most() * size_of::<SockRow>()) as u64,
            addresses: self.addresses().words().len() as u64 * 4,
            ports: self.ports.as_ref().map_or(0, |ports| 2 * ports.class.len()) as u64,
            names: self.names_at_most() as u64 * NAME,
            rules: (self.places.len() * rule + size_of::<SockPolicy>()) as u64,
        }
    }

    /// How many files, users, groups, cgroups and names an [`image`](Self::image) may have.
    pub fn names_at_most(&self) -> usize {
        self.exes.by_value.len()
            + self.parents.by_value.len()
            + self.uids.by_value.len()
            + self.gids.by_value.len()
            + self.groups.by_value.len()
            + self.comms.by_value.len()
    }

    /// What the kernel reads, with what paths mean now.
    ///
    /// # Errors
    /// [`PolicyErrorKind::Limit`](crate::PolicyErrorKind::Limit) where rules name cgroups at too many depths.
    pub fn image(&self, bound: &Bound) -> Result<SocketImage, PolicyError> {
        let all = RuleSet::default().with(self.places.iter().copied());
        let mut image = SocketImage {
            policy: Box::new(SockPolicy::NONE),
            rows: vec![all.row()],
            ports: Vec::new(),
            ids: Vec::new(),
            ancestries: Vec::new(),
            shared: HashMap::new(),
        };
        let decide = self.places.iter().filter(|place| matches!(place, Place::Decides(_))).count();
        image.policy.rules = decide as u32;
        image.policy.logs = (self.places.len() - decide) as u8;
        image.policy.ancestries = bound.ancestries.iter().fold(0, |bits, bit| bits | 1 << bit);
        image.policy.summary = decide.div_ceil(64).div_ceil(64) as u32;
        image.policy.verdict = [0, 0, 1, 2].map(|direction| self.defaults[direction].abi());
        image.policy.packets = u8::from(self.packet_sockets().is_some());
        image.policy.root4 = self.addresses.table.root(Family::V4).unwrap_or(u32::MAX);
        image.policy.root6 = self.addresses.table.root(Family::V6).unwrap_or(u32::MAX);
        for (kind, &class) in image.policy.kind.iter_mut().zip(&self.kinds.class) {
            // Rows of kinds come first behind that of all.
            *kind = class + 1;
        }
        self.kinds.rows.iter().for_each(|row| image.push(row));
        if self.uses_addresses {
            image.compare(abi::DIM_WHERE);
            self.wheres.iter().for_each(|row| image.push(row));
        }
        if let Some(ports) = &self.ports {
            image.compare(abi::DIM_PORT);
            ports.rows.iter().for_each(|row| image.push(row));
            image.ports.clone_from(&ports.class);
        }
        image.exes(&self.exes, bound);
        image.parents(&self.parents, bound);
        image.named(abi::DIM_UID, &self.uids, |uid| [u64::from(*uid), 0]);
        image.named(abi::DIM_GID, &self.gids, |gid| [u64::from(*gid), 0]);
        image.named(abi::DIM_COMM, &self.comms, |comm| {
            let mut name = [0; 16];
            name[..comm.len()].copy_from_slice(comm.as_bytes());
            zerocopy::transmute!(name)
        });
        self.cgroup_rows(bound, &mut image)?;
        self.ancestry_rows(bound, &mut image);
        Ok(image)
    }

    fn cgroup_rows(&self, bound: &Bound, image: &mut SocketImage) -> Result<(), PolicyError> {
        if !self.groups.is_used() {
            return Ok(());
        }
        image.compare(abi::DIM_CGROUP);
        image.push(&self.groups.free);
        // A container may be a group that another rule names by its path.
        let mut by_path: BTreeMap<&str, Vec<Place>> = BTreeMap::new();
        for (group, rules) in &self.groups.by_value {
            let path = match group {
                Group::Path(path) => Some(path),
                Group::Container(id) => bound.containers.get(id),
            };
            if let Some(path) = path {
                by_path.entry(path).or_default().extend(rules);
            }
        }
        let mut levels = BTreeSet::new();
        for &path in by_path.keys() {
            let Some(&(id, level)) = bound.cgroups.get(path) else { continue };
            // A process in a cgroup is in the cgroups above it, too.
            let around = by_path.iter().filter(|(outer, _)| is_in(path, outer));
            let set = self.groups.free.with(around.flat_map(|(_, rules)| rules).copied());
            image.id(abi::DIM_CGROUP, [id, 0], &set);
            levels.insert(level);
        }
        let deepest = levels.last().copied().unwrap_or(0);
        check("levels above a cgroup", deepest.into(), u8::MAX.into(), "name one further up")?;
        let what = "depths of cgroups that rules name";
        check(what, levels.len() as u64, abi::SOCK_LEVELS_MAX as u64, "name groups further up")?;
        image.policy.levels = levels.len() as u32;
        for (to, level) in image.policy.level.iter_mut().zip(levels.iter().rev()) {
            *to = u8::try_from(*level).unwrap_or(u8::MAX);
        }
        Ok(())
    }

    /// A row for each value of each byte of a process's ancestry.
    fn ancestry_rows(&self, bound: &Bound, image: &mut SocketImage) {
        let bits = || self.ancestries.iter().zip(&bound.ancestries);
        for byte in 0..abi::SOCK_ANCESTRIES {
            let here: Vec<(u8, &Vec<Place>)> = bits()
                .filter(|(_, bit)| usize::from(**bit) / 8 == byte)
                .map(|((_, rules), bit)| (bit % 8, rules))
                .collect();
            if here.is_empty() {
                continue;
            }
            // Rules whose ancestry another byte has are satisfied here by any value.
            let elsewhere = bits().filter(|(_, bit)| usize::from(**bit) / 8 != byte);
            let free = self.not_ancestry.with(elsewhere.flat_map(|((_, rules), _)| rules).copied());
            image.compare(abi::DIM_ANCESTRY + byte);
            for value in 0..256u32 {
                let set = here.iter().filter(|(bit, _)| value >> bit & 1 == 1);
                image.push(&free.with(set.flat_map(|(_, rules)| rules.iter()).copied()));
            }
        }
        let mut begins: BTreeMap<FileId, u64> = BTreeMap::new();
        for ((files, _), bit) in bits() {
            for file in files.iter().filter_map(|file| bound.files.get(file)) {
                *begins.entry(file.id).or_default() |= 1 << bit;
            }
        }
        image.ancestries = begins.into_iter().collect();
    }
}

impl SocketImage {
    /// The next row is the first of a dimension.
    fn compare(&mut self, dim: usize) {
        self.policy.dims |= 1 << dim;
        self.policy.none[dim] = self.rows.len() as u32;
    }

    fn push(&mut self, set: &RuleSet) {
        self.rows.push(set.row());
    }

    fn share(&mut self, set: &RuleSet) -> u32 {
        if let Some(row) = self.shared.get(set) {
            return *row;
        }
        let row = self.rows.len() as u32;
        self.push(set);
        self.shared.insert(set.clone(), row);
        row
    }

    fn id(&mut self, dim: usize, value: [u64; 2], set: &RuleSet) {
        let row = self.share(set);
        let key = SockIdKey { generation: 0, dim: dim as u32, value };
        self.ids.push((key, SockIdVal { row, changed_row: row, ..SockIdVal::default() }));
    }

    fn named<K: Ord + Clone>(
        &mut self,
        dim: usize,
        named: &Named<K>,
        value: impl Fn(&K) -> [u64; 2],
    ) {
        if named.is_used() {
            self.compare(dim);
            self.push(&named.free);
            for (key, set) in named.rows() {
                self.id(dim, value(key), &set);
            }
        }
    }

    /// Several paths may be one file.
    fn parents(&mut self, named: &Named<PathBuf>, bound: &Bound) {
        if !named.is_used() {
            return;
        }
        let mut by_file: BTreeMap<FileId, RuleSet> = BTreeMap::new();
        for (path, rules) in &named.by_value {
            if let Some(file) = bound.files.get(path) {
                let set = by_file.entry(file.id).or_insert_with(|| named.free.clone());
                *set = set.with(rules.iter().copied());
            }
        }
        self.compare(abi::DIM_PARENT);
        self.push(&named.free);
        for (id, set) in by_file {
            self.id(abi::DIM_PARENT, id.words(), &set);
        }
    }

    /// As with parents; and a file may have another content than the one that is pinned, now or by
    /// the time that a process executes it.
    fn exes(&mut self, named: &Named<Exe>, bound: &Bound) {
        if !named.is_used() {
            return;
        }
        let mut by_file: BTreeMap<FileId, Contents<'_>> = BTreeMap::new();
        for (exe, rules) in &named.by_value {
            if let Some(&file) = bound.files.get(&exe.path) {
                by_file.entry(file.id).or_default().push((exe, rules, file));
            }
        }
        self.compare(abi::DIM_EXE);
        self.push(&named.free);
        for (id, named_so) in by_file {
            let set = |content: fn(&BoundFile) -> Option<Sha256Sum>| {
                let holds = named_so.iter().filter(|(exe, _, file)| exe.pin.holds(content(file)));
                named.free.with(holds.flat_map(|(_, rules, _)| rules.iter()).copied())
            };
            let changed = set(|_| None);
            self.id(abi::DIM_EXE, id.words(), &changed);
            // What was seen while the file changed is worth nothing.
            let mut pinned = named_so.iter().filter(|(exe, ..)| exe.pin != Pin::Any);
            let first = pinned.next().map(|(.., file)| (file.changed_ns, file.formerly_ns));
            let is_known = |&(changed_ns, formerly_ns): &(u64, _)| {
                changed_ns != 0
                    && pinned
                        .all(|(.., f)| (f.changed_ns, f.formerly_ns) == (changed_ns, formerly_ns))
            };
            let now = set(|file| file.sha256);
            if let Some((last, [a, b, c])) = first.filter(is_known).filter(|_| now != changed) {
                let changed_ns = [last, a, b, c];
                let row = self.share(&now);
                if let Some((_, val)) = self.ids.last_mut() {
                    *val = SockIdVal { row, changed_ns, ..*val };
                }
            }
        }
    }
}

/// The names of one file, and the rules that name it so.
type Contents<'a> = Vec<(&'a Exe, &'a Vec<Place>, BoundFile)>;

fn is_in(path: &str, outer: &str) -> bool {
    let outer = outer.trim_end_matches('/');
    path.strip_prefix(outer).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}
