/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * The programs at an interface: one where frames begin with an Ethernet header, one where they begin
 * with the IP header. They know no policy: they call the one that the selector names. A policy is a
 * program of each kind with maps of its own, so a swap is one store to one word, and a packet sees
 * one policy or the other.
 */
#include "../lib/packet/count.h"
#include "../lib/slots.h"

struct {
	__uint(type, BPF_MAP_TYPE_PROG_ARRAY);
	__uint(max_entries, IC_SLOTS);
	__type(key, __u32);
	__type(value, __u32);
} ic_slots SEC(".maps");

/* The same policies for frames that begin with the IP header; empty where no interface has such. */
struct {
	__uint(type, BPF_MAP_TYPE_PROG_ARRAY);
	__uint(max_entries, IC_SLOTS);
	__type(key, __u32);
	__type(value, __u32);
} ic_slots_ip SEC(".maps");

/* Rule id to slot in ic_rules, for the agent alone: counters outlive it. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, IC_RULES_MAX);
	__type(key, __u32);
	__type(value, __u32);
} ic_rule_slots SEC(".maps");

SEC("xdp")
int ic_xdp(struct xdp_md *ctx)
{
	ic_slots_call(ctx, &ic_slots);
	/* Shield fails open, and counts it. */
	ic_count_loss(IC_LOSS_NO_POLICY);
	return XDP_PASS;
}

SEC("xdp")
int ic_xdp_ip(struct xdp_md *ctx)
{
	ic_slots_call(ctx, &ic_slots_ip);
	ic_count_loss(IC_LOSS_NO_POLICY);
	return XDP_PASS;
}

char _license[] SEC("license") = "Dual BSD/GPL";
