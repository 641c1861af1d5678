/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* Names in directories. */
#ifndef IRONCLAD_LIB_SENTINEL_NAME_H
#define IRONCLAD_LIB_SENTINEL_NAME_H

#include "directory.h"

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__uint(max_entries, 1);
	__type(key, struct ic_name_key);
	__type(value, struct ic_name_val);
} ic_names SEC(".maps");

IC_INLINE __u64 ic_name_mix(__u64 hash, __u64 word)
{
	hash = (hash ^ word) * 0x9e3779b97f4a7c15ULL;
	return hash ^ hash >> 32;
}

/* Over eight bytes at a time: a name of 255 bytes does not fit on the stack. */
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
	/* clang knows that the mask has no effect; the verifier does not. */
	asm volatile("%0 &= 7" : "+r"(rest));
	bpf_probe_read_kernel(&word, rest, name);
	return ic_name_mix(hash, word);
}

/* The rules that cover a name in a directory. */
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

/* A longer name is cut, and equals none of the names that it is compared with. */
IC_INLINE bool ic_short_name(union ic_short_name *name, struct dentry *dentry)
{
	const unsigned char *at = BPF_CORE_READ(dentry, d_name.name);

	name->word[0] = 0;
	name->word[1] = 0;
	return bpf_probe_read_kernel_str(name->text, sizeof(name->text), at) > 0;
}

IC_INLINE bool ic_is_same_name(const union ic_short_name *one, const union ic_short_name *other)
{
	return one->word[0] == other->word[0] && one->word[1] == other->word[1];
}

#define ic_is_named(dentry, literal)                                               \
	({                                                                         \
		static const union ic_short_name wanted = { literal };             \
		union ic_short_name found;                                         \
		ic_short_name(&found, dentry) && ic_is_same_name(&found, &wanted); \
	})

#endif
