//! Criterion benches of Shield, against the kernel's own maps and programs. `cargo bench`, as root;
//! without it the groups that need a kernel are skipped.

#[path = "common/mod.rs"]
mod common;
#[path = "shield/compile.rs"]
mod compile;
#[path = "shield/decode.rs"]
mod decode;
#[path = "shield/lookup.rs"]
mod lookup;
#[path = "shield/program.rs"]
mod program;
#[path = "shield/swap.rs"]
mod swap;
#[path = "shield/update.rs"]
mod update;

use std::os::unix::fs::MetadataExt;
use std::process::ExitCode;
use std::time::Duration;

use criterion::Criterion;

use crate::common::Result;
use crate::common::lists::data;

/// What a group cannot do without.
#[derive(Clone, Copy, PartialEq)]
enum Needs {
    Nothing,
    Root,
    Lists,
    RootAndLists,
}

/// A name, what it needs, and what it measures at the given sizes.
type Group = (&'static str, Needs, fn(&mut Criterion, &[Size]) -> Result<()>);

/// How many prefixes, and how that is called.
type Size = (usize, &'static str);

const SIZES: [Size; 5] =
    [(1_000, "1k"), (10_000, "10k"), (100_000, "100k"), (300_000, "300k"), (1_000_000, "1m")];

const GROUPS: [Group; 10] = [
    ("compile", Needs::Nothing, compile::random),
    ("compile-countries", Needs::Lists, compile::countries),
    ("decode", Needs::Nothing, decode::bytes),
    ("ring", Needs::Root, decode::ring),
    ("lookup-v4", Needs::Root, lookup::v4),
    ("lookup-v6", Needs::RootAndLists, lookup::v6),
    ("update", Needs::Root, update::measure),
    ("swap", Needs::Root, swap::measure),
    ("program-v4", Needs::Root, program::v4),
    ("program-v6", Needs::RootAndLists, program::v6),
];

impl Needs {
    /// Why a group cannot be measured here.
    fn missing(self) -> Option<&'static str> {
        // Its owner is the effective user.
        let is_root = std::fs::metadata("/proc/self").is_ok_and(|process| process.uid() == 0);
        if matches!(self, Self::Root | Self::RootAndLists) && !is_root {
            return Some("needs root");
        }
        if matches!(self, Self::Lists | Self::RootAndLists) && data().is_none() {
            return Some("no shared lists: set IRONCLAD_DATA");
        }
        None
    }
}

fn main() -> ExitCode {
    // `cargo test --benches` only sees that each runs.
    let is_test = !std::env::args().any(|argument| argument == "--bench");
    let sizes = if is_test { &SIZES[..1] } else { &SIZES[..] };
    let mut criterion = Criterion::default()
        .sample_size(15)
        .warm_up_time(Duration::from_millis(200))
        .measurement_time(Duration::from_secs(1))
        .configure_from_args();
    let mut skipped = 0;
    for (name, needs, measure) in GROUPS {
        if let Some(why) = needs.missing() {
            println!("SKIP {name}: {why}");
            skipped += 1;
        } else if let Err(error) = measure(&mut criterion, sizes) {
            eprintln!("{name}: {error}");
            return ExitCode::FAILURE;
        }
    }
    criterion.final_summary();
    println!("{} groups, {skipped} of them skipped", GROUPS.len());
    ExitCode::SUCCESS
}
