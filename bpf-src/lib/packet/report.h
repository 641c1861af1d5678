/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* Events of packets. */
#ifndef IRONCLAD_LIB_PACKET_REPORT_H
#define IRONCLAD_LIB_PACKET_REPORT_H

#include "../events.h"
#include "packet.h"

/* Events a second that each rule slot may report; 0 for none. */
const volatile __u32 ic_cfg_report_rate[IC_RULES_MAX] = {};

/* Keeps the event in the object's BTF, where a test compares it with Rust. */
const struct ic_shield_event *ic_shield_event_shape;

/* Whether a rule cannot report now: it has no rate, or its budget is exhausted. */
IC_INLINE bool ic_report_quiet(__u32 rule)
{
	__u32 slot = rule & (IC_RULES_MAX - 1), rate = ic_cfg_report_rate[slot];
	struct ic_sample *budget;

	if (!rate)
		return true;
	budget = bpf_map_lookup_elem(&ic_sample, &slot);
	if (!budget) {
		ic_count_loss(IC_LOSS_MAP);
		return true;
	}
	return ic_budget_spent(budget, rate);
}

/* Takes one event from a rule's budget of this second. */
IC_INLINE bool ic_report_allowed(__u32 rule)
{
	__u32 slot = rule & (IC_RULES_MAX - 1), rate = ic_cfg_report_rate[slot];
	struct ic_sample *budget = bpf_map_lookup_elem(&ic_sample, &slot);

	if (!budget) {
		ic_count_loss(IC_LOSS_MAP);
		return false;
	}
	return ic_budget_take(budget, rate);
}

struct ic_report {
	__u32 rule;
	__u32 entry;
	__u8 verdict;
	__u8 reason;
	__u8 flags;
};

static __noinline void ic_report(struct xdp_md *ctx, const struct ic_packet *packet,
				 const struct ic_report *report)
{
	struct ic_shield_event *ev;

	/*
	 * Most callers have checked this already. Checked again here, the verifier merges their
	 * paths.
	 */
	if (ic_report_quiet(report->rule) || !ic_report_allowed(report->rule))
		return;
	ev = bpf_ringbuf_reserve(&ic_events, sizeof(*ev), 0);
	if (!ev) {
		ic_count_loss(IC_LOSS_RING_FULL);
		return;
	}
	ev->hdr.kind = IC_EV_SHIELD;
	ev->hdr.len = sizeof(*ev);
	ev->hdr.cpu = bpf_get_smp_processor_id();
	ev->hdr.time_ns = bpf_ktime_get_boot_ns();
	ev->generation = ic_cfg_generation;
	ev->ifindex = ctx->ingress_ifindex;
	ev->rule = report->rule;
	ev->entry = report->entry;
	ev->packet_len = packet->len;
	__builtin_memcpy(ev->src, &packet->src, sizeof(ev->src));
	__builtin_memcpy(ev->dst, &packet->dst, sizeof(ev->dst));
	ev->sport = packet->sport;
	ev->dport = packet->dport;
	ev->vlan[0] = packet->vlan[0];
	ev->vlan[1] = packet->vlan[1];
	ev->family = packet->family;
	ev->proto = packet->proto;
	ev->verdict = report->verdict;
	ev->reason = report->reason;
	ev->flags = report->flags | packet->flags | (ic_cfg_dry_run ? IC_SHIELD_EV_DRY_RUN : 0);
	__builtin_memset(ev->_pad, 0, sizeof(ev->_pad));
	bpf_ringbuf_submit(ev, ic_report_wakeup());
}

#endif
