/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * The maps of the cgroup hooks. The programs are the same for every policy. A policy is the
 * contents of the maps of one of two slots; the slot in force is the same as that of the packet
 * policy.
 */
#ifndef IRONCLAD_LIB_SOCKET_MAPS_H
#define IRONCLAD_LIB_SOCKET_MAPS_H

#include "../process/process.h"

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(map_flags, BPF_F_MMAPABLE);
	__uint(max_entries, IC_SLOTS);
	__type(key, __u32);
	__type(value, struct ic_sock_policy);
} ic_sock_policy SEC(".maps");

/*
 * Rows of each slot. Sized at load: for maps of a fixed size the JIT compiles lookups to loads,
 * where inner maps of a map of maps need calls.
 */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(map_flags, BPF_F_MMAPABLE);
	__uint(max_entries, IC_SLOTS);
	__type(key, __u32);
	__type(value, struct ic_sock_row);
} ic_sock_rows SEC(".maps");

const volatile __u32 ic_cfg_sock_rows = 1;

/*
 * The address table of each slot: the class of each address, which is the number of its row. Sized
 * at load.
 */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(map_flags, BPF_F_MMAPABLE);
	__uint(max_entries, IC_SLOTS);
	__type(key, __u32);
	__type(value, union ic_flat_cell);
} ic_sock_flat SEC(".maps");

const volatile __u32 ic_cfg_sock_cells = 1;

/* Indexed by slot, then by port. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(map_flags, BPF_F_MMAPABLE);
	__uint(max_entries, IC_SLOTS *IC_SOCK_PORT_CELLS);
	__type(key, __u32);
	__type(value, struct ic_sock_ports);
} ic_sock_ports SEC(".maps");

/* Indexed by slot, then by number: rules that decide, IC_SOCK_RULES_MAX of each slot. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(map_flags, BPF_F_MMAPABLE);
	__uint(max_entries, IC_SLOTS *IC_SOCK_RULES_MAX);
	__type(key, __u32);
	__type(value, struct ic_sock_rule);
} ic_sock_rules SEC(".maps");

/* Indexed by slot, then by number: rules that report and decide nothing. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(map_flags, BPF_F_MMAPABLE);
	__uint(max_entries, IC_SLOTS *IC_SOCK_LOGS_MAX);
	__type(key, __u32);
	__type(value, struct ic_sock_rule);
} ic_sock_logs SEC(".maps");

/* Sized at load. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__uint(max_entries, 1);
	__type(key, struct ic_sock_id_key);
	__type(value, struct ic_sock_id_val);
} ic_sock_ids SEC(".maps");

/* Indexed by rule slot; 0 counts operations that no rule decided. Sized at load. */
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
	__type(value, struct ic_sample);
} ic_sock_sample SEC(".maps");

/* Sized at load. A bucket's level outlives the policy. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct ic_bucket);
} ic_buckets SEC(".maps");

/* Rule id to slot in ic_sock_stats, for the agent alone: counters outlive it. Sized at load. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, __u32);
} ic_sock_slots SEC(".maps");

/* Digest of a limit's name and scope to bucket, for the agent alone. Sized at load. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 1);
	__type(key, __u64);
	__type(value, __u32);
} ic_bucket_slots SEC(".maps");

#endif
