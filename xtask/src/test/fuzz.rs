//! Each fuzz target for a bounded time, from the corpus that is kept.

use std::path::Path;
use std::sync::Mutex;
use std::time::Instant;

use super::report::{Outcome, Report, Row};
use crate::cache;
use crate::command::{command, create_dir, output, tail};
use crate::failure::{Context, Result};
use crate::tools;

/// One for each processor of the machine that CI runs on.
const AT_ONCE: usize = 2;

/// Runs every target for `seconds`.
pub(crate) fn run(seconds: u32, report: &mut Report) -> Result<()> {
    if !Path::new("fuzz/Cargo.toml").is_file() {
        return Ok(());
    }
    let fuzz = tools::path(&tools::CARGO_FUZZ)?;
    let cargo_fuzz = |words: &[&str]| {
        let mut cargo_fuzz = command(&fuzz, words);
        // The sanitizer is an unstable option of the compiler.
        cargo_fuzz.env("RUSTC_BOOTSTRAP", "1");
        cargo_fuzz
    };
    let started = Instant::now();
    output(&mut cargo_fuzz(&["build"]))?;
    report.add(Row::single("fuzz", "build", Outcome::Passed, started.elapsed().as_secs_f64()));
    let targets = output(&mut cargo_fuzz(&["list"]))?;
    let queue = Mutex::new(targets.lines());
    let rows = Mutex::new(Vec::new());
    std::thread::scope(|scope| {
        for _ in 0..AT_ONCE {
            scope.spawn(|| {
                loop {
                    let target = queue.lock().ok().and_then(|mut queue| queue.next());
                    let Some(target) = target else { return };
                    let started = Instant::now();
                    let outcome = one(&fuzz, target, seconds)
                        .unwrap_or_else(|error| Outcome::Failed(error.to_string()));
                    let row = Row::single("fuzz", target, outcome, started.elapsed().as_secs_f64());
                    if let Ok(mut rows) = rows.lock() {
                        rows.push(row);
                    }
                }
            });
        }
    });
    let mut rows = rows.into_inner().ok().context("a thread of the fuzzer panicked")?;
    rows.sort_by(|a, b| a.target.cmp(&b.target));
    rows.into_iter().for_each(|row| report.add(row));
    Ok(())
}

fn one(fuzz: &Path, target: &str, seconds: u32) -> Result<Outcome> {
    // What a run finds goes to the first directory; the repository's corpus is only read.
    let found = cache::dir("fuzz")?.join(target);
    create_dir(&found)?;
    let mut run = command("timeout", ["--kill-after=10", "900"]);
    run.arg(fuzz).args(["run", target]).arg(&found);
    let corpus = Path::new("fuzz/corpus").join(target);
    if corpus.is_dir() {
        run.arg(&corpus);
    }
    run.args(["--", &format!("-max_total_time={seconds}"), "-timeout=10"]);
    let dictionary = Path::new("fuzz").join(format!("{target}.dict"));
    if dictionary.is_file() {
        run.arg(format!("-dict={}", dictionary.display()));
    }
    let ended = run.env("RUSTC_BOOTSTRAP", "1").output().context("cargo fuzz")?;
    let said = String::from_utf8_lossy(&ended.stderr);
    if ended.status.success() {
        let runs = said.lines().rev().find(|line| line.starts_with("Done "));
        eprintln!("fuzz {target}: {}", runs.unwrap_or("done"));
        return Ok(Outcome::Passed);
    }
    eprintln!("{}", tail(&said, 60));
    let artifact = said.lines().find_map(|line| line.split_once("Test unit written to "));
    let input = artifact.map_or("see above", |(_, path)| path);
    Ok(Outcome::Failed(format!("{} with the input {input}", ended.status)))
}
