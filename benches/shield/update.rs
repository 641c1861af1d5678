//! One prefix more or less: in an `LPM_TRIE` that holds the other prefixes, and by a flat table that is
//! compiled anew and swapped.

use std::cell::LazyCell;
use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use criterion::{BatchSize, BenchmarkId, Criterion, SamplingMode};
use ironclad::core::{Action, Cidr, RuleId};
use ironclad::policy::{AddressSet, Backend, Policy};
use ironclad::shield::Shield;
use ironclad_bpf::Map;
use ironclad_bpf::bench::trie4;
use ironclad_core::abi::Lpm4Key;

use crate::Size;
use crate::common::Result;
use crate::common::lists::{compile, policy, random_v4};

/// Prefixes that are added before they are removed again.
const CHANGES: usize = 1024;

#[derive(Clone, Copy, PartialEq)]
enum Change {
    Add,
    Remove,
}

/// A trie of so many random prefixes, and keys that are not in it.
struct Trie {
    map: Map<Lpm4Key, u32>,
    others: Vec<Lpm4Key>,
}

impl Trie {
    fn new(count: usize) -> Result<Self> {
        let cidrs = random_v4(count, 16, count as u64);
        let keys: Vec<_> = compile(&cidrs)?.lpm4().collect();
        let known: BTreeSet<Cidr> = cidrs.into_iter().collect();
        let mut others = random_v4(2 * CHANGES, 16, 7);
        others.retain(|cidr| !known.contains(cidr));
        let others = compile(&others)?.lpm4().map(|(key, _)| key).take(CHANGES).collect();
        Ok(Self { map: trie4(&keys, CHANGES)?, others })
    }

    /// Does both `count` times, and returns how long one of them took.
    fn change(&self, measured: Change, count: u64) -> Result<Duration> {
        let mut took = Duration::ZERO;
        let mut left = count as usize;
        while left > 0 {
            let keys = &self.others[..left.min(self.others.len())];
            for change in [Change::Add, Change::Remove] {
                let begin = Instant::now();
                for key in keys {
                    match change {
                        Change::Add => self.map.update(key, &1)?,
                        Change::Remove if self.map.delete(key)? => {}
                        Change::Remove => return Err("a key was not there".into()),
                    }
                }
                if change == measured {
                    took += begin.elapsed();
                }
            }
            left -= keys.len();
        }
        Ok(took)
    }
}

/// A running firewall, what it runs, and a policy with one prefix more.
fn rebuilt(count: usize) -> Result<(Shield, Policy)> {
    let before = policy(&random_v4(count, 16, count as u64), Backend::Flat);
    let shield = Shield::builder("bench").start_unattached(&before.clone().compile()?)?;
    let more = AddressSet::new(RuleId(1), "bench", Action::Drop).cidrs(["192.0.2.0/24".parse()?]);
    Ok((shield, before.set(more)))
}

pub(crate) fn measure(criterion: &mut Criterion, sizes: &[Size]) -> Result<()> {
    let mut group = criterion.benchmark_group("update");
    group.sampling_mode(SamplingMode::Flat);
    for &(count, label) in sizes {
        let trie = LazyCell::new(|| Trie::new(count).unwrap_or_else(|error| panic!("{error}")));
        for (change, name) in [(Change::Add, "add"), (Change::Remove, "remove")] {
            group.bench_function(BenchmarkId::new(format!("lpm-trie/{name}"), label), |bencher| {
                let trie = &*trie;
                bencher.iter_custom(|count| trie.change(change, count).unwrap());
            });
        }
        drop(trie);
        let rebuilt = LazyCell::new(|| rebuilt(count).unwrap_or_else(|error| panic!("{error}")));
        group.bench_function(BenchmarkId::new("flat/compile-and-swap", label), |bencher| {
            let (shield, policy) = &*rebuilt;
            bencher.iter_batched(
                || policy.clone(),
                |policy| shield.apply(&policy.compile().unwrap()).unwrap(),
                BatchSize::PerIteration,
            );
        });
    }
    group.finish();
    Ok(())
}
