use std::mem::{MaybeUninit, offset_of};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::atomic::Ordering;

use ironclad_core::Verdict;
use ironclad_core::abi::{self, Entry, Lpm4Key, Lpm6Key, TupleKey, TupleMask, TupleVal};
use libbpf_rs::skel::{OpenSkel, SkelBuilder};
use zerocopy::IntoBytes;

use crate::audit::Allowlist;
use crate::clock::kernel_hz;
use crate::error::{BpfError, Failure};
use crate::link_layer::LinkLayer;
use crate::loader::{Loaded, Loader, constants, failed};
use crate::map::{Map, Plain, map_info, map_memory};
use crate::mapping::Mapping;
use crate::program::Program;
use crate::shield::Shared;
use crate::skel::xdp_policy::XdpPolicySkelBuilder;
use crate::skel::xdp_policy::types::rodata;
use crate::sys;

const OBJECT: &str = "xdp_policy";

/// Maps of the object's sections: constants and variables. libbpf names them by object and section.
const SECTIONS: [&str; 2] = ["xdp_poli.rodata", "xdp_poli.bss"];

/// Other maps that are a policy's alone.
const OWN_MAPS: [&str; 5] = ["ic_flat", "ic_entries", "ic_lpm4", "ic_lpm6", "ic_tuples"];

/// What holds the address sets of one family.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum SetsBackend {
    /// No set has addresses of this family.
    #[default]
    None,
    /// The flat table.
    Flat,
    /// The kernel's `LPM_TRIE`.
    LpmTrie,
}

impl SetsBackend {
    const fn abi(self) -> u8 {
        match self {
            SetsBackend::None => abi::BACKEND_NONE,
            SetsBackend::Flat => abi::BACKEND_FLAT,
            SetsBackend::LpmTrie => abi::BACKEND_LPM,
        }
    }
}

/// The constants that a policy's program is compiled with.
#[derive(Clone, Debug)]
pub struct PolicyConfig<'a> {
    /// Counts up with each policy of an instance.
    pub generation: u64,
    /// What becomes of a packet that nothing matches.
    pub default_action: Verdict,
    /// What becomes of a packet that cannot be parsed.
    pub malformed: Verdict,
    /// What becomes of a packet that is neither IP nor ARP.
    pub non_ip: Verdict,
    /// Whether neighbour discovery passes before any set is evaluated.
    pub neighbour: bool,
    /// Whether everything passes, and is only counted.
    pub dry_run: bool,
    /// Whether any entry or tuple reports without deciding.
    pub log: bool,
    /// Where the IPv4 addresses of the sets are.
    pub sets_v4: SetsBackend,
    /// Where the IPv6 addresses of the sets are.
    pub sets_v6: SetsBackend,
    /// First cell of the flat table's IPv4 root.
    pub flat_root4: u32,
    /// First cell of the flat table's IPv6 root.
    pub flat_root6: u32,
    /// Shapes of tuples, the most specific first; at most [`abi::MASKS_MAX`].
    pub masks: &'a [TupleMask],
    /// Events a second by rule slot; at most [`abi::RULES_MAX`].
    pub rates: &'a [u32],
    /// Addresses that the policy never blocks.
    pub gateways: abi::Gateways,
}

/// A compiled policy as the kernel takes it.
#[derive(Clone, Debug)]
pub struct PolicyImage<'a> {
    /// The constants.
    pub config: PolicyConfig<'a>,
    /// The flat table, sixteen words a cell, in the machine's byte order; empty where unused.
    pub flat: &'a [u32],
    /// One for each distinct prefix; the first is no prefix.
    pub entries: &'a [Entry],
    /// Keys and entry numbers of the IPv4 trie; empty where unused.
    pub lpm4: &'a [(Lpm4Key, u32)],
    /// Keys and entry numbers of the IPv6 trie; empty where unused.
    pub lpm6: &'a [(Lpm6Key, u32)],
    /// The tuples.
    pub tuples: &'a [(TupleKey, TupleVal)],
}

/// An address as the programs compare it.
fn halves(bytes: &[u8; 16]) -> [u64; 2] {
    [0, 8].map(|at| {
        let mut half = [0; 8];
        half.copy_from_slice(&bytes[at..at + 8]);
        u64::from_ne_bytes(half)
    })
}

impl PolicyConfig<'_> {
    fn write(&self, rodata: &mut rodata) {
        rodata.ic_cfg_generation = self.generation;
        rodata.ic_cfg_default = self.default_action.abi();
        rodata.ic_cfg_malformed = self.malformed.abi();
        rodata.ic_cfg_non_ip = self.non_ip.abi();
        rodata.ic_cfg_neighbour = u8::from(self.neighbour);
        rodata.ic_cfg_dry_run = u8::from(self.dry_run);
        rodata.ic_cfg_log = u8::from(self.log);
        rodata.ic_cfg_sets_v4 = self.sets_v4.abi();
        rodata.ic_cfg_sets_v6 = self.sets_v6.abi();
        rodata.ic_cfg_flat_root4 = self.flat_root4;
        rodata.ic_cfg_flat_root6 = self.flat_root6;
        rodata.ic_cfg_report_hz = kernel_hz();
        rodata.ic_cfg_tuples_shapes = self.masks.len() as u32;
        for (to, from) in rodata.ic_cfg_tuples_masks.iter_mut().zip(self.masks) {
            to.src = halves(&from.src);
            to.dst = halves(&from.dst);
            to.dport = u16::from_ne_bytes(from.dport);
            to.proto = from.proto;
            to.kind = from.kind;
        }
        let gateways = &mut rodata.ic_cfg_gateways;
        gateways.count4 = self.gateways.count4;
        gateways.count6 = self.gateways.count6;
        gateways.addr4 = self.gateways.addr4.map(u32::from_ne_bytes);
        gateways.addr6 = self.gateways.addr6.map(|address| halves(&address));
        rodata.ic_cfg_report_rate[..self.rates.len()].copy_from_slice(self.rates);
    }
}

impl PolicyImage<'_> {
    fn has_sets(&self) -> bool {
        self.config.sets_v4 != SetsBackend::None || self.config.sets_v6 != SetsBackend::None
    }

    fn check_limits(&self) -> Result<(), BpfError> {
        for (what, value, limit) in [
            ("shapes of tuples", self.config.masks.len(), abi::MASKS_MAX),
            ("rules", self.config.rates.len(), abi::RULES_MAX),
            ("words of the flat table", self.flat.len(), 1 << 30),
        ] {
            if value > limit {
                return Err(BpfError::limit(what, value as u64, limit as u64));
            }
        }
        Ok(())
    }
}

/// A policy in the kernel: programs and the maps that are its alone. Dropping it frees them, unless
/// a slot still refers to the programs.
#[derive(Debug)]
pub struct PolicyProgram {
    program: Program,
    /// For frames that begin with the IP header, where an interface has such.
    ip: Option<Program>,
    entries: Option<Mapping>,
    entries_len: usize,
    tuples: Option<Map<TupleKey, TupleVal>>,
}

fn map_entries(map: BorrowedFd<'_>, len: usize) -> Result<Mapping, BpfError> {
    Mapping::new(map, len * size_of::<Entry>(), true)
        .map_err(|e| BpfError::map("ic_entries", "mapping", e))
}

/// Writes all elements; `None` where there are none, and so no map.
fn fill<K: Plain, V: Plain>(
    object: &Loaded,
    name: &str,
    elements: &[(K, V)],
) -> Result<Option<Map<K, V>>, BpfError> {
    if elements.is_empty() {
        return Ok(None);
    }
    let map = object.map(name)?;
    for (key, value) in elements {
        map.update(key, value)?;
    }
    Ok(Some(map))
}

/// Writes the flat table; there is no map where it is empty.
fn fill_flat(object: &Loaded, flat: &[u32]) -> Result<(), BpfError> {
    if flat.is_empty() {
        return Ok(());
    }
    let fd = object.fd("ic_flat")?;
    let bytes = flat.as_bytes();
    let mut mapping = Mapping::new(fd.as_fd(), bytes.len(), true)
        .map_err(|e| BpfError::map("ic_flat", "mapping", e))?;
    mapping.fill(bytes);
    // No process can write to a frozen map, this one included.
    drop(mapping);
    sys::map_freeze(fd.as_fd()).map_err(|e| BpfError::map("ic_flat", "freezing", e))
}

impl PolicyProgram {
    /// Loads a policy beside those that there are. It is in force only when a slot is selected.
    ///
    /// # Errors
    /// `BpfErrorKind::Load` with the verifier's log, `BpfErrorKind::Map` where memory or a limit of the
    /// kernel does not suffice, `BpfErrorKind::Limit` for too many masks or rules.
    pub fn load(shared: &Shared, image: &PolicyImage<'_>) -> Result<Self, BpfError> {
        image.check_limits()?;
        let mut storage = MaybeUninit::uninit();
        let mut open = XdpPolicySkelBuilder::default()
            .open(&mut storage)
            .map_err(failed(OBJECT, "opening"))?;
        image.config.write(constants(OBJECT, &mut open.maps.rodata_data)?);
        let entries_len = if image.has_sets() { image.entries.len() } else { 0 };
        open.progs.ic_policy_ip.set_autoload(false);
        let maps = &mut open.maps;
        // What is off is not created; the verifier never sees the code that would use it.
        let sizes = [
            (&mut maps.ic_flat, image.flat.len() / 16),
            (&mut maps.ic_entries, entries_len),
            (&mut maps.ic_lpm4, image.lpm4.len()),
            (&mut maps.ic_lpm6, image.lpm6.len()),
            (&mut maps.ic_tuples, image.tuples.len()),
        ];
        for (map, size) in sizes {
            map.set_autocreate(size > 0).map_err(failed(OBJECT, "choosing maps"))?;
            if size > 0 {
                map.set_max_entries(size as u32).map_err(failed(OBJECT, "sizing a map"))?;
            }
        }
        let mut object = Loader::new(OBJECT, Allowlist::shield())
            .share(shared.maps())
            .load(open.open_object_mut())?;
        fill_flat(&object, image.flat)?;
        fill(&object, "ic_lpm4", image.lpm4)?;
        fill(&object, "ic_lpm6", image.lpm6)?;
        let tuples = fill(&object, "ic_tuples", image.tuples)?;
        let entries = if image.has_sets() {
            let fd = object.fd("ic_entries")?;
            let mut mapping = map_entries(fd.as_fd(), entries_len)?;
            mapping.fill(image.entries.as_bytes());
            Some(mapping)
        } else {
            None
        };
        let program = object.program("ic_policy")?;
        Ok(Self { program, ip: None, entries, entries_len, tuples })
    }

    /// Loads the program for frames that begin with the IP header, on the maps of this policy, and fills
    /// it into the slot that holds the policy, where one does. Nothing happens where it is loaded.
    ///
    /// # Errors
    /// The errors of [`load`](Self::load).
    pub fn load_ip(&mut self, shared: &Shared, slot: Option<u32>) -> Result<(), BpfError> {
        if self.ip.is_some() {
            return Ok(());
        }
        let own = self.own_maps()?;
        let mut storage = MaybeUninit::uninit();
        let mut open = XdpPolicySkelBuilder::default()
            .open(&mut storage)
            .map_err(failed(OBJECT, "opening"))?;
        open.progs.ic_policy.set_autoload(false);
        let maps = &mut open.maps;
        let optional = [
            &mut maps.ic_flat,
            &mut maps.ic_entries,
            &mut maps.ic_lpm4,
            &mut maps.ic_lpm6,
            &mut maps.ic_tuples,
        ];
        for map in optional {
            let is_there = own.iter().any(|(name, _)| map.name() == &**name);
            map.set_autocreate(is_there).map_err(failed(OBJECT, "choosing maps"))?;
        }
        let own = own.iter().map(|(name, fd)| (name.as_str(), fd.as_fd()));
        let mut object = Loader::new(OBJECT, Allowlist::shield())
            .share(shared.maps().chain(own))
            .load(open.open_object_mut())?;
        let program = object.program("ic_policy_ip")?;
        slot.map_or(Ok(()), |slot| shared.fill(slot, LinkLayer::Ip, &program))?;
        self.ip = Some(program);
        Ok(())
    }

    /// The maps that are this policy's alone, those of its sections included, by name.
    fn own_maps(&self) -> Result<Vec<(String, OwnedFd)>, BpfError> {
        let failed = |source| BpfError::system("opening a policy's maps", source);
        let mut own = Vec::new();
        for &id in &self.program.info().map_ids {
            let fd = sys::map_by_id(id).map_err(failed)?;
            let name = map_info(fd.as_fd()).map_err(failed)?.name;
            if SECTIONS.iter().chain(&OWN_MAPS).any(|own| *own == name) {
                own.push((name, fd));
            }
        }
        Ok(own)
    }

    /// Adopts the policy that a slot holds; `None` where it holds none.
    ///
    /// # Errors
    /// `BpfErrorKind::System` or `BpfErrorKind::Map` where the kernel refuses, `BpfErrorKind::ForeignMap`
    /// where the program in the slot is not a policy.
    pub fn adopt(shared: &Shared, slot: u32) -> Result<Option<Self>, BpfError> {
        let Some(program) = shared.slot_program(slot, LinkLayer::Ethernet)? else {
            return Ok(None);
        };
        let ip = shared.slot_program(slot, LinkLayer::Ip)?;
        let mut this = Self { program, ip, entries: None, entries_len: 0, tuples: None };
        let mut maps = this.own_maps()?;
        let mut take = |wanted| {
            let at = maps.iter().position(|(name, _)| name == wanted)?;
            Some(maps.remove(at).1)
        };
        let (entries, tuples) = (take("ic_entries"), take("ic_tuples"));
        // A program without sets or tuples refers to no such map.
        let generation = shared.generation(slot);
        this.entries_len = if entries.is_some() { generation.entries as usize } else { 0 };
        let entries_len = this.entries_len;
        this.entries = match entries {
            Some(fd) => {
                let map = Map::<u32, Entry>::new(fd, "ic_entries")?;
                let capacity = map.info().max_entries as usize;
                if entries_len > capacity {
                    let what =
                        format!("it has {capacity} entries, its generation says {entries_len}");
                    let map = "ic_entries".to_owned();
                    return Err(Failure::ForeignMap { map, what }.into());
                }
                Some(map_entries(map.as_fd(), entries_len)?)
            }
            None => None,
        };
        this.tuples = tuples.map(|fd| Map::new(fd, "ic_tuples")).transpose()?;
        Ok(Some(this))
    }

    /// The program for frames with Ethernet headers, for test runs.
    pub fn program(&self) -> &Program {
        &self.program
    }

    /// The program for frames that begin like this; none before [`load_ip`](Self::load_ip) where that is
    /// the IP header.
    pub fn program_for(&self, layer: LinkLayer) -> Option<&Program> {
        match layer {
            LinkLayer::Ethernet => Some(&self.program),
            LinkLayer::Ip => self.ip.as_ref(),
        }
    }

    /// Kernel memory of the maps that are this policy's alone, in bytes, as the kernel accounts it
    /// (`memlock` in `/proc/self/fdinfo`; exact since Linux 6.4, an estimate of the kernel's before).
    ///
    /// # Errors
    /// `BpfErrorKind::System` where the kernel refuses.
    pub fn kernel_memory(&self) -> Result<u64, BpfError> {
        let failed = |source| BpfError::system("reading a map's memory", source);
        let mut total = 0;
        for (_, fd) in self.own_maps()?.iter().filter(|(name, _)| OWN_MAPS.contains(&&**name)) {
            total += map_memory(fd.as_fd()).map_err(failed)?;
        }
        Ok(total)
    }

    /// How many entries there are, the empty one included.
    pub fn entries(&self) -> usize {
        self.entries_len
    }

    /// Packets that an entry has decided or reported since the policy was loaded.
    pub fn entry_packets(&self, index: usize) -> Option<u64> {
        let offset = index * size_of::<Entry>() + offset_of!(Entry, packets);
        let entries = self.entries.as_ref().filter(|_| index < self.entries_len)?;
        Some(entries.u64_at(offset).load(Ordering::Relaxed))
    }

    /// Packets that a tuple has decided or reported since the policy was loaded.
    ///
    /// # Errors
    /// `BpfErrorKind::Map` where the kernel refuses.
    pub fn tuple_packets(&self, key: &TupleKey) -> Result<Option<u64>, BpfError> {
        match &self.tuples {
            Some(tuples) => Ok(tuples.lookup(key)?.map(|val| val.packets)),
            None => Ok(None),
        }
    }
}
