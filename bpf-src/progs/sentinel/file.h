/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* Hooks that enforce file rules. */
#ifndef IRONCLAD_PROGS_SENTINEL_FILE_H
#define IRONCLAD_PROGS_SENTINEL_FILE_H

#include "../../lib/sentinel/cgroupfs.h"
#include "../../lib/sentinel/dir_rename.h"
#include "../../lib/sentinel/disks.h"
#include "../../lib/sentinel/fs_commands.h"
#include "../../lib/sentinel/procfs.h"
#include "gate.h"

enum {
	IC_ATTR_SIZE = 1 << 3, /* include/linux/fs.h */
	/*
	 * Attributes that accompany a change of size: ATTR_MTIME, ATTR_CTIME, ATTR_FILE, ATTR_OPEN.
	 */
	IC_ATTR_WITH_SIZE = 1 << 5 | 1 << 6 | 1 << 13 | 1 << 15,
	IC_S_IFCHR = 0020000,
	/* This mask leaves IC_S_IFCHR of both kinds of devices, and of no other file. */
	IC_S_IFDEVICE = 0130000,
	IC_S_IFDIR = 0040000,
	IC_PROT_EXEC = 4,
	IC_FS_IOC_SETVERSION = 0x40087602, /* include/uapi/linux/fs.h */
	IC_FS_IOC32_SETVERSION = 0x40047602,
	IC_EXT4_IOC_SETVERSION = 0x40086604, /* fs/ext4/ext4.h */
	IC_EXT4_IOC32_SETVERSION = 0x40046604,
	IC_PERF_EVENT_IOC_SET_BPF = 0x40042408, /* include/uapi/linux/perf_event.h */
};

/* Checks access to an existing file. */
IC_INLINE int ic_check_access(__u8 hook, struct dentry *dentry, __u32 op, __u32 other, __u32 detail)
{
	if (ic_is_canary(hook))
		return -IC_SENTINEL_ECANARY;
	if (!ic_is_armed())
		return 0;
	return ic_enforce(hook, ic_rules_of(dentry), op, other, dentry, detail);
}

/* Wakes the agent: a file that is open for writing gets a protected name. Read by the agent alone. */
struct {
	__uint(type, BPF_MAP_TYPE_RINGBUF);
	__uint(max_entries, 4096);
} ic_wakes SEC(".maps");

/*
 * Has the agent check writes by descriptors, where a file gets a name that rules deny to write while
 * it is open for writing. Of a directory, the files below it may be. The caller may rename it:
 * libraries keep a file open while they rename it. Without room, the agent has been woken.
 */
static __noinline int ic_report_open(__u64 rules, struct inode *inode)
{
	const struct ic_file_policy *policy = ic_file_policy_at(ic_half());
	__u64 *wake;

	if (!policy || !(rules & policy->deny & policy->op[IC_FILE_WRITE]))
		return 0;
	if ((inode->i_mode & IC_S_IFMT) != IC_S_IFDIR &&
	    BPF_CORE_READ(inode, i_writecount.counter) <= 0)
		return 0;
	ic_record_begin();
	wake = bpf_ringbuf_reserve(&ic_wakes, sizeof(*wake), 0);
	if (wake) {
		*wake = rules;
		bpf_ringbuf_submit(wake, BPF_RB_FORCE_WAKEUP);
	}
	ic_record_end();
	return 0;
}

/* Checks the creation of a name in a directory; of an existing file, if `moved` is not NULL. */
IC_INLINE int ic_check_name(__u8 hook, struct inode *dir, struct dentry *dentry,
			    struct inode *moved)
{
	__u64 rules;
	int error;

	if (ic_is_canary(hook))
		return -IC_SENTINEL_ECANARY;
	if (!ic_is_armed())
		return 0;
	rules = ic_rules_in(dir, dentry, dir->i_sb->s_dev);
	error = ic_enforce(hook, rules, IC_FILE_CREATE, IC_FILE_CREATE, dentry, 0);
	if (!error && rules && moved)
		ic_report_open(rules, moved);
	return error;
}

/* The same of a new file. */
IC_INLINE int ic_check_create(__u8 hook, struct inode *dir, struct dentry *dentry)
{
	return ic_check_name(hook, dir, dentry, NULL);
}

/* Whether the caller may replace the agent's executable: a package manager. */
static __noinline bool ic_is_updater(void)
{
	const struct ic_exemption *exemptions = ic_exemption_of_caller(false);

	return exemptions && exemptions->rules[ic_half()] & 1ULL << IC_OWN_EXECUTABLE;
}

/*
 * Whether the caller may not write to a file of binfmt_misc: an entry that matches the agent's
 * executable has another program run instead, so updaters may. A user namespace may have entries of
 * its own, which are no others' concern.
 */
IC_INLINE bool ic_is_binfmt_refused(struct inode *inode)
{
	return !BPF_CORE_READ(inode, i_sb, s_user_ns, level) && !ic_is_trusted() &&
	       !ic_is_updater();
}

/* Whether the file is one of the kernel's that acts on the agent without a further system call. */
IC_INLINE bool ic_is_kernel_file_refused(struct file *file, __u32 mode)
{
	struct dentry *dentry = file->f_path.dentry;
	struct inode *inode = file->f_inode, *dir;
	unsigned long magic = inode->i_sb->s_magic;
	struct ic_dir_cache found = {};

	if (magic == IC_PROC_SUPER_MAGIC && ic_is_armed())
		return ic_is_proc_file_protected(ic_address(inode), ic_address(dentry),
						 mode & IC_FMODE_WRITE) &&
		       !ic_has_exemption(IC_MAY_TRACE);
	if (!(mode & IC_FMODE_WRITE))
		return false;
	if (magic == IC_SYSFS_MAGIC)
		return ic_is_armed() &&
		       (ic_is_hwpoison(dentry) || ic_is_error_trigger(dentry) ||
			ic_is_array_file(dentry) || ic_is_livepatch_file(dentry)) &&
		       !ic_is_trusted();
	if (magic == IC_SECURITYFS_MAGIC)
		return ic_is_lockout(dentry) && ic_is_armed() && !ic_is_trusted();
	if (magic == IC_BINFMTFS_MAGIC)
		return ic_is_armed() && ic_is_binfmt_refused(inode);
	if (!ic_is_cgroupfs(magic) || !ic_is_armed())
		return false;
	if (ic_is_cgroup_file_nameless(dentry))
		return !ic_is_trusted();
	if (dentry->d_parent == inode->i_sb->s_root)
		return ic_is_cgroup_file_protected(dentry, IC_LABEL_PATH_COMPONENT, false);
	dir = dentry->d_parent->d_inode;
	if (!dir)
		return false;
	ic_dir_lookup(&found, dentry, dir, dir->i_sb->s_dev);
	return ic_is_cgroup_file_protected(
		dentry, found.flags & IC_LABEL_PATH_COMPONENT || ic_is_recorded_group(dir),
		found.below >> IC_OWN_GROUP & 1);
}

/* A write to a device changes the files of its file system; a read reads them. */
IC_INLINE int ic_check_device(struct file *file, __u32 mode)
{
	__u32 device = file->f_inode->i_rdev;
	const struct ic_name_val *volume = bpf_map_lookup_elem(&ic_volumes, &device);
	/* The secret alone is of no use, and pins are not on a device. */
	__u64 read = ~(1ULL << IC_OWN_STATE | 1ULL << IC_OWN_PINS), rules;
	__u32 op = mode & IC_FMODE_WRITE ? IC_FILE_WRITE : IC_FILE_READ;

	if (!volume || !ic_is_armed())
		return 0;
	rules = volume->rules[ic_half()] & (op == IC_FILE_WRITE ? ~0ULL : read);
	return ic_enforce(IC_HOOK_FILE_OPEN, rules, op, op, file->f_path.dentry, device);
}

static __noinline int ic_check_device_open(struct file *file, __u32 mode)
{
	if ((file->f_inode->i_mode & IC_S_IFMT) == IC_S_IFBLK)
		return ic_check_device(file, mode);
	return ic_check_character_device(IC_HOOK_FILE_OPEN, file, file->f_inode->i_rdev);
}

/* ic_rules_of() with a stack of its own, which is free again when rules are enforced. */
static __noinline __u64 ic_rules_of_path(struct dentry *dentry)
{
	return ic_rules_of(dentry);
}

/*
 * Before Linux 6.7 overlayfs opens the file below with the overlay's path: the open file differs
 * from the file of the path, and both are checked.
 */
IC_INLINE int ic_check_overlay_open(struct file *file, __u32 first, __u32 second)
{
	struct dentry *dentry = file->f_path.dentry;
	__u32 mode = file->f_mode;
	int error = 0;

	if (ic_is_armed())
		error = ic_enforce(IC_HOOK_FILE_OPEN, ic_rules_of_alias(file->f_inode), first,
				   second, dentry, mode);
	if (error)
		return error;
	if (ic_is_canary(IC_HOOK_FILE_OPEN))
		return -IC_SENTINEL_ECANARY;
	if (!ic_is_armed())
		return 0;
	return ic_enforce(IC_HOOK_FILE_OPEN, ic_rules_of_path(dentry), first, second, dentry, mode);
}

SEC("lsm/file_open")
int BPF_PROG(ic_file_open, struct file *file)
{
	struct inode *inode = file->f_inode, *dir;
	struct dentry *dentry = file->f_path.dentry;
	__u32 mode = file->f_mode, first, second, flags = 0;
	__u64 rules;
	int error;

	if (ic_is_kernel_file_refused(file, mode))
		return ic_refuse_file(IC_HOOK_FILE_OPEN, dentry,
				      mode & IC_FMODE_WRITE ? IC_FILE_WRITE : IC_FILE_READ, 0);
	if ((inode->i_mode & IC_S_IFDEVICE) == IC_S_IFCHR) {
		error = ic_check_device_open(file, mode);
		if (error)
			return error;
	}
	/* Without the walk of a path it is no execve(2): XFS takes the flag from the process. */
	if (file->f_flags & IC_FMODE_EXEC && ic_is_at_path())
		first = IC_FILE_EXECUTE;
	else if (mode & IC_FMODE_READ)
		first = IC_FILE_READ;
	else
		first = IC_FILE_WRITE;
	second = mode & IC_FMODE_WRITE ? IC_FILE_WRITE : first;
	dir = dentry->d_parent->d_inode;
	if (inode != dentry->d_inode)
		return ic_check_overlay_open(file, first, second);
	if (ic_is_canary(IC_HOOK_FILE_OPEN))
		return -IC_SENTINEL_ECANARY;
	if (!ic_is_armed())
		return 0;
	/* The verifier trusts the inode of an open file: reading it costs less. */
	rules = ic_rules_at(dir, dentry, inode, inode->i_sb->s_dev, &flags);
	return ic_enforce(IC_HOOK_FILE_OPEN, rules, first, second, dentry, mode);
}

/* Whether the task was started as agents are. Its fork(2) was seen: `ppid` is its real parent. */
IC_INLINE bool ic_is_launched(struct task_struct *task)
{
	__u32 tgid = bpf_get_current_pid_tgid() >> 32, launch = ic_sentinel.launch;
	const struct ic_process *process = bpf_map_lookup_elem(&ic_processes, &tgid);
	struct task_struct *parent = BPF_CORE_READ(task, real_parent);

	if (!process || !ic_process_is_same(process, task) || !(process->flags & IC_PROCESS_FORKED))
		return false;
	if (ic_sentinel.group && bpf_get_current_cgroup_id() != ic_sentinel.group)
		return false;
	if (launch & IC_LAUNCH_INIT && process->ppid == 1)
		return true;
	return launch & IC_LAUNCH_TRUSTED && process->ppid == (__u32)BPF_CORE_READ(parent, tgid) &&
	       ic_mark_of(parent) & IC_MARK_TRUSTED;
}

/*
 * Candidates, by the number of their process: of more than these, the first ends its candidacy, so
 * that candidates that wait leave room in the table of marks for the agent's successor.
 */
enum { IC_CANDIDATES = IC_SENTINEL_MARKS / 2 };

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, IC_CANDIDATES);
	__type(key, __u32);
	__type(value, __u32);
} ic_candidates SEC(".maps");

/* Two at a time may take one place: then the first stays a candidate until it ends. */
static __noinline int ic_candidate_add(void)
{
	__u32 place = IC_READ_ONCE(ic_sentinel.candidates) % IC_CANDIDATES;
	__u32 *former = bpf_map_lookup_elem(&ic_candidates, &place);
	const struct ic_mark *mark;

	__sync_fetch_and_add(&ic_sentinel.candidates, 1);
	if (!former)
		return 0;
	mark = bpf_map_lookup_elem(&ic_marks, former);
	if (mark && mark->flags == IC_MARK_CANDIDATE)
		bpf_map_delete_elem(&ic_marks, former);
	*former = bpf_get_current_pid_tgid() >> 32;
	ic_mark_set(IC_MARK_CANDIDATE);
	/* The service manager has made a new cgroup for it. */
	ic_groups_record_own();
	return 0;
}

/*
 * The agent's program, by identity or by the protected name, started as agents are and not traced:
 * it may read the secret. An earlier mark was removed before.
 */
SEC("lsm/bprm_committed_creds")
int BPF_PROG(ic_executed, struct linux_binprm *bprm)
{
	struct task_struct *task = (struct task_struct *)bpf_get_current_task();
	struct dentry *dentry = bprm->file->f_path.dentry;

	if (!ic_sentinel.launch || !ic_has_rules(dentry, 1ULL << IC_OWN_EXECUTABLE))
		return 0;
	if (BPF_CORE_READ(task, ptrace) || !ic_is_launched(task) || !ic_has_agent_environment(task))
		return 0;
	return ic_candidate_add();
}

/*
 * Until it has presented the secret, a candidate may map the files that the agent mapped, and no
 * others: a preloaded library ends the candidacy.
 */
IC_INLINE void ic_check_candidate_mmap(struct dentry *dentry)
{
	struct ic_attempt attempt = {
		.hook = IC_HOOK_MMAP_FILE,
		.op = IC_FILE_EXECUTE,
		.verdict = IC_SENTINEL_REFUSED,
		.dentry = dentry,
	};

	if (ic_mark() != IC_MARK_CANDIDATE)
		return;
	if (ic_has_rules(dentry, 1ULL << IC_OWN_EXECUTABLE | 1ULL << IC_OWN_CODE))
		return;
	ic_mark_remove();
	ic_alarm(&attempt);
}

/* A file mapped for execution: a program that a loader starts, or a library. */
SEC("lsm/mmap_file")
int BPF_PROG(ic_mmap_file, struct file *file, unsigned long reqprot, unsigned long prot)
{
	if (!file)
		return 0;
	if (IC_READ_ONCE(ic_sentinel.candidates))
		ic_check_candidate_mmap(file->f_path.dentry);
	if (!(prot & IC_PROT_EXEC))
		return 0;
	return ic_check_access(IC_HOOK_MMAP_FILE, file->f_path.dentry, IC_FILE_EXECUTE,
			       IC_FILE_EXECUTE, prot);
}

/* Refuses to move or hide a component of the path to a protected file. */
IC_INLINE int ic_check_path_component(__u8 hook, struct dentry *dentry, __u32 op)
{
	if (ic_is_trusted() || ic_has_exemption(IC_MAY_MOUNT))
		return 0;
	return ic_refuse_file(hook, dentry, op, 0);
}

/* Checks the removal of a name from a directory. */
IC_INLINE int ic_check_remove(__u8 hook, struct inode *dir, struct dentry *dentry, __u32 op)
{
	__u32 flags = 0;
	__u64 rules;
	int error;

	if (ic_is_canary(hook))
		return -IC_SENTINEL_ECANARY;
	if (!ic_is_armed())
		return 0;
	rules = ic_rules_at(dir, dentry, dentry->d_inode, dir->i_sb->s_dev, &flags);
	error = ic_enforce(hook, rules, op, op, dentry, 0);
	if (error || !(flags & IC_LABEL_PATH_COMPONENT))
		return error;
	return ic_check_path_component(hook, dentry, op);
}

SEC("lsm/inode_unlink")
int BPF_PROG(ic_inode_unlink, struct inode *dir, struct dentry *dentry)
{
	return ic_check_remove(IC_HOOK_INODE_UNLINK, dir, dentry, IC_FILE_DELETE);
}

SEC("lsm/inode_rmdir")
int BPF_PROG(ic_inode_rmdir, struct inode *dir, struct dentry *dentry)
{
	return ic_check_remove(IC_HOOK_INODE_RMDIR, dir, dentry, IC_FILE_DELETE);
}

IC_INLINE bool ic_is_dir(struct dentry *dentry)
{
	struct inode *inode = dentry->d_inode;

	return inode && (inode->i_mode & IC_S_IFMT) == IC_S_IFDIR;
}

/* For an exchange, the kernel calls the hook again with both swapped. */
SEC("lsm/inode_rename")
int BPF_PROG(ic_inode_rename, struct inode *old_dir, struct dentry *old, struct inode *new_dir,
	     struct dentry *new)
{
	int error = ic_check_remove(IC_HOOK_INODE_RENAME, old_dir, old, IC_FILE_RENAME);
	__u32 device;

	if (!error && new->d_inode)
		error = ic_check_remove(IC_HOOK_INODE_RENAME, new_dir, new, IC_FILE_DELETE);
	error = error ?: ic_check_name(IC_HOOK_INODE_RENAME, new_dir, new, old->d_inode);
	if (error || !(ic_is_dir(old) || ic_is_dir(new)))
		return error;
	/* Other volumes have no protected directory. */
	device = old_dir->i_sb->s_dev;
	if (bpf_map_lookup_elem(&ic_volumes, &device))
		ic_dir_rename_begin();
	return 0;
}

/*
 * The end of a directory rename: the cache is invalidated before the caller's rename(2) returns.
 * Linux 5.12 changed the arguments of vfs_rename().
 */
SEC("fexit/vfs_rename")
int ic_renamed(__u64 *ctx)
{
	struct dentry *old, *new;

	if (bpf_core_type_exists(struct renamedata)) {
		struct renamedata *names = (void *)ctx[0];

		old = names->old_dentry;
		new = names->new_dentry;
	} else {
		old = (void *)ctx[1];
		new = (void *)ctx[3];
	}
	if (ic_is_dir(old) || ic_is_dir(new))
		ic_labels_changed();
	ic_dir_rename_end(bpf_get_current_task());
	return 0;
}

SEC("lsm/inode_link")
int BPF_PROG(ic_inode_link, struct dentry *old, struct inode *dir, struct dentry *new)
{
	int error = ic_check_access(IC_HOOK_INODE_LINK, old, IC_FILE_LINK, IC_FILE_LINK, 0);

	return error ?: ic_check_name(IC_HOOK_INODE_LINK, dir, new, old->d_inode);
}

SEC("lsm/inode_create")
int BPF_PROG(ic_inode_create, struct inode *dir, struct dentry *dentry)
{
	return ic_check_create(IC_HOOK_INODE_CREATE, dir, dentry);
}

SEC("lsm/inode_mkdir")
int BPF_PROG(ic_inode_mkdir, struct inode *dir, struct dentry *dentry)
{
	int error = ic_check_create(IC_HOOK_INODE_MKDIR, dir, dentry);

	if (error || !ic_is_target(dir, dentry))
		return error;
	return ic_check_path_component(IC_HOOK_INODE_MKDIR, dentry, IC_FILE_CREATE);
}

SEC("lsm/inode_mknod")
int BPF_PROG(ic_inode_mknod, struct inode *dir, struct dentry *dentry)
{
	return ic_check_create(IC_HOOK_INODE_MKNOD, dir, dentry);
}

SEC("lsm/inode_symlink")
int BPF_PROG(ic_inode_symlink, struct inode *dir, struct dentry *dentry)
{
	return ic_check_create(IC_HOOK_INODE_SYMLINK, dir, dentry);
}

/*
 * Reports a change of the rights of a directory above a protected file: without the right to search
 * it, processes do not find the file.
 */
static __noinline int ic_report_rights(__u8 hook, struct dentry *dentry, __u32 detail)
{
	const struct ic_attempt attempt = {
		.hook = hook,
		.op = IC_FILE_METADATA,
		.verdict = IC_SENTINEL_LOGGED,
		.dentry = dentry,
		.detail = detail,
	};
	struct inode *inode = dentry->d_inode;
	const struct ic_label *label;
	struct ic_file_id id;

	if (!inode || (inode->i_mode & IC_S_IFMT) != IC_S_IFDIR || !ic_is_armed() ||
	    ic_is_cgroupfs(inode->i_sb->s_magic))
		return 0;
	ic_file_identify(&id, inode);
	label = ic_label_of(&id);
	if (label && label->flags[ic_half()] & IC_LABEL_PATH_COMPONENT && !ic_is_trusted() &&
	    !ic_is_updater())
		ic_alarm(&attempt);
	return 0;
}

/* Checks a change of an access control list. */
IC_INLINE int ic_check_acl(__u8 hook, struct dentry *dentry)
{
	int error = ic_check_access(hook, dentry, IC_FILE_METADATA, IC_FILE_METADATA, 0);

	return error ?: ic_report_rights(hook, dentry, 0);
}

/* Checks a change of an extended attribute, which before Linux 6.2 may be an access control list. */
IC_INLINE int ic_check_xattr(__u8 hook, struct dentry *dentry, const char *name)
{
	static const union ic_short_name wanted = { "system.posix_a" };
	int error = ic_check_access(hook, dentry, IC_FILE_METADATA, IC_FILE_METADATA, 0);
	union ic_short_name found = {};

	if (error)
		return error;
	bpf_probe_read_kernel_str(found.text, sizeof("system.posix_a"), name);
	return ic_is_same_name(&found, &wanted) ? ic_report_rights(hook, dentry, 0) : 0;
}

/* truncate(2) is a write; other attributes are metadata. */
IC_INLINE int ic_check_setattr(struct dentry *dentry, struct iattr *attr)
{
	__u32 valid = BPF_CORE_READ(attr, ia_valid);
	__u32 first = valid & IC_ATTR_SIZE ? IC_FILE_WRITE : IC_FILE_METADATA;
	__u32 second = valid & ~(IC_ATTR_SIZE | IC_ATTR_WITH_SIZE) ? IC_FILE_METADATA : first;
	int error;

	if (ic_is_armed() && ic_is_cgroup_mode_protected(dentry, valid))
		return ic_refuse_file(IC_HOOK_INODE_SETATTR, dentry, IC_FILE_METADATA, valid);
	error = ic_check_access(IC_HOOK_INODE_SETATTR, dentry, first, second, valid);
	if (error || !(valid & IC_ATTR_RIGHTS))
		return error;
	return ic_report_rights(IC_HOOK_INODE_SETATTR, dentry, valid);
}

/*
 * Since Linux 6.8, and since 5.12 for extended attributes, these hooks begin with the mount's
 * idmap. The agent loads the variant that fits.
 */
SEC("lsm/inode_setattr")
int BPF_PROG(ic_setattr, void *idmap, struct dentry *dentry, struct iattr *attr)
{
	return ic_check_setattr(dentry, attr);
}

SEC("lsm/inode_setattr")
int BPF_PROG(ic_setattr_5_10, struct dentry *dentry, struct iattr *attr)
{
	return ic_check_setattr(dentry, attr);
}

SEC("lsm/inode_setxattr")
int BPF_PROG(ic_setxattr, void *idmap, struct dentry *dentry, const char *name)
{
	return ic_check_xattr(IC_HOOK_INODE_SETXATTR, dentry, name);
}

SEC("lsm/inode_setxattr")
int BPF_PROG(ic_setxattr_5_10, struct dentry *dentry, const char *name)
{
	return ic_check_xattr(IC_HOOK_INODE_SETXATTR, dentry, name);
}

SEC("lsm/inode_removexattr")
int BPF_PROG(ic_removexattr, void *idmap, struct dentry *dentry, const char *name)
{
	return ic_check_xattr(IC_HOOK_INODE_REMOVEXATTR, dentry, name);
}

SEC("lsm/inode_removexattr")
int BPF_PROG(ic_removexattr_5_10, struct dentry *dentry, const char *name)
{
	return ic_check_xattr(IC_HOOK_INODE_REMOVEXATTR, dentry, name);
}

/* Since Linux 6.2; before, ACLs are extended attributes. */
SEC("?lsm/inode_set_acl")
int BPF_PROG(ic_set_acl, void *idmap, struct dentry *dentry)
{
	return ic_check_acl(IC_HOOK_INODE_SET_ACL, dentry);
}

SEC("?lsm/inode_remove_acl")
int BPF_PROG(ic_remove_acl, void *idmap, struct dentry *dentry)
{
	return ic_check_acl(IC_HOOK_INODE_REMOVE_ACL, dentry);
}

/* Since Linux 6.17; before, attributes of files are set by ioctl(2) alone. */
SEC("?lsm/inode_file_setattr")
int BPF_PROG(ic_file_setattr, struct dentry *dentry)
{
	return ic_check_access(IC_HOOK_INODE_FILE_SETATTR, dentry, IC_FILE_METADATA,
			       IC_FILE_METADATA, 0);
}

IC_INLINE bool ic_is_generation_ioctl(__u32 cmd)
{
	return cmd == IC_FS_IOC_SETVERSION || cmd == IC_FS_IOC32_SETVERSION ||
	       cmd == IC_EXT4_IOC_SETVERSION || cmd == IC_EXT4_IOC32_SETVERSION;
}

/*
 * An ioctl of a file system. Most of these need no descriptor for writing. A command that is not
 * known may change the file, or another on the same file system.
 */
static __noinline int ic_check_file_system_command(__u8 hook, struct file *file, __u32 cmd)
{
	__u32 kind = ic_file_system_command(cmd), format = file->f_inode->i_mode & IC_S_IFMT;
	__u32 op = kind == IC_COMMAND_CONTENT ? IC_FILE_WRITE : IC_FILE_METADATA;
	__u32 other = kind == IC_COMMAND_METADATA ? IC_FILE_METADATA : IC_FILE_WRITE;
	struct dentry *dentry = file->f_path.dentry;
	int error;

	if (kind == IC_COMMAND_HARMLESS)
		return 0;
	/* Those of devices, sockets and pipes have numbers of their own. */
	if (kind != IC_COMMAND_METADATA && format != IC_S_IFREG && format != IC_S_IFDIR)
		return 0;
	error = ic_check_access(hook, dentry, op, other, cmd);
	if (error || kind != IC_COMMAND_UNKNOWN)
		return error;
	return ic_check_disk(hook, ic_rules_of_volume(file->f_inode->i_sb->s_dev), dentry, cmd);
}

/*
 * Exemptions are by inode number and generation: no process may give a file another generation,
 * protected or not, since it could become that of a removed executable.
 */
IC_INLINE int ic_check_ioctl(__u8 hook, struct file *file, __u32 cmd)
{
	struct dentry *dentry = file->f_path.dentry;
	__u32 format = file->f_inode->i_mode & IC_S_IFMT;
	int error = 0;

	if (ic_is_generation_ioctl(cmd) && ic_is_armed() && !ic_is_trusted())
		return ic_refuse_file(hook, dentry, IC_FILE_METADATA, cmd);
	/* Attaches a program that may have been loaded before. */
	if (cmd == IC_PERF_EVENT_IOC_SET_BPF && ic_is_armed())
		return ic_gate(hook, BPF_PROG_TYPE_KPROBE, cmd);
	if (ic_is_freeze_ioctl(file, cmd))
		return ic_check_path_component(hook, dentry, IC_FILE_MOUNT);
	if (format == IC_S_IFBLK)
		error = ic_check_disk_command(hook, file, cmd);
	else if (format == IC_S_IFCHR && !ic_is_mapper_query(file->f_inode->i_rdev, cmd))
		error = ic_check_character_device(hook, file, cmd);
	if (error)
		return error;
	return ic_check_file_system_command(hook, file, cmd);
}

/* The kernel writes limits into a file of quotas. */
SEC("lsm/quota_on")
int BPF_PROG(ic_quota_on, struct dentry *dentry)
{
	return ic_check_access(IC_HOOK_QUOTA_ON, dentry, IC_FILE_WRITE, IC_FILE_WRITE, 0);
}

/*
 * Since Linux 6.0. Disks discard blocks by a command, and NVMe devices take any command, by
 * descriptors that may be older than a rule.
 */
SEC("?lsm/uring_cmd")
int BPF_PROG(ic_uring_cmd, struct io_uring_cmd *command)
{
	return ic_check_ioctl(IC_HOOK_URING_CMD, command->file, command->cmd_op);
}

SEC("lsm/file_ioctl")
int BPF_PROG(ic_file_ioctl, struct file *file, unsigned int cmd)
{
	return ic_check_ioctl(IC_HOOK_FILE_IOCTL, file, cmd);
}

/* Of 32-bit programs; some kernels call file_ioctl for these. */
SEC("?lsm/file_ioctl_compat")
int BPF_PROG(ic_ioctl_compat, struct file *file, unsigned int cmd)
{
	return ic_check_ioctl(IC_HOOK_FILE_IOCTL_COMPAT, file, cmd);
}

#endif
