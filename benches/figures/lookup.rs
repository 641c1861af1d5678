//! One lookup: the flat table against `LPM_TRIE`, over 65,536 distinct addresses.

use ironclad::core::Family;
use ironclad::policy::CompiledPolicy;
use ironclad_bpf::bench::{LookupBench, Tables, What};

use crate::Figures;
use crate::common::Result;
use crate::common::lists::{compile, countries, random_v4};
use crate::common::probes::{hits, misses};
use crate::stats::Runs;

/// What a lookup counts at least, in nanoseconds: where nearly all of it hides in the loop, the rest
/// is not a time to divide by.
const LEAST: f64 = 1.0;

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
