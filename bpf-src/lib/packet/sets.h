/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* Address sets: the entry of the longest prefix that covers a packet's source. */
#ifndef IRONCLAD_LIB_PACKET_SETS_H
#define IRONCLAD_LIB_PACKET_SETS_H

#include "../flat.h"
#include "count.h"
#include "lpm.h"

/* Sized at load. Filled through a mapping, then frozen. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(map_flags, BPF_F_MMAPABLE);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, union ic_flat_cell);
} ic_flat SEC(".maps");

/* Index of the first cell of each root. */
const volatile __u32 ic_cfg_flat_root4 = 0;
const volatile __u32 ic_cfg_flat_root6 = 0;

/* Which back end holds the sets of each family: enum ic_backend. */
const volatile __u8 ic_cfg_sets_v4 = IC_BACKEND_NONE;
const volatile __u8 ic_cfg_sets_v6 = IC_BACKEND_NONE;

/* Entry 0 is no prefix. Sized at load. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(map_flags, BPF_F_MMAPABLE);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct ic_entry);
} ic_entries SEC(".maps");

IC_INLINE __u32 ic_sets_lookup(const struct ic_packet *packet)
{
	const struct ic_flat_at flat = { .map = &ic_flat };

	if (packet->family == IC_TUPLE_V4) {
		if (ic_cfg_sets_v4 == IC_BACKEND_FLAT)
			return ic_flat_lookup4(&flat, ic_cfg_flat_root4, packet->src.word[0]);
		if (ic_cfg_sets_v4 == IC_BACKEND_LPM)
			return ic_lpm_lookup4(packet->src.word[0]);
		return 0;
	}
	if (ic_cfg_sets_v6 == IC_BACKEND_FLAT)
		return ic_flat_lookup6(&flat, ic_cfg_flat_root6, packet->src.half[0],
				       packet->src.half[1]);
	if (ic_cfg_sets_v6 == IC_BACKEND_LPM)
		return ic_lpm_lookup6(&packet->src);
	return 0;
}

IC_INLINE struct ic_entry *ic_sets_entry(__u32 index)
{
	struct ic_entry *entry = bpf_map_lookup_elem(&ic_entries, &index);

	if (!entry) {
		ic_count_loss(IC_LOSS_MAP);
		return NULL;
	}
	/* A count per prefix is worth one contended line: per-CPU maps cannot be mapped on 5.10. */
	__sync_fetch_and_add(&entry->packets, 1);
	return entry;
}

#endif
