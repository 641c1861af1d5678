//! Tests of Sentinel on a kernel. They need root and BPF LSM.

mod bcache;
mod disks;
mod files;
mod full_tables;
mod gate;
mod hardened;
mod host;
mod impersonation;
mod links;
mod mounts;
mod normal_operation;
mod nvme;
mod persistence;
mod pid_1;
mod preopened;
mod pseudo_fs;
mod rules;
mod self_protection;
mod servers;
mod shield;
mod signed;
mod stacked;
mod status_and_alarms;
mod testbed;
mod upgrade;
mod volumes;
mod without_lsm;

use std::process::ExitCode;

use ironclad_lab::harness;

fn main() -> ExitCode {
    let tests = [
        bcache::tests(),
        disks::tests(),
        files::tests(),
        full_tables::tests(),
        gate::tests(),
        hardened::tests(),
        host::tests(),
        impersonation::tests(),
        links::tests(),
        mounts::tests(),
        normal_operation::tests(),
        nvme::tests(),
        persistence::tests(),
        pid_1::tests(),
        preopened::tests(),
        pseudo_fs::tests(),
        rules::tests(),
        self_protection::tests(),
        servers::tests(),
        shield::tests(),
        signed::tests(),
        stacked::tests(),
        status_and_alarms::tests(),
        upgrade::tests(),
        volumes::tests(),
        without_lsm::tests(),
    ];
    let roles = [
        gate::LSM_LOADER,
        rules::AGENT,
        self_protection::ON_TERMINAL,
        shield::ROLE,
        signed::ROLE,
        status_and_alarms::FOREIGNER,
        testbed::successor::ROLE,
    ];
    harness::main(&roles, tests.into_iter().flatten(), Some(testbed::shared::SHARED))
}
