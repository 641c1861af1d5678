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

struct ic_sip {
	__u64 v[4];
};

#define IC_ROTATE(word, bits) ((word) << (bits) | (word) >> (64 - (bits)))

/* A SipRound: Aumasson and Bernstein, SipHash: a fast short-input PRF, 2012. */
IC_INLINE void ic_sip_round(struct ic_sip *sip)
{
	__u64 *v = sip->v;

	v[0] += v[1];
	v[1] = IC_ROTATE(v[1], 13) ^ v[0];
	v[0] = IC_ROTATE(v[0], 32);
	v[2] += v[3];
	v[3] = IC_ROTATE(v[3], 16) ^ v[2];
	v[0] += v[3];
	v[3] = IC_ROTATE(v[3], 21) ^ v[0];
	v[2] += v[1];
	v[1] = IC_ROTATE(v[1], 17) ^ v[2];
	v[2] = IC_ROTATE(v[2], 32);
}

IC_INLINE void ic_sip_word(struct ic_sip *sip, __u64 word)
{
	sip->v[3] ^= word;
	ic_sip_round(sip);
	sip->v[0] ^= word;
}

/*
 * SipHash-1-3 by the key of the instance: a process that does not know the key cannot find another
 * name with the same hash. Over eight bytes at a time: a name of 255 bytes does not fit on the
 * stack.
 */
__noinline __u64 ic_name_hash(__u64 address, __u32 len)
{
	const unsigned char *name = (const unsigned char *)address;
	__u64 one = ic_sentinel.name_key[0], two = ic_sentinel.name_key[1], word;
	struct ic_sip sip = { {
		one ^ 0x736f6d6570736575ULL,
		two ^ 0x646f72616e646f6dULL,
		one ^ 0x6c7967656e657261ULL,
		two ^ 0x7465646279746573ULL,
	} };
	__u32 at, rest = len & 7;

	for (at = sizeof(word); at < IC_SENTINEL_NAME; at += sizeof(word)) {
		if (at > len)
			break;
		bpf_probe_read_kernel(&word, sizeof(word), name);
		ic_sip_word(&sip, word);
		name += sizeof(word);
	}
	word = 0;
	/* clang knows that the mask has no effect; the verifier does not. */
	asm volatile("%0 &= 7" : "+r"(rest));
	if (rest)
		bpf_probe_read_kernel(&word, rest, name);
	ic_sip_word(&sip, word | (__u64)len << 56);
	sip.v[2] ^= 0xff;
	ic_sip_round(&sip);
	ic_sip_round(&sip);
	ic_sip_round(&sip);
	return sip.v[0] ^ sip.v[1] ^ sip.v[2] ^ sip.v[3];
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
