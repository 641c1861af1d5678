//! The whole program, dispatcher included, each packet from another of 65,536 sources; `empty` is a
//! program that does nothing, in the same harness.

use std::cell::LazyCell;
use std::time::Duration;

use criterion::measurement::WallTime;
use criterion::{BenchmarkGroup, BenchmarkId, Criterion, SamplingMode};
use ironclad::core::{Cidr, Family};
use ironclad::policy::CompiledPolicy;
use ironclad::shield::Shield;
use ironclad_bpf::bench::ProgramBench;
use ironclad_lab::packet::{Frame, UDP, udp};

use crate::Size;
use crate::common::Result;
use crate::common::lists::{compile, countries, random_v4};
use crate::common::probes::{hits, misses};

/// Packets of a run: each source sixteen times.
const PACKETS: u32 = 1 << 20;

/// What the program does with every packet.
#[derive(Clone, Copy)]
enum Outcome {
    Pass,
    Drop,
}

struct Loaded {
    bench: ProgramBench,
    // The harness calls its program.
    _shield: Option<Shield>,
}

/// A policy of these prefixes over packets that all pass or are all dropped; an empty program where
/// no policy is given.
fn load(
    family: Family,
    cidrs: &[Cidr],
    policy: Option<&CompiledPolicy>,
    outcome: Outcome,
) -> Result<Loaded> {
    let listed = compile(cidrs)?;
    let probes = match outcome {
        Outcome::Pass => misses(&listed, family, cidrs, 1),
        Outcome::Drop => hits(cidrs, 2),
    };
    let frame = match family {
        Family::V4 => Frame::v4("192.0.2.1", "198.51.100.1"),
        Family::V6 => Frame::v6("2001:db8::1", "2001:db8::2"),
    };
    let frame = frame.payload(UDP, udp(1, 53, &[0; 18])).build();
    let shield = policy.map(|policy| Shield::builder("bench").start_unattached(policy));
    let shield = shield.transpose()?;
    let bench = ProgramBench::new(shield.as_ref().map(Shield::dispatcher), &frame, &probes)?;
    Ok(Loaded { bench, _shield: shield })
}

fn bench(
    group: &mut BenchmarkGroup<'_, WallTime>,
    id: BenchmarkId,
    load: impl Fn() -> Result<Loaded>,
) {
    let loaded = LazyCell::new(|| load().unwrap_or_else(|error| panic!("{error}")));
    group.bench_function(id, |bencher| {
        let loaded = &*loaded;
        bencher.iter_custom(|packets| {
            let runs = packets.div_ceil(u64::from(PACKETS));
            let run = || loaded.bench.run(PACKETS).unwrap_or_else(|error| panic!("{error}"));
            let ns = (0..runs).map(|_| f64::from(run())).sum::<f64>() / runs as f64;
            Duration::from_secs_f64(ns * packets as f64 / 1e9)
        });
    });
}

fn all(
    group: &mut BenchmarkGroup<'_, WallTime>,
    label: &str,
    family: Family,
    cidrs: impl Fn() -> Result<Vec<Cidr>>,
) {
    for (outcome, name) in [(Outcome::Pass, "pass"), (Outcome::Drop, "drop")] {
        bench(group, BenchmarkId::new(name, label), || {
            let cidrs = cidrs()?;
            load(family, &cidrs, Some(&compile(&cidrs)?), outcome)
        });
    }
}

pub(crate) fn v4(criterion: &mut Criterion, sizes: &[Size]) -> Result<()> {
    let mut group = criterion.benchmark_group("program-v4");
    group.sampling_mode(SamplingMode::Flat);
    let few = random_v4(1_000, 16, 1);
    let nothing = compile(&[])?;
    bench(&mut group, BenchmarkId::from_parameter("empty"), || {
        load(Family::V4, &few, None, Outcome::Pass)
    });
    bench(&mut group, BenchmarkId::new("pass", "no-prefixes"), || {
        load(Family::V4, &few, Some(&nothing), Outcome::Pass)
    });
    for &(count, label) in sizes {
        all(&mut group, label, Family::V4, || Ok(random_v4(count, 16, count as u64)));
    }
    group.finish();
    Ok(())
}

/// All countries.
pub(crate) fn v6(criterion: &mut Criterion, _: &[Size]) -> Result<()> {
    let mut group = criterion.benchmark_group("program-v6");
    group.sampling_mode(SamplingMode::Flat);
    let cidrs = LazyCell::new(|| countries(Family::V6).unwrap_or_else(|error| panic!("{error}")));
    bench(&mut group, BenchmarkId::from_parameter("empty"), || {
        load(Family::V6, &cidrs, None, Outcome::Pass)
    });
    all(&mut group, "countries", Family::V6, || Ok(cidrs.clone()));
    group.finish();
    Ok(())
}
