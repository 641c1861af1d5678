/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* Rules on connections and sockets, which the cgroup hooks enforce. */
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

/* What a rule may ask of. */
enum ic_sock_dim {
	IC_DIM_KIND = 0,    /* operation and protocol */
	IC_DIM_WHERE = 1,   /* the other's address; of bind(2), our own */
	IC_DIM_PORT = 2,
	IC_DIM_EXE = 3,
	IC_DIM_UID = 4,
	/* From here on those that few policies ask of. */
	IC_DIM_PARENT = 5,
	IC_DIM_GID = 6,
	IC_DIM_CGROUP = 7,
	IC_DIM_COMM = 8,
	IC_DIM_ANCESTRY = 9, /* two dimensions of eight ancestries each */
	IC_DIM_MAX = 11,
};

enum ic_sock_limit {
	IC_SOCK_RULES_MAX = 12288,  /* rules of a policy that decide */
	IC_SOCK_LOGS_MAX = 64,      /* rules of a policy that report and decide nothing */
	IC_SOCK_ROWS_MAX = 65536,   /* rows of a policy, whose numbers have 16 bits */
	IC_SOCK_SUMMARY_WORDS = 3,  /* at the beginning of each row */
	IC_SOCK_WORDS_MAX = 192,
	IC_SOCK_PROTOCOLS = 256,
	IC_SOCK_PORT_CELLS = 2048,  /* of 32 ports each */
	IC_SOCK_LEVELS_MAX = 8,     /* depths at which rules of a policy name cgroups */
	IC_SOCK_ANCESTRIES = 2,       /* dimensions of ancestry */
	IC_SOCK_CTIMES = 4,         /* at which a file is known to have had one content */
	IC_SOCK_CGROUPS_MAX = 256,  /* cgroups whose packet sockets are asked for */
	/* Sockets of families that reach others without IP: packet sockets foremost. */
	IC_SOCK_PROTO_PACKET = 254,
	/* Raw sockets, and protocols that have no number of their own here. */
	IC_SOCK_PROTO_RAW = 255,
};

/* The user and the group that threads of the kernel's are: no process can be these. */
#define IC_SOCK_KERNEL 0xffffffffU

enum ic_sock_action {
	IC_SOCK_ALLOW = 0,
	IC_SOCK_DENY = 1,
};

/*
 * One row for each distinct answer of a dimension: the set of rules that this answer satisfies.
 * The AND of the rows of all dimensions leaves the rules that match, and its first bit decides.
 * `summary`: bit w tells whether word w of the set has any bit.
 */
struct ic_sock_row {
	__u64 summary[3];
	__u64 logs; /* rules that report and decide nothing */
	__u64 word[192];
};
_Static_assert(sizeof(struct ic_sock_row) == 1568, "ABI");

/* The rows of 32 ports, counted from the first row of ports. */
struct ic_sock_ports {
	__u16 row[32];
};
_Static_assert(sizeof(struct ic_sock_ports) == 64, "ABI");

/* The socket rules of a slot, but for its tables. Rows are numbers in the slot's map of rows. */
struct ic_sock_policy {
	__u64 generation; /* 0: none is loaded */
	/* Changes with what executables mean; no two policies of an instance have the same. */
	__u32 epoch;
	__u32 dims;    /* bit d: a rule asks of dimension d */
	__u32 summary; /* words of the summary that say anything */
	__u32 levels;  /* how many of `level` are in use */
	__u32 root4;   /* first cell of the flat table's IPv4 root, or all ones */
	__u32 root6;
	__u32 rate;    /* events a second of what no rule decided */
	__u8 verdict[4]; /* of what no rule decided, by enum ic_sock_op */
	__u8 dry_run;
	__u8 logs;       /* rules that report and decide nothing */
	__u16 ancestries;  /* bit n: a rule asks of ancestry n */
	__u32 rules;     /* rules that decide */
	__u8 level[8]; /* depths at which rules name cgroups, the deepest first */
	/* First row of each dimension: that of what no rule names. Of one inactive, row 0: all rules. */
	__u32 none[11];
	__u8 packets; /* 1: packet sockets are asked for */
	__u8 _pad[3];
	__u16 kind[1024]; /* rows, by operation and protocol */
};
_Static_assert(sizeof(struct ic_sock_policy) == 2152, "ABI");

/* What rules can name by value: files, users, groups, cgroups, names of threads. */
struct ic_sock_id_key {
	__u32 generation; /* the lower half */
	__u32 dim; /* enum ic_sock_dim */
	__u64 value[2];
};
_Static_assert(sizeof(struct ic_sock_id_key) == 24, "ABI");

struct ic_sock_id_val {
	__u64 until_ns; /* of files: whoever was executed at this moment or later is an unidentified process; 0: none */
	/* Of executables: ctimes with which a file has `row`, and with any other `changed_row`. None: any. */
	__u64 changed_ns[4];
	__u32 row;
	__u32 changed_row;
};
_Static_assert(sizeof(struct ic_sock_id_val) == 48, "ABI");

enum ic_sock_rule_flag {
	IC_SOCK_RULE_REPORT = 1, /* also what it allows */
	IC_SOCK_RULE_DRY = 2, /* counts what it would deny, and allows it */
	IC_SOCK_RULE_LIMITED = 4, /* takes from a bucket, and denies when that is empty */
};

struct ic_sock_rule {
	__u64 interval_ns; /* one token */
	__u64 burst_ns; /* all tokens of a full bucket */
	__u32 number; /* 1 + its place in the policy */
	__u32 slot; /* in ic_sock_stats */
	__u32 bucket; /* in ic_buckets */
	__u32 report_rate; /* events a second */
	__u8 action; /* enum ic_sock_action */
	__u8 flags; /* enum ic_sock_rule_flag */
	__u8 logs; /* how many rules that only report come before it */
	__u8 _pad[5];
};
_Static_assert(sizeof(struct ic_sock_rule) == 40, "ABI");

/* Decisions of a rule, one of each per CPU. */
struct ic_sock_stats {
	__u64 allowed;
	__u64 denied; /* by the rule's action */
	__u64 limited; /* denied because its bucket was empty */
	__u64 dry; /* would have been denied */
	__u64 logged; /* reported by a rule that decides nothing */
};
_Static_assert(sizeof(struct ic_sock_stats) == 40, "ABI");

/*
 * A token bucket, as the generic cell rate algorithm keeps it: one moment instead of a count. It
 * is shared by all CPUs, so N a second are N.
 */
struct ic_bucket {
	__u64 full_ns; /* CLOCK_MONOTONIC: when it will be full again */
	__u32 lock; /* a bpf_spin_lock */
	__u32 _pad;
};
_Static_assert(sizeof(struct ic_bucket) == 16, "ABI");

/* Why a process got its answer. */
enum ic_sock_reason {
	IC_SOCK_REASON_DEFAULT = 0, /* no rule matched */
	IC_SOCK_REASON_RULE = 1,
	IC_SOCK_REASON_LIMIT = 2, /* the rule's bucket was empty */
	IC_SOCK_REASON_ROUTE = 3, /* a source route, sent or set: no rule was asked */
};

enum ic_sock_ev_flag {
	IC_SOCK_EV_DRY_RUN = 1,
	IC_SOCK_EV_LOG = 2, /* reported by a rule that decides nothing */
	IC_SOCK_EV_UNIDENTIFIED = 4, /* nothing is known of the process */
	IC_SOCK_EV_MAPPED = 8, /* the address was written as IPv4-mapped IPv6 */
};

struct ic_sock_ev {
	struct ic_ev_hdr hdr;
	__u64 generation;
	__u64 cgroup;
	__u64 exec_ns;
	__u64 ancestry;
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
