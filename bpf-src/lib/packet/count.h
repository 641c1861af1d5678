/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* Counters of packets, one per CPU, so that no CPU waits for another. */
#ifndef IRONCLAD_LIB_PACKET_COUNT_H
#define IRONCLAD_LIB_PACKET_COUNT_H

#include "../shared.h"

IC_INLINE void ic_count_packet(void *map, __u32 index, __u32 bytes, bool dry)
{
	struct ic_stats *stats = bpf_map_lookup_elem(map, &index);

	if (!stats) {
		ic_count_loss(IC_LOSS_MAP);
		return;
	}
	stats->packets++;
	stats->bytes += bytes;
	if (dry) {
		stats->dry_packets++;
		stats->dry_bytes += bytes;
	}
}

#endif
