/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * The census: protected files that are open for writing, and block devices that are open, by the
 * kernel's own counts. An open file need not have a descriptor of a process: it may be on its way
 * over a socket, or belong to io_uring, a loop device, an overlay, acct(2) or a mapping.
 */
#ifndef IRONCLAD_PROGS_SENTINEL_CENSUS_H
#define IRONCLAD_PROGS_SENTINEL_CENSUS_H

#include "preopened.h"

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, IC_SENTINEL_HELD);
	__type(key, __u32);
	__type(value, struct ic_held);
} ic_held SEC(".maps");

enum {
	IC_BDEVFS_MAGIC = 0x62646576, /* include/uapi/linux/magic.h */
	/* Limits of walks; beyond them the census is incomplete. */
	IC_CENSUS_STEPS = 128, /* steps of one function */
	IC_CENSUS_PARTS = 128, /* calls of it from one function, and calls of that */
};

/* Declared here alone: clang orders types that are only named by chance, in each object. */
struct super_block___mounted {
	void *s_bdev;
} __attribute__((preserve_access_index));

IC_INLINE void ic_census_fails(void)
{
	struct ic_census *census = ic_census_now();

	if (census)
		census->is_incomplete = 1;
}

/* The next free entry. */
IC_INLINE struct ic_held *ic_held_next(void)
{
	struct ic_census *census = ic_census_now();
	struct ic_held *held;
	__u32 index;

	if (!census)
		return NULL;
	index = census->held;
	held = bpf_map_lookup_elem(&ic_held, &index);
	if (held)
		census->held = index + 1;
	else
		census->is_incomplete = 1;
	return held;
}

/* Rules that deny to write a device, and the files on it. */
IC_INLINE __u64 ic_rules_of_device(__u32 device)
{
	const struct ic_name_val *volume = bpf_map_lookup_elem(&ic_volumes, &device);
	const struct ic_file_policy *policy = ic_file_policy_at(ic_half());

	if (!volume || !policy)
		return 0;
	return volume->rules[ic_half()] & policy->deny & policy->op[IC_FILE_WRITE];
}

/* Counts the writers of a regular file, if rules deny to write it. */
__noinline int ic_census_file(__u64 address)
{
	struct inode *inode = (struct inode *)address;
	const struct ic_file_policy *policy = ic_file_policy_at(ic_half());
	int writers = BPF_CORE_READ(inode, i_writecount.counter);
	struct ic_held *held;
	__u64 rules;

	if (writers <= 0 || !policy || (BPF_CORE_READ(inode, i_mode) & IC_S_IFMT) != IC_S_IFREG)
		return 0;
	rules = ic_rules_of_alias(inode) & policy->deny & policy->op[IC_FILE_WRITE];
	if (!rules)
		return 0;
	held = ic_held_next();
	if (!held)
		return 0;
	held->rules = rules;
	ic_file_identify(&held->file, inode);
	held->kind = IC_HELD_FILE;
	held->count = writers;
	held->whole = 0;
	ic_alias_name(held->name, sizeof(held->name), inode);
	return 0;
}

/* Counts the open files of a block device, by the inode that the kernel has for it. */
__noinline int ic_census_device(__u64 address)
{
	__u64 at = address - bpf_core_field_offset(struct bdev_inode, vfs_inode);
	struct block_device *device = (struct block_device *)at, *whole;
	__u32 openers, number = BPF_CORE_READ(device, bd_dev);
	struct ic_held *held;

	if (bpf_core_field_exists(struct block_device___v5_10, bd_openers))
		openers = BPF_CORE_READ((struct block_device___v5_10 *)at, bd_openers);
	else
		openers = BPF_CORE_READ(device, bd_openers.counter);
	if (!openers)
		return 0;
	held = ic_held_next();
	if (!held)
		return 0;
	whole = ic_whole_device(device);
	held->rules = ic_rules_of_device(number);
	held->file.ino = 0;
	held->file.dev = number;
	held->file.generation = 0;
	held->kind = IC_HELD_DEVICE;
	held->count = openers;
	held->whole = whole && whole != device ? BPF_CORE_READ(whole, bd_dev) : 0;
	held->name[0] = 0;
	return 0;
}

/* The node after a node of a list; 0 where it was removed, which makes it the next one of its own. */
__noinline __u64 ic_list_next(__u64 node)
{
	__u64 next = (__u64)BPF_CORE_READ((struct list_head *)node, next);

	return next == node ? 0 : next;
}

/*
 * Some steps along the inodes of a super block, from a node of their list to its end. The position;
 * `end` at the end, and 0 where the list changed. No lock is held: an inode that is removed keeps its
 * memory until the program ends.
 */
__noinline __u64 ic_census_steps(__u64 node, __u64 end, __u32 devices)
{
	__u64 inode;
	__u32 i;

	for (i = 0; i < IC_CENSUS_STEPS; i++) {
		if (!node || node == end)
			return node;
		inode = node - bpf_core_field_offset(struct inode, i_sb_list);
		if (devices)
			ic_census_device(inode);
		else
			ic_census_file(inode);
		node = ic_list_next(node);
	}
	return node;
}

__noinline __u64 ic_census_part(__u64 node, __u64 end, __u32 devices)
{
	__u32 i;

	for (i = 0; i < IC_CENSUS_PARTS; i++) {
		if (!node || node == end)
			return node;
		node = ic_census_steps(node, end, devices);
	}
	return node;
}

/* The next super block of a file system that may be the one that is searched for. */
__noinline int ic_is_super_of(__u64 address, __u32 device)
{
	struct super_block *super = (struct super_block *)address;

	/* The head of the list is none, and has no root that leads back to it. */
	if (BPF_CORE_READ(super, s_root, d_sb) != super)
		return 0;
	if (device)
		return BPF_CORE_READ(super, s_dev) == device;
	return BPF_CORE_READ(super, s_magic) == IC_BDEVFS_MAGIC;
}

/* Some steps along the super blocks, from a node of their list: that of the one, or the last. */
__noinline __u64 ic_super_steps(__u64 node, __u64 first, __u32 device)
{
	__u64 list = bpf_core_field_offset(struct super_block, s_list);
	__u32 i;

	for (i = 0; i < IC_CENSUS_STEPS; i++) {
		if (!node || ic_is_super_of(node - list, device))
			return node;
		node = ic_list_next(node);
		if (node == first)
			return node;
	}
	return node;
}

/* The super block of a device, or that of all block devices for 0. 0 if there is none. */
__noinline __u64 ic_super_find(__u64 own, __u32 device)
{
	__u64 list = bpf_core_field_offset(struct super_block, s_list);
	__u64 first = own + list, node = first;
	__u32 i;

	for (i = 0; i < IC_CENSUS_PARTS; i++) {
		node = ic_super_steps(node, first, device);
		if (!node)
			break;
		if (ic_is_super_of(node - list, device))
			return node - list;
		if (node == first)
			return 0;
	}
	ic_census_fails();
	return 0;
}

IC_INLINE void ic_census_mount(__u64 address, __u32 device)
{
	struct super_block___mounted *super = (struct super_block___mounted *)address;
	struct ic_held *held;

	if (!BPF_CORE_READ(super, s_bdev))
		return;
	held = ic_held_next();
	if (!held)
		return;
	__builtin_memset(held, 0, sizeof(*held));
	held->rules = ic_rules_of_device(device);
	held->file.dev = device;
	held->kind = IC_HELD_MOUNT;
}

/*
 * Counts in the file system of a device, or all block devices for 0: in all inodes that are in
 * memory, as those of open files are. An iterator, which acts once: before Linux 5.14 programs that
 * can be run otherwise may not use our maps.
 */
SEC("iter/task")
int ic_take_census(struct bpf_iter__task *ctx)
{
	struct task_struct *task = (struct task_struct *)bpf_get_current_task();
	struct super_block *own = BPF_CORE_READ(task, fs, root.dentry, d_sb);
	struct ic_census *census = ic_census_now();
	__u64 super, node, end;
	__u32 device, i;

	if (!census || ctx->meta->seq_num)
		return 0;
	device = census->device;
	census->held = 0;
	census->is_incomplete = 0;
	if (device && !ic_rules_of_device(device))
		return 0;
	super = ic_super_find(ic_address(own), device);
	if (!super)
		return 0;
	if (device)
		ic_census_mount(super, device);
	end = super + bpf_core_field_offset(struct super_block, s_inodes);
	node = ic_list_next(end) ?: end;
	for (i = 0; i < IC_CENSUS_PARTS; i++) {
		if (!node || node == end)
			break;
		node = ic_census_part(node, end, !device);
	}
	if (node != end)
		ic_census_fails();
	return 0;
}

#endif
