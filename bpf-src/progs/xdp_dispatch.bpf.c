/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * What is attached to an interface. It knows no policy: it calls the one that the selector names.
 * A policy is a program with maps of its own, so replacing all of it is one store to one word, and
 * a packet sees one policy or the other.
 */
#include "../lib/count.h"

struct {
	__uint(type, BPF_MAP_TYPE_PROG_ARRAY);
	__uint(max_entries, IC_SLOTS);
	__type(key, __u32);
	__type(value, __u32);
} ic_slots SEC(".maps");

/* Rule id to slot in ic_rules, for the agent alone: counters outlive it. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, IC_RULES_MAX);
	__type(key, __u32);
	__type(value, __u32);
} ic_rule_slots SEC(".maps");

/* The deadline of a provisional policy holds whether or not an agent lives. */
IC_INLINE __u32 ic_slot_in_force(void)
{
	__u64 selector = IC_READ_ONCE(ic_state.selector);
	__u64 deadline = selector >> IC_SELECTOR_DEADLINE_SHIFT;

	if (deadline && bpf_ktime_get_boot_ns() >> IC_SELECTOR_DEADLINE_SHIFT >= deadline)
		return !!(selector & IC_SELECTOR_FALLBACK);
	return selector & IC_SELECTOR_ACTIVE;
}

SEC("xdp")
int ic_xdp(struct xdp_md *ctx)
{
	/* Constant indices: the JIT turns the calls into jumps. The other slot is better than none. */
	if (ic_slot_in_force()) {
		bpf_tail_call_static(ctx, &ic_slots, 1);
		bpf_tail_call_static(ctx, &ic_slots, 0);
	} else {
		bpf_tail_call_static(ctx, &ic_slots, 0);
		bpf_tail_call_static(ctx, &ic_slots, 1);
	}
	/* Shield fails open, and says so. */
	ic_count_loss(IC_LOSS_NO_POLICY);
	return XDP_PASS;
}

char _license[] SEC("license") = "Dual BSD/GPL";
