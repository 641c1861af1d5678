/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* The portable back end: the kernel's LPM_TRIE, whose values are indices of entries. */
#ifndef IRONCLAD_LIB_PACKET_LPM_H
#define IRONCLAD_LIB_PACKET_LPM_H

#include "packet.h"

struct {
	__uint(type, BPF_MAP_TYPE_LPM_TRIE);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__uint(max_entries, 1);
	__type(key, struct ic_lpm4_key);
	__type(value, __u32);
} ic_lpm4 SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_LPM_TRIE);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__uint(max_entries, 1);
	__type(key, struct ic_lpm6_key);
	__type(value, __u32);
} ic_lpm6 SEC(".maps");

IC_INLINE __u32 ic_lpm_lookup4(__u32 addr_be)
{
	struct ic_lpm4_key key = { .prefixlen = 32 };
	const __u32 *entry;

	__builtin_memcpy(key.addr, &addr_be, sizeof(key.addr));
	entry = bpf_map_lookup_elem(&ic_lpm4, &key);
	return entry ? *entry : 0;
}

IC_INLINE __u32 ic_lpm_lookup6(const union ic_addr *src)
{
	struct ic_lpm6_key key = { .prefixlen = 128 };
	const __u32 *entry;

	__builtin_memcpy(key.addr, src, sizeof(key.addr));
	entry = bpf_map_lookup_elem(&ic_lpm6, &key);
	return entry ? *entry : 0;
}

#endif
