//! Map types: a map of each is made.
use std::io;
use std::os::fd::{AsFd, OwnedFd};

use libbpf_sys::{BPF_F_MMAPABLE, BPF_F_NO_PREALLOC};

use super::btf::{self, KernelBtf};
use super::feature::{Feature, no_such_type};
use super::load::{MapTrial, Refused};
use crate::capabilities::Capabilities;
use crate::uapi::MapType;

pub(super) fn types(btf: Option<&KernelBtf>, capabilities: Capabilities) -> Vec<Feature> {
    MapType::ALL[1..]
        .iter()
        .map(|&map_type| {
            let name = map_type.to_string();
            let kernel_value = match map_type {
                MapType::STRUCT_OPS => {
                    match btf.and_then(|it| it.structure("bpf_struct_ops_tcp_congestion_ops")) {
                        Some(id) => id,
                        None => {
                            return no_such_type(&name, "struct bpf_struct_ops_tcp_congestion_ops");
                        }
                    }
                }
                _ => 0,
            };
            let answer = create(map_type, kernel_value, btf);
            let answer = answer.map_err(|source| Refused { source, log: String::new() });
            Feature::answer(name, answer, capabilities)
        })
        .collect()
}

fn create(map_type: MapType, kernel_value: u32, btf: Option<&KernelBtf>) -> io::Result<OwnedFd> {
    /// A whole number of pages on every architecture.
    const RING_BYTES: u32 = 64 << 10;
    let (key_size, value_size, max_entries, flags) = match map_type {
        MapType::STACK_TRACE => (4, 8, 1, 0),
        MapType::LPM_TRIE => (8, 8, 1, BPF_F_NO_PREALLOC),
        // `struct bpf_cgroup_storage_key`: a cgroup's id and an attach type.
        MapType::CGROUP_STORAGE | MapType::PERCPU_CGROUP_STORAGE => (16, 8, 0, 0),
        MapType::QUEUE | MapType::STACK | MapType::BLOOM_FILTER => (0, 4, 1, 0),
        MapType::SK_STORAGE
        | MapType::INODE_STORAGE
        | MapType::TASK_STORAGE
        | MapType::CGRP_STORAGE => (4, 4, 0, BPF_F_NO_PREALLOC),
        MapType::RINGBUF | MapType::USER_RINGBUF => (0, 0, RING_BYTES, 0),
        MapType::ARENA => (0, 0, 1, BPF_F_MMAPABLE),
        MapType::INSN_ARRAY => (4, 16, 1, 0),
        MapType::STRUCT_OPS => {
            let size = btf.and_then(|it| it.size(kernel_value)).unwrap_or_default();
            (4, size, 1, 0)
        }
        _ => (4, 4, 1, 0),
    };
    let plain = |map_type| MapTrial {
        map_type,
        key_size: 4,
        value_size: 4,
        max_entries: 1,
        flags: 0,
        inner: None,
        btf: None,
        kernel_value: 0,
    };
    let inner = matches!(map_type, MapType::ARRAY_OF_MAPS | MapType::HASH_OF_MAPS)
        .then(|| plain(MapType::HASH).create())
        .transpose()?;
    // The kernel wants types of storage, and some BTF, whatever is in it, of operations.
    let is_storage = flags == BPF_F_NO_PREALLOC && max_entries == 0;
    let is_operations = map_type == MapType::STRUCT_OPS;
    let own_types = (is_storage || is_operations).then(btf::number).transpose()?;
    let number = u32::from(is_storage);
    MapTrial {
        key_size,
        value_size,
        max_entries,
        flags,
        inner: inner.as_ref().map(AsFd::as_fd),
        btf: own_types.as_ref().map(|fd| (fd.as_fd(), number, number)),
        kernel_value,
        ..plain(map_type)
    }
    .create()
}
