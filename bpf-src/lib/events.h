/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* Events: rate limits for each rule, and few wakeups. */
#ifndef IRONCLAD_LIB_EVENTS_H
#define IRONCLAD_LIB_EVENTS_H

#include "shared.h"

/* The kernel's ticks per second. */
const volatile __u32 ic_cfg_report_hz = 250;
const volatile __u64 ic_cfg_generation = 0;
const volatile __u8 ic_cfg_dry_run = 0;

/*
 * Jiffies of the last wakeup. An accepted race: two CPUs may both read an old value, and wake
 * twice.
 */
__u64 ic_report_woken;

/* Whether a budget is exhausted. Checked before any work for a report. */
IC_INLINE bool ic_budget_spent(const struct ic_sample *budget, __u32 rate)
{
	/*
	 * Without the lock: within a window `sent` only grows, so an exhausted budget stays
	 * exhausted.
	 */
	if ((__s64)(bpf_jiffies64() - IC_READ_ONCE(budget->window)) >= 0 ||
	    IC_READ_ONCE(budget->sent) < rate)
		return false;
	ic_count_loss(IC_LOSS_SAMPLED_OUT);
	return true;
}

/* Takes one event from the budget of this second. */
IC_INLINE bool ic_budget_take(struct ic_sample *budget, __u32 rate)
{
	bool taken = false;
	__u64 now = bpf_jiffies64();

	/*
	 * Without the lock two CPUs may both take the last event of a second, which is one too
	 * many.
	 */
	if (ic_cfg_may_lock)
		bpf_spin_lock(&budget->lock);
	if ((__s64)(now - budget->window) >= 0) {
		budget->window = now + ic_cfg_report_hz;
		budget->sent = 0;
	}
	if (budget->sent < rate) {
		budget->sent++;
		taken = true;
	}
	if (ic_cfg_may_lock)
		bpf_spin_unlock(&budget->lock);
	if (!taken)
		ic_count_loss(IC_LOSS_SAMPLED_OUT);
	return taken;
}

/* A polling reader loses no event by a late wakeup: fifty wakeups a second, or a quarter full. */
IC_INLINE __u64 ic_report_wakeup(void)
{
	__u64 now = bpf_jiffies64();

	if (now - IC_READ_ONCE(ic_report_woken) >= ic_cfg_report_hz / 50 + 1) {
		IC_WRITE_ONCE(ic_report_woken, now);
		return BPF_RB_FORCE_WAKEUP;
	}
	if (bpf_ringbuf_query(&ic_events, BPF_RB_AVAIL_DATA) * 4 >=
	    bpf_ringbuf_query(&ic_events, BPF_RB_RING_SIZE))
		return BPF_RB_FORCE_WAKEUP;
	return BPF_RB_NO_WAKEUP;
}

#endif
