/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* Exemptions of executables, and the service manager. */
#ifndef IRONCLAD_LIB_SENTINEL_EXEMPTION_H
#define IRONCLAD_LIB_SENTINEL_EXEMPTION_H

#include "mark.h"

/* The exemptions of executables. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, IC_SENTINEL_EXEMPTIONS);
	__type(key, struct ic_file_id);
	__type(value, struct ic_exemption);
} ic_exemptions SEC(".maps");

enum { IC_INIT = 1 }; /* the number of PID 1 */

/*
 * Whether the table has every event of the caller. Mappings of execve(2) before its event are
 * checked against the former program, as the open of its file was. A global function, which the
 * verifier checks once and not for each caller.
 */
__noinline int ic_is_caller_recorded(__u32 maps)
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

/* The caller's record; NULL where the table lacks an event of it. */
IC_INLINE const struct ic_process *ic_caller(bool maps)
{
	struct task_struct *task = (struct task_struct *)bpf_get_current_task();
	__u32 tgid = BPF_CORE_READ(task, tgid);

	return ic_is_caller_recorded(maps) ? bpf_map_lookup_elem(&ic_processes, &tgid) : NULL;
}

/*
 * The exemption of the caller's executable. Kernel threads have none, and neither do processes that
 * ran before the start, whose executable is not proven; except PID 1.
 */
IC_INLINE const struct ic_exemption *ic_exemption_of_caller(bool maps)
{
	const struct ic_process *process = ic_caller(maps);
	struct ic_file_id exe;

	if (!process ||
	    (process->flags & IC_PROCESS_SEEDED && bpf_get_current_pid_tgid() >> 32 != IC_INIT))
		return NULL;
	exe = process->exe;
	return bpf_map_lookup_elem(&ic_exemptions, &exe);
}

/* Whether an exemption allows the operation to the untrusted caller. */
IC_INLINE bool ic_has_exemption(__u32 what)
{
	const struct ic_exemption *exemptions = ic_exemption_of_caller(false);

	return exemptions && exemptions->may[ic_half()] & what;
}

/*
 * Whether a task is PID 1, or a child of it that has not called execve(2), or the program by which
 * PID 1 executes services. A process that has executed PID 1's file again, as a user's service
 * manager has, does not count. For a child whose event the table lacks, returns `unknown`.
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
	if (!process || !ic_process_is_current(process, task))
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
