/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * What all of Sentinel's programs share: whether others are refused, who is trusted, and alarms.
 * They return 0 or a negative error number and nothing else: one more than zero would let a caller
 * of the hook go on before Linux 6.12.
 */
#ifndef IRONCLAD_LIB_SENTINEL_H
#define IRONCLAD_LIB_SENTINEL_H

#include "file.h"
#include "sentinel_state.h"

#include <bpf/bpf_tracing.h>

enum { IC_EPERM = 1 };

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, IC_SENTINEL_MARKS);
	__type(key, __u32);
	__type(value, struct ic_mark);
} ic_marks SEC(".maps");

/* What executables may do in spite of rules. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, IC_SENTINEL_EXEMPTIONS);
	__type(key, struct ic_file_id);
	__type(value, struct ic_exemption);
} ic_exemptions SEC(".maps");

/* Of its own, so that no flood of other events takes the room of alarms. Sized at load. */
struct {
	__uint(type, BPF_MAP_TYPE_RINGBUF);
	__uint(max_entries, 4096);
} ic_alarms SEC(".maps");

/* Keeps the event in the object's BTF, where a test compares it with Rust. */
const struct ic_sentinel_event *ic_sentinel_ev_shape;

/* What is reported of an attempt, beside who made it. */
struct ic_attempt {
	__u64 rules;
	struct dentry *dentry;
	__u32 target;
	__u32 detail;
	__u8 hook;
	__u8 op;
	__u8 verdict;
};

/*
 * The agent sees whether a hook is in force by a thread of its own that the hook refuses everything,
 * with a number that the kernel itself does not give there.
 */
IC_INLINE bool ic_is_canary(__u8 hook)
{
	__u32 canary = IC_READ_ONCE(ic_sentinel.canary);

	return canary && (__u32)bpf_get_current_pid_tgid() == canary &&
	       IC_READ_ONCE(ic_sentinel.canary_hook) == hook;
}

/* The mark of a process, if it has one: a number is used again, the moment when it began is not. */
IC_INLINE __u32 ic_mark_at(__u32 tgid, struct task_struct *task)
{
	const struct ic_mark *mark = bpf_map_lookup_elem(&ic_marks, &tgid);

	if (!mark || mark->start_ns != BPF_CORE_READ(task, group_leader, start_boottime))
		return 0;
	return mark->flags;
}

/*
 * The mark of another process. Where its fork(2) was passed over, it is known by its parent: until it
 * executes something, it has executed as often as that. The verifier walks it once.
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
	/* Read by a helper it is a number, as the verifier wants it of arguments. */
	return ic_mark_by((__u64)BPF_CORE_READ(task, group_leader));
}

/* Whether a task is a thread of the caller's process. */
IC_INLINE bool ic_is_own(struct task_struct *task)
{
	return (__u32)BPF_CORE_READ(task, tgid) == bpf_get_current_pid_tgid() >> 32;
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

/* Gives the caller a mark. */
IC_INLINE bool ic_mark_give(__u32 flags)
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

/* Keeps where the first agent runs. */
IC_INLINE void ic_home_note(struct task_struct *task)
{
	if (ic_sentinel.mount_namespace)
		return;
	ic_sentinel.root_mount = ic_root_mount(task);
	ic_sentinel.filters = BPF_CORE_READ(task, seccomp.filter_count.counter);
	ic_sentinel.mount_namespace = BPF_CORE_READ(task, nsproxy, mnt_ns, ns.inum);
}

/*
 * Whether a task sees the files that the first agent saw, with all the rights of root, and shares with
 * nobody what it sees; and nobody answers its system calls in the kernel's stead.
 */
IC_INLINE bool ic_is_at_home(struct task_struct *task)
{
	struct dentry *root = BPF_CORE_READ(task, fs, root.dentry);

	return BPF_CORE_READ(task, nsproxy, mnt_ns, ns.inum) == ic_sentinel.mount_namespace &&
	       !BPF_CORE_READ(task, cred, user_ns, level) && BPF_CORE_READ(task, fs, users) == 1 &&
	       root == BPF_CORE_READ(root, d_sb, s_root) &&
	       ic_root_mount(task) == ic_sentinel.root_mount &&
	       (__u32)BPF_CORE_READ(task, seccomp.filter_count.counter) == ic_sentinel.filters;
}

/* Takes it away. */
IC_INLINE void ic_mark_take(void)
{
	__u32 tgid = bpf_get_current_pid_tgid() >> 32;

	bpf_map_delete_elem(&ic_marks, &tgid);
}

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

IC_INLINE __u32 ic_half(void)
{
	return IC_READ_ONCE(ic_sentinel.word) & 1;
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

/* The names from a file up to the root of its file system. */
IC_INLINE void ic_path(struct ic_sentinel_event *ev, struct dentry *dentry)
{
	struct dentry *parent;
	const unsigned char *name;
	__u32 at = 0, i;
	long len;

	for (i = 0; i < 24; i++) {
		parent = BPF_CORE_READ(dentry, d_parent);
		if (parent == dentry) {
			ev->path_len = at;
			return;
		}
		if (at > IC_SENTINEL_PATH - IC_SENTINEL_NAME)
			break;
		name = BPF_CORE_READ(dentry, d_name.name);
		len = bpf_probe_read_kernel_str(ev->path + at, IC_SENTINEL_NAME, name);
		if (len <= 0)
			break;
		at = (at + len) & (2 * IC_SENTINEL_PATH - 1);
		dentry = parent;
	}
	ev->path_len = at;
	ev->path_cut = 1;
}

/*
 * Begins to tell of an attempt. What finds no room is lost, and the next one says how many were. Who it is
 * is read from the task: programs at cgroups have no other way before Linux 6.2.
 */
IC_INLINE struct ic_sentinel_event *ic_alarm_begin(const struct ic_attempt *attempt)
{
	struct ic_sentinel_event *ev = bpf_ringbuf_reserve(&ic_alarms, sizeof(*ev), 0);
	struct task_struct *task = (struct task_struct *)bpf_get_current_task();
	__u64 user = bpf_get_current_uid_gid();
	const struct ic_process *process;
	__u32 tgid;

	if (!ev) {
		__sync_fetch_and_add(&ic_sentinel.lost, 1);
		return NULL;
	}
	__builtin_memset(ev, 0, sizeof(*ev));
	ev->hdr.kind = IC_EV_SENTINEL;
	ev->hdr.len = sizeof(*ev);
	ev->hdr.cpu = bpf_get_smp_processor_id();
	ev->hdr.time_ns = bpf_ktime_get_boot_ns();
	ev->lost = IC_READ_ONCE(ic_sentinel.lost);
	ev->cgroup = bpf_get_current_cgroup_id();
	ev->rules = attempt->rules;
	tgid = BPF_CORE_READ(task, tgid);
	ev->tid = BPF_CORE_READ(task, pid);
	BPF_CORE_READ_STR_INTO(&ev->comm, task, comm);
	process = ic_caller(attempt->hook == IC_HOOK_MMAP_FILE);
	if (process) {
		ev->exec_ns = process->exec_ns;
		ev->exe = process->exe;
		ev->parent = process->parent;
		ev->ppid = process->ppid;
	} else {
		ev->ppid = BPF_CORE_READ(task, real_parent, tgid);
	}
	ev->pid = tgid;
	ev->uid = user;
	ev->gid = user >> 32;
	ev->target = attempt->target;
	ev->detail = attempt->detail;
	ev->hook = attempt->hook;
	ev->op = attempt->op;
	ev->verdict = attempt->verdict;
	return ev;
}

/* Tells of an attempt. */
static __noinline void ic_alarm(const struct ic_attempt *attempt)
{
	struct ic_sentinel_event *ev = ic_alarm_begin(attempt);
	struct dentry *dentry = attempt->dentry;
	struct inode *inode;

	if (!ev)
		return;
	if (dentry) {
		inode = BPF_CORE_READ(dentry, d_inode);
		if (inode)
			ic_file_identify(&ev->file, inode);
		ic_path(ev, dentry);
	}
	bpf_ringbuf_submit(ev, 0);
}

/* Refuses what somebody who is not trusted tries with what belongs to Ironclad. */
IC_INLINE int ic_refuse(__u8 hook, __u32 target, __u32 detail)
{
	const struct ic_attempt attempt = {
		.hook = hook,
		.target = target,
		.detail = detail,
		.verdict = IC_SENTINEL_DENIED,
	};

	ic_alarm(&attempt);
	return -IC_EPERM;
}

/* The same of a file, whatever rules say. */
IC_INLINE int ic_refuse_file(__u8 hook, struct dentry *dentry, __u32 op, __u32 detail)
{
	const struct ic_attempt attempt = {
		.hook = hook,
		.op = op,
		.verdict = IC_SENTINEL_DENIED,
		.dentry = dentry,
		.detail = detail,
	};

	ic_alarm(&attempt);
	return -IC_EPERM;
}

#endif
