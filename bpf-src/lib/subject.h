/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* Who asks: the rows of all that rules can say of a process. */
#ifndef IRONCLAD_LIB_SUBJECT_H
#define IRONCLAD_LIB_SUBJECT_H

#include "match.h"
#include "sock_shared.h"

/* Changes with every change of the maps below, and is of this policy alone. */
__u32 ic_sock_epoch;

/* Bit n is set where a rule names a cgroup at depth n. */
const volatile __u32 ic_cfg_sock_levels = 0;

/* All sized at load. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 1);
	__type(key, struct ic_file_id);
	__type(value, struct ic_sock_exe);
} ic_sock_exes SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 1);
	__type(key, struct ic_file_id);
	__type(value, struct ic_sock_exe);
} ic_sock_parents SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, __u32);
} ic_sock_uids SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, __u32);
} ic_sock_gids SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 1);
	__type(key, __u64);
	__type(value, __u32);
} ic_sock_cgroups SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 1);
	__type(key, struct ic_sock_comm);
	__type(value, __u32);
} ic_sock_comms SEC(".maps");

IC_INLINE struct ic_process *ic_subject_process(void)
{
	__u32 tgid = bpf_get_current_pid_tgid() >> 32;

	return bpf_map_lookup_elem(&ic_processes, &tgid);
}

/*
 * The row of an executable, from the process's own record where that is of this epoch. Two threads
 * may both write it: the same. Whoever changes the map changes it first and the epoch then.
 */
IC_INLINE __u32 ic_subject_file(void *map, const struct ic_file_id *file, __u64 exec_ns,
				__u64 *cache, __u32 none)
{
	__u32 epoch = IC_READ_ONCE(ic_sock_epoch), row = none;
	__u64 cached = IC_READ_ONCE(*cache);
	struct ic_sock_exe *exe;

	if (cached >> 32 == epoch)
		return cached;
	exe = bpf_map_lookup_elem(map, file);
	if (exe && (!exe->until_ns || exec_ns < exe->until_ns))
		row = exe->row;
	IC_WRITE_ONCE(*cache, (__u64)epoch << 32 | row);
	return row;
}

/* The cgroup named by a rule that the process is in, the deepest of them. */
IC_INLINE __u32 ic_subject_cgroup(void)
{
	__s32 level;

#pragma unroll
	for (level = 31; level >= 0; level--) {
		__u32 *row;
		__u64 id;

		if (!(ic_cfg_sock_levels >> level & 1))
			continue;
		id = bpf_get_current_ancestor_cgroup_id(level);
		row = bpf_map_lookup_elem(&ic_sock_cgroups, &id);
		if (row)
			return *row;
	}
	return ic_cfg_sock_none[IC_DIM_CGROUP];
}

IC_INLINE void ic_subject_rows(struct ic_match *match, struct ic_process *process)
{
	__u64 lineage = process ? process->lineage : 0;
	__u32 i;

	if (ic_match_asks(IC_DIM_EXE))
		match->row[IC_DIM_EXE] =
			process ? ic_subject_file(&ic_sock_exes, &process->exe, process->exec_ns,
						  &process->exe_row, ic_cfg_sock_none[IC_DIM_EXE])
				: ic_cfg_sock_none[IC_DIM_EXE];
	if (ic_match_asks(IC_DIM_PARENT))
		match->row[IC_DIM_PARENT] =
			process ? ic_subject_file(&ic_sock_parents, &process->parent, 0,
						  &process->parent_row,
						  ic_cfg_sock_none[IC_DIM_PARENT])
				: ic_cfg_sock_none[IC_DIM_PARENT];
	if (ic_match_asks(IC_DIM_UID)) {
		__u32 uid = bpf_get_current_uid_gid();
		__u32 *row = bpf_map_lookup_elem(&ic_sock_uids, &uid);

		match->row[IC_DIM_UID] = row ? *row : ic_cfg_sock_none[IC_DIM_UID];
	}
	if (ic_match_asks(IC_DIM_GID)) {
		__u32 gid = bpf_get_current_uid_gid() >> 32;
		__u32 *row = bpf_map_lookup_elem(&ic_sock_gids, &gid);

		match->row[IC_DIM_GID] = row ? *row : ic_cfg_sock_none[IC_DIM_GID];
	}
	if (ic_match_asks(IC_DIM_CGROUP))
		match->row[IC_DIM_CGROUP] = ic_subject_cgroup();
	if (ic_match_asks(IC_DIM_COMM)) {
		struct ic_sock_comm comm = {};
		__u32 *row;

		bpf_get_current_comm(&comm, sizeof(comm));
		row = bpf_map_lookup_elem(&ic_sock_comms, &comm);
		match->row[IC_DIM_COMM] = row ? *row : ic_cfg_sock_none[IC_DIM_COMM];
	}
#pragma unroll
	for (i = 0; i < IC_SOCK_LINEAGES; i++)
		if (ic_match_asks(IC_DIM_LINEAGE + i))
			match->row[IC_DIM_LINEAGE + i] =
				ic_cfg_sock_none[IC_DIM_LINEAGE + i] +
				(lineage >> 8 * i & 0xff) * ic_cfg_sock_stride;
}

#endif
