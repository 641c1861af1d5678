/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * Control groups freeze and kill without a signal, and starve. No hook sees who is moved where: so who
 * could move the agent, or write what its own groups do, is refused when it opens the file.
 */
#ifndef IRONCLAD_LIB_CGROUPFS_H
#define IRONCLAD_LIB_CGROUPFS_H

#include "labels.h"

enum {
	IC_CGROUP_SUPER_MAGIC = 0x27e0eb, /* include/uapi/linux/magic.h */
	IC_CGROUP2_SUPER_MAGIC = 0x63677270,
};

/* Whether the caller has a number for the agent: not from inside of a container's pid namespace. */
IC_INLINE bool ic_can_name_agent(void)
{
	struct task_struct *task = (struct task_struct *)bpf_get_current_task();

	return !BPF_CORE_READ(task, thread_pid, level);
}

/* Of other users, the kernel itself asks whether they may. */
IC_INLINE bool ic_is_root(void)
{
	struct task_struct *task = (struct task_struct *)bpf_get_current_task();

	return !BPF_CORE_READ(task, cred, euid.val);
}

/* Whether a file of a control group is to be kept from the caller, who opens it to write. */
static __noinline bool ic_cgroup_is_guarded(struct dentry *dentry, __u32 way)
{
	bool moves = ic_is_named(dentry, "cgroup.procs") || ic_is_named(dentry, "cgroup.threads") ||
		     ic_is_named(dentry, "tasks");

	if (!way && !moves)
		return false;
	return ic_is_root() && ic_can_name_agent() && !ic_is_entitled() && !ic_may(IC_MAY_GROUP) &&
	       bpf_get_current_pid_tgid() >> 32 != 1;
}

#endif
