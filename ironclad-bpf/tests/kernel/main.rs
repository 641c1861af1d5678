//! Tests of programs, maps and hooks on a kernel. They need root.

mod audit;
mod audit_files;
mod load;
mod probe;
mod probe_bpftool;
mod probe_hooks;
mod processes;
mod sentinel_hooks;
mod slots;

use std::process::ExitCode;

use ironclad_lab::harness;

fn main() -> ExitCode {
    let tests = [
        audit::tests(),
        audit_files::tests(),
        load::tests(),
        probe::tests(),
        probe_bpftool::tests(),
        probe_hooks::tests(),
        processes::tests(),
        sentinel_hooks::tests(),
        slots::tests(),
    ];
    let roles = [];
    harness::main(&roles, tests.into_iter().flatten(), None)
}
