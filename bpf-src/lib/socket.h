/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* What a process asks of the network, and the answer. */
#ifndef IRONCLAD_LIB_SOCKET_H
#define IRONCLAD_LIB_SOCKET_H

#include "events.h"
#include "flat.h"
#include "match.h"
#include "ratelimit.h"
#include "slots.h"
#include "subject.h"

/* Keeps the event in the object's BTF, where a test compares it with Rust. */
const struct ic_sock_ev *ic_socket_ev;

enum {
	IC_SOCK_STREAM = 1,
	IC_SOCK_DGRAM = 2,
	IC_SOCK_RAW = 3,
	IC_PROTO_TCP = 6,
	IC_PROTO_UDP = 17,
	IC_PROTO_MPTCP = 262,
};

struct ic_ask {
	union ic_addr addr;
	__u16 port;   /* network byte order */
	__u8 family;  /* 4, 6, or 0 where there is no address */
	__u8 op;
	__u8 proto;
	__u8 flags;   /* enum ic_sock_ev_flag */
};

struct ic_answer {
	__u64 generation;
	__u32 rule; /* 1 + its place in the policy, 0 where none matched */
	__u32 slot;
	__u32 rate;
	__u8 verdict;
	__u8 reason;
	__u8 flags; /* enum ic_sock_rule_flag */
};

/* Multipath TCP is TCP to whoever writes rules. */
IC_INLINE __u8 ic_ask_proto(__u32 protocol)
{
	if (protocol == IC_PROTO_MPTCP)
		return IC_PROTO_TCP;
	return protocol < IC_SOCK_PROTO_PACKET ? protocol : IC_SOCK_PROTO_RAW;
}

/*
 * The address that the kernel will use: it takes an IPv4-mapped address for IPv4, and connects
 * nobody's address to its own host.
 */
IC_INLINE void ic_ask_settle(struct ic_ask *ask)
{
	if (ask->family == 6 && !ask->addr.half[0] && ask->addr.word[2] == bpf_htonl(0xffff)) {
		ask->addr.word[0] = ask->addr.word[3];
		ask->addr.word[1] = 0;
		ask->addr.half[1] = 0;
		ask->family = 4;
		ask->flags |= IC_SOCK_EV_MAPPED;
	}
	if (ask->op == IC_SOCK_BIND)
		return;
	if (ask->family == 4 && !ask->addr.word[0])
		ask->addr.word[0] = bpf_htonl(0x7f000001);
	else if (ask->family == 6 && !ask->addr.half[0] && !ask->addr.half[1])
		ask->addr.word[3] = bpf_htonl(1);
}

/* The number of the row, behind the first of addresses. */
IC_INLINE __u32 ic_ask_where(const struct ic_ask *ask, const struct ic_sock_policy *policy,
			     __u32 slot)
{
	const struct ic_flat_at flat = {
		.map = &ic_sock_flat,
		.first = slot * ic_cfg_sock_cells,
	};

	if (ask->family == 4 && policy->root4 != ~0U)
		return ic_flat_lookup4(&flat, policy->root4, ask->addr.word[0]);
	if (ask->family == 6 && policy->root6 != ~0U)
		return ic_flat_lookup6(&flat, policy->root6, &ask->addr);
	return 0;
}

IC_INLINE __u32 ic_ask_port(const struct ic_ask *ask, __u32 slot)
{
	__u32 port = ic_ntohs(ask->port), index = slot * IC_SOCK_PORT_CELLS + (port >> 5);
	const struct ic_sock_ports *ports;

	if (!ask->family)
		return 0;
	ports = bpf_map_lookup_elem(&ic_sock_ports, &index);
	return ports ? ports->row[port & 31] : 0;
}

IC_INLINE void ic_socket_report(const struct ic_ask *ask, const struct ic_answer *answer)
{
	struct ic_report_budget *budget;
	struct ic_process *process;
	__u64 ids = bpf_get_current_pid_tgid(), owner = bpf_get_current_uid_gid();
	__u32 slot = answer->slot, rate = answer->rate;
	struct ic_sock_ev *ev;

	if (!rate)
		return;
	budget = bpf_map_lookup_elem(&ic_sock_sample, &slot);
	if (!budget) {
		ic_count_loss(IC_LOSS_MAP);
		return;
	}
	if (ic_budget_spent(budget, rate) || !ic_budget_take(budget, rate))
		return;
	ev = bpf_ringbuf_reserve(&ic_events, sizeof(*ev), 0);
	if (!ev) {
		ic_count_loss(IC_LOSS_RING_FULL);
		return;
	}
	__builtin_memset(ev, 0, sizeof(*ev));
	ev->hdr.kind = IC_EV_SOCKET;
	ev->hdr.len = sizeof(*ev);
	ev->hdr.cpu = bpf_get_smp_processor_id();
	ev->hdr.time_ns = bpf_ktime_get_boot_ns();
	ev->generation = answer->generation;
	ev->cgroup = bpf_get_current_cgroup_id();
	process = ic_subject_process();
	if (process) {
		ev->exec_ns = process->exec_ns;
		ev->lineage = process->lineage;
		ev->exe = process->exe;
		ev->parent = process->parent;
		ev->ppid = process->ppid;
	} else {
		ev->flags = IC_SOCK_EV_STRANGER;
	}
	ev->pid = ids >> 32;
	ev->tid = ids;
	ev->uid = owner;
	ev->gid = owner >> 32;
	ev->rule = answer->rule;
	__builtin_memcpy(ev->addr, &ask->addr, sizeof(ev->addr));
	bpf_get_current_comm(ev->comm, sizeof(ev->comm));
	ev->port = ask->port;
	ev->family = ask->family;
	ev->op = ask->op;
	ev->proto = ask->proto;
	ev->verdict = answer->verdict;
	ev->reason = answer->reason;
	ev->flags |= ask->flags | answer->flags;
	bpf_ringbuf_submit(ev, ic_report_wakeup());
}

/* Counts and reports the answer; what a hook returns: 1 lets the process go on, 0 is EPERM. */
IC_INLINE int ic_socket_finish(const struct ic_sock_policy *policy, const struct ic_ask *ask,
			       struct ic_answer *answer)
{
	struct ic_sock_stats *stats = bpf_map_lookup_elem(&ic_sock_stats, &answer->slot);
	bool dry = policy->dry_run || answer->flags & IC_SOCK_RULE_DRY;
	bool report = answer->flags & IC_SOCK_RULE_REPORT;
	bool deny = answer->verdict == IC_VERDICT_DROP;

	if (!stats)
		ic_count_loss(IC_LOSS_MAP);
	else if (!deny)
		stats->allowed++;
	else if (dry)
		stats->dry++;
	else if (answer->reason == IC_SOCK_REASON_LIMIT)
		stats->limited++;
	else
		stats->denied++;
	answer->flags = deny && dry ? IC_SOCK_EV_DRY_RUN : 0;
	if (deny || report)
		ic_socket_report(ask, answer);
	return !deny || dry;
}

/*
 * Rules that report and decide nothing, of those that come before the one that decides: all count,
 * the first reports.
 */
IC_INLINE void ic_socket_log(const struct ic_sock_policy *policy, const struct ic_ask *ask,
			     __u32 slot, __u64 logs)
{
	struct ic_answer answer = {
		.generation = policy->generation,
		.reason = IC_SOCK_REASON_RULE,
		.flags = IC_SOCK_EV_LOG,
	};
	__u32 i;

	for (i = 0; i < IC_SOCK_LOGS_MAX; i++) {
		__u32 index = slot * IC_SOCK_LOGS_MAX;
		const struct ic_sock_rule *rule;
		struct ic_sock_stats *stats;

		if (!logs)
			break;
		index += ic_match_lowest(logs);
		logs &= logs - 1;
		rule = bpf_map_lookup_elem(&ic_sock_logs, &index);
		if (!rule)
			break;
		if (!i) {
			answer.rule = rule->number;
			answer.slot = rule->slot;
			answer.rate = rule->report_rate;
		}
		index = rule->slot;
		stats = bpf_map_lookup_elem(&ic_sock_stats, &index);
		if (stats)
			stats->logged++;
	}
	ic_socket_report(ask, &answer);
}

/* Finds the row of one dimension; false where it is missing, which none is. */
IC_INLINE bool ic_socket_row(struct ic_match *match, const struct ic_sock_policy *policy,
			     const struct ic_ask *ask, const struct ic_subject *subject, __u32 slot,
			     __u32 dim)
{
	/* Of a dimension that no rule asks of, the row of all rules. */
	__u32 row = policy->none[dim];

	if (policy->dims >> dim & 1) {
		if (dim == IC_DIM_WHERE)
			row += ic_ask_where(ask, policy, slot);
		else if (dim == IC_DIM_PORT)
			row += ic_ask_port(ask, slot);
		else
			row = ic_subject_row(policy, dim, subject);
	}
	/* Whether or not one is asked: the verifier walks on with one pointer, not with two. */
	row += slot * ic_cfg_sock_rows;
	match->row[dim] = bpf_map_lookup_elem(&ic_sock_rows, &row);
	return match->row[dim];
}

/* False where a row is missing, which none is. */
IC_INLINE bool ic_socket_rows(struct ic_match *match, const struct ic_sock_policy *policy,
			      const struct ic_ask *ask, __u32 slot)
{
	__u32 row = slot * ic_cfg_sock_rows + policy->kind[(ask->op & 3) << 8 | ask->proto], dim;
	struct ic_subject subject;

	match->row[IC_DIM_KIND] = bpf_map_lookup_elem(&ic_sock_rows, &row);
	if (!match->row[IC_DIM_KIND])
		return false;
	ic_subject_find(&subject, policy->dims);
#pragma unroll
	for (dim = IC_DIM_KIND + 1; dim < IC_DIM_PARENT; dim++) {
		if (!ic_socket_row(match, policy, ask, &subject, slot, dim))
			return false;
	}
	/* One branch for all of them: each would double what the verifier walks. */
	if (policy->dims & IC_DIMS_RARE) {
#pragma unroll
		for (dim = IC_DIM_PARENT; dim < IC_DIM_MAX; dim++) {
			if (!ic_socket_row(match, policy, ask, &subject, slot, dim))
				return false;
		}
	} else {
		/* A row that is looked at anyway leaves the rest as it is. */
#pragma unroll
		for (dim = IC_DIM_PARENT; dim < IC_DIM_MAX; dim++)
			match->row[dim] = match->row[IC_DIM_KIND];
	}
	return true;
}

IC_INLINE int ic_socket_decide(struct ic_ask *ask)
{
	__u32 slot = ic_slot_in_force(), index;
	const struct ic_sock_policy *policy = bpf_map_lookup_elem(&ic_sock_policy, &slot);
	struct ic_answer answer = { .reason = IC_SOCK_REASON_DEFAULT };
	const struct ic_sock_rule *rule;
	struct ic_match match;
	__u64 logs;
	__s32 first;

	if (!policy || !policy->generation) {
		/* Shield fails open, and says so. */
		ic_count_loss(IC_LOSS_NO_POLICY);
		return 1;
	}
	answer.generation = policy->generation;
	answer.rate = policy->rate;
	answer.verdict = policy->verdict[ask->op & 3];
	ic_ask_settle(ask);
	if (!ic_socket_rows(&match, policy, ask, slot)) {
		ic_count_loss(IC_LOSS_MAP);
		return ic_socket_finish(policy, ask, &answer);
	}
	logs = ic_match_logs(&match);
	first = ic_match_first(&match, policy->summary);
	if (first >= 0) {
		index = slot * IC_SOCK_RULES_MAX + first;
		rule = bpf_map_lookup_elem(&ic_sock_rules, &index);
		if (!rule) {
			ic_count_loss(IC_LOSS_MAP);
			return ic_socket_finish(policy, ask, &answer);
		}
		answer.rule = rule->number;
		answer.slot = rule->slot;
		answer.rate = rule->report_rate;
		answer.flags = rule->flags;
		answer.reason = IC_SOCK_REASON_RULE;
		answer.verdict = rule->action == IC_SOCK_DENY ? IC_VERDICT_DROP : IC_VERDICT_PASS;
		if (rule->flags & IC_SOCK_RULE_LIMITED &&
		    !ic_bucket_take(rule->bucket, rule->interval_ns, rule->burst_ns)) {
			answer.verdict = IC_VERDICT_DROP;
			answer.reason = IC_SOCK_REASON_LIMIT;
		}
		if (rule->logs < IC_SOCK_LOGS_MAX)
			logs &= (1ULL << (rule->logs & 63)) - 1;
	}
	if (logs)
		ic_socket_log(policy, ask, slot, logs);
	return ic_socket_finish(policy, ask, &answer);
}

#endif
