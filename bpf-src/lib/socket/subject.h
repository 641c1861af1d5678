/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* The subject: the rows of the process that performs an operation. */
#ifndef IRONCLAD_LIB_SOCKET_SUBJECT_H
#define IRONCLAD_LIB_SOCKET_SUBJECT_H

#include "../process/cgroup_ancestor.h"
#include "../process/refresh.h"
#include "maps.h"

enum {
	/* Dimensions whose value is in the process table. */
	IC_DIMS_PROCESS = 1 << IC_DIM_EXE | 1 << IC_DIM_UID | 1 << IC_DIM_GID | 1 << IC_DIM_PARENT |
			  3 << IC_DIM_ANCESTRY,
	IC_DIMS_RARE = (1 << IC_DIM_MAX) - (1 << IC_DIM_PARENT),
};

/*
 * 1 where programs at cgroups may read the task itself. The helpers return the same, but each of
 * them is several calls deep.
 */
const volatile __u8 ic_cfg_task_btf = 0;

struct ic_subject {
	struct ic_process *process; /* NULL: unidentified, or no rule compares it */
	__u64 start_ns; /* of the process, as in its record */
	__u32 tgid;
	__u32 uid;
	__u32 exec_id;
	bool kernel; /* a kernel thread */
};

/* The caller's record, by its number. It is refreshed where the table does not have it. */
IC_INLINE struct ic_process *ic_subject_refresh(__u32 tgid)
{
	return ic_process_refresh() ? bpf_map_lookup_elem(&ic_processes, &tgid) : NULL;
}

/*
 * Whether an unidentified caller is a kernel thread. Kernel threads run as root and act for other
 * processes, such as the one that opens further connections of Multipath TCP: rules on users must
 * not match them.
 */
IC_INLINE bool ic_subject_is_kernel(void)
{
	struct task_struct *task = (void *)bpf_get_current_task();

	return BPF_CORE_READ(task, flags) & IC_PF_KTHREAD;
}

/*
 * Reads the task. To be called before any branch: at each path of its own, the verifier searches
 * all types of the kernel for the fields of a task.
 */
IC_INLINE void ic_subject_begin(struct ic_subject *subject)
{
	__builtin_memset(subject, 0, sizeof(*subject));
	if (ic_cfg_task_btf) {
		struct task_struct *task = bpf_get_current_task_btf();
		const struct cred *cred = IC_READ_ONCE(task->cred);

		subject->start_ns = IC_READ_ONCE(task->group_leader->start_boottime);
		subject->exec_id = IC_READ_ONCE(task->self_exec_id);
		subject->tgid = IC_READ_ONCE(task->tgid);
		subject->uid = IC_READ_ONCE(cred->uid.val);
	}
}

/*
 * Whether the record is of the caller's last execve(2). Where programs at cgroups may not read the
 * task, tracepoints are not preempted either, and the table lacks no event.
 */
IC_INLINE bool ic_subject_is_current(const struct ic_subject *subject)
{
	const struct ic_process *process = subject->process;

	return process && (!ic_cfg_task_btf || (process->start_ns == subject->start_ns &&
						process->exec_id == subject->exec_id));
}

IC_INLINE void ic_subject_find(struct ic_subject *subject, __u32 dims)
{
	if (!(dims & IC_DIMS_PROCESS))
		return;
	if (!ic_cfg_task_btf) {
		subject->tgid = bpf_get_current_pid_tgid() >> 32;
		if (dims & 1 << IC_DIM_UID)
			subject->uid = bpf_get_current_uid_gid();
	}
	subject->process = bpf_map_lookup_elem(&ic_processes, &subject->tgid);
	if (!ic_subject_is_current(subject))
		subject->process = ic_subject_refresh(subject->tgid);
	if (!subject->process && ic_subject_is_kernel()) {
		subject->kernel = true;
		subject->uid = IC_SOCK_KERNEL;
	}
}

IC_INLINE const struct ic_sock_id_val *ic_subject_id(const struct ic_sock_policy *policy, __u32 dim,
						     __u64 first, __u64 second)
{
	struct ic_sock_id_key key = {
		.generation = policy->generation,
		.dim = dim,
		.value = { first, second },
	};

	return bpf_map_lookup_elem(&ic_sock_ids, &key);
}

/* The row of a file whose content is known by its ctimes. */
IC_INLINE __u32 ic_subject_content(const struct ic_sock_id_val *id, __u64 changed_ns)
{
	__u32 i;

	if (!id->changed_ns[0])
		return id->row;
#pragma unroll
	for (i = 0; i < IC_SOCK_CTIMES; i++) {
		if (changed_ns && id->changed_ns[i] == changed_ns)
			return id->row;
	}
	return id->changed_row;
}

/*
 * The row of an executable, cached in the process's record for one epoch. Two threads may both
 * write the same value. The agent changes the map first and the epoch then.
 */
IC_INLINE __u32 ic_subject_file(const struct ic_sock_policy *policy, __u32 dim,
				const struct ic_file_id *file, __u64 exec_ns, __u64 changed_ns,
				__u64 *cache)
{
	__u32 epoch = IC_READ_ONCE(policy->epoch), row = policy->none[dim];
	const struct ic_sock_id_val *id;
	__u64 cached = IC_READ_ONCE(*cache);

	if (cached >> 32 == epoch)
		return cached;
	id = ic_subject_id(policy, dim, file->ino, (__u64)file->dev << 32 | file->generation);
	if (id && (!id->until_ns || exec_ns < id->until_ns))
		row = ic_subject_content(id, changed_ns);
	IC_WRITE_ONCE(*cache, (__u64)epoch << 32 | row);
	return row;
}

IC_INLINE __u32 ic_subject_number(const struct ic_sock_policy *policy, __u32 dim, __u64 number)
{
	const struct ic_sock_id_val *id = ic_subject_id(policy, dim, number, 0);

	return id ? id->row : policy->none[dim];
}

/*
 * The row of a user, cached in the process's record for one epoch and user. The word holds all
 * three at once, because threads of one process may have different users. The epoch's lower half is
 * enough, because the record is cleared when its whole epoch changes.
 */
IC_INLINE __u32 ic_subject_user(const struct ic_sock_policy *policy,
				const struct ic_subject *subject)
{
	__u32 uid = subject->uid, epoch = IC_READ_ONCE(policy->epoch), row;
	struct ic_process *process = subject->process;
	__u64 cached;

	if (!process)
		return ic_subject_number(policy, IC_DIM_UID, uid);
	cached = IC_READ_ONCE(process->user_row);
	if (IC_READ_ONCE(process->user_epoch) != epoch) {
		IC_WRITE_ONCE(process->user_row, 0);
		IC_WRITE_ONCE(process->user_epoch, epoch);
	} else if (cached >> 48 == (epoch & 0xffff) && (__u32)cached == uid &&
		   cached >> 32 & 0xffff) {
		return cached >> 32 & 0xffff;
	}
	row = ic_subject_number(policy, IC_DIM_UID, uid);
	IC_WRITE_ONCE(process->user_row, (__u64)(epoch & 0xffff) << 48 | (__u64)row << 32 | uid);
	return row;
}

/* The deepest cgroup of the process that a rule names. */
IC_INLINE __u32 ic_subject_cgroup(const struct ic_sock_policy *policy)
{
	__u32 i;

	for (i = 0; i < IC_SOCK_LEVELS_MAX; i++) {
		const struct ic_sock_id_val *id;
		__u64 group;

		if (i >= policy->levels)
			break;
		group = ic_cgroup_ancestor_id(policy->level[i]);
		id = ic_subject_id(policy, IC_DIM_CGROUP, group, 0);
		if (id)
			return id->row;
	}
	return policy->none[IC_DIM_CGROUP];
}

IC_INLINE __u32 ic_subject_comm(const struct ic_sock_policy *policy)
{
	const struct ic_sock_id_val *id;
	__u64 comm[2] = {};

	bpf_get_current_comm(comm, sizeof(comm));
	id = ic_subject_id(policy, IC_DIM_COMM, comm[0], comm[1]);
	return id ? id->row : policy->none[IC_DIM_COMM];
}

/* The row of dimension `dim`, which is about the process, and which a rule compares. */
IC_INLINE __u32 ic_subject_row(const struct ic_sock_policy *policy, __u32 dim,
			       const struct ic_subject *subject)
{
	struct ic_process *process = subject->process;

	switch (dim) {
	case IC_DIM_EXE:
		return process ? ic_subject_file(policy, dim, &process->exe, process->exec_ns,
						 process->exe_changed_ns, &process->exe_row)
			       : policy->none[dim];
	case IC_DIM_PARENT:
		return process ? ic_subject_file(policy, dim, &process->parent,
						 process->parent_exec_ns, 0, &process->parent_row)
			       : policy->none[dim];
	case IC_DIM_UID:
		return ic_subject_user(policy, subject);
	case IC_DIM_GID:
		return ic_subject_number(policy, dim,
					 subject->kernel ? IC_SOCK_KERNEL
							 : bpf_get_current_uid_gid() >> 32);
	case IC_DIM_CGROUP:
		return ic_subject_cgroup(policy);
	case IC_DIM_COMM:
		return ic_subject_comm(policy);
	}
	/* A row for each value of a byte of the ancestry. */
	return policy->none[dim] +
	       (process ? process->ancestry >> 8 * (dim - IC_DIM_ANCESTRY) & 0xff : 0);
}

#endif
