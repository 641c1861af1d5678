//! A toy agent behind Shield and Sentinel, and a tour of what root may try against it: each attack first
//! without Sentinel, then with it. Needs root and BPF LSM; `cargo xtask demo --sentinel` runs it in a
//! virtual machine.

mod agent;
mod attacks;
mod ground;
mod tour;

use std::error::Error;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::Parser;
use ironclad::bpf::probe::{State, probe_lsm};
use ironclad::core::ErrorChain;

pub(crate) type Result<T> = std::result::Result<T, Box<dyn Error>>;

/// Shows a toy agent that root cannot quietly undo, by attacking it.
///
/// Everything attacked is the tour's own: processes, a directory, a bpffs, a cgroup, two network
/// namespaces. While Sentinel is armed, some seconds, no other process on this host loads modules or programs of
/// BPF LSM, moves processes between cgroups as root, or writes sysctls that switch hooks off.
#[derive(Parser)]
#[command(
    version,
    after_help = "\
Exit status: 0 where every attack that succeeds without Sentinel was refused with it, and was reported.

Examples:
  fortress
      The tour on this machine.
  fortress --json
      The same for a program to read.
  cargo xtask demo --sentinel --kernel 5.10
      The tour in a virtual machine, where this machine's kernel cannot."
)]
struct Args {
    /// Print the outcome as JSON alone.
    #[arg(long)]
    json: bool,
    /// The directory in which the tour makes its own: on ext4, XFS, f2fs or tmpfs.
    #[arg(long, value_name = "DIR", default_value_os_t = std::env::temp_dir())]
    within: PathBuf,
    /// The tour's agent: runs until its standard input ends.
    #[arg(long, hide = true, value_name = "DIR")]
    agent: Option<PathBuf>,
    /// Without Sentinel.
    #[arg(long, hide = true)]
    unguarded: bool,
}

fn main() -> ExitCode {
    // Where this process is one of the tour's attackers, it does what it is told, and nothing else.
    if ironclad_lab::test_process::serve() {
        return ExitCode::SUCCESS;
    }
    let args = Args::parse();
    let done = match &args.agent {
        Some(dir) => agent::run(dir, args.unguarded),
        None => ready().and_then(|()| tour::run(&args.within, args.json)),
    };
    match done {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("error: {}", ErrorChain::new(&*error));
            ExitCode::FAILURE
        }
    }
}

/// Whether this machine can.
fn ready() -> Result<()> {
    if !rustix::process::geteuid().is_root() {
        return Err("only root may load the programs: sudo, or `cargo xtask demo --sentinel`, which runs the tour in a virtual machine".into());
    }
    let lsm = probe_lsm();
    match lsm.state {
        State::Available | State::Unknown => Ok(()),
        _ => Err(format!(
            "this kernel runs no BPF LSM: {}\n`cargo xtask demo --sentinel` runs the tour in a virtual machine",
            lsm.reason.unwrap_or_default()
        )
        .into()),
    }
}
