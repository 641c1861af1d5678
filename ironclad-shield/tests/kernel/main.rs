//! Tests of Shield on a kernel. They need root.

mod bundles;
mod cgroup_gaps;
mod containers;
mod examples;
mod explain;
mod follow;
mod hook_coverage;
mod identity;
mod interfaces;
mod learn;
mod link_layers;
mod live;
mod lookup;
mod memory;
mod net_cls;
mod packets;
mod parse;
mod recorder;
mod sha256;
mod socket_persistence;
mod sockets;
mod source_routes;
mod testbed;
mod upgrade;

use std::process::ExitCode;

use ironclad_lab::harness;

fn main() -> ExitCode {
    let tests = [
        bundles::tests(),
        cgroup_gaps::tests(),
        containers::tests(),
        examples::tests(),
        explain::tests(),
        follow::tests(),
        hook_coverage::tests(),
        identity::tests(),
        interfaces::tests(),
        learn::tests(),
        link_layers::tests(),
        live::tests(),
        lookup::tests(),
        memory::tests(),
        net_cls::tests(),
        packets::tests(),
        parse::tests(),
        sha256::tests(),
        socket_persistence::tests(),
        sockets::tests(),
        source_routes::tests(),
        upgrade::tests(),
    ];
    let roles = [containers::AGENT, live::AGENT, socket_persistence::AGENT];
    harness::main(&roles, tests.into_iter().flatten(), Some(testbed::shared::SHARED))
}
