//! From prefixes to the tables that the kernel is given; no kernel needed.

use std::cell::LazyCell;

use criterion::measurement::WallTime;
use criterion::{BatchSize, BenchmarkGroup, BenchmarkId, Criterion, SamplingMode};
use ironclad::policy::{Backend, Policy};

use crate::Size;
use crate::common::Result;
use crate::common::lists::{everything, policy, random_v4, random_v6};

const BACKENDS: [(Backend, &str); 2] = [(Backend::Flat, "flat"), (Backend::LpmTrie, "lpm-trie")];

fn bench(
    group: &mut BenchmarkGroup<'_, WallTime>,
    id: BenchmarkId,
    policy: impl Fn() -> Result<Policy>,
) {
    let policy = LazyCell::new(|| policy().unwrap_or_else(|error| panic!("{error}")));
    group.bench_function(id, |bencher| {
        let policy = &*policy;
        bencher.iter_batched(|| policy.clone(), Policy::compile, BatchSize::PerIteration);
    });
}

/// Random IPv4 prefixes, and a mixture of both families.
pub(crate) fn random(criterion: &mut Criterion, sizes: &[Size]) -> Result<()> {
    let mut group = criterion.benchmark_group("compile");
    group.sampling_mode(SamplingMode::Flat);
    for &(count, label) in sizes {
        for (backend, name) in BACKENDS {
            bench(&mut group, BenchmarkId::new(name, label), || {
                Ok(policy(&random_v4(count, 16, count as u64), backend))
            });
        }
    }
    let mixed = || {
        let mut cidrs = random_v4(70_000, 8, 5);
        cidrs.extend(random_v6(30_000, 6));
        Ok(policy(&cidrs, Backend::Flat))
    };
    bench(&mut group, BenchmarkId::new("flat", "100k-both-families"), mixed);
    group.finish();
    Ok(())
}

/// Every country and the ipsum feed, read before.
pub(crate) fn countries(criterion: &mut Criterion, _: &[Size]) -> Result<()> {
    let mut group = criterion.benchmark_group("compile-countries");
    group.sampling_mode(SamplingMode::Flat);
    for (backend, name) in BACKENDS {
        bench(&mut group, BenchmarkId::from_parameter(name), || Ok(everything()?.backend(backend)));
    }
    group.finish();
    Ok(())
}
