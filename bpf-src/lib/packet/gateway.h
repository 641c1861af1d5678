/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* The gateway bypass: addresses that no policy ever blocks. */
#ifndef IRONCLAD_LIB_PACKET_GATEWAY_H
#define IRONCLAD_LIB_PACKET_GATEWAY_H

#include "../shared.h"
#include "packet.h"

/* The policy's own: they come and go with it. */
const volatile struct ic_gateways ic_cfg_gateways;

IC_INLINE bool ic_gateway_in(const volatile struct ic_gateways *set, const struct ic_packet *packet)
{
	__u32 count, i;

	if (packet->family == IC_TUPLE_V4) {
		__u32 src = packet->src.word[0];

		count = set->count4;
		for (i = 0; i < IC_GATEWAYS_MAX; i++) {
			if (i >= count)
				break;
			if (set->addr4[i] == src)
				return true;
		}
		return false;
	}
	count = set->count6;
	for (i = 0; i < IC_GATEWAYS_MAX; i++) {
		if (i >= count)
			break;
		if (set->addr6[i][0] == packet->src.half[0] &&
		    set->addr6[i][1] == packet->src.half[1])
			return true;
	}
	return false;
}

/*
 * The agent writes the inactive set and then changes `gateways_active`. It writes the next time
 * only after every packet that might read the former set is done.
 */
IC_INLINE bool ic_gateway_is(const struct ic_packet *packet)
{
	const struct ic_gateways *set = IC_READ_ONCE(ic_state.gateways_active) & 1
						? &ic_state.gateways[1]
						: &ic_state.gateways[0];

	return ic_gateway_in(&ic_cfg_gateways, packet) || ic_gateway_in(set, packet);
}

#endif
