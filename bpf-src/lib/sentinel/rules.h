/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * The file rules that cover a file, by its label, its directory and its name there, and their
 * enforcement.
 */
#ifndef IRONCLAD_LIB_SENTINEL_RULES_H
#define IRONCLAD_LIB_SENTINEL_RULES_H

#include "name.h"

/* The rules that cover a name in a directory, of an existing or a new file. */
IC_INLINE __u64 ic_rules_in(struct inode *dir, struct dentry *dentry, __u32 dev)
{
	struct ic_dir_cache found = {};
	struct ic_file_id id;
	__u32 len;

	ic_dir_lookup(&found, dentry, dir, dev);
	if (!found.names)
		return found.below;
	/* A copy: a variable whose address is taken cannot stay in a register. */
	id = found.dir;
	len = dentry->d_name.len;
	if (found.names >> (len & 31) & 1)
		found.below |= ic_rules_of_name(&id, dentry, found.word & 1);
	return found.below;
}

/* The rules of a file's or directory's own label, and its flags (enum ic_label_flag). */
IC_INLINE __u64 ic_rules_own(struct inode *inode, __u32 dev, __u32 *flags)
{
	const struct ic_label *label = ic_label_lookup(inode, dev);
	__u32 half = ic_half();

	if (!label)
		return 0;
	*flags = label->flags[half];
	return label->own[half];
}

/*
 * The rules that cover an inode, if there is one, and its name in a directory. Both are on one
 * device, as are all dentries of a path.
 */
IC_INLINE __u64 ic_rules_at(struct inode *dir, struct dentry *dentry, struct inode *inode,
			    __u32 dev, __u32 *flags)
{
	__u64 rules = inode ? ic_rules_own(inode, dev, flags) : 0;

	return dir ? rules | ic_rules_in(dir, dentry, dev) : rules;
}

/* The rules that cover a file or directory. */
IC_INLINE __u64 ic_rules_of(struct dentry *dentry)
{
	struct inode *dir = dentry->d_parent->d_inode, *inode = dentry->d_inode;
	__u32 flags = 0;

	if (dir)
		return ic_rules_at(dir, dentry, inode, dir->i_sb->s_dev, &flags);
	return inode ? ic_rules_own(inode, inode->i_sb->s_dev, &flags) : 0;
}

/*
 * Whether a file has one of these rules surely, and not by assumption. A file without a name, opened
 * by its handle, has all rules of its device.
 */
IC_INLINE bool ic_has_rules(struct dentry *dentry, __u64 rules)
{
	return dentry->d_parent != dentry && ic_rules_of(dentry) & rules;
}

/* The name of an inode, cut to `size` bytes, its end included. */
IC_INLINE void ic_alias_name(__u8 *name, __u32 size, struct inode *inode)
{
	struct dentry *dentry = ic_alias_of(inode);

	name[0] = 0;
	if (dentry)
		bpf_probe_read_kernel_str(name, size, BPF_CORE_READ(dentry, d_name.name));
}

/* The rules that cover an inode without its path: by one of its names. */
static __noinline __u64 ic_rules_of_alias(struct inode *inode)
{
	struct dentry *dentry = ic_alias_of(inode);
	__u64 rules = 0;
	const struct ic_name_val *volume;
	const struct ic_label *label;
	struct ic_file_id id;
	struct inode *dir;
	__u32 half = ic_half();

	ic_file_identify(&id, inode);
	label = ic_label_of(&id);
	if (label)
		rules = label->own[half];
	if (!dentry) {
		volume = bpf_map_lookup_elem(&ic_volumes, &id.dev);
		return volume ? rules | volume->rules[half] : rules;
	}
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

/* Whether rules that surely cover a file deny all writes to it. */
static __noinline bool ic_is_unchanged(struct dentry *dentry)
{
	__u32 half = ic_half();
	const struct ic_file_policy *policy = ic_file_policy_at(half);
	struct inode *inode = BPF_CORE_READ(dentry, d_inode);
	struct dentry *dir = BPF_CORE_READ(dentry, d_parent);
	const struct ic_label *label;
	struct ic_file_id id;
	__u64 rules, address;

	if (!policy || !inode || dir == dentry)
		return false;
	bpf_probe_read_kernel(&address, sizeof(address), &dir);
	rules = ic_below_surely(address, half);
	ic_file_identify(&id, inode);
	label = ic_label_of(&id);
	if (label)
		rules |= label->own[half];
	inode = BPF_CORE_READ(dir, d_inode);
	ic_file_identify(&id, inode);
	label = ic_label_of(&id);
	if (label && label->names[half])
		rules |= ic_rules_of_name(&id, dentry, half);
	return rules & policy->deny & policy->op[IC_FILE_WRITE];
}

/*
 * Whether the caller is denied an attempt that rules cover; reports it. `rules` have one of the
 * operations. The bytes of `act`: the hook, two operations below IC_FILE_OPS, and the half that has
 * the rules. A global function, as ic_alarm_of() is.
 */
__noinline int ic_enforce_rules(__u64 rules, __u64 dentry, __u32 detail, __u32 act)
{
	__u32 op = act >> 8 & 0xff, other = act >> 16 & 0xff, half = act >> 24 & 1;
	const struct ic_file_policy *policy = ic_file_policy_at(half);
	const struct ic_exemption *exemptions;
	__u32 mark = ic_mark();
	bool denied;

	if (!policy || mark & IC_MARK_TRUSTED)
		return 0;
	/* The directory of the secret. */
	if (mark & IC_MARK_CANDIDATE && op == IC_FILE_READ && other == IC_FILE_READ)
		rules &= ~(1ULL << IC_OWN_STATE);
	/* The service manager manages the agent's cgroup as well. */
	if (rules & 1ULL << IC_OWN_GROUP && ic_is_manager())
		rules &= ~(1ULL << IC_OWN_GROUP);
	exemptions = ic_exemption_of_caller((act & 0xff) == IC_HOOK_MMAP_FILE);
	if (exemptions)
		rules &= ~exemptions->rules[half];
	if (!rules)
		return 0;
	denied = rules & policy->deny;
	ic_alarm_of(rules, dentry, 0, detail,
		    (act & 0xffff) | (denied ? IC_SENTINEL_DENIED : IC_SENTINEL_LOGGED) << 16);
	return denied;
}

/* Enforces rules on an attempt; on two operations where the attempt is both. */
IC_INLINE int ic_enforce(__u8 hook, __u64 rules, __u32 op, __u32 other, struct dentry *dentry,
			 __u32 detail)
{
	const struct ic_file_policy *policy;
	__u32 half;

	if (!rules || op >= IC_FILE_OPS || other >= IC_FILE_OPS)
		return 0;
	half = ic_half();
	policy = ic_file_policy_at(half);
	if (!policy)
		return 0;
	rules &= policy->op[op] | policy->op[other];
	if (!rules)
		return 0;
	if (!ic_enforce_rules(rules, ic_address(dentry), detail,
			      hook | op << 8 | other << 16 | half << 24))
		return 0;
	/* A branch: of an arithmetic negation the verifier does not know the range. */
	asm volatile("" ::: "memory");
	return -IC_EPERM;
}

#endif
