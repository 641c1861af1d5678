//! Loops inside the kernel that measure lookups and whole programs, and a sender of packets. Host only:
//! `bpf_loop` is of Linux 5.17, live frames are of 5.18.

mod connect;
mod generator;
mod sentinel;

pub use connect::attach_empty_connect;
pub use generator::Generator;
pub use sentinel::{ProgramRuns, attach_empty_open, count_runs, memory_of_maps, runs_of_programs};

use std::mem::{MaybeUninit, offset_of};
use std::os::fd::{AsFd, AsRawFd};
use std::sync::atomic::Ordering;

use ironclad_core::Family;
use ironclad_core::abi::{Entry, Lpm4Key, Lpm6Key};
use libbpf_rs::OpenMapMut;
use libbpf_rs::skel::{OpenSkel, SkelBuilder};
use zerocopy::IntoBytes;

use crate::audit::Allowlist;
use crate::error::BpfError;
use crate::loader::{self, Loader};
use crate::map::{Map, Plain, clone_fd};
use crate::mapping::Mapping;
use crate::program::Program;
use crate::skel::bench_lookup::BenchLookupSkelBuilder;
use crate::skel::bench_lookup::types::bss;
use crate::skel::bench_xdp::BenchXdpSkelBuilder;
use crate::uapi::{Helper, ProgramType};

/// How many addresses a loop goes through before it repeats them.
pub const PROBES: usize = 65_536;
/// Lookups in one run.
pub const LOOKUPS: u32 = 1 << 20;

/// What a loop does with each address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum What {
    /// Nothing: the cost of the loop.
    Nothing = 0,
    /// The flat table, IPv4.
    Flat4 = 1,
    /// `LPM_TRIE`, IPv4.
    Trie4 = 2,
    /// The flat table, IPv6.
    Flat6 = 3,
    /// `LPM_TRIE`, IPv6.
    Trie6 = 4,
    /// A hash of whole addresses.
    Hash = 5,
}

/// The tables that are measured; those that are not needed may be empty.
#[derive(Clone, Debug, Default)]
pub struct Tables<'a> {
    /// Words of the flat table.
    pub flat: &'a [u32],
    /// First cell of its IPv4 root.
    pub root4: u32,
    /// First cell of its IPv6 root.
    pub root6: u32,
    /// The entries.
    pub entries: &'a [Entry],
    /// Keys of the IPv4 trie.
    pub lpm4: &'a [(Lpm4Key, u32)],
    /// Keys of the IPv6 trie.
    pub lpm6: &'a [(Lpm6Key, u32)],
    /// Keys of the hash: addresses in network byte order, IPv4 in the first four bytes.
    pub hash: &'a [([u8; 16], u32)],
}

/// What one run gave.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Measured {
    /// Nanoseconds for one lookup, the loop included.
    pub ns: f64,
    /// Lookups that found an entry.
    pub hits: u64,
}

/// A loop of lookups, loaded.
#[derive(Debug)]
pub struct LookupBench {
    program: Program,
    bss: Mapping,
}

/// What the firewall needs, and a loop with a clock.
fn allowlist() -> Allowlist {
    let helpers = [Helper::LOOP, Helper::KTIME_GET_NS, Helper::MAP_LOOKUP_ELEM];
    Allowlist::shield().allow(ProgramType::SCHED_CLS, helpers).unwrap_or_else(|e| panic!("{e}"))
}

fn failed(step: &'static str) -> impl Fn(libbpf_rs::Error) -> BpfError {
    loader::failed("bench", step)
}

fn fill<K: Plain, V: Plain>(
    map: &OpenMapMut<'_>,
    name: &str,
    elements: &[(K, V)],
) -> Result<(), BpfError> {
    let map = Map::<K, V>::new(clone_fd(map)?, name)?;
    elements.iter().try_for_each(|(key, value)| map.update(key, value))
}

fn fill_mapped(map: &OpenMapMut<'_>, name: &str, bytes: &[u8]) -> Result<(), BpfError> {
    if bytes.is_empty() {
        return Ok(());
    }
    let fd = clone_fd(map)?;
    let mut mapping = Mapping::new(fd.as_fd(), bytes.len(), true)
        .map_err(|e| BpfError::map(name, "mapping", e))?;
    mapping.fill(bytes);
    Ok(())
}

impl LookupBench {
    /// Loads a loop over `probes`, addresses of `family` that are repeated or cut to [`PROBES`].
    ///
    /// # Errors
    /// [`BpfError`] where the kernel refuses.
    ///
    /// # Panics
    /// Without probes.
    pub fn new(
        tables: &Tables<'_>,
        what: What,
        family: Family,
        read_entry: bool,
        probes: &[[u8; 16]],
    ) -> Result<Self, BpfError> {
        let mut storage = MaybeUninit::uninit();
        let mut open =
            BenchLookupSkelBuilder::default().open(&mut storage).map_err(failed("opening"))?;
        if let Some(rodata) = open.maps.rodata_data.as_mut() {
            rodata.ic_cfg_bench_what = what as u32;
            rodata.ic_cfg_bench_v6 = u32::from(family == Family::V6);
            rodata.ic_cfg_bench_entry = u32::from(read_entry);
            rodata.ic_cfg_flat_root4 = tables.root4;
            rodata.ic_cfg_flat_root6 = tables.root6;
        }
        let maps = &mut open.maps;
        for (map, size) in [
            (&mut maps.ic_flat, tables.flat.len() / 16),
            (&mut maps.ic_entries, tables.entries.len()),
            (&mut maps.ic_lpm4, tables.lpm4.len()),
            (&mut maps.ic_lpm6, tables.lpm6.len()),
            (&mut maps.ic_hash, tables.hash.len()),
        ] {
            map.set_max_entries(size.max(1) as u32).map_err(failed("sizing a map"))?;
        }
        Loader::new("bench_lookup", allowlist()).load(open.open_object_mut())?;
        let maps = &open.maps;
        fill_mapped(&maps.ic_flat, "ic_flat", tables.flat.as_bytes())?;
        fill_mapped(&maps.ic_entries, "ic_entries", tables.entries.as_bytes())?;
        fill(&maps.ic_lpm4, "ic_lpm4", tables.lpm4)?;
        fill(&maps.ic_lpm6, "ic_lpm6", tables.lpm6)?;
        fill(&maps.ic_hash, "ic_hash", tables.hash)?;
        fill_probes(&maps.data_ic_probes, probes, family == Family::V6)?;
        let bss = clone_fd(&maps.bss)?;
        Ok(Self {
            program: Program::new(crate::program::clone_fd(&open.progs.ic_bench)?)?,
            bss: Mapping::new(bss.as_fd(), size_of::<bss>(), true)
                .map_err(|e| BpfError::map("bss", "mapping", e))?,
        })
    }

    /// Runs [`LOOKUPS`] lookups.
    ///
    /// # Errors
    /// [`BpfError`] where the kernel refuses.
    pub fn run(&self) -> Result<Measured, BpfError> {
        self.program.test_run(&[0; 64], 1)?;
        let word = |offset| self.bss.u64_at(offset).load(Ordering::Acquire);
        Ok(Measured {
            ns: word(offset_of!(bss, ic_bench_ns)) as f64 / f64::from(LOOKUPS),
            hits: word(offset_of!(bss, ic_bench_hits)),
        })
    }
}

/// An `LPM_TRIE` like the firewall's with `keys` in it and room for `spare` more, to be changed key by
/// key.
///
/// # Errors
/// [`BpfError`] where the kernel refuses.
pub fn trie4(keys: &[(Lpm4Key, u32)], spare: usize) -> Result<Map<Lpm4Key, u32>, BpfError> {
    let mut storage = MaybeUninit::uninit();
    let mut open =
        BenchLookupSkelBuilder::default().open(&mut storage).map_err(failed("opening"))?;
    let size = (keys.len() + spare) as u32;
    open.maps.ic_lpm4.set_max_entries(size).map_err(failed("sizing a map"))?;
    Loader::new("bench_lookup", allowlist()).load(open.open_object_mut())?;
    fill(&open.maps.ic_lpm4, "ic_lpm4", keys)?;
    Map::new(clone_fd(&open.maps.ic_lpm4)?, "ic_lpm4")
}

fn fill_probes(map: &OpenMapMut<'_>, probes: &[[u8; 16]], is_v6: bool) -> Result<(), BpfError> {
    assert!(!probes.is_empty(), "no addresses to look up");
    let probes = probes.iter().copied().cycle().take(PROBES);
    if is_v6 {
        fill_mapped(map, "ic_probes", probes.collect::<Vec<_>>().as_bytes())
    } else {
        let v4: Vec<[u8; 4]> = probes.map(|[a, b, c, d, ..]| [a, b, c, d]).collect();
        fill_mapped(map, "ic_probes", v4.as_bytes())
    }
}

/// Runs an XDP program on packets that come from another source each time.
#[derive(Debug)]
pub struct ProgramBench {
    program: Program,
    frame: Vec<u8>,
    // The kernel empties an array of programs that no process holds.
    _next: Map<u32, u32>,
}

impl ProgramBench {
    /// Measures `target`, or an empty program for comparison, on `frame` with its source replaced.
    ///
    /// # Errors
    /// [`BpfError`] where the kernel refuses.
    ///
    /// # Panics
    /// Without probes.
    pub fn new(
        target: Option<&Program>,
        frame: &[u8],
        probes: &[[u8; 16]],
    ) -> Result<Self, BpfError> {
        let is_v6 = frame.get(12) == Some(&0x86);
        let mut storage = MaybeUninit::uninit();
        let mut open =
            BenchXdpSkelBuilder::default().open(&mut storage).map_err(failed("opening"))?;
        if let Some(rodata) = open.maps.rodata_data.as_mut() {
            rodata.ic_cfg_bench_v6 = u8::from(is_v6);
        }
        Loader::new("bench_xdp", allowlist()).load(open.open_object_mut())?;
        fill_probes(&open.maps.data_ic_probes, probes, is_v6)?;
        let empty = Program::new(crate::program::clone_fd(&open.progs.ic_bench_empty)?)?;
        let next = Map::<u32, u32>::new(clone_fd(&open.maps.ic_bench_next)?, "ic_bench_next")?;
        next.update(&0, &(target.unwrap_or(&empty).as_fd().as_raw_fd() as u32))?;
        let program = Program::new(crate::program::clone_fd(&open.progs.ic_bench_xdp)?)?;
        Ok(Self { program, frame: frame.to_vec(), _next: next })
    }

    /// Nanoseconds of one run, the harness's own included.
    ///
    /// # Errors
    /// [`BpfError`] where the kernel refuses.
    pub fn run(&self, repeat: u32) -> Result<u32, BpfError> {
        Ok(self.program.test_run(&self.frame, repeat)?.duration_ns)
    }
}
