/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * What the cgroup hooks of an instance share, from policy to policy and from agent to agent. The
 * dispatchers' object creates these maps; a policy's object is given their descriptors.
 */
#ifndef IRONCLAD_LIB_SOCK_SHARED_H
#define IRONCLAD_LIB_SOCK_SHARED_H

#include "process.h"

/* Indexed by rule slot; 0 counts what no rule decided. Sized at load. */
struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct ic_sock_stats);
} ic_sock_stats SEC(".maps");

/* Indexed by rule slot. Sized at load. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct ic_report_budget);
} ic_sock_sample SEC(".maps");

struct ic_token_bucket {
	__u64 full_ns;
	struct bpf_spin_lock lock;
	__u32 _pad;
};
_Static_assert(sizeof(struct ic_token_bucket) == sizeof(struct ic_bucket), "ABI");

/* Sized at load. What a bucket holds outlives the policy that made it. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct ic_token_bucket);
} ic_buckets SEC(".maps");

#endif
