/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* Exemptions of executables, and the service manager. */
#ifndef IRONCLAD_LIB_SENTINEL_EXEMPTION_H
#define IRONCLAD_LIB_SENTINEL_EXEMPTION_H

#include "mark.h"

/* What executables may do in spite of rules. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, IC_SENTINEL_EXEMPTIONS);
	__type(key, struct ic_file_id);
	__type(value, struct ic_exemption);
} ic_exemptions SEC(".maps");

enum { IC_INIT = 1 }; /* PID 1's number */

/*
 * Whether the table lacks no event of the caller. What execve(2) maps before it tells of the new program is
 * asked of the former one, as its file was. The verifier walks it once, and not wherever it is asked.
 */
__noinline int ic_is_known(__u32 maps)
{
	struct task_struct *task = (struct task_struct *)bpf_get_current_task();
	__u32 tgid = BPF_CORE_READ(task, tgid);
	const struct ic_process *process = bpf_map_lookup_elem(&ic_processes, &tgid);
	__u32 exec_id = BPF_CORE_READ(task, self_exec_id);

	if (!process || !ic_process_is_same(process, task))
		return 0;
	if (maps && BPF_CORE_READ_BITFIELD_PROBED(task, in_execve) &&
	    process->exec_id + 1 == exec_id)
		return 1;
	return process->exec_id == exec_id;
}

/* What is known of the caller; nothing where the table lacks an event of it. */
IC_INLINE const struct ic_process *ic_caller(bool maps)
{
	struct task_struct *task = (struct task_struct *)bpf_get_current_task();
	__u32 tgid = BPF_CORE_READ(task, tgid);

	return ic_is_known(maps) ? bpf_map_lookup_elem(&ic_processes, &tgid) : NULL;
}

/*
 * Of what the caller executes; kernel threads are nobody, and so is who ran before: what those say that
 * they execute is not known to be so, but for PID 1.
 */
IC_INLINE const struct ic_exemption *ic_exception(bool maps)
{
	const struct ic_process *process = ic_caller(maps);
	struct ic_file_id exe;

	if (!process ||
	    (process->flags & IC_PROCESS_SEEDED && bpf_get_current_pid_tgid() >> 32 != IC_INIT))
		return NULL;
	exe = process->exe;
	return bpf_map_lookup_elem(&ic_exemptions, &exe);
}

/* Whether a policy lets the caller do it although it is not trusted. */
IC_INLINE bool ic_has_exemption(__u32 what)
{
	const struct ic_exemption *exemptions;

	/* It ends the host, and unmounts what there is. */
	if (what == IC_MAY_MOUNT && bpf_get_current_pid_tgid() >> 32 == IC_INIT)
		return true;
	exemptions = ic_exception(false);
	return exemptions && exemptions->may[ic_half()] & what;
}

/*
 * PID 1, and what it forks until that executes something, but what it executes services by.
 * Who executes another program of the same file, as the service managers of users do, is not it. Of a
 * child of which the table lacks an event, `unknown` is the answer.
 */
IC_INLINE bool ic_is_manager_of(struct task_struct *task, bool unknown)
{
	const struct ic_process *process, *first;
	const struct ic_exemption *exemptions;
	struct ic_file_id exe;
	__u32 init = IC_INIT, tgid = BPF_CORE_READ(task, tgid);

	if (tgid == IC_INIT)
		return true;
	process = bpf_map_lookup_elem(&ic_processes, &tgid);
	if (!process || !ic_process_is_now(process, task))
		return unknown && BPF_CORE_READ(task, real_parent, tgid) == IC_INIT;
	if (process->ppid != IC_INIT || !(process->flags & IC_PROCESS_FORKED))
		return false;
	first = bpf_map_lookup_elem(&ic_processes, &init);
	if (first && process->exec_ns == first->exec_ns)
		return true;
	exe = process->exe;
	exemptions = bpf_map_lookup_elem(&ic_exemptions, &exe);
	return exemptions && exemptions->may[ic_half()] & IC_MAY_MANAGE;
}

IC_INLINE bool ic_is_manager(void)
{
	return ic_is_manager_of((struct task_struct *)bpf_get_current_task(), false);
}

#endif
