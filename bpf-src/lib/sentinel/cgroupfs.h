/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * Cgroups freeze and kill without a signal, and starve. No hook sees who is moved where: so who
 * could move the agent, or write what its own groups do, is refused when it opens the file.
 */
#ifndef IRONCLAD_LIB_SENTINEL_CGROUPFS_H
#define IRONCLAD_LIB_SENTINEL_CGROUPFS_H

#include "rules.h"

enum {
	IC_CGROUP_SUPER_MAGIC = 0x27e0eb, /* include/uapi/linux/magic.h */
	IC_CGROUP2_SUPER_MAGIC = 0x63677270,
};

enum {
	IC_CAP_DAC_OVERRIDE = 1,
	IC_ATTR_RIGHTS = 7, /* ATTR_MODE, ATTR_UID, ATTR_GID of include/linux/fs.h */
};

/*
 * Of those who neither own the files nor pass over rights, the kernel itself asks whether they may: of
 * files by the user that setfsuid(2) sets, in version 1 also by the effective one.
 */
IC_INLINE bool ic_has_dac_override(void)
{
	struct task_struct *task = (struct task_struct *)bpf_get_current_task();
	const struct cred *cred = BPF_CORE_READ(task, cred);
	/* Its first word, whether it is an array of two or one of twice the size. */
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

/* Whether a file of a cgroup is to be kept from the caller, who opens it to write. */
static __noinline bool ic_cgroup_is_guarded(struct dentry *dentry, __u32 way)
{
	bool moves = ic_is_named(dentry, "cgroup.procs") || ic_is_named(dentry, "cgroup.threads") ||
		     ic_is_named(dentry, "tasks");

	if (!way && !moves)
		return false;
	return (way || ic_has_dac_override()) && !ic_is_group_manager();
}

/*
 * Whether the rights of a file on the way to the agent's cgroup are to be kept: who is given such
 * a file opens it without passing over rights, and moves the agent from there.
 */
static __noinline bool ic_cgroup_rights_are_guarded(struct dentry *dentry, __u32 valid)
{
	struct inode *dir = dentry->d_parent->d_inode;
	struct ic_dir_cache found = {};

	if (!(valid & IC_ATTR_RIGHTS) || !dir || !ic_is_cgroupfs(dir->i_sb->s_magic))
		return false;
	ic_dir_find(&found, dentry, dir, dir->i_sb->s_dev);
	return found.flags & IC_LABEL_PATH_COMPONENT && !ic_is_group_manager();
}

#endif
