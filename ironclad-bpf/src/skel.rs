//! What libbpf-cargo generates. It never leaves this crate.
#![allow(
    missing_docs,
    unreachable_pub,
    dead_code,
    non_camel_case_types,
    non_snake_case,
    clippy::all,
    clippy::undocumented_unsafe_blocks
)]

#[cfg(feature = "shield")]
pub(crate) mod cgroup {
    include!(concat!(env!("OUT_DIR"), "/cgroup.skel.rs"));
}

#[cfg(feature = "shield")]
pub(crate) mod lsm_socket {
    include!(concat!(env!("OUT_DIR"), "/lsm_socket.skel.rs"));
}

#[cfg(any(feature = "shield", feature = "sentinel"))]
pub(crate) mod process {
    include!(concat!(env!("OUT_DIR"), "/process.skel.rs"));
}

#[cfg(feature = "sentinel")]
pub(crate) mod sentinel {
    include!(concat!(env!("OUT_DIR"), "/sentinel.skel.rs"));
}

#[cfg(feature = "shield")]
pub(crate) mod xdp_dispatch {
    include!(concat!(env!("OUT_DIR"), "/xdp_dispatch.skel.rs"));
}

#[cfg(feature = "shield")]
pub(crate) mod xdp_policy {
    include!(concat!(env!("OUT_DIR"), "/xdp_policy.skel.rs"));
}

#[cfg(feature = "bench")]
pub(crate) mod bench_cgroup {
    include!(concat!(env!("OUT_DIR"), "/bench_cgroup.skel.rs"));
}

#[cfg(feature = "bench")]
pub(crate) mod bench_lookup {
    include!(concat!(env!("OUT_DIR"), "/bench_lookup.skel.rs"));
}

#[cfg(feature = "bench")]
pub(crate) mod bench_lsm {
    include!(concat!(env!("OUT_DIR"), "/bench_lsm.skel.rs"));
}

#[cfg(feature = "bench")]
pub(crate) mod bench_send {
    include!(concat!(env!("OUT_DIR"), "/bench_send.skel.rs"));
}

#[cfg(feature = "bench")]
pub(crate) mod bench_xdp {
    include!(concat!(env!("OUT_DIR"), "/bench_xdp.skel.rs"));
}
