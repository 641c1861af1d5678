/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * Maintains the process table: written at execve(2), inherited at fork(2), removed at the end of
 * the last thread. Processes that ran before are seeded from their memory maps, once, after these
 * programs are attached.
 */
#include "../lib/process/exe_names.h"
#include "../lib/process/refresh.h"

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct ic_process_ctl);
} ic_process_ctl SEC(".maps");

/* Digest of a list of executables to 1 + its ancestry, for the agent alone. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 1 + 8 * IC_SOCK_ANCESTRIES);
	__type(key, __u64);
	__type(value, __u32);
} ic_ancestry_ids SEC(".maps");

/* The number of this copy of the programs. */
const volatile __u64 ic_cfg_owner = 0;

/* The process whose open files the iterator reports. */
const volatile __u32 ic_cfg_open_tgid = 0;

/* Keep the struct in the object's BTF, where a test compares it with Rust. */
const struct ic_open_file *ic_open_file_shape;

IC_INLINE const struct ic_process_ctl *ic_process_ctl_get(void)
{
	__u32 key = 0;

	return bpf_map_lookup_elem(&ic_process_ctl, &key);
}

/*
 * Whether this copy of the programs writes the table. An agent that adopts attaches a copy of its
 * own before it detaches the former one, and transfers the table by one word.
 */
IC_INLINE bool ic_process_is_owner(void)
{
	const struct ic_process_ctl *ctl = ic_process_ctl_get();

	return ctl && IC_READ_ONCE(ctl->owner) == ic_cfg_owner;
}

/*
 * Writes a record. Where the map has no room for a new element, the existing one is overwritten:
 * the former record says nothing of the process now. Of several copies, one counts the loss.
 */
IC_INLINE void ic_process_write(__u32 tgid, struct ic_process *process, bool counts)
{
	struct ic_process *old;

	if (!bpf_map_update_elem(&ic_processes, &tgid, process, BPF_ANY))
		return;
	old = bpf_map_lookup_elem(&ic_processes, &tgid);
	if (old)
		ic_process_overwrite(old, process);
	else if (counts)
		ic_count_loss(IC_LOSS_PROCESS);
}

IC_INLINE int ic_record_exec(__u64 *ctx, bool counts)
{
	struct task_struct *task = (void *)ctx[0];
	struct linux_binprm *bprm = (void *)ctx[2];
	__u32 tgid = task->tgid;
	struct ic_process *before = bpf_map_lookup_elem(&ic_processes, &tgid);
	struct ic_process process = {};

	if (!ic_process_is_owner() || (before && ic_process_is_current(before, task)))
		return 0;
	ic_process_stamp(&process, task);
	if (before && ic_process_is_same(before, task))
		ic_process_carry_over(&process, before);
	else
		ic_process_init_ancestry(&process, task);
	ic_process_set_exe(&process, BPF_CORE_READ(bprm, file));
	process.exec_ns = bpf_ktime_get_boot_ns();
	ic_process_write(tgid, &process, counts);
	ic_exe_name(&process.exe, bprm);
	return 0;
}

IC_INLINE int ic_record_fork(__u64 *ctx, bool counts)
{
	struct task_struct *parent = (void *)ctx[0], *child = (void *)ctx[1];
	__u32 from = parent->tgid, tgid = child->tgid;
	struct ic_process process = {}, *known;

	if (from == tgid || !ic_process_is_owner())
		return 0;
	known = bpf_map_lookup_elem(&ic_processes, &tgid);
	if (known && ic_process_is_current(known, child))
		return 0;
	/* The parent is the caller. */
	known = ic_process_refresh() ? bpf_map_lookup_elem(&ic_processes, &from) : NULL;
	if (!known) {
		/* A kernel thread: a child that becomes a process will call execve(2). */
		bpf_map_delete_elem(&ic_processes, &tgid);
		return 0;
	}
	ic_process_stamp(&process, child);
	process.exe = known->exe;
	process.exec_ns = known->exec_ns;
	process.exe_changed_ns = known->exe_changed_ns;
	process.ancestry = known->ancestry;
	process.flags = known->flags | IC_PROCESS_FORKED;
	process.parent = process.exe;
	process.parent_exec_ns = process.exec_ns;
	process.ppid = from;
	process.ancestry |= ic_ancestry_of(&process.exe);
	ic_process_write(tgid, &process, counts);
	return 0;
}

/*
 * Each program is attached several times: the kernel skips a program while another task on the same
 * processor is within it, but not its copy, which then records the event. To lose an event, as many
 * tasks have to be preempted, each within another copy, and all copies but the first are short.
 */
#define IC_COPY(tracepoint, name, does, counts) \
	SEC("tp_btf/" #tracepoint)              \
	int name(__u64 *ctx)                    \
	{                                       \
		return does(ctx, counts);       \
	}

IC_COPY(sched_process_exec, ic_exec, ic_record_exec, true)
IC_COPY(sched_process_exec, ic_exec_2, ic_record_exec, false)
IC_COPY(sched_process_exec, ic_exec_3, ic_record_exec, false)
IC_COPY(sched_process_exec, ic_exec_4, ic_record_exec, false)
IC_COPY(sched_process_fork, ic_fork, ic_record_fork, true)
IC_COPY(sched_process_fork, ic_fork_2, ic_record_fork, false)
IC_COPY(sched_process_fork, ic_fork_3, ic_record_fork, false)
IC_COPY(sched_process_fork, ic_fork_4, ic_record_fork, false)

/*
 * Once, for the end: a record that is not removed does not match a later process with its number.
 */
SEC("tp_btf/sched_process_exit")
int ic_exit(__u64 *ctx)
{
	struct task_struct *task = (void *)ctx[0];
	__u32 tgid = task->tgid;

	/*
	 * The kernel counts a thread out before it calls this: with the last thread the process
	 * ends.
	 */
	if (task->signal->live.counter == 0 && ic_process_is_owner())
		bpf_map_delete_elem(&ic_processes, &tgid);
	return 0;
}

/*
 * Seeds the table with processes that the tracepoints have not seen: these are attached before, and
 * their records are kept. Returns the numbers of all processes.
 */
SEC("iter/task")
int ic_seed(struct bpf_iter__task *ctx)
{
	struct ic_process process = {}, *known;
	const struct ic_process_ctl *ctl = ic_process_ctl_get();
	struct task_struct *task = ctx->task;
	struct file *file;
	__u32 tgid;

	if (!task)
		return 0;
	tgid = task->tgid;
	bpf_seq_write(ctx->meta->seq, &tgid, sizeof(tgid));
	known = bpf_map_lookup_elem(&ic_processes, &tgid);
	/*
	 * Once for each known process. Of an unknown one at any of its threads: the first may have
	 * ended before the rest, and has no memory map then.
	 */
	if (known) {
		if (task->pid != task->tgid)
			return 0;
		process.ancestry = ic_ancestry_of_ancestors(task);
		/*
		 * A second lookup: the record of a process that has ended may be another's by now.
		 * The following lines have the same race, of a few instructions.
		 */
		known = bpf_map_lookup_elem(&ic_processes, &tgid);
		if (!known)
			return 0;
		if (ctl)
			known->ancestry &= ~ctl->forget;
		/*
		 * A policy may name ancestors that no earlier policy did. An accepted race: lost
		 * where the process calls execve(2) now.
		 */
		known->ancestry |= process.ancestry;
		return 0;
	}
	ic_process_stamp(&process, task);
	file = ic_exe_file(task);
	if (!file)
		return 0;
	process.flags = IC_PROCESS_SEEDED;
	ic_process_set_exe(&process, file);
	ic_process_init_ancestry(&process, task);
	if (bpf_map_update_elem(&ic_processes, &tgid, &process, BPF_NOEXIST))
		return 0;
	/*
	 * The process may have ended since its memory map was read: then no event removes the
	 * record. An accepted race: another process with its number within these few instructions
	 * loses its record.
	 */
	if (task->signal->live.counter == 0)
		bpf_map_delete_elem(&ic_processes, &tgid);
	return 0;
}

/* Identities in the kernel's numbers: file systems such as btrfs show stat(2) different ones. */
SEC("iter/task_file")
int ic_open_files(struct bpf_iter__task_file *ctx)
{
	struct task_struct *task = ctx->task;
	struct file *file = ctx->file;
	struct ic_open_file found = {};
	struct inode *inode, *own;

	if (!task || !file || (__u32)task->tgid != ic_cfg_open_tgid)
		return 0;
	own = BPF_CORE_READ(file, f_inode);
	inode = ic_file_inode(file);
	/*
	 * Directories and the like, which are never executed, have their identity on the overlay.
	 */
	if (!inode && (BPF_CORE_READ(own, i_mode) & IC_S_IFMT) != IC_S_IFREG)
		inode = own;
	if (!inode)
		return 0;
	ic_file_identify(&found.file, inode);
	found.fd = ctx->fd;
	found.changed_ns = ic_file_ctime(inode);
	found.nlink = BPF_CORE_READ(own, i_nlink);
	found.writers = BPF_CORE_READ(inode, i_writecount.counter);
	bpf_seq_write(ctx->meta->seq, &found, sizeof(found));
	return 0;
}

/* Keep the struct in the object's BTF, where a test compares it with Rust. */
const struct ic_open_socket *ic_open_socket_shape;

/*
 * The cgroup of a socket before 5.15, and before 5.10.226 of the stable releases: in one word with
 * the marks of net_cls and net_prio.
 */
struct sock_cgroup_data___v5_10 {
	__u64 val;
} __attribute__((preserve_access_index));

struct sock___v5_10 {
	struct sock_cgroup_data___v5_10 sk_cgrp_data;
} __attribute__((preserve_access_index));

struct socket___v5_10 {
	struct sock___v5_10 *sk;
} __attribute__((preserve_access_index));

/*
 * Once a mark was set on any socket, the kernel gives new ones no cgroup until the next boot: two
 * bits show it, which no pointer has.
 */
SEC("iter/task_file")
int ic_open_sockets(struct bpf_iter__task_file *ctx)
{
	struct task_struct *task = ctx->task;
	struct file *file = ctx->file;
	struct ic_open_socket found = {};
	struct socket___v5_10 *socket;
	__u64 group;

	if (!task || !file || (__u32)task->tgid != ic_cfg_open_tgid)
		return 0;
	if ((BPF_CORE_READ(file, f_inode, i_mode) & IC_S_IFMT) != IC_S_IFSOCK)
		return 0;
	found.fd = ctx->fd;
	if (bpf_core_field_exists(((struct sock_cgroup_data___v5_10 *)0)->val)) {
		socket = BPF_CORE_READ(file, private_data);
		group = BPF_CORE_READ(socket, sk, sk_cgrp_data.val);
		found.may_lose_group = 1;
		found.has_lost_group = !group || group & 3;
	}
	bpf_seq_write(ctx->meta->seq, &found, sizeof(found));
	return 0;
}

char _license[] SEC("license") = "Dual BSD/GPL";
