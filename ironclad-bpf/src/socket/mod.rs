//! The cgroup hooks' programs and maps, and the table of processes that they ask. What they mean is
//! the business of `ironclad-shield`; here are descriptors, memory and the kernel's rules.

mod policy;
mod processes;
mod shared;

pub use policy::{SocketConfig, SocketMaps, SocketProgram};
pub use processes::Processes;
pub use shared::{SocketOptions, SocketShared};

/// The hooks, in the order of the programs in [`SocketShared`] and [`SocketProgram`].
pub(crate) const HOOKS: [(&str, libbpf_sys::bpf_attach_type); 7] = [
    ("connect4", libbpf_sys::BPF_CGROUP_INET4_CONNECT),
    ("connect6", libbpf_sys::BPF_CGROUP_INET6_CONNECT),
    ("sendmsg4", libbpf_sys::BPF_CGROUP_UDP4_SENDMSG),
    ("sendmsg6", libbpf_sys::BPF_CGROUP_UDP6_SENDMSG),
    ("bind4", libbpf_sys::BPF_CGROUP_INET4_BIND),
    ("bind6", libbpf_sys::BPF_CGROUP_INET6_BIND),
    ("sock_create", libbpf_sys::BPF_CGROUP_INET_SOCK_CREATE),
];
