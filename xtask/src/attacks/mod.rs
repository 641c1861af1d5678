//! Attacks on what Sentinel guards: what came of them on each kernel, and whether documents say the same.

mod table;
mod threats;

use std::process::ExitCode;

use clap::Args;

use crate::command::write;
use crate::docs::threats::Threats;
use crate::failure::{Context, Result};
use crate::kernels::{self, Kernel};
use crate::test::{self, Depth, Outcome, Report, Row};
use table::Table;

/// The package whose tests attack.
const PACKAGE: &str = "ironclad-sentinel";

#[derive(Args)]
pub(crate) struct Options {
    /// Only on this kernel: 5.10, 6.1, 6.12 or newest; may be repeated.
    #[arg(long = "kernel", value_name = "KERNEL")]
    kernels: Vec<String>,
    /// Print a list of objects with `attack`, `kernel`, `without`, `with` and `alarm`, not the table.
    #[arg(long)]
    json: bool,
    /// Keep the table in docs/attacks.md; columns of kernels that were not asked for stay.
    #[arg(long)]
    write: bool,
}

/// `cargo xtask attacks`: the table on standard output, all else on standard error.
pub(crate) fn run(options: &Options) -> Result<ExitCode> {
    let kernels = kernels::fetch(&options.kernels, false)?;
    let mut report = Report::default();
    test::run_matrix(&kernels, Some(PACKAGE), Depth::Whole, &mut report)?;
    let mut table = Table::of_report(&report);
    let mut problems = table.problems();
    if table == Table::default() {
        problems.push("no attack was seen".to_owned());
    }
    eprint!("{}", report.text());
    match options.json {
        true => println!("{}", serde_json::to_string_pretty(&table).context("JSON")?),
        false => print!("{}", table.text()),
    }
    problems.iter().for_each(|problem| eprintln!("{problem}"));
    if report.has_failures() || !problems.is_empty() {
        if options.write {
            eprintln!("{} is left as it is: keep what was seen once nothing fails", table::FILE);
        }
        return Ok(ExitCode::FAILURE);
    }
    let kept = Table::kept()?;
    if options.write {
        table.fill_from(kept);
        write(table::FILE.as_ref(), table.page())?;
    } else {
        let labels = kernels.iter().map(|kernel| &kernel.label);
        for difference in labels.flat_map(|label| table.differences(&kept, label)) {
            eprintln!("{difference}: cargo xtask attacks --write keeps it");
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// What documents say, without having run anything.
pub(crate) fn check() -> Result<Outcome> {
    let mut problems = threats::problems(&Threats::read()?, &threats::sources()?);
    problems
        .extend(Table::kept()?.problems().into_iter().map(|it| format!("{}: {it}", table::FILE)));
    Ok(outcome(problems))
}

/// Adds, for each kernel that the whole matrix ran on, whether what was seen there is what documents say.
pub(crate) fn compare(kernels: &[Kernel], report: &mut Report) -> Result<()> {
    let (model, kept, mut seen) = (Threats::read()?, Table::kept()?, Table::of_report(report));
    let mut is_as_kept = true;
    for Kernel { label, .. } in kernels {
        let suite = format!("linux {label}");
        let unproven = threats::unproven(&model, report, &suite);
        report.add(Row::single(&suite, "threat model", outcome(unproven), 0.0));
        let differences = seen.differences(&kept, label);
        is_as_kept &= differences.is_empty();
        report.add(Row::single(&suite, "attacks", outcome(differences), 0.0));
    }
    if !is_as_kept {
        let file = test::log_dir()?.join("attacks.md");
        seen.fill_from(kept);
        write(&file, seen.page())?;
        eprintln!("{} is what {} would be after this run", file.display(), table::FILE);
    }
    Ok(())
}

fn outcome(problems: Vec<String>) -> Outcome {
    if problems.is_empty() { Outcome::Passed } else { Outcome::Failed(problems.join("\n")) }
}

/// Rows of tables in Markdown, with the numbers of their lines, without the lines below the headers.
fn rows(text: &str) -> impl Iterator<Item = (usize, Vec<String>)> {
    let is_ruler = |row: &str| row.chars().all(|c| matches!(c, '|' | '-' | ':' | ' '));
    let rows = (1..).zip(text.lines()).filter(move |(_, line)| !is_ruler(line));
    rows.filter_map(|(number, line)| {
        let inside = line.trim().strip_prefix('|')?.strip_suffix('|')?;
        Some((number, inside.split('|').map(|cell| cell.trim().to_owned()).collect()))
    })
}
