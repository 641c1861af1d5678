/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* What a process executes, as the kernel has it: of those whose execve(2) or fork(2) was not seen. */
#ifndef IRONCLAD_LIB_PROCESS_REFRESH_H
#define IRONCLAD_LIB_PROCESS_REFRESH_H

#include "file.h"

/* Bits of the ancestries that begin with an executable. */
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

/* What a file is that is executed; nothing where that cannot be told, which no rule names. */
IC_INLINE void ic_process_is(struct ic_process *process, struct file *file)
{
	struct inode *inode = ic_file_inode(file);

	__builtin_memset(&process->exe, 0, sizeof(process->exe));
	if (!inode)
		return;
	ic_file_identify(&process->exe, inode);
	process->exe_changed_ns = ic_file_changed(inode);
	/* Names are the overlay's: what is below keeps its own. */
	if (!BPF_CORE_READ(file, f_inode, i_nlink))
		process->flags |= IC_PROCESS_UNLINKED;
}

/*
 * Bits of the ancestries that begin with what a process executes. A function that a number leads to, which
 * the verifier walks once and not for each ancestor.
 */
__noinline __u64 ic_ancestry_at(__u64 address)
{
	struct ic_file_id exe;

	return ic_exe_of(&exe, (void *)address) ? ic_ancestry_of(&exe) : 0;
}

/* Those of its ancestors. What has ended, or has executed something since, is not known. */
IC_INLINE __u64 ic_ancestry_read(struct task_struct *task)
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

/* All of a process whose fork(2) was not seen, but for what it executes. */
IC_INLINE void ic_process_descends(struct ic_process *process, struct task_struct *task)
{
	struct task_struct *ancestor = BPF_CORE_READ(task, real_parent);

	process->ppid = BPF_CORE_READ(ancestor, tgid);
	process->parent_exec_ns = 0;
	process->flags &= ~IC_PROCESS_FORKED;
	if (ic_process_is_child(task, ancestor))
		ic_exe_of(&process->parent, ancestor);
	else
		__builtin_memset(&process->parent, 0, sizeof(process->parent));
	process->ancestry = ic_ancestry_read(task);
}

/* What it executes, and what follows from that and its parent: nothing that is known. */
IC_INLINE void ic_process_forget(struct ic_process *process)
{
	__builtin_memset(&process->exe, 0, sizeof(process->exe));
	process->exe_changed_ns = 0;
	process->exe_row = 0;
	process->parent_row = 0;
	process->user_row = 0;
	process->user_epoch = 0;
}

/* Of one whose fork(2) was seen, what that told of it, whatever it has executed since. */
IC_INLINE void ic_process_goes_on(struct ic_process *process, const struct ic_process *before)
{
	process->parent = before->parent;
	process->parent_exec_ns = before->parent_exec_ns;
	process->ppid = before->ppid;
	process->flags = before->flags & IC_PROCESS_FORKED;
	process->ancestry = before->ancestry | ic_ancestry_of(&before->exe);
}

/* A record of no process. */
const struct ic_process ic_unidentified = {};

/*
 * Sees to it that the table tells what the caller executes; whether it does. Of threads of the kernel's
 * and of what ends it does not. What cannot be told is entered as an unidentified process.
 *
 * Records are changed in their places: another thread may do the same, or read them. Until all of one is
 * written it is of no execve(2), and for a moment an unidentified process's to threads that learn at once.
 */
__noinline int ic_process_learn(void)
{
	struct task_struct *task = (void *)bpf_get_current_task();
	__u32 tgid = BPF_CORE_READ(task, tgid), exec_id;
	struct ic_process *process;
	struct file *file;

	process = bpf_map_lookup_elem(&ic_processes, &tgid);
	if (process && ic_process_is_now(process, task))
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
		ic_process_descends(process, task);
	process->flags = (process->flags & IC_PROCESS_FORKED) | IC_PROCESS_SEEDED;
	process->exec_ns = bpf_ktime_get_boot_ns();
	process->start_ns = ic_process_start(task);
	ic_process_forget(process);
	file = ic_exe_file(task);
	if (file)
		ic_process_is(process, file);
	barrier();
	IC_WRITE_ONCE(process->exec_id, exec_id);
	return 1;
}

#endif
