/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * Files of procfs of trusted processes. For most of them the kernel calls ptrace_access_check, but
 * not for writes (oom_score_adj); and Linux 7.3, unlike 6.12, allows root to read memory maps and
 * environments without the hook.
 */
#ifndef IRONCLAD_LIB_SENTINEL_PROCFS_H
#define IRONCLAD_LIB_SENTINEL_PROCFS_H

#include "rules.h"
#include "sysctls.h"

enum {
	IC_PROC_SUPER_MAGIC = 0x9fa0, /* include/uapi/linux/magic.h */
	IC_SYSFS_MAGIC = 0x62656572,
	IC_SECURITYFS_MAGIC = 0x73636673,
	IC_BINFMTFS_MAGIC = 0x42494e4d,
	IC_PIDTYPE_SID = 3, /* include/linux/pid_types.h */
	IC_SESSION = 64, /* processes of a session that are looked at; with more, it is protected */
};

IC_INLINE bool ic_is_proc_file_harmless(struct dentry *dentry)
{
	/* Files that monitors, service managers and ps(1) read. */
	static const union ic_short_name harmless[] = {
		{ "stat" },      { "statm" },         { "status" }, { "cmdline" },
		{ "comm" },      { "cgroup" },        { "limits" }, { "oom_score" },
		{ "io" },        { "oom_score_adj" }, { "mounts" }, { "mountinfo" },
		{ "wchan" },     { "schedstat" },     { "sched" },  { "loginuid" },
		{ "sessionid" },
	};
	union ic_short_name name;
	__u32 i;

	if (!ic_short_name(&name, dentry))
		return false;
	for (i = 0; i < sizeof(harmless) / sizeof(*harmless); i++) {
		if (ic_is_same_name(&name, &harmless[i]))
			return true;
	}
	return false;
}

/* The process of a file of procfs; NULL for files of the host. */
IC_INLINE struct task_struct *ic_proc_task(struct inode *inode)
{
	__u64 at = (__u64)inode - bpf_core_field_offset(struct proc_inode, vfs_inode), link;
	struct pid *pid = BPF_CORE_READ((struct proc_inode *)at, pid);

	if (!pid)
		return NULL;
	link = (__u64)BPF_CORE_READ(pid, tasks[0].first);
	return link ? (void *)(link - bpf_core_field_offset(struct task_struct, pid_links)) : NULL;
}

/* Whether a sysctl is protected from writes. The program ic_sysctl cannot see the process. */
IC_INLINE bool ic_is_sysctl_protected(struct dentry *dentry)
{
	const unsigned char *above = BPF_CORE_READ(dentry, d_parent, d_name.name);
	union ic_sysctl_name name = {};
	long len;
	__u32 i;

	len = bpf_probe_read_kernel_str(name.text, IC_SYSCTL_NAME / 2, above);
	if (len <= 1 || len > IC_SYSCTL_NAME / 2)
		return false;
	name.text[(len - 1) & (IC_SYSCTL_NAME / 2 - 1)] = '/';
	len &= IC_SYSCTL_NAME / 2 - 1;
	if (bpf_probe_read_kernel_str(name.text + len, IC_SYSCTL_NAME / 2,
				      BPF_CORE_READ(dentry, d_name.name)) <= 0)
		return false;
	for (i = 0; i < IC_SYSCTLS; i++) {
		if (ic_is_sysctl(&name, &ic_sysctls[i].tail))
			return true;
	}
	return false;
}

/*
 * Whether a file of sysfs poisons memory, which kills the processes that use it: hard_offline_page
 * and soft_offline_page, as far as names are compared.
 */
IC_INLINE bool ic_is_hwpoison(struct dentry *dentry)
{
	return ic_is_named(dentry, "hard_offline_pa") || ic_is_named(dentry, "soft_offline_pa");
}

/* Whether a file of sysfs has ext4 find an error, after which the file system is read-only. */
IC_INLINE bool ic_is_error_trigger(struct dentry *dentry)
{
	return ic_is_named(dentry, "trigger_fs_erro");
}

/* Whether a file of sysfs controls a livepatch, which may be what closed a hole in the kernel. */
static __noinline bool ic_is_livepatch_file(struct dentry *dentry)
{
	return ic_is_named(BPF_CORE_READ(dentry, d_parent, d_parent), "livepatch");
}

/*
 * Whether a file of securityfs switches on what the kernel allows no process to switch off, and what
 * keeps programs or a successor from working: lockdown(7), policies of IMA, and EVM.
 */
IC_INLINE bool ic_is_lockout(struct dentry *dentry)
{
	return ic_is_named(dentry, "lockdown") || ic_is_named(dentry, "evm") ||
	       (ic_is_named(dentry, "policy") &&
		ic_is_named(BPF_CORE_READ(dentry, d_parent), "ima"));
}

/*
 * Whether a process with a mark is in the session of a process, by its signal_struct: the processes
 * of a session share their nice value (autogroup of sched(7)).
 */
__noinline int ic_is_session_protected(__u64 signal_at)
{
	struct signal_struct *signal = (struct signal_struct *)signal_at;
	struct pid *session = BPF_CORE_READ(signal, pids[IC_PIDTYPE_SID]);
	struct hlist_node *link = BPF_CORE_READ(session, tasks[IC_PIDTYPE_SID].first);
	__u64 offset = bpf_core_field_offset(struct task_struct, pid_links) +
		       IC_PIDTYPE_SID * sizeof(*link);
	__u32 i;

	for (i = 0; i < IC_SESSION && link; i++) {
		if (ic_mark_by((__u64)link - offset))
			return true;
		link = BPF_CORE_READ(link, next);
	}
	return link != NULL;
}

/*
 * Whether a file of procfs, by its inode and its dentry, is protected from the caller. A global
 * function, as ic_alarm_of() is.
 */
__noinline int ic_is_proc_file_protected(__u64 inode_at, __u64 dentry_at, __u32 writes)
{
	struct inode *inode = (struct inode *)inode_at;
	struct dentry *dentry = (struct dentry *)dentry_at;
	__u64 at = inode_at - bpf_core_field_offset(struct proc_inode, vfs_inode);
	struct task_struct *task;

	if ((BPF_CORE_READ(inode, i_mode) & IC_S_IFMT) != IC_S_IFREG)
		return false;
	if (writes && BPF_CORE_READ((struct proc_inode *)at, sysctl))
		return ic_is_sysctl_protected(dentry) && !ic_is_trusted();
	task = ic_proc_task(inode);
	if (!task && writes)
		return ic_is_named(dentry, "sysrq-trigger") && !ic_is_trusted();
	if (!task)
		return false;
	if (!ic_mark_of(task))
		return writes && ic_is_named(dentry, "autogroup") &&
		       ic_is_session_protected((__u64)BPF_CORE_READ(task, signal)) &&
		       !ic_is_trusted();
	if (ic_is_same_process(task) || ic_is_trusted())
		return false;
	return writes || !ic_is_proc_file_harmless(dentry);
}

#endif
