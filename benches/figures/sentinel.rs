//! What Sentinel costs a process that it has nothing against, beside no Sentinel.

use std::ffi::CString;
use std::io::{BufRead, BufReader, Write};
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, Stdio};
use std::time::Instant;

use ironclad::core::RuleId;
use ironclad::policy::Policy;
use ironclad::policy::file::{FileAction, FileRule};
use ironclad::sentinel::Sentinel;
use ironclad_bpf::bench::{
    ProgramRuns, attach_empty_open, count_runs, memory_of_maps, runs_of_programs,
};
use ironclad_bpf::probe::{State, probe_lsm};
use rustix::fs::{CWD, Mode, OFlags};

use crate::Figures;
use crate::common::Result;
use crate::stats::Runs;

/// What is measured, of files that no rule covers, and the key of what an operation's hooks execute.
const OPERATIONS: [(&str, Option<&str>); 7] = [
    ("open", Some("sentinel_insns_file_open")),
    ("read", None),
    ("write", None),
    ("stat", None),
    ("rename", Some("sentinel_insns_inode_rename")),
    ("unlink", Some("sentinel_insns_inode_unlink")),
    ("exec", Some("sentinel_insns_exec")),
];
const OPEN: usize = 0;
/// Of these the cost is measured, too, while a pre-opened descriptor exists.
const CHECKED: [(usize, &str); 2] =
    [(1, "sentinel_checked_read_overhead_pct"), (2, "sentinel_checked_write_overhead_pct")];
const RATIO: &str = "sentinel_10000_vs_10_ratio";
const MAPS: &str = "sentinel_maps_mb_10000";
/// Set where the machine's clock counts instructions, one for each nanosecond.
const CLOCK: &str = "IRONCLAD_CLOCK";

const FEW: usize = 10;
const MANY: usize = 10_000;
/// Files that are used.
const FILES: usize = 64;
/// Calls of one turn, short enough for most turns to go by between two ticks of the kernel's, and how
/// many turns there are, of which the median counts.
const TURN: usize = 128;
const EXECS: usize = 4;
const TURNS: usize = 15;

/// Uses files in the current directory on orders from standard input, and prints how many nanoseconds
/// one call took.
pub(crate) fn clerk() -> Result<()> {
    let dir = std::env::current_dir()?;
    let path = |name: String| -> Result<CString> {
        Ok(CString::new(dir.join(name).as_os_str().as_bytes())?)
    };
    let files = (0..FILES).map(|n| path(format!("file{n}"))).collect::<Result<Vec<_>>>()?;
    let spare = (0..TURN).map(|n| path(format!("spare{n}"))).collect::<Result<Vec<_>>>()?;
    let create = |path: &CString| -> Result<OwnedFd> {
        let mode = Mode::RUSR | Mode::WUSR;
        Ok(rustix::fs::open(path, OFlags::CREATE | OFlags::RDWR, mode)?)
    };
    let open = files.iter().map(create).collect::<Result<Vec<_>>>()?;
    // A read of an empty file is another call.
    open.iter().try_for_each(|file| rustix::io::pwrite(file, &[0; 512], 0).map(drop))?;
    let turn = || files.iter().cycle().take(TURN);
    let mut held = Vec::new();
    for order in std::io::stdin().lines() {
        let order = order?;
        let began = Instant::now();
        match order.as_str() {
            "open" => turn().try_for_each(|path| {
                rustix::fs::open(path, OFlags::RDONLY, Mode::empty()).map(drop)
            })?,
            "read" => open
                .iter()
                .cycle()
                .take(TURN)
                .try_for_each(|file| rustix::io::pread(file, &mut [0; 512], 0).map(drop))?,
            "write" => open
                .iter()
                .cycle()
                .take(TURN)
                .try_for_each(|file| rustix::io::pwrite(file, &[0; 512], 0).map(drop))?,
            "stat" => turn().try_for_each(|path| rustix::fs::stat(path).map(drop))?,
            // There and back.
            "rename" => turn().take(TURN / 2).try_for_each(|path| {
                rustix::fs::renameat(CWD, path, CWD, &spare[0])?;
                rustix::fs::renameat(CWD, &spare[0], CWD, path)
            })?,
            "prepare" => spare.iter().try_for_each(|path| create(path).map(drop))?,
            "unlink" => spare.iter().try_for_each(rustix::fs::unlink)?,
            "exec" => (0..EXECS).try_for_each(|_| {
                Command::new(dir.join("program")).args(["-c", ":"]).status().map(drop)
            })?,
            order => match order.strip_prefix("hold ") {
                Some(path) => held.push(std::fs::OpenOptions::new().append(true).open(path)?),
                None => return Err(format!("`{order}` is no order").into()),
            },
        }
        let calls = if order == "exec" { EXECS } else { TURN };
        println!("{}", began.elapsed().as_nanos() as f64 / calls as f64);
    }
    Ok(())
}

struct Clerk {
    child: Child,
    answers: BufReader<ChildStdout>,
}

impl Clerk {
    fn start(dir: &Path) -> Result<Self> {
        let mut command = Command::new(std::env::current_exe()?);
        command.arg("clerk").current_dir(dir).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = command.spawn()?;
        let answers = BufReader::new(child.stdout.take().ok_or("no standard output")?);
        Ok(Self { child, answers })
    }

    /// Nanoseconds of one call, in one turn.
    fn turn(&mut self, operation: &str) -> Result<f64> {
        if operation == "unlink" {
            self.ask("prepare")?;
        }
        self.ask(operation)
    }

    fn ask(&mut self, order: &str) -> Result<f64> {
        writeln!(self.child.stdin.as_mut().ok_or("no standard input")?, "{order}")?;
        let mut line = String::new();
        self.answers.read_line(&mut line)?;
        Ok(line.trim().parse().map_err(|_| "the clerk ended")?)
    }

    fn cost(&mut self, operation: &str) -> Result<f64> {
        let turns = (0..TURNS).map(|_| self.turn(operation)).collect::<Result<_>>()?;
        Ok(Runs::of(turns).median)
    }

    /// Of all operations.
    fn costs(&mut self) -> Result<Vec<f64>> {
        OPERATIONS.iter().map(|(operation, _)| self.cost(operation)).collect()
    }
}

impl Drop for Clerk {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A directory with files to protect, half of them directories, and one beside it for the clerk.
struct Place(tempfile::TempDir);

impl Place {
    fn new() -> Result<Self> {
        let this = Self(tempfile::tempdir()?);
        std::fs::create_dir(this.plain())?;
        std::fs::copy("/bin/sh", this.plain().join("program"))?;
        for (file, dir) in this.protected(MANY) {
            std::fs::create_dir_all(&dir)?;
            std::fs::write(file, "")?;
        }
        Ok(this)
    }

    fn plain(&self) -> PathBuf {
        self.0.path().join("plain")
    }

    fn protected(&self, count: usize) -> impl Iterator<Item = (PathBuf, PathBuf)> {
        let dir = self.0.path().join("protected");
        (0..count / 2).map(move |n| (dir.join(format!("file{n}")), dir.join(format!("dir{n}"))))
    }

    fn sentinel(&self, count: usize) -> Result<Sentinel> {
        let rule = FileRule::new(RuleId(1), "protected", FileAction::Deny);
        let rule = self.protected(count).fold(rule, |rule, (file, dir)| rule.file(file).tree(dir));
        let policy = Policy::builder().file_rule(rule).compile()?;
        Ok(Sentinel::builder("figures").start(&policy)?)
    }
}

/// What was measured from one time without Sentinel to the next.
struct Cycle {
    none: Vec<f64>,
    /// Of opening, with a program that does nothing.
    empty: f64,
    few: Vec<f64>,
    many: Vec<f64>,
}

impl Cycle {
    /// There and back, so that what drifts cancels itself out.
    fn run(place: &Place, clerk: &mut Clerk) -> Result<Self> {
        let mean = |one: Vec<f64>, other: Vec<f64>| -> Vec<f64> {
            one.iter().zip(&other).map(|(one, other)| (one + other) / 2.0).collect()
        };
        let empty = |clerk: &mut Clerk| -> Result<f64> {
            let _program = attach_empty_open()?;
            clerk.cost(OPERATIONS[OPEN].0)
        };
        let few = |clerk: &mut Clerk| -> Result<Vec<f64>> {
            let _sentinel = place.sentinel(FEW)?;
            clerk.costs()
        };
        let (none_before, empty_before, few_before) = (clerk.costs()?, empty(clerk)?, few(clerk)?);
        let many = {
            let _sentinel = place.sentinel(MANY)?;
            mean(clerk.costs()?, clerk.costs()?)
        };
        Ok(Self {
            many,
            few: mean(few_before, few(clerk)?),
            empty: (empty_before + empty(clerk)?) / 2.0,
            none: mean(none_before, clerk.costs()?),
        })
    }
}

/// Which programs an operation runs, how often, and how long each, two readings of the clock included.
fn programs(sentinel: &Sentinel, clerk: &mut Clerk, operation: &str) -> Result<String> {
    let runs = || runs_of_programs(sentinel.program_ids());
    if operation == "unlink" {
        clerk.ask("prepare")?;
    }
    // Reading them runs some, too.
    let (first, before) = (runs()?, runs()?);
    clerk.ask(operation)?;
    let after = runs()?;
    let calls = if operation == "exec" { EXECS } else { TURN } as f64;
    let mut found = Vec::new();
    for ((first, before), after) in first.iter().zip(&before).zip(&after) {
        let since = |of: fn(&ProgramRuns) -> u64| {
            (of(after) - of(before)).saturating_sub(of(before) - of(first)) as f64
        };
        let (count, ns) = (since(|runs| runs.count), since(|runs| runs.ns));
        // Less often, it was another process.
        if count >= calls / 2.0 {
            found.push(format!("{} {:.1} × {:.0}", after.name, count / calls, ns / count));
        }
    }
    Ok(if found.is_empty() { "no program".to_owned() } else { found.join(", ") })
}

pub(crate) fn measure(figures: &mut Figures) -> Result<()> {
    let overhead = |operation: &str| format!("sentinel_{operation}_overhead_pct");
    let lsm = probe_lsm();
    if !matches!(lsm.state, State::Available | State::Unknown) {
        figures.skip("sentinel_*", &lsm.reason.unwrap_or_default());
        return Ok(());
    }
    crate::start::sentinel(figures)?;
    let unit = match std::env::var(CLOCK).as_deref() {
        Ok("instructions") => "instructions",
        _ => "ns",
    };
    let place = Place::new()?;
    let mut clerk = Clerk::start(&place.plain())?;
    let cycles = (0..figures.args.runs.unwrap_or(3)).map(|_| Cycle::run(&place, &mut clerk));
    let cycles = cycles.collect::<Result<Vec<_>>>()?;
    let of = |what: &dyn Fn(&Cycle) -> f64| Runs::of(cycles.iter().map(what).collect());

    let sentinel = place.sentinel(FEW)?;
    let counting = count_runs()?;
    for (at, (operation, insns)) in OPERATIONS.into_iter().enumerate() {
        let percent = of(&|cycle| (cycle.few[at] / cycle.none[at] - 1.0) * 100.0);
        let (none, few) = (of(&|cycle| cycle.none[at]), of(&|cycle| cycle.few[at]));
        let ran = programs(&sentinel, &mut clerk, operation)?;
        let how = format!("{percent} %; {none} {unit} without, {few} with; {ran}");
        figures.set(&overhead(operation), percent.median, &how);
        let Some(insns) = insns else { continue };
        let added = of(&|cycle| cycle.few[at] - cycle.none[at]);
        if unit == "ns" {
            figures.skip(insns, "this clock counts nanoseconds: measure it in a virtual machine");
        } else if at == OPEN {
            let empty = of(&|cycle| cycle.empty - cycle.none[at]);
            figures.set(
                insns,
                added.median,
                &format!("{added}; a program that does nothing {empty}"),
            );
        } else {
            figures.set(insns, added.median, &added.to_string());
        }
    }
    drop((counting, sentinel));

    // Of what is added, where that is most of what there is.
    let ratio =
        of(&|cycle| (cycle.many[OPEN] - cycle.none[OPEN]) / (cycle.few[OPEN] - cycle.none[OPEN]));
    let whole = OPERATIONS.iter().enumerate().map(|(at, (operation, _))| {
        format!("{operation} {:.3}", of(&|cycle| cycle.many[at] / cycle.few[at]).median)
    });
    let whole: Vec<_> = whole.collect();
    let how = format!("{ratio} of what open gains; of whole calls {}", whole.join(", "));
    figures.set(RATIO, ratio.median, &how);

    checked(figures, &place, &mut clerk)?;
    let sentinel = place.sentinel(MANY)?;
    let status = sentinel.status()?;
    let mb = memory_of_maps(sentinel.map_ids())? as f64 / 1e6;
    figures.set(MAPS, mb, &format!("all maps of Sentinel's, with {} labels", status.labels));
    Ok(())
}

/// Reads and writes of uncovered files while a process has a covered one open for writing, beside no Sentinel.
fn checked(figures: &mut Figures, place: &Place, clerk: &mut Clerk) -> Result<()> {
    let mut holder = Clerk::start(&place.plain())?;
    let (file, _) = place.protected(FEW).next().ok_or("no protected file")?;
    holder.ask(&format!("hold {}", file.display()))?;
    let mut costs = || -> Result<Vec<f64>> {
        CHECKED.iter().map(|&(at, _)| clerk.cost(OPERATIONS[at].0)).collect()
    };
    let before = costs()?;
    let sentinel = place.sentinel(FEW)?;
    if sentinel.status()?.preopened.is_empty() {
        return Err("the pre-opened descriptor was not found".into());
    }
    let checked = costs()?;
    drop(sentinel);
    let after = costs()?;
    for (at, (_, key)) in CHECKED.into_iter().enumerate() {
        let none = (before[at] + after[at]) / 2.0;
        let percent = (checked[at] / none - 1.0) * 100.0;
        figures.set(key, percent, &format!("{none:.0} without, {:.0} with", checked[at]));
    }
    Ok(())
}
