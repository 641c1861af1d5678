/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* Trust marks of processes. */
#ifndef IRONCLAD_LIB_SENTINEL_MARK_H
#define IRONCLAD_LIB_SENTINEL_MARK_H

#include "../process/file.h"
#include "state.h"

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, IC_SENTINEL_MARKS);
	__type(key, __u32);
	__type(value, struct ic_mark);
} ic_marks SEC(".maps");

/*
 * The mark of a process, if it has one. Numbers of processes are used again; start times are not.
 */
IC_INLINE __u32 ic_mark_at(__u32 tgid, struct task_struct *task)
{
	const struct ic_mark *mark = bpf_map_lookup_elem(&ic_marks, &tgid);

	if (!mark || mark->start_ns != BPF_CORE_READ(task, group_leader, start_boottime))
		return 0;
	return mark->flags;
}

/*
 * The mark of another process. Where its fork(2) was not seen, its parent has the mark: until the
 * child's execve(2), both have the same count of them. A global function, which the verifier checks
 * once.
 */
__noinline __u32 ic_mark_by(__u64 address)
{
	struct task_struct *task = (struct task_struct *)address, *parent;
	__u32 flags = ic_mark_at(BPF_CORE_READ(task, tgid), task);

	if (flags)
		return flags;
	parent = BPF_CORE_READ(task, real_parent);
	if (BPF_CORE_READ(task, self_exec_id) != BPF_CORE_READ(task, parent_exec_id) ||
	    !ic_process_is_child(task, parent))
		return 0;
	return ic_mark_at(BPF_CORE_READ(parent, tgid), parent) ? IC_MARK_CHILD : 0;
}

IC_INLINE __u32 ic_mark_of(struct task_struct *task)
{
	/* Read by a helper the pointer is a number, as the verifier requires of the argument. */
	return ic_mark_by((__u64)BPF_CORE_READ(task, group_leader));
}

/* Whether a task is a thread of the caller's process. */
IC_INLINE bool ic_is_same_process(struct task_struct *task)
{
	return (__u32)BPF_CORE_READ(task, tgid) == bpf_get_current_pid_tgid() >> 32;
}

/* The walk of a path that a task is at, if it is at one. */
struct task_struct___walk {
	void *nameidata;
} __attribute__((preserve_access_index));

/* Whether the caller walks a path. */
IC_INLINE bool ic_is_at_path(void)
{
	struct task_struct___walk *task = (void *)bpf_get_current_task();

	return BPF_CORE_READ(task, nameidata);
}

IC_INLINE __u32 ic_mark(void)
{
	return ic_mark_at(bpf_get_current_pid_tgid() >> 32,
			  (struct task_struct *)bpf_get_current_task());
}

IC_INLINE bool ic_is_trusted(void)
{
	return ic_mark() & IC_MARK_TRUSTED;
}

/* Marks the caller. */
IC_INLINE bool ic_mark_set(__u32 flags)
{
	struct task_struct *task = (struct task_struct *)bpf_get_current_task();
	__u32 tgid = bpf_get_current_pid_tgid() >> 32;
	struct ic_mark mark = {};

	mark.start_ns = BPF_CORE_READ(task, group_leader, start_boottime);
	mark.flags = flags;
	if (!bpf_map_update_elem(&ic_marks, &tgid, &mark, BPF_ANY))
		return true;
	ic_count_loss(IC_LOSS_MAP);
	return false;
}

IC_INLINE struct mount *ic_mount_of(struct vfsmount *mnt)
{
	return (struct mount *)((__u64)mnt - bpf_core_field_offset(struct mount, mnt));
}

IC_INLINE __u32 ic_root_mount(struct task_struct *task)
{
	struct vfsmount *mnt = BPF_CORE_READ(task, fs, root.mnt);
	struct mount *mount = ic_mount_of(mnt);

	return BPF_CORE_READ(mount, mnt_id);
}

/* Records the environment of the first agent. */
IC_INLINE void ic_environment_record(struct task_struct *task)
{
	if (ic_sentinel.mount_namespace)
		return;
	ic_sentinel.root_mount = ic_root_mount(task);
	ic_sentinel.filters = BPF_CORE_READ(task, seccomp.filter_count.counter);
	ic_sentinel.mount_namespace = BPF_CORE_READ(task, nsproxy, mnt_ns, ns.inum);
}

/*
 * Whether a task has the environment of the first agent: the same mounts and root, all privileges
 * of root, a file system context that no other task shares, and the same number of seccomp filters,
 * so that no other process answers its system calls.
 */
IC_INLINE bool ic_has_agent_environment(struct task_struct *task)
{
	struct dentry *root = BPF_CORE_READ(task, fs, root.dentry);

	return BPF_CORE_READ(task, nsproxy, mnt_ns, ns.inum) == ic_sentinel.mount_namespace &&
	       !BPF_CORE_READ(task, cred, user_ns, level) && BPF_CORE_READ(task, fs, users) == 1 &&
	       root == BPF_CORE_READ(root, d_sb, s_root) &&
	       ic_root_mount(task) == ic_sentinel.root_mount &&
	       (__u32)BPF_CORE_READ(task, seccomp.filter_count.counter) == ic_sentinel.filters;
}

/* Removes the caller's mark. */
IC_INLINE void ic_mark_remove(void)
{
	__u32 tgid = bpf_get_current_pid_tgid() >> 32;

	bpf_map_delete_elem(&ic_marks, &tgid);
}

#endif
