//! A running firewall gets another policy of the same size: loaded, filled, put into force, and the
//! former one released once no packet is in it.

use std::cell::LazyCell;

use criterion::{BenchmarkId, Criterion, SamplingMode};
use ironclad::policy::{Backend, CompiledPolicy};
use ironclad::shield::Shield;

use crate::Size;
use crate::common::Result;
use crate::common::lists::{compile_with, random_v4};

fn start(count: usize, backend: Backend) -> Result<(Shield, [CompiledPolicy; 2])> {
    let compiled = |seed| compile_with(&random_v4(count, 16, seed), backend);
    let policies = [compiled(1)?, compiled(2)?];
    Ok((Shield::builder("bench").start_unattached(&policies[0])?, policies))
}

pub(crate) fn measure(criterion: &mut Criterion, sizes: &[Size]) -> Result<()> {
    let mut group = criterion.benchmark_group("swap");
    group.sampling_mode(SamplingMode::Flat);
    for &(count, label) in sizes {
        for (backend, name) in [(Backend::Flat, "flat"), (Backend::LpmTrie, "lpm-trie")] {
            let started =
                LazyCell::new(|| start(count, backend).unwrap_or_else(|error| panic!("{error}")));
            group.bench_function(BenchmarkId::new(name, label), |bencher| {
                let (shield, policies) = &*started;
                let mut next = policies.iter().cycle().skip(1);
                bencher
                    .iter(|| next.next().map(|policy| shield.apply(policy)).transpose().unwrap());
            });
        }
    }
    group.finish();
    Ok(())
}
