/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * Records of processes whose execve(2) or fork(2) was not seen, read from the kernel's own
 * structures.
 */
#ifndef IRONCLAD_LIB_PROCESS_REFRESH_H
#define IRONCLAD_LIB_PROCESS_REFRESH_H

#include "file.h"

/* The ancestries that begin with an executable, as bits. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 1024);
	__type(key, struct ic_file_id);
	__type(value, __u64);
} ic_ancestries SEC(".maps");

IC_INLINE __u64 ic_ancestry_of(const struct ic_file_id *exe)
{
	__u64 *bits = bpf_map_lookup_elem(&ic_ancestries, exe);

	return bits ? *bits : 0;
}

/*
 * Sets the executable of a record. All zero where the file cannot be identified: no rule names it.
 */
IC_INLINE void ic_process_set_exe(struct ic_process *process, struct file *file)
{
	struct inode *inode = ic_file_inode(file);

	__builtin_memset(&process->exe, 0, sizeof(process->exe));
	if (!inode)
		return;
	ic_file_identify(&process->exe, inode);
	process->exe_changed_ns = ic_file_ctime(inode);
	/* The number of names is the overlay's; the file below keeps its own. */
	if (!BPF_CORE_READ(file, f_inode, i_nlink))
		process->flags |= IC_PROCESS_UNLINKED;
}

/*
 * The ancestries that begin with the executable of a process. A global function with a number as
 * its argument, which the verifier checks once and not for each ancestor.
 */
__noinline __u64 ic_ancestry_at(__u64 address)
{
	struct ic_file_id exe;

	return ic_exe_identify(&exe, (void *)address) ? ic_ancestry_of(&exe) : 0;
}

/*
 * The ancestries that begin with ancestors. Ancestors that have ended, or have called execve(2)
 * since, are not known.
 */
IC_INLINE __u64 ic_ancestry_of_ancestors(struct task_struct *task)
{
	struct task_struct *parent;
	__u64 ancestry = 0;
	__u32 i;

	for (i = 0; i < 32; i++) {
		if (BPF_CORE_READ(task, tgid) <= 1)
			break;
		parent = BPF_CORE_READ(task, real_parent);
		if (ic_process_is_child(task, parent))
			ancestry |= ic_ancestry_at((__u64)parent);
		task = parent;
	}
	return ancestry;
}

/* Initialises the ancestry of a process whose fork(2) was not seen. */
IC_INLINE void ic_process_init_ancestry(struct ic_process *process, struct task_struct *task)
{
	struct task_struct *ancestor = BPF_CORE_READ(task, real_parent);

	process->ppid = BPF_CORE_READ(ancestor, tgid);
	process->parent_exec_ns = 0;
	process->flags &= ~IC_PROCESS_FORKED;
	if (ic_process_is_child(task, ancestor))
		ic_exe_identify(&process->parent, ancestor);
	else
		__builtin_memset(&process->parent, 0, sizeof(process->parent));
	process->ancestry = ic_ancestry_of_ancestors(task);
}

/* Clears the executable, and the rows that follow from it and the parent. */
IC_INLINE void ic_process_reset(struct ic_process *process)
{
	__builtin_memset(&process->exe, 0, sizeof(process->exe));
	process->exe_changed_ns = 0;
	process->exe_row = 0;
	process->parent_row = 0;
	process->user_row = 0;
	process->user_epoch = 0;
}

/* Carries over what a seen fork(2) has recorded, across any later execve(2). */
IC_INLINE void ic_process_carry_over(struct ic_process *process, const struct ic_process *before)
{
	process->parent = before->parent;
	process->parent_exec_ns = before->parent_exec_ns;
	process->ppid = before->ppid;
	process->flags = before->flags & IC_PROCESS_FORKED;
	process->ancestry = before->ancestry | ic_ancestry_of(&before->exe);
}

/* The record of an unidentified process. */
const struct ic_process ic_unidentified = {};

/*
 * Ensures that the table has the caller's executable, and returns whether it has. It does not for
 * kernel threads and exiting tasks. A process whose executable is not known is recorded as
 * unidentified.
 *
 * Records are changed in place: another thread may do the same, or read them. Until a record is
 * complete it is of no execve(2), and threads that refresh at once may see an unidentified process
 * for a moment.
 */
__noinline int ic_process_refresh(void)
{
	struct task_struct *task = (void *)bpf_get_current_task();
	__u32 tgid = BPF_CORE_READ(task, tgid), exec_id;
	struct ic_process *process;
	struct file *file;

	process = bpf_map_lookup_elem(&ic_processes, &tgid);
	if (process && ic_process_is_current(process, task))
		return 1;
	if (BPF_CORE_READ(task, flags) & (IC_PF_KTHREAD | IC_PF_EXITING))
		return 0;
	if (!process) {
		bpf_map_update_elem(&ic_processes, &tgid, &ic_unidentified, BPF_NOEXIST);
		process = bpf_map_lookup_elem(&ic_processes, &tgid);
		if (!process) {
			ic_count_loss(IC_LOSS_PROCESS);
			return 0;
		}
	}
	exec_id = BPF_CORE_READ(task, self_exec_id);
	IC_WRITE_ONCE(process->exec_id, ~exec_id);
	barrier();
	if (ic_process_is_same(process, task))
		process->ancestry |= ic_ancestry_of(&process->exe);
	else
		ic_process_init_ancestry(process, task);
	process->flags = (process->flags & IC_PROCESS_FORKED) | IC_PROCESS_SEEDED;
	process->exec_ns = bpf_ktime_get_boot_ns();
	process->start_ns = ic_process_start(task);
	ic_process_reset(process);
	file = ic_exe_file(task);
	if (file)
		ic_process_set_exe(process, file);
	barrier();
	IC_WRITE_ONCE(process->exec_id, exec_id);
	return 1;
}

#endif
