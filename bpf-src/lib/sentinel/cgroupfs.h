/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * Protection of cgroups: cgroups freeze and kill without a signal, and limit resources. No hook
 * refuses the move of one process. A process that could move the agent, or write to the files of the
 * agent's cgroups, is therefore refused when it opens the file. A tracepoint follows moves by
 * processes that may.
 */
#ifndef IRONCLAD_LIB_SENTINEL_CGROUPFS_H
#define IRONCLAD_LIB_SENTINEL_CGROUPFS_H

#include "rules.h"

enum {
	IC_CGROUP_SUPER_MAGIC = 0x27e0eb, /* include/uapi/linux/magic.h */
	IC_CGROUP2_SUPER_MAGIC = 0x63677270,
};

#define IC_CLONE_INTO_CGROUP 0x200000000UL /* include/uapi/linux/sched.h */

enum {
	IC_CAP_DAC_OVERRIDE = 1,
	IC_ATTR_RIGHTS = 7, /* ATTR_MODE, ATTR_UID, ATTR_GID of include/linux/fs.h */
};

/*
 * Where a process neither owns the files nor has CAP_DAC_OVERRIDE, the kernel itself checks its
 * permission: for files by the user that setfsuid(2) sets, in version 1 also by the effective user.
 */
IC_INLINE bool ic_has_dac_override(void)
{
	struct task_struct *task = (struct task_struct *)bpf_get_current_task();
	const struct cred *cred = BPF_CORE_READ(task, cred);
	/*
	 * The first word, whether the field is an array of two words or one word of twice the size.
	 */
	__u32 capabilities = 0;

	bpf_probe_read_kernel(&capabilities, sizeof(capabilities),
			      (void *)cred + bpf_core_field_offset(struct cred, cap_effective));
	return !BPF_CORE_READ(cred, euid.val) || !BPF_CORE_READ(cred, fsuid.val) ||
	       capabilities >> IC_CAP_DAC_OVERRIDE & 1;
}

IC_INLINE bool ic_is_cgroupfs(unsigned long magic)
{
	return magic == IC_CGROUP2_SUPER_MAGIC || magic == IC_CGROUP_SUPER_MAGIC;
}

IC_INLINE bool ic_is_group_manager(void)
{
	return ic_is_trusted() || ic_has_exemption(IC_MAY_GROUP) || ic_is_manager();
}

/*
 * Whether neither the name of a file of a cgroup nor its directory is known: it was opened by its
 * handle. The root has no parent, either.
 */
IC_INLINE bool ic_is_cgroup_file_nameless(struct dentry *dentry)
{
	return BPF_CORE_READ(dentry, d_parent) == dentry &&
	       BPF_CORE_READ(dentry, d_sb, s_root) != dentry;
}

/* Whether a write to a file of a cgroup moves a process or thread to it. */
IC_INLINE bool ic_moves_processes(struct dentry *dentry)
{
	return ic_is_named(dentry, "cgroup.procs") || ic_is_named(dentry, "cgroup.threads") ||
	       ic_is_named(dentry, "tasks");
}

/* Whether clone3(2) creates the process in another cgroup, which is a move without a file. */
IC_INLINE bool ic_is_clone_refused(unsigned long flags)
{
	return flags & IC_CLONE_INTO_CGROUP && ic_is_armed() && ic_has_dac_override() &&
	       !ic_is_group_manager();
}

/* Whether a write to a file of a cgroup ends or stops its processes, of which no hook knows. */
IC_INLINE bool ic_stops_processes(struct dentry *dentry)
{
	return ic_is_named(dentry, "cgroup.kill") || ic_is_named(dentry, "cgroup.freeze") ||
	       ic_is_named(dentry, "freezer.state");
}

/*
 * The cgroups that a process with a mark was moved to, and those above them: the kernfs nodes of their
 * directories, and the numbers of these, which no other node at the same address has.
 */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, IC_SENTINEL_GROUPS);
	__type(key, __u64);
	__type(value, __u64);
} ic_groups SEC(".maps");

/* Records a cgroup and those above it. */
IC_INLINE void ic_groups_record(struct cgroup *cgroup)
{
	__u32 i;

	for (i = 0; i < IC_SENTINEL_GROUP_DEPTH && cgroup; i++) {
		__u64 node = (__u64)BPF_CORE_READ(cgroup, kn);
		__u64 number = BPF_CORE_READ((struct kernfs_node *)node, id);

		if (bpf_map_update_elem(&ic_groups, &node, &number, BPF_ANY)) {
			ic_count_loss(IC_LOSS_MAP);
			return;
		}
		/* The state of the cgroup itself is its first member. */
		cgroup = (struct cgroup *)BPF_CORE_READ(cgroup, self.parent);
	}
	if (cgroup)
		ic_count_loss(IC_LOSS_MAP);
}

/* The same of the caller's cgroup of version 2. */
static __noinline int ic_groups_record_own(void)
{
	struct task_struct *task = (struct task_struct *)bpf_get_current_task();

	ic_groups_record(BPF_CORE_READ(task, cgroups, dfl_cgrp));
	return 0;
}

/* Whether a directory is that of a cgroup to which the agent was moved, or above it. */
static __noinline bool ic_is_recorded_group(struct inode *dir)
{
	__u64 node = (__u64)BPF_CORE_READ(dir, i_private);
	const __u64 *number = bpf_map_lookup_elem(&ic_groups, &node);

	return number && *number == BPF_CORE_READ((struct kernfs_node *)node, id);
}

/*
 * Whether a file of a cgroup is protected from the caller, which opens it for writing. PID 1, which
 * every user of systemctl(1) may ask, stops the agent only where it may send it signals. `is_own`:
 * the cgroup is the agent's or below it, whose other files a rule covers. The root of a hierarchy is
 * always on the path to the agent's cgroup: it has all processes that were moved to no other cgroup,
 * also where the hierarchy is new.
 */
static __noinline bool ic_is_cgroup_file_protected(struct dentry *dentry, __u32 is_path_component,
						   __u32 is_own)
{
	if ((is_path_component || is_own) && ic_stops_processes(dentry) && !ic_is_trusted() &&
	    !ic_has_exemption(IC_MAY_KILL))
		return true;
	if (!is_path_component && !ic_moves_processes(dentry))
		return false;
	return (is_path_component || ic_has_dac_override()) && !ic_is_group_manager();
}

/*
 * Whether the mode and owner of a file on the path to the agent's cgroup are protected: a process
 * that owns such a file opens it without CAP_DAC_OVERRIDE, and could move the agent.
 */
static __noinline bool ic_is_cgroup_mode_protected(struct dentry *dentry, __u32 valid)
{
	struct inode *dir = dentry->d_parent->d_inode;
	struct ic_dir_cache found = {};

	if (!(valid & IC_ATTR_RIGHTS) || !dir || !ic_is_cgroupfs(dir->i_sb->s_magic))
		return false;
	if (ic_is_cgroup_file_nameless(dentry) ||
	    (dentry->d_parent == dir->i_sb->s_root && dentry->d_parent != dentry))
		return !ic_is_group_manager();
	ic_dir_lookup(&found, dentry, dir, dir->i_sb->s_dev);
	return (found.flags & IC_LABEL_PATH_COMPONENT || ic_is_recorded_group(dir)) &&
	       !ic_is_group_manager();
}

#endif
