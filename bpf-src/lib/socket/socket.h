/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* What a process asks of the network, and the answer. */
#ifndef IRONCLAD_LIB_SOCKET_SOCKET_H
#define IRONCLAD_LIB_SOCKET_SOCKET_H

#include "../events.h"
#include "../flat.h"
#include "../packet/packet.h"
#include "../proto.h"
#include "../slots.h"
#include "match.h"
#include "ratelimit.h"
#include "subject.h"

/* Keeps the event in the object's BTF, where a test compares it with Rust. */
const struct ic_sock_event *ic_socket_ev;

enum {
	IC_SOCK_STREAM = 1,
	IC_SOCK_DGRAM = 2,
	IC_SOCK_RAW = 3,
};

enum { IC_LOOPBACK4 = 0x7f000001 };

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
 * the unspecified address to its own host.
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
		ask->addr.word[0] = bpf_htonl(IC_LOOPBACK4);
	else if (ask->family == 6 && !ask->addr.half[0] && !ask->addr.half[1])
		ask->addr.word[3] = bpf_htonl(1);
}

IC_INLINE struct ic_flat_at ic_ask_flat(__u32 slot)
{
	return (struct ic_flat_at){ .map = &ic_sock_flat, .first = slot * ic_cfg_sock_cells };
}

/* A function of its own: inline, the verifier walks half as much again for IPv6. */
__noinline __u32 ic_ask_flat6(__u64 high_be, __u64 low_be, __u32 root, __u32 slot)
{
	const struct ic_flat_at flat = ic_ask_flat(slot);

	return ic_flat_lookup6(&flat, root, high_be, low_be);
}

/* Begins to fetch what ic_ask_where() reads first. */
IC_INLINE void ic_ask_touch(const struct ic_ask *ask, const struct ic_sock_policy *policy,
			    __u32 slot)
{
	const struct ic_flat_at flat = ic_ask_flat(slot);

	if (ask->family == 4 && policy->root4 != ~0U)
		ic_flat_touch(&flat, policy->root4, bpf_ntohl(ask->addr.word[0]) >> 11);
	if (ask->family == 6 && policy->root6 != ~0U)
		ic_flat_touch(&flat, policy->root6, bpf_be64_to_cpu(ask->addr.half[0]) >> 43);
}

/* The number of the row, behind the first of addresses. */
IC_INLINE __u32 ic_ask_where(const struct ic_ask *ask, const struct ic_sock_policy *policy,
			     __u32 slot)
{
	const struct ic_flat_at flat = ic_ask_flat(slot);

	if (ask->family == 4 && policy->root4 != ~0U)
		return ic_flat_lookup4(&flat, policy->root4, ask->addr.word[0]);
	if (ask->family == 6 && policy->root6 != ~0U)
		return ic_ask_flat6(ask->addr.half[0], ask->addr.half[1], policy->root6, slot);
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

/* A new event of a policy's rule, where that may report one now. */
IC_INLINE struct ic_sock_event *ic_socket_ev_begin(const struct ic_answer *answer)
{
	struct ic_sample *budget;
	__u32 slot = answer->slot, rate = answer->rate;
	struct ic_sock_event *ev;

	if (!rate)
		return NULL;
	budget = bpf_map_lookup_elem(&ic_sock_sample, &slot);
	if (!budget) {
		ic_count_loss(IC_LOSS_MAP);
		return NULL;
	}
	if (ic_budget_spent(budget, rate) || !ic_budget_take(budget, rate))
		return NULL;
	ev = bpf_ringbuf_reserve(&ic_events, sizeof(*ev), 0);
	if (!ev) {
		ic_count_loss(IC_LOSS_RING_FULL);
		return NULL;
	}
	__builtin_memset(ev, 0, sizeof(*ev));
	return ev;
}

IC_INLINE void ic_socket_ev_submit(struct ic_sock_event *ev, const struct ic_ask *ask,
				   const struct ic_answer *answer)
{
	ev->hdr.kind = IC_EV_SOCKET;
	ev->hdr.len = sizeof(*ev);
	ev->hdr.cpu = bpf_get_smp_processor_id();
	ev->hdr.time_ns = bpf_ktime_get_boot_ns();
	ev->generation = answer->generation;
	ev->rule = answer->rule;
	__builtin_memcpy(ev->addr, &ask->addr, sizeof(ev->addr));
	ev->port = ask->port;
	ev->family = ask->family;
	ev->op = ask->op;
	ev->proto = ask->proto;
	ev->verdict = answer->verdict;
	ev->reason = answer->reason;
	ev->flags |= ask->flags | answer->flags;
	bpf_ringbuf_submit(ev, ic_report_wakeup());
}

IC_INLINE void ic_socket_report(const struct ic_ask *ask, const struct ic_answer *answer)
{
	struct ic_sock_event *ev = ic_socket_ev_begin(answer);
	__u64 ids, owner;
	struct ic_process *process;

	if (!ev)
		return;
	ids = bpf_get_current_pid_tgid();
	owner = bpf_get_current_uid_gid();
	process = ic_subject_learn(ids >> 32);
	if (process) {
		ev->exec_ns = process->exec_ns;
		ev->ancestry = process->ancestry;
		ev->exe = process->exe;
		ev->parent = process->parent;
		ev->ppid = process->ppid;
	} else {
		ev->flags = IC_SOCK_EV_UNIDENTIFIED;
		if (ic_subject_is_kernel())
			owner = ~0ULL;
	}
	ev->cgroup = bpf_get_current_cgroup_id();
	ev->pid = ids >> 32;
	ev->tid = ids;
	ev->uid = owner;
	ev->gid = owner >> 32;
	bpf_get_current_comm(ev->comm, sizeof(ev->comm));
	ic_socket_ev_submit(ev, ask, answer);
}

/* Counts the answer; whether it is a refusal that holds. */
IC_INLINE bool ic_socket_count(const struct ic_sock_policy *policy, struct ic_answer *answer)
{
	struct ic_sock_stats *stats = bpf_map_lookup_elem(&ic_sock_stats, &answer->slot);
	bool dry = policy->dry_run || answer->flags & IC_SOCK_RULE_DRY;
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
	return deny && !dry;
}

/* Counts and reports the answer; what a hook returns: 1 lets the process go on, 0 is EPERM. */
IC_INLINE int ic_socket_finish(const struct ic_sock_policy *policy, const struct ic_ask *ask,
			       struct ic_answer *answer)
{
	bool report = answer->flags & IC_SOCK_RULE_REPORT;
	bool refused = ic_socket_count(policy, answer);

	if (report || answer->verdict == IC_VERDICT_DROP)
		ic_socket_report(ask, answer);
	return !refused;
}

IC_INLINE const struct ic_sock_rule *ic_socket_log_rule(__u32 slot, __u64 logs)
{
	__u32 index = slot * IC_SOCK_LOGS_MAX + ic_match_lowest(logs);

	return bpf_map_lookup_elem(&ic_sock_logs, &index);
}

/*
 * Counts the first of the rules that report and decide nothing. A function of its own, as ic_match_logs()
 * is.
 */
__noinline int ic_socket_count_log(__u32 slot, __u64 logs)
{
	const struct ic_sock_rule *rule = ic_socket_log_rule(slot, logs);
	struct ic_sock_stats *stats;
	__u32 index;

	if (!rule)
		return 0;
	index = rule->slot;
	stats = bpf_map_lookup_elem(&ic_sock_stats, &index);
	if (stats)
		stats->logged++;
	return 0;
}

/* Counts all of them. */
__noinline int ic_socket_count_logs(__u32 slot, __u64 logs)
{
	__u32 i;

	for (i = 0; i < IC_SOCK_LOGS_MAX && logs; i++) {
		ic_socket_count_log(slot, logs);
		logs &= logs - 1;
	}
	return 0;
}

/*
 * Rules that report and decide nothing, of those that come before the one that decides: all count,
 * the first reports.
 */
IC_INLINE void ic_socket_log(const struct ic_sock_policy *policy, const struct ic_ask *ask,
			     __u32 slot, __u64 logs)
{
	const struct ic_sock_rule *rule = ic_socket_log_rule(slot, logs);
	struct ic_answer answer = {
		.generation = policy->generation,
		.reason = IC_SOCK_REASON_RULE,
		.flags = IC_SOCK_EV_LOG,
	};

	if (!rule)
		return;
	answer.rule = rule->number;
	answer.slot = rule->slot;
	answer.rate = rule->report_rate;
	ic_socket_report(ask, &answer);
	ic_socket_count_logs(slot, logs);
}

/* The row of one dimension. */
IC_INLINE void ic_socket_row(struct ic_match *match, const struct ic_sock_policy *policy,
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
	ic_match_set(match, dim, row);
}

IC_INLINE void ic_socket_rows(struct ic_match *match, const struct ic_sock_policy *policy,
			      const struct ic_ask *ask, struct ic_subject *subject, __u32 slot)
{
	__u32 dim;

	__builtin_memset(match, 0, sizeof(*match));
	ic_match_set(match, IC_DIM_KIND, policy->kind[(ask->op & 3) << 8 | ask->proto]);
	/* The address's own row comes last: the processor fetches while it looks for the process. */
	ic_ask_touch(ask, policy, slot);
	ic_socket_row(match, policy, ask, subject, slot, IC_DIM_PORT);
	ic_subject_find(subject, policy->dims);
#pragma unroll
	for (dim = IC_DIM_EXE; dim < IC_DIM_PARENT; dim++)
		ic_socket_row(match, policy, ask, subject, slot, dim);
	ic_socket_row(match, policy, ask, subject, slot, IC_DIM_WHERE);
	if (!(policy->dims & IC_DIMS_RARE))
		return;
	ic_match_set(match, IC_MATCH_RARE, 1);
#pragma unroll
	for (dim = IC_DIM_PARENT; dim < IC_DIM_MAX; dim++)
		ic_socket_row(match, policy, ask, subject, slot, dim);
}

IC_INLINE int ic_socket_decide(struct ic_ask *ask)
{
	struct ic_answer answer = { .reason = IC_SOCK_REASON_DEFAULT };
	const struct ic_sock_policy *policy;
	const struct ic_sock_rule *rule;
	struct ic_subject subject;
	struct ic_match match;
	__u32 slot, index;
	__u64 logs = 0;
	__s32 first;

	ic_subject_begin(&subject);
	slot = ic_slot_in_force();
	policy = bpf_map_lookup_elem(&ic_sock_policy, &slot);
	if (!policy || !policy->generation) {
		/* Shield fails open, and says so. */
		ic_count_loss(IC_LOSS_NO_POLICY);
		return 1;
	}
	answer.generation = policy->generation;
	answer.rate = policy->rate;
	answer.verdict = policy->verdict[ask->op & 3];
	ic_ask_settle(ask);
	ic_socket_rows(&match, policy, ask, &subject, slot);
	if (policy->logs)
		logs = ic_match_logs(match.rows[0], match.rows[1], match.rows[2], slot);
	first = ic_match_first(&match, slot, policy->summary);
	if (first == IC_MATCH_BROKEN) {
		ic_count_loss(IC_LOSS_MAP);
		return ic_socket_finish(policy, ask, &answer);
	}
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
