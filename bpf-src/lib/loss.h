/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* Counters of losses, one per CPU, so that no CPU waits for another. */
#ifndef IRONCLAD_LIB_LOSS_H
#define IRONCLAD_LIB_LOSS_H

#include "base.h"

/* Indexed by enum ic_loss. */
struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, IC_LOSS_MAX);
	__type(key, __u32);
	__type(value, __u64);
} ic_losses SEC(".maps");

IC_INLINE void ic_count_loss(__u32 loss)
{
	__u64 *count = bpf_map_lookup_elem(&ic_losses, &loss);

	if (count)
		(*count)++;
}

#endif
