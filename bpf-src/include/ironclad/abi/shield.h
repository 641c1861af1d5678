/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* Shield: the maps, counters and events of the XDP firewall. */
#ifndef IRONCLAD_ABI_SHIELD_H
#define IRONCLAD_ABI_SHIELD_H

#include "base.h"

enum ic_limit {
	IC_GATEWAYS_MAX = 8,  /* per family */
	IC_SLOTS = 2,         /* the policy in force and the one before or after it */
	IC_RULES_MAX = 1024,  /* rules with counters of their own */
	IC_MASKS_MAX = 32,    /* distinct shapes of tuples in one policy */
	IC_EXT_MAX = 8,       /* IPv6 extension headers followed in one packet */
	IC_VLAN_MAX = 2,
};

enum ic_action {
	IC_ACTION_NONE = 0,
	IC_ACTION_DROP = 1,
	IC_ACTION_ALLOW = 2,
};

/* What holds the address sets of one family. */
enum ic_backend {
	IC_BACKEND_NONE = 0,
	IC_BACKEND_FLAT = 1,
	IC_BACKEND_LPM = 2,
};

/* Why a packet got its verdict. Every packet counts under exactly one reason. */
enum ic_reason {
	IC_REASON_DEFAULT = 0,     /* nothing matched: the default action */
	IC_REASON_GATEWAY = 1,     /* the source is a gateway */
	IC_REASON_SET = 2,         /* an address set decided */
	IC_REASON_TUPLE = 3,       /* a tuple decided */
	IC_REASON_ARP = 4,         /* address resolution passes */
	IC_REASON_NEIGHBOUR = 5,   /* IPv6 neighbour discovery passes */
	IC_REASON_NON_IP = 6,      /* neither IP nor ARP */
	/* From here on malformed packets. */
	IC_REASON_ETH_SHORT = 7,   /* no whole Ethernet header */
	IC_REASON_VLAN_SHORT = 8,  /* a VLAN tag is cut off */
	IC_REASON_VLAN_DEEP = 9,   /* more than IC_VLAN_MAX tags */
	IC_REASON_IP4_SHORT = 10,  /* the IPv4 header is cut off */
	IC_REASON_IP4_HEADER = 11, /* version, header length or total length contradict */
	IC_REASON_IP4_LENGTH = 12, /* the total length exceeds the frame */
	IC_REASON_IP6_SHORT = 13,  /* the IPv6 header is cut off */
	IC_REASON_IP6_HEADER = 14, /* the version is not 6, or the source IPv4-mapped */
	IC_REASON_IP6_LENGTH = 15, /* the payload length exceeds the frame */
	IC_REASON_EXT_SHORT = 16,  /* an IPv6 extension header is cut off */
	IC_REASON_EXT_DEEP = 17,   /* more than IC_EXT_MAX extension headers */
	IC_REASON_EXT_ORDER = 18,  /* a hop-by-hop header that is not the first */
	IC_REASON_FRAGMENT =
		19,   /* a fragment that no sender makes: beyond 65,535 bytes, or empty */
	IC_REASON_L4_SHORT = 20,   /* the transport header is cut off, also in a first fragment */
	IC_REASON_L4_HEADER =
		21,  /* the transport header contradicts itself or the packet's length */
	IC_REASON_ARP_SHORT = 22,  /* an ARP packet is cut off */
	IC_REASON_MAX = 23,
	/* Counters: that of a reason and a verdict is number 2 * reason + verdict. */
	IC_REASON_CELLS = 46,
};

/* Losses and failures that are nobody's verdict. */
enum ic_loss {
	IC_LOSS_RING_FULL = 0,    /* an event found no room in the ring buffer */
	IC_LOSS_SAMPLED_OUT = 1,  /* an event was over its rule's rate */
	IC_LOSS_NO_POLICY = 2,    /* the dispatcher found no policy and passed the packet */
	IC_LOSS_MAP = 3,          /* a lookup that cannot fail did */
	IC_LOSS_PROCESS = 4,      /* a process found no room in the table of processes */
	IC_LOSS_MAX = 5,
};

/* Packets and bytes, one of each per CPU. `dry_*` are what a dry run would have dropped. */
struct ic_stats {
	__u64 packets;
	__u64 bytes;
	__u64 dry_packets;
	__u64 dry_bytes;
};
_Static_assert(sizeof(struct ic_stats) == 32, "ABI");

/* What is known of one distinct prefix of a policy, and how many packets it decided. */
struct ic_entry {
	__u64 packets;  /* added to by every CPU, atomically */
	__u16 rule;     /* slot of the deciding rule in ic_rules */
	__u16 log_rule; /* slot of the reporting rule, where `log` is 1 */
	__u8 action;    /* enum ic_action */
	__u8 log;       /* 1 where a log set covers the prefix too */
	__u8 _pad[2];
};
_Static_assert(sizeof(struct ic_entry) == 16, "ABI");

enum ic_tuple_kind {
	IC_TUPLE_V4 = 4,
	IC_TUPLE_V6 = 6,
	/* Or-ed in for packets without ports: later fragments. */
	IC_TUPLE_FRAGMENT = 0x80,
};

/* Addresses in network byte order; IPv4 in the first four bytes, the others zero. */
struct ic_tuple_key {
	__u64 src[2];
	__u64 dst[2];
	__u16 dport; /* network byte order; 0 where any */
	__u8 proto;  /* 0 where any */
	__u8 kind;   /* enum ic_tuple_kind */
	__u32 shape; /* index of the mask that made this key */
};
_Static_assert(sizeof(struct ic_tuple_key) == 40, "ABI");

struct ic_tuple_val {
	__u64 packets;
	__u16 rule;
	__u16 log_rule;
	__u8 action; /* enum ic_action */
	__u8 log;
	__u8 _pad[2];
};
_Static_assert(sizeof(struct ic_tuple_val) == 16, "ABI");

/* One shape of tuple: the bits of a packet that count. Bytes as in struct ic_tuple_key. */
struct ic_tuple_mask {
	__u64 src[2];
	__u64 dst[2];
	__u16 dport;
	__u8 proto;
	__u8 kind; /* IC_TUPLE_V4 or IC_TUPLE_V6 */
	__u32 _pad;
};
_Static_assert(sizeof(struct ic_tuple_mask) == 40, "ABI");

/* Key of the LPM_TRIE back end, IPv4: address in network byte order. */
struct ic_lpm4_key {
	__u32 prefixlen;
	__u8 addr[4];
};
_Static_assert(sizeof(struct ic_lpm4_key) == 8, "ABI");

/* Key of the LPM_TRIE back end, IPv6: address in network byte order. */
struct ic_lpm6_key {
	__u32 prefixlen;
	__u8 addr[16];
};
_Static_assert(sizeof(struct ic_lpm6_key) == 20, "ABI");

/* A set of addresses that is never blocked. Addresses in network byte order, unused ones zero. */
struct ic_gateways {
	__u32 count4;
	__u32 count6;
	__u32 addr4[8];
	__u64 addr6[8][2];
};
_Static_assert(sizeof(struct ic_gateways) == 168, "ABI");

/* Which policy a slot holds. */
struct ic_generation {
	__u64 number;     /* counts up from 1; 0 where the slot was never used */
	__u8 policy[32];  /* SHA-256 over the compiled policy */
	__u32 cells;      /* of the flat table */
	__u32 entries;
	__u32 tuples;
	__u32 _pad;
};
_Static_assert(sizeof(struct ic_generation) == 56, "ABI");

/*
 * `selector`, one word so that one store changes it as a whole: bit 0 the slot in force, bit 1 the
 * slot to return to, bits 2–63 when to (CLOCK_BOOTTIME in units of 4 ns; 0: never).
 */
enum ic_selector {
	IC_SELECTOR_ACTIVE = 1,
	IC_SELECTOR_FALLBACK = 2,
	IC_SELECTOR_DEADLINE_SHIFT = 2,
};

/* Shared by every program of an instance, and by the agent that maps it. */
struct ic_state {
	__u32 magic;
	__u32 abi;
	__u64 selector;
	__u32 gateways_active; /* which of the two sets below is in force */
	__u32 _pad;
	struct ic_gateways gateways[2];
	struct ic_generation generation[2];
};
_Static_assert(sizeof(struct ic_state) == 472, "ABI");

/* Per rule: at most `rate` events a second, shared by all CPUs. */
struct ic_sample {
	__u64 window; /* jiffies when the present second ends */
	__u32 sent;
	__u32 lock;   /* a bpf_spin_lock */
};
_Static_assert(sizeof(struct ic_sample) == 16, "ABI");

enum ic_shield_ev_flag {
	IC_SHIELD_EV_DRY_RUN = 1,
	IC_SHIELD_EV_FRAGMENT = 2,      /* any fragment */
	IC_SHIELD_EV_LATER_FRAGMENT = 4,/* no transport header in it */
	IC_SHIELD_EV_LOG = 8,           /* reported by a log set, not by the rule that decided */
};

enum ic_verdict {
	IC_VERDICT_PASS = 0,
	IC_VERDICT_DROP = 1,
};

struct ic_shield_ev {
	struct ic_ev_hdr hdr;
	__u64 generation;
	__u32 ifindex;
	__u32 rule;       /* slot in ic_rules */
	__u32 entry;      /* index in ic_entries, 0 where no set decided */
	__u32 packet_len; /* bytes of the frame */
	__u8 src[16];     /* network byte order; IPv4 in the first four bytes */
	__u8 dst[16];
	__u16 sport;      /* network byte order */
	__u16 dport;      /* network byte order; ICMP: type and code */
	__u16 vlan[2];    /* host byte order, outer first; 0xffff where no tag */
	__u8 family;      /* 4, 6, or 0 where no address was read */
	__u8 proto;
	__u8 verdict;     /* enum ic_verdict */
	__u8 reason;      /* enum ic_reason */
	__u8 flags;       /* enum ic_shield_ev_flag */
	__u8 _pad[3];
};
_Static_assert(sizeof(struct ic_shield_ev) == 88, "ABI");

#endif
