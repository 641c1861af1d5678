/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * Pre-opened descriptors: files that were open for writing before rules covered them. An iterator
 * finds those of processes, and the census (census.h) finds that there are others. The hooks on
 * reads and writes are attached only where there is one, since each call costs.
 */
#ifndef IRONCLAD_PROGS_SENTINEL_PREOPENED_H
#define IRONCLAD_PROGS_SENTINEL_PREOPENED_H

#include "../../lib/process/file.h"
#include "../../lib/sentinel/rules.h"
#include "file.h"

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct ic_census);
} ic_census SEC(".maps");

IC_INLINE struct ic_census *ic_census_now(void)
{
	__u32 first = 0;

	return bpf_map_lookup_elem(&ic_census, &first);
}

/*
 * Whether writes are checked. The programs are detached where they are not; before Linux 5.13 they
 * stay, since a program is attached once.
 */
IC_INLINE bool ic_checks_writes(void)
{
	const struct ic_census *census = ic_census_now();

	return census && IC_READ_ONCE(census->checks_writes) && ic_is_armed();
}

enum {
	IC_MAY_WRITE = 2, /* include/linux/fs.h */
	IC_MAP_TYPE = 0xf,
	IC_MAP_SHARED = 1,
	IC_MAP_SHARED_VALIDATE = 3,
	IC_PF_MEMALLOC_NOIO = 0x00080000, /* include/linux/sched.h */
};

/* Keeps the struct in the object's BTF, where a test compares it with Rust. */
const struct ic_open_descriptor *ic_open_descriptor_shape;

enum {
	IC_FUSE_MAGIC = 0x65735546, /* include/uapi/linux/magic.h */
};

/* fs/fuse/fuse_i.h, since Linux 6.9. */
struct fuse_file___passthrough {
	struct file *passthrough;
} __attribute__((preserve_access_index));

/*
 * The inode of another file system that writes to the file go to, or its own. Of splice(2) and
 * mmap(2), and before Linux 6.7 of all writes, no hook is called with a file that has its path.
 */
IC_INLINE struct inode *ic_inode_written(struct file *file)
{
	unsigned long magic = file->f_inode->i_sb->s_magic;
	struct fuse_file___passthrough *fuse;
	struct file *below = NULL;
	struct inode *inode;

	if (magic == IC_FUSE_MAGIC &&
	    bpf_core_field_exists(struct fuse_file___passthrough, passthrough)) {
		fuse = file->private_data;
		below = BPF_CORE_READ(fuse, passthrough);
	} else if (magic == IC_OVERLAYFS_MAGIC) {
		below = file;
	}
	inode = below ? ic_file_inode(below) : NULL;
	return inode ?: file->f_inode;
}

/*
 * The rules that cover a write to the file, also where it has got a protected name beside that by
 * which it was opened; of a disk, or of a device that sends commands to disks, also those of the
 * files on it.
 */
IC_INLINE __u64 ic_rules_written(struct file *file)
{
	__u64 rules = ic_rules_of(file->f_path.dentry);
	struct inode *inode = file->f_inode, *written = ic_inode_written(file);
	__u32 format = inode->i_mode & IC_S_IFMT;

	if (written != inode || inode->i_nlink > 1)
		rules |= ic_rules_of_alias(written);
	if (format == IC_S_IFBLK)
		return rules | ic_rules_of_volume(inode->i_rdev);
	return format == IC_S_IFCHR ? rules | ic_rules_of_character_device(inode->i_rdev) : rules;
}

/* Whether a file is in the directory of a cgroup above the agent's. */
IC_INLINE bool ic_is_above_group(struct dentry *dentry)
{
	struct inode *dir = BPF_CORE_READ(dentry, d_parent, d_inode);
	const struct ic_label *label;
	struct ic_file_id id;

	if (!dir)
		return false;
	ic_file_identify(&id, dir);
	label = ic_label_of(&id);
	return (label && label->flags[ic_half()] & IC_LABEL_PATH_COMPONENT) ||
	       ic_is_recorded_group(dir);
}

/*
 * The rule that covers a write to a file of the kernel's by which a process acts on the agent: one
 * that moves processes to a cgroup, or that ends processes; one of a cgroup above the agent's, which
 * PID 1 may write unless it freezes or kills. 0: it is no such file. Others do not stay usable:
 * ic_sysctl checks each write of a sysctl.
 */
__noinline __u64 ic_rules_of_kernel_file(__u64 file_at, __u32 is_init)
{
	struct file *file = (struct file *)file_at;
	struct dentry *dentry = BPF_CORE_READ(file, f_path.dentry);
	struct inode *inode = BPF_CORE_READ(file, f_inode);
	unsigned long magic = BPF_CORE_READ(inode, i_sb, s_magic);

	if (ic_is_cgroupfs(magic)) {
		if (ic_is_cgroup_file_nameless(dentry))
			return 1ULL << IC_OWN_GROUP;
		if (is_init && !ic_stops_processes(dentry))
			return 0;
		return ic_moves_processes(dentry) || ic_is_above_group(dentry)
			       ? 1ULL << IC_OWN_GROUP
			       : 0;
	}
	if ((magic == IC_PROC_SUPER_MAGIC && ic_is_named(dentry, "sysrq-trigger")) ||
	    (magic == IC_SYSFS_MAGIC && (ic_is_hwpoison(dentry) || ic_is_array_file(dentry) ||
					 ic_is_livepatch_file(dentry))) ||
	    (magic == IC_SECURITYFS_MAGIC && ic_is_lockout(dentry)))
		return 1ULL << IC_OWN_MOUNTS;
	return 0;
}

/* Descriptors of files that rules deny to write: those for writing, and all of block devices. */
SEC("iter/task_file")
int ic_preopened(struct bpf_iter__task_file *ctx)
{
	const struct ic_file_policy *policy = ic_file_policy_at(ic_half());
	struct task_struct *task = ctx->task;
	struct file *file = ctx->file;
	struct ic_open_descriptor found = {};
	struct inode *inode;

	if (!task || !file || !policy)
		return 0;
	inode = file->f_inode;
	if (file->f_mode & IC_FMODE_WRITE)
		found.flags = IC_OPEN_WRITES;
	if ((inode->i_mode & IC_S_IFMT) == IC_S_IFBLK) {
		found.flags |= IC_OPEN_DEVICE;
		found.file.dev = inode->i_rdev;
	} else {
		ic_file_identify(&found.file, inode);
	}
	if (!found.flags)
		return 0;
	found.rules = ic_rules_written(file) & policy->deny & policy->op[IC_FILE_WRITE];
	if (found.flags & IC_OPEN_WRITES)
		found.rules |= ic_rules_of_kernel_file(ic_address(file), task->tgid == IC_INIT);
	if (!found.rules)
		return 0;
	if (ic_mark_of(task))
		found.flags |= IC_OPEN_TRUSTED;
	found.open_file = ic_address(file);
	found.pid = task->tgid;
	found.fd = ctx->fd;
	bpf_seq_write(ctx->meta->seq, &found, sizeof(found));
	return 0;
}

/*
 * Whether the caller is a thread of a loop device, which writes for the process that mounted it: a
 * kernel thread that may not start input and output to get memory. On 5.10 io_uring workers are
 * kernel threads, too, with the memory of their process.
 */
IC_INLINE bool ic_is_loop_thread(void)
{
	struct task_struct *task = (struct task_struct *)bpf_get_current_task();
	__u32 flags = BPF_CORE_READ(task, flags), of_loop = IC_PF_KTHREAD | IC_PF_MEMALLOC_NOIO;

	return (flags & of_loop) == of_loop && !BPF_CORE_READ(task, mm);
}

SEC("lsm/file_permission")
int BPF_PROG(ic_file_permission, struct file *file, int mask)
{
	struct dentry *dentry = file->f_path.dentry;
	__u64 rules;

	if (!(mask & IC_MAY_WRITE) || !ic_checks_writes())
		return 0;
	if (ic_is_kernel_file_refused(file, IC_FMODE_WRITE))
		return ic_refuse_file(IC_HOOK_FILE_PERMISSION, dentry, IC_FILE_WRITE, 0);
	rules = ic_rules_written(file);
	if (!rules || ic_is_loop_thread())
		return 0;
	return ic_enforce(IC_HOOK_FILE_PERMISSION, rules, IC_FILE_WRITE, IC_FILE_WRITE, dentry, 0);
}

SEC("lsm/mmap_file")
int BPF_PROG(ic_preopened_map, struct file *file, unsigned long reqprot, unsigned long prot,
	     unsigned long flags)
{
	__u32 type = flags & IC_MAP_TYPE;
	struct dentry *dentry;

	/* mprotect(2) can make the mapping writable later. */
	if (!file || !(file->f_mode & IC_FMODE_WRITE) || !ic_checks_writes() ||
	    (type != IC_MAP_SHARED && type != IC_MAP_SHARED_VALIDATE))
		return 0;
	dentry = file->f_path.dentry;
	return ic_enforce(IC_HOOK_MMAP_FILE, ic_rules_written(file), IC_FILE_WRITE, IC_FILE_WRITE,
			  dentry, prot);
}

/* The commands by which a loop device takes a descriptor, which its kernel thread writes to. */
enum {
	IC_LOOP_SET_FD = 0x4c00, /* include/uapi/linux/loop.h */
	IC_LOOP_CHANGE_FD = 0x4c06,
	IC_LOOP_CONFIGURE = 0x4c0a,
	IC_MD_SET_BITMAP_FILE = 0x4004092b, /* include/uapi/linux/raid/md_u.h */
};

/*
 * No hook sees writes of a loop device's thread, nor those of an array to its bitmap: while there is
 * such a descriptor, neither is set up.
 */
SEC("lsm/file_ioctl")
int BPF_PROG(ic_preopened_loop, struct file *file, unsigned int cmd)
{
	if (cmd != IC_LOOP_SET_FD && cmd != IC_LOOP_CHANGE_FD && cmd != IC_LOOP_CONFIGURE &&
	    cmd != IC_MD_SET_BITMAP_FILE)
		return 0;
	if (!ic_checks_writes() || ic_is_trusted() || ic_has_exemption(IC_MAY_MOUNT))
		return 0;
	return ic_refuse_file(IC_HOOK_FILE_IOCTL, file->f_path.dentry, IC_FILE_WRITE, cmd);
}

#endif
