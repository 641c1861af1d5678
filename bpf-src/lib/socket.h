/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* What a process asks of the network, and the answer. */
#ifndef IRONCLAD_LIB_SOCKET_H
#define IRONCLAD_LIB_SOCKET_H

#include "events.h"
#include "flat.h"
#include "ratelimit.h"
#include "subject.h"

/* What becomes of what no rule matches, by operation: enum ic_verdict. */
const volatile __u8 ic_cfg_sock_default[IC_SOCK_OPS] = {};
/* Events a second of what no rule decided. */
const volatile __u32 ic_cfg_sock_rate = 0;
/* Steps that the longest search may take. */
const volatile __u32 ic_cfg_sock_steps = 0;
/* First cell of the row of each operation and protocol. */
const volatile __u32 ic_cfg_sock_kind[IC_SOCK_OPS * IC_SOCK_PROTOCOLS] = {};

/* Keeps the event in the object's BTF, where a test compares it with Rust. */
const struct ic_sock_ev *ic_socket_ev;

/* Sized at load. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct ic_sock_ports);
} ic_sock_ports SEC(".maps");

/* Indexed by number in the policy. Sized at load. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct ic_sock_rule);
} ic_sock_rules SEC(".maps");

enum {
	IC_AF_UNSPEC = 0,
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
	__u32 rule; /* 1 + number, 0 where none matched */
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
	return protocol < IC_SOCK_PROTO_RAW ? protocol : IC_SOCK_PROTO_RAW;
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

IC_INLINE __u32 ic_ask_where(const struct ic_ask *ask)
{
	__u32 row = 0;

	if (ask->family == 4 && ic_cfg_flat_root4 != ~0U)
		row = ic_flat_lookup4(ask->addr.word[0]);
	else if (ask->family == 6 && ic_cfg_flat_root6 != ~0U)
		row = ic_flat_lookup6(&ask->addr);
	return ic_cfg_sock_none[IC_DIM_WHERE] + row * ic_cfg_sock_stride;
}

IC_INLINE __u32 ic_ask_port(const struct ic_ask *ask)
{
	__u32 port = ic_ntohs(ask->port), index = port >> 5;
	const struct ic_sock_ports *ports;

	if (!ask->family)
		return ic_cfg_sock_none[IC_DIM_PORT];
	ports = bpf_map_lookup_elem(&ic_sock_ports, &index);
	return ports ? ic_cfg_sock_none[IC_DIM_PORT] + ports->row[port & 31] * ic_cfg_sock_stride
		     : ic_cfg_sock_none[IC_DIM_PORT];
}

static __noinline void ic_socket_report(const struct ic_ask *ask, const struct ic_answer *answer)
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
	ev->generation = ic_cfg_generation;
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

/* A rule that reports and decides nothing. */
IC_INLINE void ic_socket_log(const struct ic_ask *ask, const struct ic_sock_rule *rule,
			     __u32 number)
{
	struct ic_answer answer = {
		.rule = number + 1,
		.slot = rule->slot,
		.rate = rule->report_rate,
		.reason = IC_SOCK_REASON_RULE,
		.flags = IC_SOCK_EV_LOG,
	};

	ic_socket_report(ask, &answer);
}

/* Counts and reports the answer; what a hook returns: 1 lets the process go on, 0 is EPERM. */
IC_INLINE int ic_socket_finish(const struct ic_ask *ask, struct ic_answer *answer)
{
	struct ic_sock_stats *stats = bpf_map_lookup_elem(&ic_sock_stats, &answer->slot);
	bool dry = ic_cfg_dry_run || answer->flags & IC_SOCK_RULE_DRY;
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

IC_INLINE int ic_socket_decide(struct ic_ask *ask)
{
	struct ic_answer answer = {
		.rate = ic_cfg_sock_rate,
		.verdict = ic_cfg_sock_default[ask->op & 3],
		.reason = IC_SOCK_REASON_DEFAULT,
	};
	struct ic_match match = {};
	__u32 i;

	ic_ask_settle(ask);
	match.row[IC_DIM_KIND] = ic_cfg_sock_kind[(ask->op & 3) << 8 | ask->proto];
	if (ic_match_asks(IC_DIM_WHERE))
		match.row[IC_DIM_WHERE] = ic_ask_where(ask);
	if (ic_match_asks(IC_DIM_PORT))
		match.row[IC_DIM_PORT] = ic_ask_port(ask);
	ic_subject_rows(&match, ic_subject_process());
	for (i = 0; i < ic_cfg_sock_steps; i++) {
		__s32 step = ic_match_step(&match);
		const struct ic_sock_rule *rule;
		__u32 number = step;

		if (step == IC_MATCH_MORE)
			continue;
		if (step == IC_MATCH_NONE)
			break;
		rule = bpf_map_lookup_elem(&ic_sock_rules, &number);
		if (!rule) {
			ic_count_loss(IC_LOSS_MAP);
			break;
		}
		if (rule->action == IC_SOCK_LOG) {
			struct ic_sock_stats *stats =
				bpf_map_lookup_elem(&ic_sock_stats, &rule->slot);

			if (stats)
				stats->logged++;
			ic_socket_log(ask, rule, number);
			continue;
		}
		answer.rule = number + 1;
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
		break;
	}
	return ic_socket_finish(ask, &answer);
}

#endif
