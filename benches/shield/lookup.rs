//! One lookup in the kernel over 65,536 addresses, the loop included: `loop` is the loop alone.

use std::cell::LazyCell;
use std::time::Duration;

use criterion::measurement::WallTime;
use criterion::{BenchmarkGroup, BenchmarkId, Criterion, SamplingMode};
use ironclad::core::{Cidr, Family};
use ironclad::policy::CompiledPolicy;
use ironclad_bpf::bench::{LOOKUPS, LookupBench, Tables, What};

use crate::Size;
use crate::common::Result;
use crate::common::lists::{compile, countries, random_v4};
use crate::common::probes::{hits, misses};

/// Prefixes, and all that they are looked up in.
struct Prefixes {
    family: Family,
    cidrs: Vec<Cidr>,
    policy: CompiledPolicy,
}

impl Prefixes {
    fn new(family: Family, cidrs: Vec<Cidr>) -> Result<Self> {
        Ok(Self { family, policy: compile(&cidrs)?, cidrs })
    }

    /// Loads a loop of which each lookup hits, or none.
    fn load(&self, what: What, hit: bool) -> Result<LookupBench> {
        let (lpm4, lpm6): (Vec<_>, Vec<_>) =
            (self.policy.lpm4().collect(), self.policy.lpm6().collect());
        let flat = self.policy.flat();
        // A hash knows whole addresses only: the first of each prefix.
        let mut hosts: Vec<Cidr> = self.cidrs.iter().map(|cidr| Cidr::host(cidr.addr())).collect();
        hosts.sort_unstable();
        hosts.dedup();
        let hash: Vec<_> = hosts.iter().map(|host| host.bits().to_be_bytes()).zip(1..).collect();
        let tables = match what {
            What::Flat4 | What::Flat6 => Tables {
                flat: flat.words(),
                root4: flat.root(Family::V4).unwrap_or(0),
                root6: flat.root(Family::V6).unwrap_or(0),
                ..Tables::default()
            },
            What::Trie4 => Tables { lpm4: &lpm4, ..Tables::default() },
            What::Trie6 => Tables { lpm6: &lpm6, ..Tables::default() },
            What::Hash => Tables { hash: &hash, ..Tables::default() },
            What::Nothing => Tables::default(),
        };
        let probes = match (hit, what) {
            (false, _) => misses(&self.policy, self.family, &self.cidrs, 1),
            (true, What::Hash) => hits(&hosts, 2),
            (true, _) => hits(&self.cidrs, 2),
        };
        let bench = LookupBench::new(&tables, what, self.family, false, &probes)?;
        let (found, expected) = (bench.run()?.hits, if hit { u64::from(LOOKUPS) } else { 0 });
        if found != expected {
            return Err(format!("{what:?} found {found} of {LOOKUPS}, not {expected}").into());
        }
        Ok(bench)
    }
}

/// Each sample is a run of the loop, however few lookups Criterion requests.
fn bench(
    group: &mut BenchmarkGroup<'_, WallTime>,
    id: BenchmarkId,
    load: impl Fn() -> Result<LookupBench>,
) {
    let bench = LazyCell::new(|| load().unwrap_or_else(|error| panic!("{error}")));
    group.bench_function(id, |bencher| {
        let bench = &*bench;
        bencher.iter_custom(|lookups| {
            let runs = lookups.div_ceil(u64::from(LOOKUPS));
            let run = || bench.run().unwrap_or_else(|error| panic!("{error}")).ns;
            let ns = (0..runs).map(|_| run()).sum::<f64>() / runs as f64;
            Duration::from_secs_f64(ns * lookups as f64 / 1e9)
        });
    });
}

fn all(
    group: &mut BenchmarkGroup<'_, WallTime>,
    label: &str,
    whats: [(What, &str); 3],
    prefixes: impl Fn() -> Result<Prefixes>,
) {
    let prefixes = LazyCell::new(|| prefixes().unwrap_or_else(|error| panic!("{error}")));
    for (what, name) in whats {
        for (hit, outcome) in [(false, "miss"), (true, "hit")] {
            let id = BenchmarkId::new(format!("{name}/{outcome}"), label);
            bench(group, id, || prefixes.load(what, hit));
        }
    }
}

pub(crate) fn v4(criterion: &mut Criterion, sizes: &[Size]) -> Result<()> {
    let mut group = criterion.benchmark_group("lookup-v4");
    group.sampling_mode(SamplingMode::Flat);
    let some = || Prefixes::new(Family::V4, random_v4(1_000, 16, 1));
    bench(&mut group, BenchmarkId::from_parameter("loop"), || some()?.load(What::Nothing, false));
    let whats = [(What::Flat4, "flat"), (What::Trie4, "lpm-trie"), (What::Hash, "hash")];
    for &(count, label) in sizes {
        let random = || Prefixes::new(Family::V4, random_v4(count, 16, count as u64));
        all(&mut group, label, whats, random);
    }
    group.finish();
    Ok(())
}

/// All countries.
pub(crate) fn v6(criterion: &mut Criterion, _: &[Size]) -> Result<()> {
    let mut group = criterion.benchmark_group("lookup-v6");
    group.sampling_mode(SamplingMode::Flat);
    let listed = || Prefixes::new(Family::V6, countries(Family::V6)?);
    bench(&mut group, BenchmarkId::from_parameter("loop"), || listed()?.load(What::Nothing, false));
    let whats = [(What::Flat6, "flat"), (What::Trie6, "lpm-trie"), (What::Hash, "hash")];
    all(&mut group, "countries", whats, listed);
    group.finish();
    Ok(())
}
