/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* Who may talk to whom: the rules that the cgroup hooks decide by. */
#ifndef IRONCLAD_ABI_SOCKET_H
#define IRONCLAD_ABI_SOCKET_H

#include "process.h"

/* What a process asks for. */
enum ic_sock_op {
	IC_SOCK_CONNECT = 0, /* connect(2), or a first datagram with TCP Fast Open */
	IC_SOCK_SEND = 1,    /* a datagram from a socket that is not connected */
	IC_SOCK_BIND = 2,    /* bind(2): who may listen */
	IC_SOCK_CREATE = 3,  /* socket(2), of what has no other hook */
	IC_SOCK_OPS = 4,
};

/* What a rule may ask of. A dimension that no rule of a policy asks of costs nothing. */
enum ic_sock_dim {
	IC_DIM_KIND = 0,    /* operation and protocol */
	IC_DIM_WHERE = 1,   /* the other's address; of bind(2), our own */
	IC_DIM_PORT = 2,
	IC_DIM_EXE = 3,
	IC_DIM_PARENT = 4,
	IC_DIM_UID = 5,
	IC_DIM_GID = 6,
	IC_DIM_CGROUP = 7,
	IC_DIM_COMM = 8,
	IC_DIM_LINEAGE = 9, /* four dimensions of eight bits each */
	IC_DIM_MAX = 13,
};

enum ic_sock_limit {
	IC_SOCK_RULES_MAX = 16384,
	IC_SOCK_LOGS_MAX = 48,      /* rules that report and decide nothing */
	IC_SOCK_SUMMARY_WORDS = 4,  /* at the beginning of each row */
	IC_SOCK_WORDS_MAX = 256,
	IC_SOCK_PROTOCOLS = 256,
	IC_SOCK_LEVELS_MAX = 32,    /* depths of cgroups */
	IC_SOCK_LINEAGES = 4,       /* rows of lineage that a decision looks up */
	/* Raw sockets, and protocols that have no number of their own here. */
	IC_SOCK_PROTO_RAW = 255,
};

enum ic_sock_action {
	IC_SOCK_ALLOW = 0,
	IC_SOCK_DENY = 1,
	IC_SOCK_LOG = 2, /* reports; the next rule that matches decides */
};

/*
 * One row for each distinct answer of a dimension: the set of rules that this answer satisfies.
 * Word 0 to 3: bit w tells whether word w of the set has any bit. From word 4 on: bit r is rule r.
 * The AND of the rows of all dimensions leaves the rules that match, and its first bit decides.
 */
struct ic_sock_cell {
	__u64 word[8];
};
_Static_assert(sizeof(struct ic_sock_cell) == 64, "ABI");

/* First cells of the rows of 32 ports. */
struct ic_sock_ports {
	__u16 row[32];
};
_Static_assert(sizeof(struct ic_sock_ports) == 64, "ABI");

enum ic_sock_rule_flag {
	IC_SOCK_RULE_REPORT = 1,  /* also what it allows */
	IC_SOCK_RULE_DRY = 2,     /* counts what it would deny, and allows it */
	IC_SOCK_RULE_LIMITED = 4, /* takes from a bucket, and denies when that is empty */
};

struct ic_sock_rule {
	__u64 interval_ns; /* one token */
	__u64 burst_ns;    /* all tokens of a full bucket */
	__u32 slot;        /* in ic_sock_stats */
	__u32 bucket;      /* in ic_buckets */
	__u32 report_rate; /* events a second */
	__u8 action;       /* enum ic_sock_action */
	__u8 flags;        /* enum ic_sock_rule_flag */
	__u8 _pad[2];
};
_Static_assert(sizeof(struct ic_sock_rule) == 32, "ABI");

/* Decisions of a rule, one of each per CPU. */
struct ic_sock_stats {
	__u64 allowed;
	__u64 denied;  /* by the rule's action */
	__u64 limited; /* denied because its bucket was empty */
	__u64 dry;     /* would have been denied */
	__u64 logged;  /* reported by a rule that decides nothing */
};
_Static_assert(sizeof(struct ic_sock_stats) == 40, "ABI");

/*
 * A token bucket, as the generic cell rate algorithm keeps it: one moment instead of a count. It
 * is shared by all CPUs, so N a second are N.
 */
struct ic_bucket {
	__u64 full_ns; /* CLOCK_MONOTONIC: when it will be full again */
	__u32 lock;    /* a bpf_spin_lock */
	__u32 _pad;
};
_Static_assert(sizeof(struct ic_bucket) == 16, "ABI");

/* What an executable means to a policy. */
struct ic_sock_exe {
	__u64 until_ns; /* processes that were executed at this moment or later are strangers; 0: none */
	__u32 row;
	__u32 _pad;
};
_Static_assert(sizeof(struct ic_sock_exe) == 16, "ABI");

struct ic_sock_comm {
	__u8 name[16]; /* zero behind its end */
};
_Static_assert(sizeof(struct ic_sock_comm) == 16, "ABI");

/* Why a process got its answer. */
enum ic_sock_reason {
	IC_SOCK_REASON_DEFAULT = 0, /* no rule matched */
	IC_SOCK_REASON_RULE = 1,
	IC_SOCK_REASON_LIMIT = 2, /* the rule's bucket was empty */
};

enum ic_sock_ev_flag {
	IC_SOCK_EV_DRY_RUN = 1,
	IC_SOCK_EV_LOG = 2, /* reported by a rule that decides nothing */
	IC_SOCK_EV_STRANGER = 4, /* nothing is known of the process */
	IC_SOCK_EV_MAPPED = 8, /* the address was written as IPv4-mapped IPv6 */
};

struct ic_sock_ev {
	struct ic_ev_hdr hdr;
	__u64 generation;
	__u64 cgroup;
	__u64 exec_ns;
	__u64 lineage;
	struct ic_file_id exe;
	struct ic_file_id parent;
	__u32 pid; /* thread group */
	__u32 tid;
	__u32 ppid;
	__u32 uid;
	__u32 gid;
	__u32 rule; /* 1 + number in its policy, 0 where none */
	__u8 addr[16]; /* network byte order; IPv4 in the first four bytes */
	__u8 comm[16];
	__u16 port; /* network byte order */
	__u8 family; /* 4, 6, or 0 where the operation has no address */
	__u8 op; /* enum ic_sock_op */
	__u8 proto;
	__u8 verdict; /* enum ic_verdict */
	__u8 reason; /* enum ic_sock_reason */
	__u8 flags; /* enum ic_sock_ev_flag */
};
_Static_assert(sizeof(struct ic_sock_ev) == 144, "ABI");

#endif
