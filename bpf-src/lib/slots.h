/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* The policy in force: one word for all hooks, so that they change together. */
#ifndef IRONCLAD_LIB_SLOTS_H
#define IRONCLAD_LIB_SLOTS_H

#include "shared.h"

/* The kernel enforces the deadline of a provisional policy, whether or not an agent runs. */
IC_INLINE __u32 ic_slot_in_force(void)
{
	__u64 selector = IC_READ_ONCE(ic_state.selector);
	__u64 deadline = selector >> IC_SELECTOR_DEADLINE_SHIFT;

	if (deadline && bpf_ktime_get_boot_ns() >> IC_SELECTOR_DEADLINE_SHIFT >= deadline)
		return !!(selector & IC_SELECTOR_FALLBACK);
	return selector & IC_SELECTOR_ACTIVE;
}

/*
 * Constant indices: the JIT compiles the calls to jumps. The other slot is better than no policy.
 */
IC_INLINE void ic_slots_call(void *ctx, const void *slots)
{
	if (ic_slot_in_force()) {
		bpf_tail_call_static(ctx, slots, 1);
		bpf_tail_call_static(ctx, slots, 0);
	} else {
		bpf_tail_call_static(ctx, slots, 0);
		bpf_tail_call_static(ctx, slots, 1);
	}
}

#endif
