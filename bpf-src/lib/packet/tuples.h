/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * (source, destination, destination port, protocol) with wildcards: one hash, probed once for each
 * shape of tuple that the policy uses, the most specific shape first.
 */
#ifndef IRONCLAD_LIB_PACKET_TUPLES_H
#define IRONCLAD_LIB_PACKET_TUPLES_H

#include "packet.h"

/* Shapes in use; the rest of the masks is zero. */
const volatile __u32 ic_cfg_tuples_shapes = 0;
const volatile struct ic_tuple_mask ic_cfg_tuples_masks[IC_MASKS_MAX] = {};

/* Sized at load. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 1);
	__type(key, struct ic_tuple_key);
	__type(value, struct ic_tuple_val);
} ic_tuples SEC(".maps");

/* The tuple that the packet matches in shape number `shape`; NULL where it matches none. */
IC_INLINE struct ic_tuple_val *ic_tuples_probe(const struct ic_packet *packet, __u32 shape)
{
	const volatile struct ic_tuple_mask *mask =
		&ic_cfg_tuples_masks[shape & (IC_MASKS_MAX - 1)];
	struct ic_tuple_key key;
	struct ic_tuple_val *val;

	if (mask->kind != packet->family)
		return NULL;
	key.src[0] = packet->src.half[0] & mask->src[0];
	key.src[1] = packet->src.half[1] & mask->src[1];
	key.dst[0] = packet->dst.half[0] & mask->dst[0];
	key.dst[1] = packet->dst.half[1] & mask->dst[1];
	key.proto = packet->proto & mask->proto;
	key.kind = packet->family;
	key.shape = shape;
	key.dport = 0;
	if (mask->dport) {
		if (packet->has_ports)
			key.dport = packet->dport;
		else if (packet->flags & IC_SHIELD_EV_LATER_FRAGMENT)
			key.kind |= IC_TUPLE_FRAGMENT;
		else
			return NULL;
	}
	val = bpf_map_lookup_elem(&ic_tuples, &key);
	if (val)
		__sync_fetch_and_add(&val->packets, 1);
	return val;
}

#endif
