//! The figures that `docs/benchmarks.md` speaks of, measured in one run against baselines that run
//! beside them. `cargo xtask figures` calls it; needs root.

#[path = "common/mod.rs"]
mod common;
#[path = "figures/lists.rs"]
mod lists;
#[path = "figures/lookup.rs"]
mod lookup;
#[path = "figures/program.rs"]
mod program;
#[path = "figures/stall.rs"]
mod stall;
#[path = "figures/stats.rs"]
mod stats;

use std::collections::BTreeMap;

use clap::Parser;

/// Measures and prints one flat object of numbers.
#[derive(Parser)]
struct Args {
    /// Print JSON alone.
    #[arg(long)]
    json: bool,
    /// Only figures whose names begin with this.
    #[arg(long, default_value = "")]
    only: String,
    /// Runs of each measurement; the median counts.
    #[arg(long, default_value_t = 7)]
    runs: usize,
    /// `cargo bench` passes it.
    #[arg(long, hide = true)]
    bench: bool,
}

/// What has been measured so far.
struct Figures {
    args: Args,
    values: BTreeMap<String, f64>,
}

impl Figures {
    fn wants(&self, name: &str) -> bool {
        name.starts_with(&self.args.only)
    }

    /// Keeps a figure, and tells how it came about.
    fn set(&mut self, name: &str, value: f64, how: &str) {
        let value = (value * 1000.0).round() / 1000.0;
        if !self.args.json {
            println!("{name:32} {value:>10}   {how}");
        }
        self.values.insert(name.to_owned(), value);
    }

    fn runs(&self) -> usize {
        self.args.runs
    }
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut figures = Figures { args: Args::parse(), values: BTreeMap::new() };
    lookup::measure(&mut figures)?;
    program::measure(&mut figures)?;
    lists::measure(&mut figures)?;
    stall::measure(&mut figures)?;
    if figures.args.json {
        println!("{}", serde_json::to_string_pretty(&figures.values)?);
    }
    Ok(())
}
