/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* One policy: parse → gateway bypass → address sets → tuples → default. */
#include "../lib/packet/count.h"
#include "../lib/packet/gateway.h"
#include "../lib/packet/parse.h"
#include "../lib/packet/report.h"
#include "../lib/packet/sets.h"
#include "../lib/packet/tuples.h"

const volatile __u8 ic_cfg_default = IC_VERDICT_PASS;
const volatile __u8 ic_cfg_malformed = IC_VERDICT_DROP;
const volatile __u8 ic_cfg_non_ip = IC_VERDICT_PASS;
/* 1: neighbour discovery passes before any set is evaluated. */
const volatile __u8 ic_cfg_neighbour = 1;
/* 1: a rule with log is in the policy. */
const volatile __u8 ic_cfg_log = 0;

struct ic_outcome {
	__u32 rule; /* 0: none */
	__u32 entry;
	__u8 verdict;
	__u8 reason;
};

/* Counts and reports a packet; returns the action of XDP. */
IC_INLINE int ic_finish(struct xdp_md *ctx, const struct ic_packet *packet,
			const struct ic_outcome *out)
{
	bool drop = out->verdict == IC_VERDICT_DROP, dry = drop && ic_cfg_dry_run;

	ic_count_packet(&ic_reasons, out->reason * 2 + (drop && !dry), packet->len, dry);
	if (out->rule)
		ic_count_packet(&ic_rules, out->rule, packet->len, dry);
	if (drop && !ic_report_quiet(out->rule)) {
		struct ic_report report = {
			.rule = out->rule,
			.entry = out->entry,
			.verdict = out->verdict,
			.reason = out->reason,
		};

		ic_report(ctx, packet, &report);
	}
	return drop && !dry ? XDP_DROP : XDP_PASS;
}

/* A set or tuple with log: counted and reported, decides nothing. */
IC_INLINE void ic_log(struct xdp_md *ctx, const struct ic_packet *packet, __u32 rule, __u32 entry,
		      __u8 reason)
{
	struct ic_report report = {
		.rule = rule,
		.entry = entry,
		.verdict = IC_VERDICT_PASS,
		.reason = reason,
		.flags = IC_SHIELD_EV_LOG,
	};

	ic_count_packet(&ic_rules, rule, packet->len, false);
	ic_report(ctx, packet, &report);
}

/* Whether the sets decided. */
IC_INLINE bool ic_decide_sets(struct xdp_md *ctx, const struct ic_packet *packet,
			      struct ic_outcome *out)
{
	__u32 index = ic_sets_lookup(packet);
	struct ic_entry *entry;

	if (!index)
		return false;
	entry = ic_sets_entry(index);
	if (!entry)
		return false;
	if (ic_cfg_log && entry->log)
		ic_log(ctx, packet, entry->log_rule, index, IC_REASON_SET);
	if (entry->action == IC_ACTION_NONE)
		return false;
	out->verdict = entry->action == IC_ACTION_DROP ? IC_VERDICT_DROP : IC_VERDICT_PASS;
	out->reason = IC_REASON_SET;
	out->rule = entry->rule;
	out->entry = index;
	return true;
}

IC_INLINE bool ic_decide_tuples(struct xdp_md *ctx, const struct ic_packet *packet,
				struct ic_outcome *out)
{
	__u32 i;

	for (i = 0; i < IC_MASKS_MAX; i++) {
		struct ic_tuple_val *val;

		if (i >= ic_cfg_tuples_shapes)
			return false;
		val = ic_tuples_probe(packet, i);
		if (!val)
			continue;
		if (ic_cfg_log && val->log)
			ic_log(ctx, packet, val->log_rule, 0, IC_REASON_TUPLE);
		if (val->action == IC_ACTION_NONE)
			continue;
		out->verdict = val->action == IC_ACTION_DROP ? IC_VERDICT_DROP : IC_VERDICT_PASS;
		out->reason = IC_REASON_TUPLE;
		out->rule = val->rule;
		return true;
	}
	return false;
}

/* Link layer and fixed IP header: what the check for gateways needs. */
IC_INLINE __u32 ic_parse_l3(struct ic_cursor *cur, struct ic_packet *packet, bool has_eth)
{
	__u32 reason = has_eth ? ic_parse_eth(cur, packet) : ic_parse_version(cur);

	if (reason != IC_PARSE_OK)
		return reason;
	switch (cur->proto) {
	case bpf_htons(IC_ETH_P_IP):
		return ic_parse_ip4(cur, packet);
	case bpf_htons(IC_ETH_P_IPV6):
		return ic_parse_ip6(cur, packet);
	case bpf_htons(IC_ETH_P_ARP):
		return ic_cursor_at(cur) + IC_ARP_LEN > cur->end ? IC_REASON_ARP_SHORT
								 : IC_REASON_ARP;
	}
	return IC_REASON_NON_IP;
}

IC_INLINE __u32 ic_parse_rest(struct xdp_md *ctx, struct ic_cursor *cur, struct ic_packet *packet)
{
	__u32 reason = IC_PARSE_OK;

	if (packet->family == IC_TUPLE_V6)
		reason = ic_parse_ext(ctx, cur, packet);
	if (reason == IC_PARSE_OK)
		reason = ic_parse_l4(cur, packet);
	return reason == IC_PARSE_OK && cur->jumbo ? IC_REASON_IP6_LENGTH : reason;
}

/* `has_eth`, a constant: the frame begins with an Ethernet header, and not with the IP header. */
IC_INLINE int ic_decide(struct xdp_md *ctx, bool has_eth)
{
	struct ic_cursor cur = {
		.data = (void *)(long)ctx->data,
		.end = (void *)(long)ctx->data_end,
	};
	struct ic_packet packet = {
		.len = ctx->data_end - ctx->data,
		.vlan = { 0xffff, 0xffff },
	};
	struct ic_outcome out = {};
	__u32 reason = ic_parse_l3(&cur, &packet, has_eth);

	if (reason == IC_REASON_NON_IP || reason == IC_REASON_ARP) {
		out.reason = reason;
		out.verdict = reason == IC_REASON_NON_IP ? ic_cfg_non_ip : IC_VERDICT_PASS;
		return ic_finish(ctx, &packet, &out);
	}
	if (packet.family && ic_gateway_is(&packet)) {
		out.reason = IC_REASON_GATEWAY;
		out.verdict = IC_VERDICT_PASS;
		return ic_finish(ctx, &packet, &out);
	}
	if (reason == IC_PARSE_OK)
		reason = ic_parse_rest(ctx, &cur, &packet);
	if (reason != IC_PARSE_OK) {
		out.reason = reason;
		/*
		 * The kernel follows any number of headers: a packet that rules cannot check does
		 * not pass.
		 */
		out.verdict = reason == IC_REASON_VLAN_DEEP || reason == IC_REASON_EXT_DEEP
				      ? IC_VERDICT_DROP
				      : ic_cfg_malformed;
		/*
		 * Where malformed packets may pass, the sets and tuples still apply to those with
		 * addresses.
		 */
		if (out.verdict == IC_VERDICT_DROP || !packet.family)
			return ic_finish(ctx, &packet, &out);
	} else if (ic_cfg_neighbour && ic_is_neighbour(&cur, &packet)) {
		out.reason = IC_REASON_NEIGHBOUR;
		out.verdict = IC_VERDICT_PASS;
		return ic_finish(ctx, &packet, &out);
	}
	if (!ic_decide_sets(ctx, &packet, &out) && !ic_decide_tuples(ctx, &packet, &out)) {
		out.reason = reason == IC_PARSE_OK ? IC_REASON_DEFAULT : reason;
		out.verdict = ic_cfg_default;
	}
	return ic_finish(ctx, &packet, &out);
}

SEC("xdp")
int ic_policy(struct xdp_md *ctx)
{
	return ic_decide(ctx, true);
}

SEC("xdp")
int ic_policy_ip(struct xdp_md *ctx)
{
	return ic_decide(ctx, false);
}

char _license[] SEC("license") = "Dual BSD/GPL";
