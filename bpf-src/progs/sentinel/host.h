/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* Protection of the host: mounts over protected files, and the kernel's memory and code. */
#ifndef IRONCLAD_PROGS_SENTINEL_HOST_H
#define IRONCLAD_PROGS_SENTINEL_HOST_H

#include "../../lib/sentinel/procfs.h"
#include "../../lib/sentinel/rules.h"

/* Mounts on the paths to protected files, by number. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__uint(max_entries, IC_SENTINEL_MOUNTS);
	__type(key, __u32);
	__type(value, __u32);
} ic_mounts SEC(".maps");

enum {
	IC_MS_REMOUNT = 1 << 5, /* include/uapi/linux/mount.h */
	IC_MS_BIND = 1 << 12,
	IC_MS_MOVE = 1 << 13,
	IC_MS_UNBINDABLE = 1 << 17,
	IC_MS_PRIVATE = 1 << 18,
	IC_MS_SLAVE = 1 << 19,
	IC_MS_SHARED = 1 << 20,
	IC_MS_PROPAGATION = IC_MS_UNBINDABLE | IC_MS_PRIVATE | IC_MS_SLAVE | IC_MS_SHARED,
	IC_MNT_DETACH = 2, /* include/linux/fs.h */
	/* Limits of walks; beyond them the check assumes a protected mount. */
	IC_MOUNTS_AT = 128, /* mounts at one mount point */
	IC_MOUNTS_BELOW = 2048, /* mounts below a mount, each visited on the way down and back up */
	IC_MOUNTS_WALKS = 32, /* parts of the walk */
};

/* Whether a mount is on the path to protected files in the agent's mount namespace. */
IC_INLINE bool ic_is_mount_own(struct mount *mount)
{
	__u32 id = BPF_CORE_READ(mount, mnt_id);

	return bpf_map_lookup_elem(&ic_mounts, &id);
}

/*
 * Whether a mount propagates to other mounts, whichever they are: mount_setattr(2) has no hook, so
 * peer groups may change before the mount is made.
 */
IC_INLINE bool ic_is_mount_shared(struct mount *mount)
{
	return BPF_CORE_READ(mount, mnt_group_id);
}

/* Whether mounting on this mount affects a protected one, also by propagation. */
IC_INLINE bool ic_is_mount_protected(struct mount *mount)
{
	return ic_is_mount_own(mount) || ic_is_mount_shared(mount);
}

/*
 * Whether a file or directory of procfs or sysfs is one that the agent reads, or is on the path to
 * one. Hosts mount file systems in /proc/fs, /proc/sys/fs, /proc/xen, /sys/fs, /sys/firmware and
 * below /sys/kernel; the kernel's types are in /sys/kernel/btf.
 */
__noinline int ic_is_pseudo_file_read(__u64 address)
{
	struct dentry *top, *next;
	__u64 parent, below = 0;
	__u32 i;

	for (i = 0; i < IC_SENTINEL_DEPTH; i++) {
		parent = ic_parent(address);
		if (ic_parent(parent) == parent)
			break;
		below = address;
		address = parent;
	}
	top = (struct dentry *)address;
	next = (struct dentry *)below;
	if (ic_is_named(top, "fs") || ic_is_named(top, "xen") || ic_is_named(top, "firmware"))
		return false;
	if (!below)
		return true;
	if (ic_is_named(top, "sys"))
		return !ic_is_named(next, "fs");
	return !ic_is_named(top, "kernel") || ic_is_named(next, "btf");
}

/* The same for files of any file system: procfs and sysfs count where the agent reads them. */
IC_INLINE bool ic_is_pseudo_target(__u64 dentry, unsigned long magic, __u32 device)
{
	const struct ic_name_val *volume;

	if (magic != IC_PROC_SUPER_MAGIC && magic != IC_SYSFS_MAGIC)
		return false;
	volume = bpf_map_lookup_elem(&ic_volumes, &device);
	return volume && volume->rules[ic_half()] & 1ULL << IC_OWN_MOUNTS &&
	       ic_is_pseudo_file_read(dentry);
}

/* Whether rules cover a directory, or it is a path component of a protected file. */
IC_INLINE bool ic_is_mount_target_covered(struct dentry *dentry)
{
	struct inode *inode = dentry->d_inode;
	const struct ic_label *label = inode ? ic_label_of_inode(inode) : NULL;
	const struct ic_file_policy *policy = ic_file_policy_at(ic_half());

	if (label && label->flags[ic_half()] & IC_LABEL_PATH_COMPONENT)
		return true;
	return policy && ic_rules_of(dentry) & policy->op[IC_FILE_MOUNT];
}

/* The same, and for what the agent reads of procfs and sysfs. */
IC_INLINE bool ic_is_mount_target_protected(struct dentry *dentry)
{
	return ic_is_pseudo_target(ic_address(dentry), dentry->d_sb->s_magic,
				   dentry->d_sb->s_dev) ||
	       ic_is_mount_target_covered(dentry);
}

/* The references to a namespace: since Linux 6.18, since 5.11, and before. */
struct ns_common___v6_18 {
	struct {
		int refs;
	} __ns_ref;
};

struct ns_common___v5_11 {
	struct {
		int refs;
	} count;
};

struct mnt_namespace___v5_10 {
	struct {
		int counter;
	} count;
};

/*
 * Whether a mount is in a mount namespace that a process has entered by setns(2), or of which one
 * holds a descriptor. Processes share the reference of the process that created the namespace.
 */
__noinline int ic_is_mount_entered(__u64 address)
{
	struct mount *mount = (struct mount *)address;
	__u64 at = (__u64)BPF_CORE_READ(mount, mnt_ns);
	int refs = 0;

	if (!at)
		return 0;
	if (bpf_core_field_exists(struct ns_common___v6_18, __ns_ref))
		at += bpf_core_field_offset(struct mnt_namespace, ns) +
		      bpf_core_field_offset(struct ns_common___v6_18, __ns_ref);
	else if (bpf_core_field_exists(struct ns_common___v5_11, count))
		at += bpf_core_field_offset(struct mnt_namespace, ns) +
		      bpf_core_field_offset(struct ns_common___v5_11, count);
	else
		at += bpf_core_field_offset(struct mnt_namespace___v5_10, count);
	bpf_probe_read_kernel(&refs, sizeof(refs), (void *)at);
	return refs > 1;
}

/*
 * Reports a mount over a protected file in another mount namespace, where processes that run there
 * already find another file. A process that mounts in a namespace of its own is not reported: service
 * managers and containers do so.
 */
IC_INLINE void ic_report_mount(__u8 hook, struct dentry *dentry, struct mount *mount)
{
	if (ic_is_mount_target_covered(dentry) && ic_is_mount_entered(ic_address(mount)) &&
	    !ic_is_trusted() && !ic_has_exemption(IC_MAY_MOUNT))
		ic_alarm_of(0, ic_address(dentry), 0, 0,
			    hook | IC_FILE_MOUNT << 8 | IC_SENTINEL_LOGGED << 16);
}

/* Refuses what mounts something over a protected file, or moves a mount there. */
IC_INLINE int ic_refuse_mount(__u8 hook, struct dentry *dentry)
{
	if (ic_is_trusted() || ic_has_exemption(IC_MAY_MOUNT))
		return 0;
	return ic_refuse_file(hook, dentry, IC_FILE_MOUNT, 0);
}

/*
 * Refuses a change or the end of a mount. At shutdown PID 1 unmounts file systems, and a child of
 * systemd, which has executed nothing, mounts them read-only: both may, with an alarm. They may not
 * mount anything new over a protected file: an automount unit has PID 1 do so.
 */
IC_INLINE int ic_refuse_mount_change(__u8 hook, struct dentry *dentry)
{
	const struct ic_attempt attempt = {
		.hook = hook,
		.op = IC_FILE_MOUNT,
		.verdict = IC_SENTINEL_LOGGED,
		.dentry = dentry,
	};

	if (!ic_is_manager())
		return ic_refuse_mount(hook, dentry);
	if (!ic_is_trusted() && !ic_has_exemption(IC_MAY_MOUNT))
		ic_alarm(&attempt);
	return 0;
}

/* Checks a mount over a directory, or a change of the mount there. */
IC_INLINE int ic_check_mount(__u8 hook, const struct path *path, bool spreads)
{
	struct mount *mount;

	if (ic_is_canary(hook))
		return -IC_SENTINEL_ECANARY;
	if (!ic_is_armed() || !ic_is_mount_target_protected(path->dentry))
		return 0;
	mount = ic_mount_of(path->mnt);
	if (!spreads)
		return ic_is_mount_own(mount) ? ic_refuse_mount_change(hook, path->dentry) : 0;
	if (ic_is_mount_protected(mount))
		return ic_refuse_mount(hook, path->dentry);
	ic_report_mount(hook, path->dentry, mount);
	return 0;
}

/*
 * Whether mount(2) makes or moves a mount. Options and propagation types apply to the one mount. Of
 * several flags the kernel acts on the first, in the order of path_mount() in fs/namespace.c.
 */
IC_INLINE bool ic_is_mount_new(unsigned long flags)
{
	if (flags & IC_MS_REMOUNT)
		return false;
	return flags & IC_MS_BIND || !(flags & IC_MS_PROPAGATION);
}

/*
 * mount(2) with MS_MOVE names its source by a string, which may lead elsewhere when the kernel
 * resolves it: other processes may not use it in the agent's mount namespace.
 */
SEC("lsm/sb_mount")
int BPF_PROG(ic_sb_mount, const char *device, const struct path *path, const char *type,
	     unsigned long flags)
{
	int error = ic_check_mount(IC_HOOK_SB_MOUNT, path, ic_is_mount_new(flags));
	struct mount *mount;

	if (error || !(flags & IC_MS_MOVE) || !ic_is_armed())
		return error;
	mount = ic_mount_of(path->mnt);
	if (BPF_CORE_READ(mount, mnt_ns, ns.inum) != ic_sentinel.mount_namespace)
		return 0;
	return ic_refuse_mount(IC_HOOK_SB_MOUNT, path->dentry);
}

SEC("lsm/move_mount")
int BPF_PROG(ic_move_mount, const struct path *from, const struct path *to)
{
	int error = ic_check_mount(IC_HOOK_MOVE_MOUNT, to, true);

	if (error || !ic_is_armed() || !ic_is_mount_own(ic_mount_of(from->mnt)))
		return error;
	return ic_refuse_mount(IC_HOOK_MOVE_MOUNT, from->dentry);
}

/* The same as ic_is_mount_target_protected(), for a dentry that the verifier does not trust. */
IC_INLINE bool ic_is_mountpoint_protected(struct dentry *dentry)
{
	const struct ic_file_policy *policy = ic_file_policy_at(ic_half());
	struct inode *inode = BPF_CORE_READ(dentry, d_inode);
	const struct ic_label *label;
	struct ic_file_id id;
	__u64 address;

	if (!inode || !policy)
		return false;
	ic_file_identify(&id, inode);
	label = ic_label_of(&id);
	if (label && label->flags[ic_half()] & IC_LABEL_PATH_COMPONENT)
		return true;
	bpf_probe_read_kernel(&address, sizeof(address), &dentry);
	if (ic_is_pseudo_target(address, BPF_CORE_READ(inode, i_sb, s_magic), id.dev))
		return true;
	return ic_rules_of_alias(inode) & policy->op[IC_FILE_MOUNT];
}

/* Whether a mount is an own one, by its node in the list of a mount point. */
__noinline int ic_is_node_own(__u64 node)
{
	struct mount *mount =
		(struct mount *)(node - bpf_core_field_offset(struct mount, mnt_mp_list));

	return ic_is_mount_own(mount);
}

/* The next node of the list; 0 after the last, and 1 where this one was removed meanwhile. */
__noinline __u64 ic_node_next(__u64 address)
{
	struct hlist_node *node = (struct hlist_node *)address;
	__u64 next = (__u64)BPF_CORE_READ(node, next);

	return next || BPF_CORE_READ(node, pprev) ? next : 1;
}

/*
 * Whether an own mount is at a mount point, in any mount namespace. Mounts change during the walk:
 * where one is removed, or there are too many, the result is yes. Each step is a global function
 * with a number as its argument, which the verifier checks once.
 */
__noinline int ic_has_own_mount(__u64 address)
{
	struct mountpoint *there = (struct mountpoint *)address;
	__u64 node = (__u64)BPF_CORE_READ(there, m_list.first);
	__u32 i;

	for (i = 0; i < IC_MOUNTS_AT; i++) {
		if (!node)
			return 0;
		if (node == 1 || ic_is_node_own(node))
			return 1;
		node = ic_node_next(node);
	}
	return 1;
}

/* Whether the unmount of this mount propagates to an own mount: its parent is shared. */
__noinline int ic_umount_hits_own(__u64 address)
{
	struct mount *mount = (struct mount *)address;
	struct mount *parent = BPF_CORE_READ(mount, mnt_parent);

	return parent != mount && ic_is_mount_shared(parent) &&
	       ic_has_own_mount((__u64)BPF_CORE_READ(mount, mnt_mp));
}

/*
 * The next mount of a walk through a tree: down, aside, or back up, which the lowest bit indicates.
 * A list ends where it begins, in the parent.
 */
__noinline __u64 ic_mount_next(__u64 address)
{
	struct mount *mount = (struct mount *)(address & ~1ULL), *parent = mount;
	__u64 next, end;

	if (address & 1) {
		parent = BPF_CORE_READ(mount, mnt_parent);
		next = (__u64)BPF_CORE_READ(mount, mnt_child.next);
	} else {
		next = (__u64)BPF_CORE_READ(mount, mnt_mounts.next);
	}
	end = (__u64)parent + bpf_core_field_offset(struct mount, mnt_mounts);
	if (next == end)
		return (__u64)parent | 1;
	return next - bpf_core_field_offset(struct mount, mnt_child);
}

/*
 * Some steps of a walk through a tree: its position, 0 at the end, and 1 where an own mount would
 * be unmounted.
 */
__noinline __u64 ic_tree_walk(__u64 top, __u64 at)
{
	__u32 i;

	for (i = 0; i < IC_MOUNTS_BELOW / IC_MOUNTS_WALKS; i++) {
		if (!(at & 1) && ic_umount_hits_own(at))
			return 1;
		at = ic_mount_next(at);
		if (at == (top | 1))
			return 0;
	}
	return at;
}

/*
 * Whether an unmount of a tree affects an own mount: a lazy unmount includes all mounts below. An
 * accepted race: another process may move a mount there after this, and before the kernel takes its
 * lock.
 */
__noinline int ic_umount_tree_hits_own(__u64 top)
{
	__u64 at = top;
	__u32 i;

	for (i = 0; i < IC_MOUNTS_WALKS; i++) {
		at = ic_tree_walk(top, at);
		if (at <= 1)
			return at;
	}
	return 1;
}

/*
 * Mounts below are unmounted, too, without a call of this hook: so all mounts on the paths count.
 */
SEC("lsm/sb_umount")
int BPF_PROG(ic_sb_umount, struct vfsmount *mnt, int flags)
{
	struct mount *mount, *parent;
	struct dentry *dentry;
	__u64 address;
	bool takes;

	if (ic_is_canary(IC_HOOK_SB_UMOUNT))
		return -IC_SENTINEL_ECANARY;
	if (!ic_is_armed())
		return 0;
	mount = ic_mount_of(mnt);
	/* A mount of another namespace counts, too, where its parent is shared. */
	if (!ic_is_mount_own(mount)) {
		parent = BPF_CORE_READ(mount, mnt_parent);
		dentry = BPF_CORE_READ(mount, mnt_mountpoint);
		takes = ic_is_mount_shared(parent) && ic_is_mountpoint_protected(dentry);
		/* The verifier requires a number as the argument, and not a pointer. */
		bpf_probe_read_kernel(&address, sizeof(address), &mount);
		if (!takes && flags & IC_MNT_DETACH)
			takes = ic_umount_tree_hits_own(address);
		else if (!takes)
			takes = ic_umount_hits_own(address);
		if (!takes)
			return 0;
	}
	return ic_refuse_mount_change(IC_HOOK_SB_UMOUNT, BPF_CORE_READ(mnt, mnt_root));
}

/*
 * pivot_root(2) changes the root of every process with the same root, the agent's too, and the
 * files that its paths lead to. The new root is no own mount: other processes may not call it in
 * the agent's mount namespace.
 */
SEC("lsm/sb_pivotroot")
int BPF_PROG(ic_pivotroot, const struct path *old, const struct path *new)
{
	struct task_struct *task = (struct task_struct *)bpf_get_current_task();

	if (ic_is_canary(IC_HOOK_SB_PIVOTROOT))
		return -IC_SENTINEL_ECANARY;
	if (!ic_is_armed())
		return 0;
	if (BPF_CORE_READ(task, nsproxy, mnt_ns, ns.inum) != ic_sentinel.mount_namespace &&
	    !ic_is_mount_own(ic_mount_of(old->mnt)) && !ic_is_mount_own(ic_mount_of(new->mnt)))
		return 0;
	return ic_refuse_mount_change(IC_HOOK_SB_PIVOTROOT, old->dentry);
}

/* Other options of a file system with protected files, read-only above all. */
SEC("lsm/sb_remount")
int BPF_PROG(ic_remount, struct super_block *sb)
{
	__u32 device = sb->s_dev;
	const struct ic_name_val *volume = bpf_map_lookup_elem(&ic_volumes, &device);

	if (!ic_is_armed() || !volume || !volume->rules[ic_half()])
		return 0;
	return ic_refuse_mount_change(IC_HOOK_SB_REMOUNT, BPF_CORE_READ(sb, s_root));
}

enum {
	IC_FAN_OPEN_PERM = 0x10000, /* include/uapi/linux/fanotify.h */
	IC_FAN_ACCESS_PERM = 0x20000,
	IC_FAN_OPEN_EXEC_PERM = 0x40000,
	IC_FAN_PRE_ACCESS = 0x100000,
	IC_FAN_PERM =
		IC_FAN_OPEN_PERM | IC_FAN_ACCESS_PERM | IC_FAN_OPEN_EXEC_PERM | IC_FAN_PRE_ACCESS,
	IC_F_WRLCK = 1, /* include/uapi/asm-generic/fcntl.h */
	IC_F_UNLCK = 2,
};

/*
 * A listener with permission events can delay or deny what the agent opens. Refused on file systems
 * with protected files, and on those by which the agent reads the kernel's state. procfs has no
 * such events.
 */
SEC("lsm/path_notify")
int BPF_PROG(ic_path_notify, const struct path *path, __u64 mask)
{
	const struct ic_name_val *volume;
	unsigned long magic;
	__u32 device;

	if (ic_is_canary(IC_HOOK_PATH_NOTIFY))
		return -IC_SENTINEL_ECANARY;
	if (!(mask & IC_FAN_PERM) || !ic_is_armed())
		return 0;
	device = BPF_CORE_READ(path, dentry, d_sb, s_dev);
	magic = BPF_CORE_READ(path, dentry, d_sb, s_magic);
	volume = bpf_map_lookup_elem(&ic_volumes, &device);
	if (!(volume && volume->rules[ic_half()]) && magic != IC_SYSFS_MAGIC &&
	    magic != IC_SECURITYFS_MAGIC)
		return 0;
	if (ic_is_trusted() || ic_has_exemption(IC_MAY_KILL))
		return 0;
	return ic_refuse_file(IC_HOOK_PATH_NOTIFY, path->dentry, IC_FILE_READ, mask);
}

/*
 * A lock for writing can be a lease, too, which makes an open(2) of the file wait: refused on a
 * protected file that the process may not write. Programs lock for reading what they only read
 * (databases, tables of mail servers): refused on the files that the agent locks, because a lock
 * that waits for the agent's keeps its successor out.
 */
SEC("lsm/file_lock")
int BPF_PROG(ic_file_lock, struct file *file, unsigned int kind)
{
	__u64 own = 1ULL << IC_OWN_LOCKED | 1ULL << IC_OWN_STATE | 1ULL << IC_OWN_PINS, rules;
	struct dentry *dentry = file->f_path.dentry;

	if (ic_is_canary(IC_HOOK_FILE_LOCK))
		return -IC_SENTINEL_ECANARY;
	if (kind == IC_F_UNLCK || !ic_is_armed())
		return 0;
	rules = ic_rules_of(dentry);
	own &= rules;
	/* A successor opens the audit file before it is trusted. */
	if (own && !ic_mark()) {
		ic_alarm_of(own, ic_address(dentry), 0, kind,
			    IC_HOOK_FILE_LOCK | IC_FILE_WRITE << 8 | IC_SENTINEL_DENIED << 16);
		return -IC_EPERM;
	}
	if (kind != IC_F_WRLCK)
		return 0;
	return ic_enforce(IC_HOOK_FILE_LOCK, rules, IC_FILE_WRITE, IC_FILE_WRITE, dentry, kind);
}

IC_INLINE bool ic_is_refused(__u32 what)
{
	return IC_READ_ONCE(ic_sentinel.refuse) & what && !ic_is_trusted() &&
	       !ic_has_exemption(IC_MAY_LOAD);
}

#define IC_LOCKDOWN(name)                                          \
	(bpf_core_enum_value_exists(enum lockdown_reason, name) && \
	 what == (int)bpf_core_enum_value(enum lockdown_reason, name))

/*
 * Access to the kernel's memory and code, by the reasons of lockdown. Before
 * LOCKDOWN_BPF_READ_KERNEL had its name, the kernel called the hook for each read of a program,
 * ours too: so it is compared by that name only.
 */
SEC("lsm/locked_down")
int BPF_PROG(ic_locked_down, int what)
{
	if (ic_is_canary(IC_HOOK_LOCKED_DOWN))
		return -IC_SENTINEL_ECANARY;
	if (!ic_is_armed())
		return 0;
	if (!IC_LOCKDOWN(LOCKDOWN_DEV_MEM) && !IC_LOCKDOWN(LOCKDOWN_KEXEC) &&
	    !IC_LOCKDOWN(LOCKDOWN_HIBERNATION) && !IC_LOCKDOWN(LOCKDOWN_PCI_ACCESS) &&
	    !IC_LOCKDOWN(LOCKDOWN_IOPORT) && !IC_LOCKDOWN(LOCKDOWN_MSR) &&
	    !IC_LOCKDOWN(LOCKDOWN_ACPI_TABLES) && !IC_LOCKDOWN(LOCKDOWN_TIOCSSERIAL) &&
	    !IC_LOCKDOWN(LOCKDOWN_PCMCIA_CIS) && !IC_LOCKDOWN(LOCKDOWN_EFI_TEST) &&
	    !IC_LOCKDOWN(LOCKDOWN_DEVICE_TREE) && !IC_LOCKDOWN(LOCKDOWN_RTAS_ERROR_INJECTION) &&
	    !IC_LOCKDOWN(LOCKDOWN_MODULE_PARAMETERS) && !IC_LOCKDOWN(LOCKDOWN_MMIOTRACE) &&
	    !IC_LOCKDOWN(LOCKDOWN_DEBUGFS) && !IC_LOCKDOWN(LOCKDOWN_BPF_WRITE_USER) &&
	    !IC_LOCKDOWN(LOCKDOWN_DBG_WRITE_KERNEL) && !IC_LOCKDOWN(LOCKDOWN_KCORE) &&
	    !IC_LOCKDOWN(LOCKDOWN_KPROBES) && !IC_LOCKDOWN(LOCKDOWN_BPF_READ_KERNEL) &&
	    !IC_LOCKDOWN(LOCKDOWN_DBG_READ_KERNEL) && !IC_LOCKDOWN(LOCKDOWN_PERF) &&
	    !IC_LOCKDOWN(LOCKDOWN_TRACEFS))
		return 0;
	return ic_is_refused(IC_REFUSE_MEMORY) ? ic_refuse(IC_HOOK_LOCKED_DOWN, what, 0) : 0;
}

#define IC_DATA(kind, name) ((int)bpf_core_enum_value(enum kernel_##kind##_id, name))

/*
 * What a file that the kernel reads for itself has to be allowed by; 0: nothing. What is not known is
 * a module: newer kernels have another number for compressed ones.
 */
static __noinline __u32 ic_refuse_of_file(int what)
{
	if (what == IC_DATA(read_file, READING_KEXEC_IMAGE))
		return IC_REFUSE_KEXEC;
	if (what == IC_DATA(read_file, READING_FIRMWARE) ||
	    what == IC_DATA(read_file, READING_KEXEC_INITRAMFS) ||
	    what == IC_DATA(read_file, READING_POLICY) ||
	    what == IC_DATA(read_file, READING_X509_CERTIFICATE))
		return 0;
	return IC_REFUSE_MODULES;
}

/* The same of what it loads from memory. */
static __noinline __u32 ic_refuse_of_data(int what)
{
	if (what == IC_DATA(load_data, LOADING_KEXEC_IMAGE))
		return IC_REFUSE_KEXEC;
	if (what == IC_DATA(load_data, LOADING_FIRMWARE) ||
	    what == IC_DATA(load_data, LOADING_KEXEC_INITRAMFS) ||
	    what == IC_DATA(load_data, LOADING_POLICY) ||
	    what == IC_DATA(load_data, LOADING_X509_CERTIFICATE))
		return 0;
	return IC_REFUSE_MODULES;
}

/* Modules and kernels from memory, whose origin is not known. */
SEC("lsm/kernel_load_data")
int BPF_PROG(ic_load_data, int what)
{
	__u32 refuse = ic_refuse_of_data(what);

	if (ic_is_canary(IC_HOOK_KERNEL_LOAD_DATA))
		return -IC_SENTINEL_ECANARY;
	if (!refuse || !ic_is_armed() || !ic_is_refused(refuse))
		return 0;
	return ic_refuse(IC_HOOK_KERNEL_LOAD_DATA, what, 0);
}

/* From a file: modules are allowed only from a file that no other process may change. */
SEC("lsm/kernel_read_file")
int BPF_PROG(ic_read_file, struct file *file, int what)
{
	struct ic_attempt attempt = {
		.hook = IC_HOOK_KERNEL_READ_FILE,
		.op = IC_FILE_EXECUTE,
		.verdict = IC_SENTINEL_DENIED,
		.detail = what,
	};
	__u32 refuse = ic_refuse_of_file(what);

	if (ic_is_canary(IC_HOOK_KERNEL_READ_FILE))
		return -IC_SENTINEL_ECANARY;
	if (!refuse || !ic_is_armed() || !ic_is_refused(refuse))
		return 0;
	if (file) {
		attempt.dentry = file->f_path.dentry;
		if (refuse == IC_REFUSE_MODULES && ic_is_unchanged(attempt.dentry))
			return 0;
	}
	ic_alarm(&attempt);
	return -IC_EPERM;
}

#endif
