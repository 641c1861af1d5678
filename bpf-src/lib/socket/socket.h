/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* Operations on sockets, and the decision on each. */
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
const struct ic_sock_event *ic_socket_event_shape;

enum {
	IC_SOCK_STREAM = 1,
	IC_SOCK_DGRAM = 2,
	IC_SOCK_RAW = 3,
};

enum { IC_LOOPBACK4 = 0x7f000001 };

struct ic_request {
	union ic_addr addr;
	__u16 port;   /* network byte order */
	__u8 family;  /* 4, 6, or 0 where there is no address */
	__u8 op;
	__u8 proto;
	__u8 flags;   /* enum ic_sock_ev_flag */
};

struct ic_decision {
	__u64 generation;
	__u32 rule; /* 1 + the rule's index in the policy, 0 where none matched */
	__u32 slot;
	__u32 rate;
	__u8 verdict;
	__u8 reason;
	__u8 flags; /* enum ic_sock_rule_flag */
};

/* Rules treat Multipath TCP as TCP. */
IC_INLINE __u8 ic_request_proto(__u32 protocol)
{
	if (protocol == IC_PROTO_MPTCP)
		return IC_PROTO_TCP;
	return protocol < IC_SOCK_PROTO_PACKET ? protocol : IC_SOCK_PROTO_RAW;
}

/*
 * Normalises the address to the one that the kernel will use: it treats an IPv4-mapped address as
 * IPv4, and connects the unspecified address to the host itself.
 */
IC_INLINE void ic_request_normalise(struct ic_request *request)
{
	if (request->family == 6 && !request->addr.half[0] &&
	    request->addr.word[2] == bpf_htonl(0xffff)) {
		request->addr.word[0] = request->addr.word[3];
		request->addr.word[1] = 0;
		request->addr.half[1] = 0;
		request->family = 4;
		request->flags |= IC_SOCK_EV_MAPPED;
	}
	if (request->op == IC_SOCK_BIND)
		return;
	if (request->family == 4 && !request->addr.word[0])
		request->addr.word[0] = bpf_htonl(IC_LOOPBACK4);
	else if (request->family == 6 && !request->addr.half[0] && !request->addr.half[1])
		request->addr.word[3] = bpf_htonl(1);
}

IC_INLINE struct ic_flat_at ic_request_flat(__u32 slot)
{
	return (struct ic_flat_at){ .map = &ic_sock_flat, .first = slot * ic_cfg_sock_cells };
}

/* A global function: inlined, the verifier has half as many states again for IPv6. */
__noinline __u32 ic_request_flat6(__u64 high_be, __u64 low_be, __u32 root, __u32 slot)
{
	const struct ic_flat_at flat = ic_request_flat(slot);

	return ic_flat_lookup6(&flat, root, high_be, low_be);
}

/* Prefetches what ic_request_where() reads first. */
IC_INLINE void ic_request_prefetch(const struct ic_request *request,
				   const struct ic_sock_policy *policy, __u32 slot)
{
	const struct ic_flat_at flat = ic_request_flat(slot);

	if (request->family == 4 && policy->root4 != ~0U)
		ic_flat_prefetch(&flat, policy->root4, bpf_ntohl(request->addr.word[0]) >> 11);
	if (request->family == 6 && policy->root6 != ~0U)
		ic_flat_prefetch(&flat, policy->root6,
				 bpf_be64_to_cpu(request->addr.half[0]) >> 43);
}

/* The number of the row, counted from the first row of addresses. */
IC_INLINE __u32 ic_request_where(const struct ic_request *request,
				 const struct ic_sock_policy *policy, __u32 slot)
{
	const struct ic_flat_at flat = ic_request_flat(slot);

	if (request->family == 4 && policy->root4 != ~0U)
		return ic_flat_lookup4(&flat, policy->root4, request->addr.word[0]);
	if (request->family == 6 && policy->root6 != ~0U)
		return ic_request_flat6(request->addr.half[0], request->addr.half[1], policy->root6,
					slot);
	return 0;
}

IC_INLINE __u32 ic_request_port(const struct ic_request *request, __u32 slot)
{
	__u32 port = ic_ntohs(request->port), index = slot * IC_SOCK_PORT_CELLS + (port >> 5);
	const struct ic_sock_ports *ports;

	if (!request->family)
		return 0;
	ports = bpf_map_lookup_elem(&ic_sock_ports, &index);
	return ports ? ports->row[port & 31] : 0;
}

/* A new event of a rule, or NULL where the rule may not report now. */
IC_INLINE struct ic_sock_event *ic_socket_event_begin(const struct ic_decision *decision)
{
	struct ic_sample *budget;
	__u32 slot = decision->slot, rate = decision->rate;
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

IC_INLINE void ic_socket_event_submit(struct ic_sock_event *ev, const struct ic_request *request,
				      const struct ic_decision *decision)
{
	ev->hdr.kind = IC_EV_SOCKET;
	ev->hdr.len = sizeof(*ev);
	ev->hdr.cpu = bpf_get_smp_processor_id();
	ev->hdr.time_ns = bpf_ktime_get_boot_ns();
	ev->generation = decision->generation;
	ev->rule = decision->rule;
	__builtin_memcpy(ev->addr, &request->addr, sizeof(ev->addr));
	ev->port = request->port;
	ev->family = request->family;
	ev->op = request->op;
	ev->proto = request->proto;
	ev->verdict = decision->verdict;
	ev->reason = decision->reason;
	ev->flags |= request->flags | decision->flags;
	bpf_ringbuf_submit(ev, ic_report_wakeup());
}

IC_INLINE void ic_socket_report(const struct ic_request *request,
				const struct ic_decision *decision)
{
	struct ic_sock_event *ev = ic_socket_event_begin(decision);
	__u64 ids, owner;
	struct ic_process *process;

	if (!ev)
		return;
	ids = bpf_get_current_pid_tgid();
	owner = bpf_get_current_uid_gid();
	process = ic_subject_refresh(ids >> 32);
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
	ic_socket_event_submit(ev, request, decision);
}

/* Counts the decision; returns whether the operation is denied. */
IC_INLINE bool ic_socket_count(const struct ic_sock_policy *policy, struct ic_decision *decision)
{
	struct ic_sock_stats *stats = bpf_map_lookup_elem(&ic_sock_stats, &decision->slot);
	bool dry = policy->dry_run || decision->flags & IC_SOCK_RULE_DRY;
	bool deny = decision->verdict == IC_VERDICT_DROP;

	if (!stats)
		ic_count_loss(IC_LOSS_MAP);
	else if (!deny)
		stats->allowed++;
	else if (dry)
		stats->dry++;
	else if (decision->reason == IC_SOCK_REASON_LIMIT)
		stats->limited++;
	else
		stats->denied++;
	decision->flags = deny && dry ? IC_SOCK_EV_DRY_RUN : 0;
	return deny && !dry;
}

/* Counts and reports the decision; returns the hook's value: 1 to allow, 0 for EPERM. */
IC_INLINE int ic_socket_finish(const struct ic_sock_policy *policy,
			       const struct ic_request *request, struct ic_decision *decision)
{
	bool report = decision->flags & IC_SOCK_RULE_REPORT;
	bool refused = ic_socket_count(policy, decision);

	if (report || decision->verdict == IC_VERDICT_DROP)
		ic_socket_report(request, decision);
	return !refused;
}

IC_INLINE const struct ic_sock_rule *ic_socket_log_rule(__u32 slot, __u64 logs)
{
	__u32 index = slot * IC_SOCK_LOGS_MAX + ic_match_lowest(logs);

	return bpf_map_lookup_elem(&ic_sock_logs, &index);
}

/*
 * Counts the first of the rules that report and decide nothing. A global function, as
 * ic_match_slow_and() is.
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
 * Applies the rules that report and decide nothing, of those before the rule that decides: all
 * count, the first reports.
 */
IC_INLINE void ic_socket_log(const struct ic_sock_policy *policy, const struct ic_request *request,
			     __u32 slot, __u64 logs)
{
	const struct ic_sock_rule *rule = ic_socket_log_rule(slot, logs);
	struct ic_decision decision = {
		.generation = policy->generation,
		.reason = IC_SOCK_REASON_RULE,
		.flags = IC_SOCK_EV_LOG,
	};

	if (!rule)
		return;
	decision.rule = rule->number;
	decision.slot = rule->slot;
	decision.rate = rule->report_rate;
	ic_socket_report(request, &decision);
	ic_socket_count_logs(slot, logs);
}

/* The row of one dimension. */
IC_INLINE void ic_socket_row(struct ic_match *match, const struct ic_sock_policy *policy,
			     const struct ic_request *request, const struct ic_subject *subject,
			     __u32 slot, __u32 dim)
{
	/* Of a dimension that no rule compares, the row of all rules. */
	__u32 row = policy->none[dim];

	if (policy->dims >> dim & 1) {
		if (dim == IC_DIM_WHERE)
			row += ic_request_where(request, policy, slot);
		else if (dim == IC_DIM_PORT)
			row += ic_request_port(request, slot);
		else
			row = ic_subject_row(policy, dim, subject);
	}
	ic_match_set(match, dim, row);
}

IC_INLINE void ic_socket_rows(struct ic_match *match, const struct ic_sock_policy *policy,
			      const struct ic_request *request, struct ic_subject *subject,
			      __u32 slot)
{
	__u32 dim;

	__builtin_memset(match, 0, sizeof(*match));
	ic_match_set(match, IC_DIM_KIND, policy->kind[(request->op & 3) << 8 | request->proto]);
	/*
	 * The row of the address comes last: the processor prefetches it during the lookup of the
	 * process.
	 */
	ic_request_prefetch(request, policy, slot);
	ic_socket_row(match, policy, request, subject, slot, IC_DIM_PORT);
	ic_subject_find(subject, policy->dims);
#pragma unroll
	for (dim = IC_DIM_EXE; dim < IC_DIM_PARENT; dim++)
		ic_socket_row(match, policy, request, subject, slot, dim);
	ic_socket_row(match, policy, request, subject, slot, IC_DIM_WHERE);
	if (!(policy->dims & IC_DIMS_RARE))
		return;
	ic_match_set(match, IC_MATCH_RARE, 1);
#pragma unroll
	for (dim = IC_DIM_PARENT; dim < IC_DIM_MAX; dim++)
		ic_socket_row(match, policy, request, subject, slot, dim);
}

IC_INLINE int ic_socket_decide(struct ic_request *request)
{
	struct ic_decision decision = { .reason = IC_SOCK_REASON_DEFAULT };
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
		/* Shield fails open, and counts it. */
		ic_count_loss(IC_LOSS_NO_POLICY);
		return 1;
	}
	decision.generation = policy->generation;
	decision.rate = policy->rate;
	decision.verdict = policy->verdict[request->op & 3];
	ic_request_normalise(request);
	ic_socket_rows(&match, policy, request, &subject, slot);
	if (policy->logs)
		logs = ic_match_logs(&match, slot);
	first = ic_match_first(&match, slot, policy->summary);
	if (first == IC_MATCH_FAILED) {
		ic_count_loss(IC_LOSS_MAP);
		return ic_socket_finish(policy, request, &decision);
	}
	if (first >= 0) {
		index = slot * IC_SOCK_RULES_MAX + first;
		rule = bpf_map_lookup_elem(&ic_sock_rules, &index);
		if (!rule) {
			ic_count_loss(IC_LOSS_MAP);
			return ic_socket_finish(policy, request, &decision);
		}
		decision.rule = rule->number;
		decision.slot = rule->slot;
		decision.rate = rule->report_rate;
		decision.flags = rule->flags;
		decision.reason = IC_SOCK_REASON_RULE;
		decision.verdict = rule->action == IC_SOCK_DENY ? IC_VERDICT_DROP : IC_VERDICT_PASS;
		if (rule->flags & IC_SOCK_RULE_LIMITED &&
		    !ic_bucket_take(rule->bucket, rule->interval_ns, rule->burst_ns)) {
			decision.verdict = IC_VERDICT_DROP;
			decision.reason = IC_SOCK_REASON_LIMIT;
		}
		if (rule->logs < IC_SOCK_LOGS_MAX)
			logs &= (1ULL << (rule->logs & 63)) - 1;
	}
	if (logs)
		ic_socket_log(policy, request, slot, logs);
	return ic_socket_finish(policy, request, &decision);
}

#endif
