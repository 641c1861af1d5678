/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* The process table: one lookup identifies the process that calls a hook. */
#ifndef IRONCLAD_LIB_PROCESS_PROCESS_H
#define IRONCLAD_LIB_PROCESS_PROCESS_H

#include "../loss.h"

/*
 * By thread group. Sized at load for as many processes as the kernel allows, so that it is never
 * full; not preallocated. Task storage would do the same, but cgroup programs may not read it
 * before 6.13.
 */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct ic_process);
} ic_processes SEC(".maps");

enum {
	IC_PF_EXITING = 0x00000004, /* include/linux/sched.h */
	IC_PF_KTHREAD = 0x00200000,
};

/* The start time of a task's process. */
IC_INLINE __u64 ic_process_start(struct task_struct *task)
{
	return BPF_CORE_READ(task, group_leader, start_boottime);
}

/*
 * Sets the process and the execve(2) that a record is of. To be called before its executable is
 * read.
 */
IC_INLINE void ic_process_stamp(struct ic_process *process, struct task_struct *task)
{
	process->start_ns = ic_process_start(task);
	process->exec_id = BPF_CORE_READ(task, self_exec_id);
}

/* Whether a record is of this process, and not of an earlier one with the same number. */
IC_INLINE bool ic_process_is_same(const struct ic_process *process, struct task_struct *task)
{
	return process->start_ns == ic_process_start(task);
}

/*
 * Whether a record is of the process's last execve(2). The kernel skips a program at a tracepoint
 * while another task on the same processor is within it. Where tracepoints may be preempted, as on
 * Linux 7.3, that happens, and the table lacks the event.
 */
IC_INLINE bool ic_process_is_current(const struct ic_process *process, struct task_struct *task)
{
	return process->exec_id == (__u32)BPF_CORE_READ(task, self_exec_id) &&
	       ic_process_is_same(process, task);
}

/*
 * Whether a process was forked by its parent since the parent's last execve(2), and not earlier,
 * nor by another process that has ended. A process that was forked with CLONE_PARENT cannot be
 * distinguished from a child of that parent.
 */
IC_INLINE bool ic_process_is_child(struct task_struct *task, struct task_struct *parent)
{
	return BPF_CORE_READ(task, parent_exec_id) == BPF_CORE_READ(parent, self_exec_id);
}

/*
 * Overwrites a record. Another thread may read it: the record is of no execve(2) until it is
 * complete.
 */
IC_INLINE void ic_process_overwrite(struct ic_process *old, struct ic_process *process)
{
	__u32 exec_id = process->exec_id;

	process->exec_id = ~exec_id;
	IC_WRITE_ONCE(old->exec_id, ~exec_id);
	barrier();
	*old = *process;
	barrier();
	IC_WRITE_ONCE(old->exec_id, exec_id);
}

#endif
