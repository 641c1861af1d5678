//! Builds, tests and measures Ironclad: `cargo xtask --help`.
#![forbid(unsafe_code)]

mod abi;
mod apt;
mod attacks;
mod btf;
mod cache;
mod check;
mod command;
mod demo;
mod docs;
mod elf;
mod failure;
mod figures;
mod kernel_image;
mod kernels;
mod opensnitch;
mod setup;
mod test;
mod tools;
mod vm;
mod vmlinux;

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{Parser, Subcommand};

use crate::failure::{Context, Result};
use crate::setup::Purpose;
use crate::test::Report;
use crate::vmlinux::Comparison;

/// Builds, tests and measures Ironclad.
#[derive(Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask")]
struct Arguments {
    #[command(subcommand)]
    command: Task,
}

#[derive(Subcommand)]
enum Task {
    /// Install the system packages that are missing and mount bpffs, tracefs and securityfs.
    Setup {
        /// What for: `test` includes `build`, `race` includes both.
        #[arg(long = "for", value_enum, default_value = "race")]
        purpose: Purpose,
    },
    /// Download the kernels that tests run on into the cache.
    Kernels {
        /// Which ones (5.10, 6.1, 6.12, newest); all by default.
        labels: Vec<String>,
        /// Also replace those that the archive has a newer build of.
        #[arg(long)]
        update: bool,
    },
    /// Make bpf-src/vmlinux/*/vmlinux.h from the newest kernel's types: see roots.txt there.
    Vmlinux {
        /// Change nothing: make them again from the kernels that they name, and compare.
        #[arg(long, conflicts_with = "coverage")]
        check: bool,
        /// Change nothing: say which of the types each kernel of the matrix lacks.
        #[arg(long)]
        coverage: bool,
    },
    /// Make ironclad-core's abi module from the headers in bpf-src/include/ironclad/abi.
    Abi,
    /// Compile the eBPF programs for all architectures into ironclad-bpf/prebuilt, which packages carry: before
    /// `cargo package` and `cargo publish`.
    Prebuild,
    /// Write the files of public items (xtask/public-api) anew.
    Api,
    /// Check style, lints, documentation, licences, packages and the oldest Rust.
    Check {
        /// Only these checks, by the names that the table shows.
        only: Vec<String>,
    },
    /// Run the whole firewall in a lab of network namespaces; arguments go to the example.
    Demo {
        /// Instead, the tour of attacks on an agent that Sentinel guards, in a virtual machine.
        #[arg(long)]
        sentinel: bool,
        /// Of that machine: 5.10, 6.1, 6.12 or newest.
        #[arg(long, requires = "sentinel", default_value = "newest")]
        kernel: String,
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        arguments: Vec<String>,
    },
    /// Measure and print the figures; those of Sentinel in a virtual machine.
    Figures(figures::Options),
    /// Race nftables, ipset, xdp-filter and Shield on one veth pair: `--help` for its options.
    #[command(disable_help_flag = true)]
    Race {
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        arguments: Vec<String>,
    },
    /// Write the tables of docs/ that are made from data and code; `cargo xtask check docs` compares them.
    Docs,
    /// Format the Rust and C sources.
    Fmt,
    /// Check, then test: what has to hold before a change is taken.
    Ci(test::Options),
    /// Run every test and say what ran; the last line is the sum.
    Test(test::Options),
    /// Try every attack of Sentinel's tests in virtual machines, without it and with it, and print what came
    /// of them; fails where one was not stopped, or did not succeed without.
    Attacks(attacks::Options),
    /// Run a command in a virtual machine with one of the matrix kernels.
    Vm {
        /// Which kernel: 5.10, 6.1, 6.12 or newest.
        #[arg(long)]
        kernel: String,
        /// A file to put into /root there; may be repeated.
        #[arg(long)]
        file: Vec<PathBuf>,
        /// Seconds after which the command is cut.
        #[arg(long, default_value_t = 300)]
        timeout: u64,
        /// One processor, and a clock that counts its instructions as nanoseconds.
        #[arg(long)]
        count_instructions: bool,
        /// Boot without BPF LSM among the security modules.
        #[arg(long)]
        without_lsm: bool,
        /// Run the tests that harden the kernel until the next boot, and no other.
        #[arg(long)]
        hardened: bool,
        /// A program of this machine, or a command of the guest's busybox, and its arguments.
        #[arg(required = true, last = true)]
        command: Vec<String>,
    },
}

fn main() -> ExitCode {
    if std::process::id() == 1 {
        return vm::first_process();
    }
    match enter_repository().and_then(|()| perform(Arguments::parse().command)) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}

/// All paths in this tool are relative to the repository.
fn enter_repository() -> Result<()> {
    let manifest = std::env::var("CARGO_MANIFEST_DIR").unwrap_or(env!("CARGO_MANIFEST_DIR").into());
    let root = Path::new(&manifest).parent().context("xtask lies in no repository")?;
    std::env::set_current_dir(root).context(root.display())
}

fn perform(task: Task) -> Result<ExitCode> {
    match task {
        Task::Setup { purpose } => setup::ensure(purpose)?,
        Task::Kernels { labels, update } => {
            setup::ensure(Purpose::Test)?;
            for kernel in kernels::fetch(&labels, update)? {
                println!("{:8} {:32} {}", kernel.label, kernel.release, kernel.version);
            }
        }
        Task::Vmlinux { check, coverage } => {
            setup::ensure(Purpose::Test)?;
            match (check, coverage) {
                (true, _) => return check_vmlinux(),
                (_, true) => vmlinux::coverage()?,
                _ => vmlinux::generate()?,
            }
        }
        Task::Abi => abi::generate()?,
        Task::Prebuild => {
            setup::ensure(Purpose::Build)?;
            check::package::prebuild()?;
        }
        Task::Api => check::api::generate()?,
        Task::Check { only } => {
            setup::ensure(Purpose::Test)?;
            let mut report = Report::default();
            check::run(&only, &mut report)?;
            print!("{}", report.text());
            return Ok(code(!report.has_failures()));
        }
        Task::Demo { sentinel: true, kernel, arguments } => {
            return demo::sentinel(&kernel, &arguments);
        }
        Task::Demo { arguments, .. } => return demo::run(&arguments),
        Task::Figures(options) => return figures::run(&options),
        Task::Race { arguments } => return figures::race(&arguments),
        Task::Docs => docs::generate()?,
        Task::Fmt => {
            setup::ensure(Purpose::Build)?;
            check::format()?;
        }
        Task::Ci(options) => return run_tests(&options, true),
        Task::Test(options) => return run_tests(&options, false),
        Task::Attacks(options) => {
            setup::ensure(Purpose::Test)?;
            return attacks::run(&options);
        }
        Task::Vm { kernel, file, timeout, count_instructions, without_lsm, hardened, command } => {
            setup::ensure(Purpose::Test)?;
            let kernels = kernels::fetch(&[kernel], false)?;
            let job = vm::Job {
                timeout_seconds: timeout,
                counts_instructions: count_instructions,
                is_without_lsm: without_lsm,
                environment: hardened
                    .then(|| ("IRONCLAD_HARDENED".into(), "1".into()))
                    .into_iter()
                    .collect(),
                ..vm::Job::default()
            };
            let status = vm::command_line(&kernels[0], &command, &file, job)?;
            let code = status.and_then(|status| u8::try_from(status).ok());
            return Ok(ExitCode::from(code.unwrap_or(1)));
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn run_tests(options: &test::Options, checks_too: bool) -> Result<ExitCode> {
    setup::ensure(Purpose::Test)?;
    let mut report = Report::default();
    test::run(options, checks_too, &mut report)?;
    test::conclude(options, &report)?;
    Ok(code(!report.has_failures()))
}

fn check_vmlinux() -> Result<ExitCode> {
    let mut is_same = true;
    for (path, comparison) in vmlinux::check()? {
        let said = match comparison {
            Comparison::Same => "unchanged".to_owned(),
            Comparison::NotComparable(why) => why,
            Comparison::Differs(how) => {
                is_same = false;
                how
            }
        };
        println!("{}: {said}", path.display());
    }
    Ok(code(is_same))
}

fn code(is_good: bool) -> ExitCode {
    if is_good { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
