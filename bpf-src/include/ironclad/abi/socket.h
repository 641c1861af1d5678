/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* Socket rules: their tables, counters and events. The cgroup hooks enforce them. */
#ifndef IRONCLAD_ABI_SOCKET_H
#define IRONCLAD_ABI_SOCKET_H

#include "process.h"

/* The operation of a process on a socket. */
enum ic_socket_op {
	IC_SOCK_CONNECT = 0, /* connect(2), or a first datagram with TCP Fast Open */
	IC_SOCK_SEND = 1,    /* a datagram from a socket that is not connected */
	IC_SOCK_BIND = 2,    /* bind(2): which processes may listen */
	/* socket(2), of sockets without another hook: raw, ICMP, SCTP, packet sockets and such. */
	IC_SOCK_CREATE = 3,
	IC_SOCK_OPS, /* how many operations there are */
};

/* A dimension: a property that a rule may compare. */
enum ic_sock_dim {
	IC_DIM_KIND = 0, /* operation and protocol */
	IC_DIM_WHERE = 1, /* the peer's address; of bind(2), the local one */
	IC_DIM_PORT = 2, /* the port that belongs to the address */
	IC_DIM_EXE = 3, /* the executable */
	IC_DIM_UID = 4, /* the real user */
	/* The executable of the parent. This and all later dimensions are rare in policies. */
	IC_DIM_PARENT = 5,
	IC_DIM_GID = 6, /* the real group */
	IC_DIM_CGROUP = 7, /* the cgroup */
	IC_DIM_COMM = 8, /* the thread's name, which a thread may set itself */
	/* The ancestry: the first of IC_SOCK_ANCESTRIES dimensions of eight ancestries each. */
	IC_DIM_ANCESTRY = 9,
	IC_DIM_MAX = 11, /* how many dimensions there are */
};

/* Limits of socket rules. */
enum ic_sock_limit {
	IC_SOCK_RULES_MAX = 12288, /* rules of a policy that decide */
	IC_SOCK_LOGS_MAX = 64, /* rules of a policy that report and decide nothing */
	IC_SOCK_SUMMARY_WORDS = 3, /* words of ic_sock_row.summary */
	IC_SOCK_WORDS_MAX = 192, /* words of ic_sock_row.word */
	IC_SOCK_PROTOCOLS = 256, /* protocols that a rule can name */
	IC_SOCK_PORT_CELLS = 2048, /* cells of 32 ports each */
	IC_SOCK_LEVELS_MAX = 8, /* depths at which rules of a policy name cgroups */
	IC_SOCK_ANCESTRIES = 2, /* dimensions of ancestry */
	IC_SOCK_CTIMES = 4, /* moments at which a file is known to have had one content */
};

/* Limits of socket rules that size maps. */
enum ic_sock_entries {
	IC_SOCK_ROWS_MAX = 65536, /* rows of a policy, whose numbers have 16 bits */
	IC_SOCK_CGROUPS_MAX = 256, /* cgroups whose packet sockets are checked */
};

/* Protocols of socket rules that are not IP protocols. */
enum ic_sock_proto {
	/* Sockets of families that reach other hosts without IP: packet sockets foremost. */
	IC_SOCK_PROTO_PACKET = 254,
	/* Raw sockets, and protocols that have no number of their own here. */
	IC_SOCK_PROTO_RAW = 255,
};

enum ic_sock_owner {
	/* The user and the group of kernel threads. No process can have this number. */
	IC_SOCK_KERNEL = 0xffffffff,
};

/* The action of a socket rule. */
enum ic_sock_action {
	IC_SOCK_ALLOW = 0, /* the operation is allowed */
	IC_SOCK_DENY = 1, /* the operation is denied */
};

/*
 * The rules that one value of a dimension satisfies. The AND of the rows of all dimensions leaves
 * the rules that match, and its first bit decides.
 */
struct ic_sock_row {
	__u64 summary[IC_SOCK_SUMMARY_WORDS]; /* bit w: word w has any bit set */
	__u64 logs; /* bit n: rule n of the rules that report and decide nothing */
	__u64 word[IC_SOCK_WORDS_MAX]; /* bit r: rule r of the rules that decide */
};
_Static_assert(sizeof(struct ic_sock_row) == 1568, "ABI");

/* The rows of 32 ports. */
struct ic_sock_ports {
	__u16 row[32]; /* number of the row, counted from the first row of ports */
};
_Static_assert(sizeof(struct ic_sock_ports) == 64, "ABI");

/* The socket rules of a slot, without its tables. Rows are numbers in the slot's map of rows. */
struct ic_sock_policy {
	__u64 generation; /* ic_generation.number; 0: none is loaded */
	/* Changes with the meaning of executables. No two policies of an instance share an epoch. */
	__u32 epoch;
	__u32 dims; /* bit d: a rule compares dimension d */
	__u32 summary; /* words of ic_sock_row.summary in use */
	__u32 levels; /* levels of `level` in use */
	__u32 root4; /* first cell of the flat table's IPv4 root, or all ones */
	__u32 root6; /* first cell of the flat table's IPv6 root, or all ones */
	__u32 rate; /* events a second of operations that no rule decided */
	__u8 verdict[4]; /* of operations that no rule decided, by enum ic_socket_op */
	__u8 dry_run; /* 1: nothing is denied */
	__u8 logs; /* rules that report and decide nothing */
	__u16 ancestries; /* bit n: a rule compares ancestry n */
	__u32 rules; /* rules that decide */
	__u8 level[IC_SOCK_LEVELS_MAX]; /* depths at which rules name cgroups, the deepest first */
	/* The row of values that no rule names, by dimension. Where inactive, row 0: all rules. */
	__u32 none[IC_DIM_MAX];
	__u8 packets; /* 1: packet sockets are checked */
	__u8 _pad[3];
	__u16 kind[1024]; /* rows, by operation and protocol */
};
_Static_assert(sizeof(struct ic_sock_policy) == 2152, "ABI");

/* A value that rules can name: a file, user, group, cgroup or thread's name. */
struct ic_sock_id_key {
	__u32 generation; /* the lower half of the policy's generation */
	__u32 dim; /* the dimension: enum ic_sock_dim */
	__u64 value[2]; /* the words of the value; of names, their bytes */
};
_Static_assert(sizeof(struct ic_sock_id_key) == 24, "ABI");

/* The row of a value that rules name. */
struct ic_sock_id_val {
	/* Of files: a process with an execve(2) at this moment or later is unidentified; 0: none. */
	__u64 until_ns;
	/*
	 * Of executables: a process whose ic_process.exe_changed_ns is one of these has `row`, any other
	 * `changed_row`. Where the first is 0, every process has `row`.
	 */
	__u64 changed_ns[IC_SOCK_CTIMES];
	__u32 row; /* the row */
	__u32 changed_row; /* the row of a changed executable: see `changed_ns` */
};
_Static_assert(sizeof(struct ic_sock_id_val) == 48, "ABI");

/* Flags of a struct ic_sock_rule. */
enum ic_sock_rule_flag {
	IC_SOCK_RULE_REPORT = 1, /* operations that it allows are reported, too */
	IC_SOCK_RULE_DRY = 2, /* counts operations that it would deny, and allows them */
	IC_SOCK_RULE_LIMITED = 4, /* takes from a bucket, and denies when that is empty */
};

/* A socket rule's action. */
struct ic_sock_rule {
	__u64 interval_ns; /* the time for one token */
	__u64 burst_ns; /* the time for all tokens of a full bucket */
	__u32 number; /* 1 + the rule's index in the policy */
	__u32 slot; /* index in ic_sock_stats */
	__u32 bucket; /* index in ic_buckets */
	__u32 report_rate; /* events a second */
	__u8 action; /* enum ic_sock_action */
	__u8 flags; /* enum ic_sock_rule_flag */
	__u8 logs; /* rules before it that report and decide nothing */
	__u8 _pad[5];
};
_Static_assert(sizeof(struct ic_sock_rule) == 40, "ABI");

/* Decisions of a rule, one of each per CPU. */
struct ic_sock_stats {
	__u64 allowed; /* operations that were allowed */
	__u64 denied; /* operations that were denied by the rule's action */
	__u64 limited; /* operations that were denied because the bucket was empty */
	__u64 dry; /* operations that would have been denied */
	__u64 logged; /* operations that were reported by a rule that decides nothing */
};
_Static_assert(sizeof(struct ic_sock_stats) == 40, "ABI");

/*
 * A token bucket of the generic cell rate algorithm: one moment instead of a count. All CPUs share
 * it, so that the limit is the host's and not one CPU's.
 */
struct ic_bucket {
	__u64 full_ns; /* CLOCK_MONOTONIC: when the bucket will be full again */
	struct bpf_spin_lock lock; /* held while `full_ns` is written */
	__u32 _pad;
};
_Static_assert(sizeof(struct ic_bucket) == 16, "ABI");

/* Why an operation on a socket got its verdict. */
enum ic_socket_reason {
	IC_SOCK_REASON_DEFAULT = 0, /* no rule matched */
	IC_SOCK_REASON_RULE = 1, /* a rule decided */
	IC_SOCK_REASON_LIMIT = 2, /* the rule's bucket was empty */
	/*
	 * A source route (a routing header of IPv6, LSRR or SSRR of IPv4), where rules compare addresses.
	 * No rule was evaluated for its first stop. The event is of a packet that names one
	 * (IC_SOCK_SEND), or of a socket option that would set one (IC_SOCK_CREATE, without an address).
	 */
	IC_SOCK_REASON_ROUTE = 3,
};

/* Flags of a struct ic_sock_event. */
enum ic_sock_ev_flag {
	IC_SOCK_EV_DRY_RUN = 1, /* a dry run: the verdict was not enforced */
	IC_SOCK_EV_LOG = 2, /* reported by a rule that decides nothing */
	IC_SOCK_EV_UNIDENTIFIED = 4, /* the process is unidentified */
	IC_SOCK_EV_MAPPED = 8, /* the address was written as IPv4-mapped IPv6 */
};

/* The event of an operation on a socket. */
struct ic_sock_event {
	struct ic_event_header hdr; /* the common head */
	__u64 generation; /* ic_generation.number of the policy that decided */
	__u64 cgroup; /* id of the process's cgroup: the inode number of its directory */
	__u64 exec_ns; /* ic_process.exec_ns */
	__u64 ancestry; /* ic_process.ancestry */
	struct ic_file_id exe; /* ic_process.exe */
	struct ic_file_id parent; /* ic_process.parent */
	__u32 pid; /* thread group */
	__u32 tid; /* thread */
	__u32 ppid; /* the thread group that forked it */
	__u32 uid; /* real user */
	__u32 gid; /* real group */
	__u32 rule; /* 1 + the rule's index in its policy, 0 where none matched */
	__u8 addr[16]; /* network byte order; IPv4 in the first four bytes */
	__u8 comm[16]; /* the thread's name, which a thread may set itself; zero behind its end */
	__be16 port; /* network byte order */
	__u8 family; /* 4, 6, or 0 where the operation has no address */
	__u8 op; /* enum ic_socket_op */
	__u8 proto; /* IP protocol, IC_SOCK_PROTO_PACKET or IC_SOCK_PROTO_RAW */
	__u8 verdict; /* enum ic_verdict */
	__u8 reason; /* enum ic_socket_reason */
	__u8 flags; /* enum ic_sock_ev_flag */
};
_Static_assert(sizeof(struct ic_sock_event) == 144, "ABI");

#endif
