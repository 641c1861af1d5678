/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* The table of processes: one lookup tells a hook who is asking. */
#ifndef IRONCLAD_LIB_PROCESS_PROCESS_H
#define IRONCLAD_LIB_PROCESS_PROCESS_H

#include "../loss.h"

/*
 * By thread group. Sized at load for as many as the kernel lets run, so that it is never full; not
 * preallocated. Task storage would do the same, but cgroup programs may not read it before 6.13.
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

/* When the process began that a task is a thread of. */
IC_INLINE __u64 ic_process_start(struct task_struct *task)
{
	return BPF_CORE_READ(task, group_leader, start_boottime);
}

/* Which process a record is of, and of which execve(2): to be read before what it executes. */
IC_INLINE void ic_process_stamp(struct ic_process *process, struct task_struct *task)
{
	process->start_ns = ic_process_start(task);
	process->exec_id = BPF_CORE_READ(task, self_exec_id);
}

/* Whether a record is of the process, and not of one that had its number before. */
IC_INLINE bool ic_process_is_same(const struct ic_process *process, struct task_struct *task)
{
	return process->start_ns == ic_process_start(task);
}

/*
 * Whether it is of what the process executes now. The kernel passes over a program at a tracepoint that
 * another task on this processor is within. Since tracepoints may be preempted, as on Linux 7.3, that
 * comes about, and the table lacks the event.
 */
IC_INLINE bool ic_process_is_now(const struct ic_process *process, struct task_struct *task)
{
	return process->exec_id == (__u32)BPF_CORE_READ(task, self_exec_id) &&
	       ic_process_is_same(process, task);
}

/*
 * Whether a process was forked by what its parent executes now, and not by what that did before, nor by
 * another that has ended. Who forks with CLONE_PARENT is not told from its own parent.
 */
IC_INLINE bool ic_process_is_child(struct task_struct *task, struct task_struct *parent)
{
	return BPF_CORE_READ(task, parent_exec_id) == BPF_CORE_READ(parent, self_exec_id);
}

/*
 * Writes over a record. Another thread may read it: it is of no execve(2) until all of it is written.
 */
IC_INLINE void ic_process_put(struct ic_process *old, struct ic_process *process)
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
