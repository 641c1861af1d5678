/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* Alarms: the events of attempts. */
#ifndef IRONCLAD_LIB_SENTINEL_ALARM_H
#define IRONCLAD_LIB_SENTINEL_ALARM_H

#include "exemption.h"

/*
 * A ring buffer of its own, so that a flood of other events cannot displace alarms. Sized at load.
 */
struct {
	__uint(type, BPF_MAP_TYPE_RINGBUF);
	__uint(max_entries, 4096);
} ic_alarms SEC(".maps");

/* Linux 6.10. Earlier kernels preempt a program where they are preemptible. */
extern void bpf_preempt_disable(void) __ksym __weak;
extern void bpf_preempt_enable(void) __ksym __weak;

/*
 * Around a record: a thread that is suspended between, under SCHED_DEADLINE for hours, would hold
 * all later records back.
 */
IC_INLINE void ic_record_begin(void)
{
	if (bpf_ksym_exists(bpf_preempt_disable))
		bpf_preempt_disable();
}

IC_INLINE void ic_record_end(void)
{
	if (bpf_ksym_exists(bpf_preempt_disable))
		bpf_preempt_enable();
}

/* Keeps the event in the object's BTF, where a test compares it with Rust. */
const struct ic_sentinel_event *ic_sentinel_event_shape;

/* The attempt that an alarm reports; the actor is added from the caller. */
struct ic_attempt {
	__u64 rules;
	struct dentry *dentry;
	__u32 target;
	__u32 detail;
	__u8 hook;
	__u8 op;
	__u8 verdict;
};

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
 * Begins an alarm, which ic_alarm_end() ends. An alarm without room is lost, and the next one has
 * the count. The actor is read from the task: before Linux 6.2 programs at cgroups have no helper
 * for it.
 */
IC_INLINE struct ic_sentinel_event *ic_alarm_begin(const struct ic_attempt *attempt)
{
	struct task_struct *task = (struct task_struct *)bpf_get_current_task();
	const struct ic_process *process = ic_caller(attempt->hook == IC_HOOK_MMAP_FILE);
	__u64 user = bpf_get_current_uid_gid();
	struct ic_sentinel_event *ev;
	__u32 tgid;

	ic_record_begin();
	ev = bpf_ringbuf_reserve(&ic_alarms, sizeof(*ev), 0);
	if (!ev) {
		ic_record_end();
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

IC_INLINE void ic_alarm_end(struct ic_sentinel_event *ev)
{
	bpf_ringbuf_submit(ev, 0);
	ic_record_end();
}

/*
 * ic_alarm(), with the hook, the operation and the verdict in the bytes of `act`. A global function,
 * which the verifier checks once and not for each caller. Before Linux 5.12 its arguments, the
 * context aside, can be numbers alone.
 */
__noinline int ic_alarm_of(__u64 rules, __u64 address, __u32 target, __u32 detail, __u32 act)
{
	const struct ic_attempt attempt = {
		.rules = rules,
		.target = target,
		.detail = detail,
		.hook = act,
		.op = act >> 8,
		.verdict = act >> 16,
	};
	struct ic_sentinel_event *ev = ic_alarm_begin(&attempt);
	struct dentry *dentry = (struct dentry *)address;
	struct inode *inode;

	if (!ev)
		return 0;
	if (dentry) {
		inode = BPF_CORE_READ(dentry, d_inode);
		if (inode)
			ic_file_identify(&ev->file, inode);
		ic_path(ev, dentry);
	}
	ic_alarm_end(ev);
	return 0;
}

/* Reports an attempt. */
IC_INLINE void ic_alarm(const struct ic_attempt *attempt)
{
	ic_alarm_of(attempt->rules, ic_address(attempt->dentry), attempt->target, attempt->detail,
		    attempt->hook | attempt->op << 8 | attempt->verdict << 16);
}

/* Denies access of an untrusted process to an object of Ironclad, and reports it. */
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

/* The same for a file, independent of rules. */
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
