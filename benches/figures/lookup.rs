//! One lookup: the flat table against `LPM_TRIE`, over 65,536 distinct addresses.

use std::net::IpAddr;
use std::path::PathBuf;

use ironclad::bpf::bench::{LookupBench, PROBES, Tables, What};
use ironclad::core::{Action, Cidr, Family, RuleId};
use ironclad::policy::list::ListOptions;
use ironclad::policy::{AddressList, AddressSet, Backend, CompiledPolicy, Policy};

use crate::Figures;
use crate::stats::{Random, Runs};

pub(crate) type Result<T> = std::result::Result<T, Box<dyn std::error::Error>>;

/// What a lookup counts at least, in nanoseconds: where nearly all of it hides in the loop, the rest
/// is not a time to divide by.
const LEAST: f64 = 1.0;

pub(crate) fn random_v4(count: usize, shortest: u8, seed: u64) -> Vec<Cidr> {
    let mut random = Random::new(seed);
    let mut cidrs = std::collections::BTreeSet::new();
    while cidrs.len() < count {
        let addr = IpAddr::V4((random.next() as u32).into());
        let length = shortest + random.below(33 - u64::from(shortest)) as u8;
        cidrs.extend(Cidr::new(addr, length).ok());
    }
    cidrs.into_iter().collect()
}

pub(crate) fn random_v6(count: usize, seed: u64) -> Vec<Cidr> {
    let mut random = Random::new(seed);
    let mut cidrs = std::collections::BTreeSet::new();
    while cidrs.len() < count {
        // Global unicast, 2000::/3.
        let high = random.next() >> 3 | 1 << 61;
        let addr = IpAddr::V6((u128::from(high) << 64 | u128::from(random.next())).into());
        cidrs.extend(Cidr::new(addr, 20 + random.below(109) as u8).ok());
    }
    cidrs.into_iter().collect()
}

pub(crate) fn compile(cidrs: &[Cidr]) -> Result<CompiledPolicy> {
    compile_with(cidrs, Backend::Flat)
}

pub(crate) fn compile_with(cidrs: &[Cidr], backend: Backend) -> Result<CompiledPolicy> {
    let set = AddressSet::new(RuleId(1), "bench", Action::Drop).cidrs(cidrs.iter().copied());
    Ok(Policy::builder().backend(backend).set(set).compile()?)
}

/// Where the shared lists are; none where they are not.
pub(crate) fn data() -> Option<PathBuf> {
    let path = std::env::var_os("IRONCLAD_DATA").map_or_else(
        || PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../shared/data")),
        PathBuf::from,
    );
    path.is_dir().then_some(path)
}

pub(crate) fn countries(family: Family) -> Result<Vec<Cidr>> {
    let folder = match family {
        Family::V4 => "country/ipv4",
        Family::V6 => "country/ipv6",
    };
    let dir = data().ok_or("no shared lists: set IRONCLAD_DATA")?.join(folder);
    let lists = AddressList::read_dir(&dir, "cidr", &ListOptions::new())?;
    Ok(lists.iter().flat_map(|list| list.entries()).map(|entry| entry.cidr).collect())
}

/// The address as a probe: network byte order, IPv4 in the first four bytes.
fn probe(addr: IpAddr) -> [u8; 16] {
    Cidr::host(addr).bits().to_be_bytes()
}

/// Addresses that no prefix covers.
pub(crate) fn misses(
    policy: &CompiledPolicy,
    family: Family,
    near: &[Cidr],
    seed: u64,
) -> Vec<[u8; 16]> {
    let mut random = Random::new(seed);
    let mut out = Vec::with_capacity(PROBES);
    while out.len() < PROBES {
        let addr = match family {
            Family::V4 => IpAddr::V4((random.next() as u32).into()),
            // Where IPv6 addresses are: in the /16 of some prefix.
            Family::V6 => {
                let near = near[random.below(near.len() as u64) as usize].bits();
                let noise = u128::from(random.next()) << 64 | u128::from(random.next());
                IpAddr::V6((near & (u128::MAX << 112) | noise >> 16).into())
            }
        };
        if policy.flat().lookup(addr) == 0 {
            out.push(probe(addr));
        }
    }
    out
}

/// A random address of a random prefix, again and again.
fn hits(cidrs: &[Cidr], seed: u64) -> Vec<[u8; 16]> {
    let mut random = Random::new(seed);
    (0..PROBES)
        .map(|_| {
            let cidr = cidrs[random.below(cidrs.len() as u64) as usize];
            let noise = u128::from(random.next()) << 64 | u128::from(random.next());
            let host = if cidr.length() == 128 { 0 } else { noise >> cidr.length() };
            let bits = cidr.bits() | host;
            match cidr.family() {
                Family::V4 => (bits >> 96 << 96).to_be_bytes(),
                Family::V6 => bits.to_be_bytes(),
            }
        })
        .collect()
}

/// Trie over flat, both without the loop.
fn ratio(
    figures: &mut Figures,
    name: &str,
    policy: &CompiledPolicy,
    family: Family,
    probes: &[[u8; 16]],
) -> Result<()> {
    let (flat, trie) = match family {
        Family::V4 => (What::Flat4, What::Trie4),
        Family::V6 => (What::Flat6, What::Trie6),
    };
    let (lpm4, lpm6): (Vec<_>, Vec<_>) = (policy.lpm4().collect(), policy.lpm6().collect());
    let entries = policy.kernel_entries(|rule| rule as u16);
    let with_flat = Tables {
        flat: policy.flat().words(),
        root4: policy.flat().root(Family::V4).unwrap_or(0),
        root6: policy.flat().root(Family::V6).unwrap_or(0),
        entries: &entries,
        ..Tables::default()
    };
    let with_trie = Tables { lpm4: &lpm4, lpm6: &lpm6, entries: &entries, ..Tables::default() };
    let empty = LookupBench::new(&Tables::default(), What::Nothing, family, false, probes)?;
    let flat_read = LookupBench::new(&with_flat, flat, family, true, probes)?;
    let flat = LookupBench::new(&with_flat, flat, family, false, probes)?;
    let trie = LookupBench::new(&with_trie, trie, family, false, probes)?;
    let (mut loops, mut flats, mut reads, mut tries) = (vec![], vec![], vec![], vec![]);
    let (mut found_flat, mut found_trie) = (0, 0);
    for _ in 0..figures.runs() {
        loops.push(empty.run()?.ns);
        let run = flat.run()?;
        found_flat = run.hits;
        flats.push(run.ns);
        reads.push(flat_read.run()?.ns);
        let run = trie.run()?;
        found_trie = run.hits;
        tries.push(run.ns);
    }
    if found_flat != found_trie {
        return Err(format!("{name}: flat found {found_flat}, trie {found_trie}").into());
    }
    let base = Runs::of(loops).median;
    let net = |runs: Vec<f64>| Runs::of(runs.into_iter().map(|ns| ns - base).collect());
    let (flat, read, trie) = (net(flats), net(reads), net(tries));
    let how = format!(
        "trie {trie} ns, flat {flat} ns, with the entry read {read} ns, loop {base:.1} ns, {:.0} % hits",
        100.0 * found_flat as f64 / f64::from(1 << 20)
    );
    figures.set(name, trie.median / flat.median.max(LEAST), &how);
    Ok(())
}

pub(crate) fn measure(figures: &mut Figures) -> Result<()> {
    for (count, label) in [(100_000, "100k"), (300_000, "300k"), (1_000_000, "1m")] {
        let (miss, hit) =
            (format!("lookup_v4_{label}_miss_ratio"), format!("lookup_v4_{label}_hit_ratio"));
        if !figures.wants(&miss) && !figures.wants(&hit) {
            continue;
        }
        let cidrs = random_v4(count, 16, count as u64);
        let policy = compile(&cidrs)?;
        if figures.wants(&miss) {
            let probes = misses(&policy, Family::V4, &[], 1);
            ratio(figures, &miss, &policy, Family::V4, &probes)?;
        }
        if figures.wants(&hit) {
            ratio(figures, &hit, &policy, Family::V4, &hits(&cidrs, 2))?;
        }
    }
    if figures.wants("lookup_v6_countries_ratio") {
        let cidrs = countries(Family::V6)?;
        let policy = compile(&cidrs)?;
        // Half and half: what is listed, and what is not.
        let mut probes = misses(&policy, Family::V6, &cidrs, 3);
        let hits = hits(&cidrs, 4);
        for (at, hit) in hits.into_iter().enumerate().filter(|(at, _)| at % 2 == 0) {
            probes[at] = hit;
        }
        ratio(figures, "lookup_v6_countries_ratio", &policy, Family::V6, &probes)?;
    }
    Ok(())
}
