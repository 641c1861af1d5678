/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * Which file rules cover a file: by what it is, by where it lies, by the name that it has there. The
 * table of labels decides; what directories were found to be covered by is cached.
 */
#ifndef IRONCLAD_LIB_LABELS_H
#define IRONCLAD_LIB_LABELS_H

#include "sentinel.h"

/* Sized at load. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__uint(max_entries, 1);
	__type(key, struct ic_file_id);
	__type(value, struct ic_label);
} ic_labels SEC(".maps");

/* A bit for each label, by a hash: most files have none, and one word says so. A power of two. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(map_flags, BPF_F_MMAPABLE);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, __u64);
} ic_label_bits SEC(".maps");

/* Words of it, less one. */
const volatile __u32 ic_cfg_label_mask = 0;

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__uint(max_entries, 1);
	__type(key, struct ic_name_key);
	__type(value, struct ic_name_val);
} ic_names SEC(".maps");

/* Devices with files that rules cover, what those lie on, and which rules these are. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__uint(max_entries, IC_SENTINEL_VOLUMES);
	__type(key, __u32);
	__type(value, struct ic_name_val);
} ic_volumes SEC(".maps");

/*
 * By a hash of the directory, one place for each. Inode storage would do the same, but the verifier of
 * Linux 7.3, unlike that of 6.12, does not trust the inode of a dentry's parent.
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

IC_INLINE __u32 ic_label_hash(__u64 ino, __u32 dev)
{
	/* Fibonacci hashing: Knuth, The Art of Computer Programming, volume 3, section 6.4. */
	__u64 hash = (ino ^ ((__u64)dev << 32)) * 0x9e3779b97f4a7c15ULL;

	return hash >> 32;
}

/* Whether a file may have a label, by the hash of what it is. */
IC_INLINE bool ic_may_have_label(__u32 hash)
{
	__u32 index = (hash >> 6) & ic_cfg_label_mask;
	const __u64 *bits = bpf_map_lookup_elem(&ic_label_bits, &index);

	return bits && *bits >> (hash & 63) & 1;
}

IC_INLINE const struct ic_label *ic_label_of(const struct ic_file_id *id)
{
	if (!ic_may_have_label(ic_label_hash(id->ino, id->dev)))
		return NULL;
	return bpf_map_lookup_elem(&ic_labels, id);
}

/* By loads and not by helpers: on the way of every open(2). The pointer is one that the verifier knows. */
IC_INLINE struct ic_file_id ic_inode_id(struct inode *inode)
{
	return (struct ic_file_id){
		.ino = inode->i_ino,
		.dev = inode->i_sb->s_dev,
		.generation = inode->i_generation,
	};
}

/* Most have none: what the filter does not ask for is not read before. */
IC_INLINE const struct ic_label *ic_label_on(struct inode *inode, __u32 dev)
{
	struct ic_file_id id;

	if (!ic_may_have_label(ic_label_hash(inode->i_ino, dev)))
		return NULL;
	id = ic_inode_id(inode);
	return bpf_map_lookup_elem(&ic_labels, &id);
}

IC_INLINE const struct ic_label *ic_label_of_inode(struct inode *inode)
{
	return ic_label_on(inode, inode->i_sb->s_dev);
}

IC_INLINE const struct ic_file_policy *ic_file_policy_at(__u32 half)
{
	half &= 1;
	return bpf_map_lookup_elem(&ic_file_policy, &half);
}

/*
 * The way from a directory to its root is of small functions that numbers lead to: the verifier walks
 * each of them once, and not once for each directory on the way.
 */
__noinline __u64 ic_parent(__u64 address)
{
	struct dentry *dentry = (struct dentry *)address;

	return (__u64)BPF_CORE_READ(dentry, d_parent);
}

/* What a directory's own label says of everything below. */
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

/* What rules of the device cover directories. */
__noinline __u64 ic_below_any(__u64 address, __u32 half)
{
	struct dentry *dentry = (struct dentry *)address;
	__u32 device = BPF_CORE_READ(dentry, d_sb, s_dev);
	const struct ic_name_val *volume = bpf_map_lookup_elem(&ic_volumes, &device);
	const struct ic_file_policy *policy = ic_file_policy_at(half);

	return volume && policy ? volume->rules[half & 1] & policy->below : 0;
}

/* What was found on the way to where it ends, if that is the root. */
__noinline __u64 ic_below_end(__u64 address, __u32 half, __u64 rules)
{
	struct dentry *dentry = (struct dentry *)address;

	return BPF_CORE_READ(dentry, d_sb, s_root) == dentry ? rules : ic_below_any(address, half);
}

/*
 * What rules cover everything in a directory: those of it and of all those around it. Where the way to
 * the root is not known (a file opened by its handle) or too long, all rules that cover directories of
 * the device; pipes and the like have no root either, and devices of which no rule speaks.
 */
__noinline __u64 ic_below(__u64 address, __u32 half)
{
	__u64 rules = 0, parent;
	__u32 i;

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

/* What is kept of a directory, read once: another CPU may write it meanwhile. */
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

/* Ties what is kept together: two CPUs may write it at once. */
IC_INLINE __u64 ic_dir_sum(const struct ic_dir_cache *cache)
{
	return cache->word * 0x9e3779b97f4a7c15ULL ^ cache->dir.ino * 0xff51afd7ed558ccdULL ^
	       cache->below * 0xc2b2ae3d27d4eb4fULL ^ (__u64)cache->dir.dev << 32 ^
	       cache->dir.generation ^ (__u64)cache->names << 17 ^ (__u64)cache->flags << 49;
}

/* Where nothing is kept of a directory: what its label and those on the way to the root say. */
IC_INLINE void ic_dir_look(struct ic_dir_cache *found, struct dentry *child)
{
	const struct ic_file_id id = found->dir;
	__u32 half = found->word & 1;
	const struct ic_label *label;

	/* A number, as the verifier wants it of arguments, and not a pointer. */
	found->below = ic_below((__u64)BPF_CORE_READ(child, d_parent), half);
	label = ic_label_of(&id);
	found->names = label ? label->names[half] : 0;
	found->flags = label ? label->flags[half] : 0;
	found->sum = ic_dir_sum(found);
}

/* What rules cover what is in a child's directory, and which names in it they speak of. */
IC_INLINE void ic_dir_find(struct ic_dir_cache *found, struct dentry *child, struct inode *dir,
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
	ic_dir_look(found, child);
	if (cache && !(word >> IC_RENAME_SHIFT))
		*cache = *found;
}

IC_INLINE __u64 ic_name_mix(__u64 hash, __u64 word)
{
	hash = (hash ^ word) * 0x9e3779b97f4a7c15ULL;
	return hash ^ hash >> 32;
}

/* Over eight bytes at a time: a name of 255 bytes would not find room on the stack. */
__noinline __u64 ic_name_hash(__u64 address, __u32 len)
{
	const unsigned char *name = (const unsigned char *)address;
	__u64 hash = len, word;
	__u32 at, rest = len & 7;

	for (at = sizeof(word); at < IC_SENTINEL_NAME; at += sizeof(word)) {
		if (at > len)
			break;
		bpf_probe_read_kernel(&word, sizeof(word), name);
		hash = ic_name_mix(hash, word);
		name += sizeof(word);
	}
	if (!rest)
		return hash;
	word = 0;
	/* clang knows that it is idle, and the verifier does not. */
	asm volatile("%0 &= 7" : "+r"(rest));
	bpf_probe_read_kernel(&word, rest, name);
	return ic_name_mix(hash, word);
}

/* What rules cover a name in a directory. */
static __noinline __u64 ic_rules_of_name(const struct ic_file_id *dir, struct dentry *dentry,
					 __u32 half)
{
	const struct ic_name_val *val;
	struct ic_name_key key = {};

	key.dir = *dir;
	key.len = BPF_CORE_READ(dentry, d_name.len);
	key.hash = ic_name_hash((__u64)BPF_CORE_READ(dentry, d_name.name), key.len);
	val = bpf_map_lookup_elem(&ic_names, &key);
	return val ? val->rules[half & 1] : 0;
}

/* A name of at most fifteen bytes, padded with zeros. */
union ic_short_name {
	char text[16];
	__u64 word[2];
};

/* A longer one is cut, and is none of those that it is compared with. */
IC_INLINE bool ic_short_name(union ic_short_name *name, struct dentry *dentry)
{
	const unsigned char *at = BPF_CORE_READ(dentry, d_name.name);

	name->word[0] = 0;
	name->word[1] = 0;
	return bpf_probe_read_kernel_str(name->text, sizeof(name->text), at) > 0;
}

IC_INLINE bool ic_is_same(const union ic_short_name *one, const union ic_short_name *other)
{
	return one->word[0] == other->word[0] && one->word[1] == other->word[1];
}

#define ic_is_named(dentry, literal)                                          \
	({                                                                    \
		static const union ic_short_name wanted = { literal };        \
		union ic_short_name found;                                    \
		ic_short_name(&found, dentry) && ic_is_same(&found, &wanted); \
	})

/* What rules cover what is, or will be, in a directory under a name. */
IC_INLINE __u64 ic_rules_in(struct inode *dir, struct dentry *dentry, __u32 dev)
{
	struct ic_dir_cache found = {};
	struct ic_file_id id;
	__u32 len;

	ic_dir_find(&found, dentry, dir, dev);
	if (!found.names)
		return found.below;
	/* A copy: what has its address taken leaves the registers. */
	id = found.dir;
	len = dentry->d_name.len;
	if (found.names >> (len & 31) & 1)
		found.below |= ic_rules_of_name(&id, dentry, found.word & 1);
	return found.below;
}

/* The rules of a file's or directory's own label, and its flags (enum ic_label_flag). */
IC_INLINE __u64 ic_rules_own(struct inode *inode, __u32 dev, __u32 *flags)
{
	const struct ic_label *label = ic_label_on(inode, dev);
	__u32 half = ic_half();

	if (!label)
		return 0;
	*flags = label->flags[half];
	return label->own[half];
}

/*
 * What rules cover an inode, if there is one, and its name in a directory. Both lie on one device, as
 * do all dentries on the way to a root.
 */
IC_INLINE __u64 ic_rules_at(struct inode *dir, struct dentry *dentry, struct inode *inode,
			    __u32 dev, __u32 *flags)
{
	__u64 rules = inode ? ic_rules_own(inode, dev, flags) : 0;

	return dir ? rules | ic_rules_in(dir, dentry, dev) : rules;
}

/* What rules cover a file or directory. */
IC_INLINE __u64 ic_rules_of(struct dentry *dentry)
{
	struct inode *dir = dentry->d_parent->d_inode, *inode = dentry->d_inode;
	__u32 flags = 0;

	if (dir)
		return ic_rules_at(dir, dentry, inode, dir->i_sb->s_dev, &flags);
	return inode ? ic_rules_own(inode, inode->i_sb->s_dev, &flags) : 0;
}

/* Where a dentry is in the list of its inode's names: with a name of its own in 6.12, without in 7.3. */
struct dentry___v6_12 {
	union {
		struct hlist_node d_alias;
	} d_u;
} __attribute__((preserve_access_index));

/* What rules cover an inode that was come to by no name of its own: by one of its names. */
static __noinline __u64 ic_rules_of_alias(struct inode *inode)
{
	__u64 alias = (__u64)BPF_CORE_READ(inode, i_dentry.first), rules = 0;
	const struct ic_name_val *volume;
	const struct ic_label *label;
	struct dentry *dentry;
	struct ic_file_id id;
	struct inode *dir;
	__u32 half = ic_half();

	ic_file_identify(&id, inode);
	label = ic_label_of(&id);
	if (label)
		rules = label->own[half];
	if (!alias) {
		volume = bpf_map_lookup_elem(&ic_volumes, &id.dev);
		return volume ? rules | volume->rules[half] : rules;
	}
	if (bpf_core_field_exists(struct dentry___v6_12, d_u))
		dentry =
			(void *)(alias - bpf_core_field_offset(struct dentry___v6_12, d_u.d_alias));
	else
		dentry = (void *)(alias - bpf_core_field_offset(struct dentry, d_alias));
	rules |= ic_below((__u64)BPF_CORE_READ(dentry, d_parent), half);
	dir = BPF_CORE_READ(dentry, d_parent, d_inode);
	if (!dir)
		return rules;
	ic_file_identify(&id, dir);
	label = ic_label_of(&id);
	if (label && label->names[half])
		rules |= ic_rules_of_name(&id, dentry, half);
	return rules;
}

/* What rules say of an attempt; two operations where it is both. */
IC_INLINE int ic_enforce(__u8 hook, __u64 rules, __u32 op, __u32 other, struct dentry *dentry,
			 __u32 detail)
{
	const struct ic_file_policy *policy;
	const struct ic_exemption *exemptions;
	struct ic_attempt attempt;
	__u32 half, mark;

	if (!rules || op >= IC_FILE_OPS || other >= IC_FILE_OPS)
		return 0;
	half = ic_half();
	policy = ic_file_policy_at(half);
	if (!policy)
		return 0;
	rules &= policy->op[op] | policy->op[other];
	if (!rules)
		return 0;
	mark = ic_mark();
	if (mark & IC_MARK_TRUSTED)
		return 0;
	/* Where the secret is. */
	if (mark & IC_MARK_CANDIDATE && op == IC_FILE_READ && other == IC_FILE_READ)
		rules &= ~(1ULL << IC_OWN_STATE);
	/* The service manager manages the agent's group as well. */
	if (rules & 1ULL << IC_OWN_GROUP && ic_is_manager())
		rules &= ~(1ULL << IC_OWN_GROUP);
	exemptions = ic_exception(hook == IC_HOOK_MMAP_FILE);
	if (exemptions)
		rules &= ~exemptions->rules[half];
	if (!rules)
		return 0;
	attempt = (struct ic_attempt){
		.hook = hook,
		.op = op,
		.dentry = dentry,
		.detail = detail,
		.rules = rules,
		.verdict = rules & policy->deny ? IC_SENTINEL_DENIED : IC_SENTINEL_LOGGED,
	};
	ic_alarm(&attempt);
	return rules & policy->deny ? -IC_EPERM : 0;
}

#endif
