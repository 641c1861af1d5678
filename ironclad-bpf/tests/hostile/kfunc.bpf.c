/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
#include "hostile.h"

struct xdp_md {
	u32 data;
};

extern int bpf_xdp_metadata_rx_timestamp(const struct xdp_md *ctx, u64 *timestamp) KSYM;

SEC("xdp")
int evil(struct xdp_md *ctx)
{
	u64 timestamp;

	return bpf_xdp_metadata_rx_timestamp(ctx, &timestamp) ? 1 : 2;
}

LICENSE;
