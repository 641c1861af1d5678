/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * The rules that cover a directory and everything below it: found on a walk to the root, and
 * cached.
 */
#ifndef IRONCLAD_LIB_SENTINEL_DIRECTORY_H
#define IRONCLAD_LIB_SENTINEL_DIRECTORY_H

#include "label.h"

/* Devices with protected files, their backing devices, and the rules. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__uint(max_entries, IC_SENTINEL_VOLUMES);
	__type(key, __u32);
	__type(value, struct ic_name_val);
} ic_volumes SEC(".maps");

/*
 * By a hash of the directory, one cell for each. Inode storage would do the same, but the verifier
 * of Linux 7.3, unlike that of 6.12, does not trust the inode of a dentry's parent.
 */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, IC_SENTINEL_DIRS);
	__type(key, __u32);
	__type(value, struct ic_dir_cache);
} ic_dir_cache SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 2);
	__type(key, __u32);
	__type(value, struct ic_file_policy);
} ic_file_policy SEC(".maps");

IC_INLINE const struct ic_file_policy *ic_file_policy_at(__u32 half)
{
	half &= 1;
	return bpf_map_lookup_elem(&ic_file_policy, &half);
}

/*
 * The walk from a directory to its root consists of small global functions with numbers as
 * arguments: the verifier checks each of them once, and not for each directory of the path.
 */
__noinline __u64 ic_parent(__u64 address)
{
	struct dentry *dentry = (struct dentry *)address;

	return (__u64)BPF_CORE_READ(dentry, d_parent);
}

/* The rules of a directory's own label for everything below. */
__noinline __u64 ic_below_own(__u64 address, __u32 half)
{
	struct dentry *dentry = (struct dentry *)address;
	struct inode *inode = BPF_CORE_READ(dentry, d_inode);
	const struct ic_label *label;
	struct ic_file_id id;

	if (!inode)
		return 0;
	ic_file_identify(&id, inode);
	label = ic_label_of(&id);
	return label ? label->below[half & 1] : 0;
}

/* The rules of the device that cover directories. */
__noinline __u64 ic_below_any(__u64 address, __u32 half)
{
	struct dentry *dentry = (struct dentry *)address;
	__u32 device = BPF_CORE_READ(dentry, d_sb, s_dev);
	const struct ic_name_val *volume = bpf_map_lookup_elem(&ic_volumes, &device);
	const struct ic_file_policy *policy = ic_file_policy_at(half);

	return volume && policy ? volume->rules[half & 1] & policy->below : 0;
}

/* All rules of the device. */
__noinline __u64 ic_rules_any(__u64 address, __u32 half)
{
	struct dentry *dentry = (struct dentry *)address;
	__u32 device = BPF_CORE_READ(dentry, d_sb, s_dev);
	const struct ic_name_val *volume = bpf_map_lookup_elem(&ic_volumes, &device);

	return volume ? volume->rules[half & 1] : 0;
}

/* Whether a directory is the root of its file system. */
__noinline int ic_is_root(__u64 address)
{
	struct dentry *dentry = (struct dentry *)address;

	return BPF_CORE_READ(dentry, d_sb, s_root) == dentry;
}

/* The rules found on a walk that ended at the root; of any other walk, all rules of the device. */
__noinline __u64 ic_below_end(__u64 address, __u32 half, __u64 rules)
{
	return ic_is_root(address) ? rules : ic_below_any(address, half);
}

/*
 * The rules that cover everything in a directory: its own and those of all its parents. Where the
 * path to the root is not known or too long, all rules that cover directories of the device. A file
 * that is opened by its handle stands for its directory, and has no name: it may have replaced one
 * that a rule names, and all rules of the device cover it. Pipes and the like have no root either;
 * no rule covers their devices.
 */
__noinline __u64 ic_below(__u64 address, __u32 half)
{
	__u64 rules = 0, parent = ic_parent(address);
	__u32 i;

	if (parent == address && !ic_is_root(address))
		return ic_rules_any(address, half);
	if (!ic_below_any(address, half))
		return 0;
	for (i = 0; i < IC_SENTINEL_DEPTH; i++) {
		rules |= ic_below_own(address, half);
		parent = ic_parent(address);
		if (parent == address)
			return ic_below_end(address, half, rules);
		address = parent;
	}
	return ic_below_any(address, half);
}

/*
 * The same for what a rule permits: none where the path to the root is not known or too long, and
 * rules may not cover it.
 */
__noinline __u64 ic_below_surely(__u64 address, __u32 half)
{
	__u64 rules = 0, parent;
	__u32 i;

	for (i = 0; i < IC_SENTINEL_DEPTH; i++) {
		rules |= ic_below_own(address, half);
		parent = ic_parent(address);
		if (parent == address)
			return ic_is_root(address) ? rules : 0;
		address = parent;
	}
	return 0;
}

/* The dentry's node in the list of its inode's names: in a union on 6.12, and not on 7.3. */
struct dentry___v6_12 {
	union {
		struct hlist_node d_alias;
	} d_u;
} __attribute__((preserve_access_index));

/* One of the names of an inode; NULL where it has none in memory. */
IC_INLINE struct dentry *ic_alias_of(struct inode *inode)
{
	__u64 alias = (__u64)BPF_CORE_READ(inode, i_dentry.first);

	if (!alias)
		return NULL;
	if (bpf_core_field_exists(struct dentry___v6_12, d_u))
		return (void *)(alias - bpf_core_field_offset(struct dentry___v6_12, d_u.d_alias));
	return (void *)(alias - bpf_core_field_offset(struct dentry, d_alias));
}

/* Reads a cache cell once: another CPU may write it meanwhile. */
IC_INLINE void ic_dir_read(struct ic_dir_cache *found, const struct ic_dir_cache *cache)
{
	found->word = IC_READ_ONCE(cache->word);
	found->dir.ino = IC_READ_ONCE(cache->dir.ino);
	found->dir.dev = IC_READ_ONCE(cache->dir.dev);
	found->dir.generation = IC_READ_ONCE(cache->dir.generation);
	found->below = IC_READ_ONCE(cache->below);
	found->names = IC_READ_ONCE(cache->names);
	found->flags = IC_READ_ONCE(cache->flags);
	found->sum = IC_READ_ONCE(cache->sum);
}

/*
 * A checksum over the cell: two CPUs may write it at once. By the key of the instance: a process
 * that chooses numbers of inodes, as a FUSE server does, cannot choose the sum.
 */
IC_INLINE __u64 ic_dir_sum(const struct ic_dir_cache *cache)
{
	__u64 one = ic_sentinel.name_key[0] | 1, two = ic_sentinel.name_key[1] | 1;

	return cache->word * 0x9e3779b97f4a7c15ULL ^ cache->dir.ino * one ^ cache->below * two ^
	       ((__u64)cache->dir.dev << 32 | cache->dir.generation) * (one ^ two << 1) ^
	       (__u64)cache->names << 17 ^ (__u64)cache->flags << 49;
}

/*
 * Fills a cell from the labels of the directory and its parents. A hook may name the directory
 * itself in place of a child (cachefiles).
 */
IC_INLINE void ic_dir_walk(struct ic_dir_cache *found, struct dentry *child, struct inode *dir)
{
	struct dentry *dentry = BPF_CORE_READ(child, d_parent);
	const struct ic_file_id id = found->dir;
	__u32 half = found->word & 1;
	const struct ic_label *label;

	if (BPF_CORE_READ(dentry, d_inode) != dir)
		dentry = ic_alias_of(dir);
	/* The verifier requires a number as the argument, and not a pointer. */
	found->below =
		dentry ? ic_below(ic_address(dentry), half) : ic_rules_any(ic_address(child), half);
	label = ic_label_of(&id);
	found->names = label ? label->names[half] : 0;
	found->flags = label ? label->flags[half] : 0;
	found->sum = ic_dir_sum(found);
}

/*
 * The rules that cover the files in a child's directory, and the lengths of names that rules cover
 * in it.
 */
IC_INLINE void ic_dir_lookup(struct ic_dir_cache *found, struct dentry *child, struct inode *dir,
			     __u32 dev)
{
	const struct ic_file_id id = {
		.ino = dir->i_ino,
		.dev = dev,
		.generation = dir->i_generation,
	};
	__u64 word = IC_READ_ONCE(ic_sentinel.word);
	__u32 index = ic_label_hash(id.ino, id.dev) & (IC_SENTINEL_DIRS - 1);
	struct ic_dir_cache *cache = bpf_map_lookup_elem(&ic_dir_cache, &index);

	if (cache) {
		ic_dir_read(found, cache);
		if (found->word == word && found->dir.ino == id.ino && found->dir.dev == id.dev &&
		    found->dir.generation == id.generation && found->sum == ic_dir_sum(found))
			return;
	}
	found->word = word;
	found->dir = id;
	ic_dir_walk(found, child, dir);
	if (cache && !(word >> IC_RENAME_SHIFT))
		*cache = *found;
}

#endif
