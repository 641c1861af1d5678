/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* Shield: the maps, counters and events of the XDP firewall. */
#ifndef IRONCLAD_ABI_SHIELD_H
#define IRONCLAD_ABI_SHIELD_H

#include "base.h"

/* Limits of a packet policy. */
enum ic_limit {
	IC_GATEWAYS_MAX = 8, /* addresses of a family in a struct ic_gateways */
	IC_SLOTS = 2,        /* the policy in force and the one before or after it */
	IC_RULES_MAX = 1024, /* rules with counters of their own */
	IC_MASKS_MAX = 32,   /* distinct shapes of tuples in one policy */
	IC_EXT_MAX = 8,      /* IPv6 extension headers followed in one packet */
	IC_VLAN_MAX = 2,     /* VLAN tags followed in one packet */
};

/* The action of an entry or tuple. */
enum ic_action {
	IC_ACTION_NONE = 0,  /* no action: another rule decides */
	IC_ACTION_DROP = 1,  /* the packet is dropped */
	IC_ACTION_ALLOW = 2, /* the packet passes */
};

/* The structure that holds the address sets of one family. */
enum ic_backend {
	IC_BACKEND_NONE = 0, /* no address sets */
	IC_BACKEND_FLAT = 1, /* the flat table */
	IC_BACKEND_LPM = 2,  /* the kernel's `LPM_TRIE` */
};

/* Why a packet got its verdict. Every packet counts under exactly one reason. */
enum ic_reason {
	IC_REASON_DEFAULT = 0,     /* no rule matched: the default action */
	IC_REASON_GATEWAY = 1,     /* the source is a gateway */
	IC_REASON_SET = 2,         /* an address set decided */
	IC_REASON_TUPLE = 3,       /* a tuple decided */
	IC_REASON_ARP = 4,         /* address resolution passes */
	IC_REASON_NEIGHBOUR = 5,   /* IPv6 neighbour discovery passes */
	IC_REASON_NON_IP = 6,      /* neither IP nor ARP */
	/* No whole Ethernet header. This and all later reasons are those of malformed packets. */
	IC_REASON_ETH_SHORT = 7,
	IC_REASON_VLAN_SHORT = 8,  /* a VLAN tag is cut off */
	IC_REASON_VLAN_DEEP = 9,   /* more than IC_VLAN_MAX tags */
	IC_REASON_IP4_SHORT = 10,  /* the IPv4 header is cut off */
	IC_REASON_IP4_HEADER = 11, /* version, header length or total length contradict */
	IC_REASON_IP4_LENGTH = 12, /* the total length exceeds the frame */
	IC_REASON_IP6_SHORT = 13,  /* the IPv6 header is cut off */
	/* The version is not 6, or the source is an IPv4-mapped address. */
	IC_REASON_IP6_HEADER = 14,
	IC_REASON_IP6_LENGTH = 15, /* the payload length exceeds the frame */
	IC_REASON_EXT_SHORT = 16,  /* an IPv6 extension header is cut off */
	IC_REASON_EXT_DEEP = 17,   /* more than IC_EXT_MAX extension headers */
	IC_REASON_EXT_ORDER = 18,  /* a hop-by-hop header that is not the first */
	/* A fragment that no sender makes: beyond 65,535 bytes, or empty. */
	IC_REASON_FRAGMENT = 19,
	IC_REASON_L4_SHORT = 20,   /* the transport header is cut off, also in a first fragment */
	/* The transport header contradicts itself or the packet's length. */
	IC_REASON_L4_HEADER = 21,
	IC_REASON_ARP_SHORT = 22,  /* an ARP packet is cut off */
	/* At an interface without Ethernet headers: empty, or of an IP version neither 4 nor 6. */
	IC_REASON_IP_VERSION = 23,
	IC_REASON_MAX, /* how many reasons there are */
};

enum ic_reason_cells {
	/* Counters of packets: that of a reason and a verdict has the index 2 * reason + verdict. */
	IC_REASON_CELLS = 2 * IC_REASON_MAX,
};

/* A loss or failure that is not the verdict on a packet. */
enum ic_loss {
	IC_LOSS_RING_FULL = 0, /* an event found no room in the ring buffer */
	IC_LOSS_SAMPLED_OUT = 1, /* an event exceeded its rule's rate limit */
	IC_LOSS_NO_POLICY = 2, /* a program found no policy and allowed the packet or socket */
	IC_LOSS_MAP = 3, /* an entry found no room in a table, or a lookup that cannot fail did */
	IC_LOSS_PROCESS = 4, /* a process found no room in the process table */
	IC_LOSS_MAX, /* how many kinds of loss there are */
};

/* Packets and bytes, one of each per CPU. */
struct ic_stats {
	__u64 packets; /* packets */
	__u64 bytes; /* bytes of their frames */
	__u64 dry_packets; /* packets that a dry run would have dropped */
	__u64 dry_bytes; /* bytes of their frames */
};
_Static_assert(sizeof(struct ic_stats) == 32, "ABI");

/* The action for one distinct prefix of a policy, and its count. */
struct ic_entry {
	__u64 packets; /* packets that it decided or reported; every CPU adds to it */
	__u16 rule; /* slot of the deciding rule in ic_rules */
	__u16 log_rule; /* slot of the reporting rule, where `log` is 1 */
	__u8 action; /* enum ic_action */
	__u8 log; /* 1 where a log set covers the prefix too */
	__u8 _pad[2];
};
_Static_assert(sizeof(struct ic_entry) == 16, "ABI");

/* The kind of a tuple. */
enum ic_tuple_kind {
	IC_TUPLE_V4 = 4, /* IPv4 */
	IC_TUPLE_V6 = 6, /* IPv6 */
	/* Or-ed in for packets without ports: later fragments. */
	IC_TUPLE_FRAGMENT = 0x80,
};

/* Key of the tuple hash. */
struct ic_tuple_key {
	__be64 src[2]; /* source address, network byte order; IPv4 in the first four bytes */
	__be64 dst[2]; /* destination address, network byte order; IPv4 in the first four bytes */
	__be16 dport; /* destination port, network byte order; 0 where any */
	__u8 proto; /* IP protocol; 0 where any */
	__u8 kind; /* enum ic_tuple_kind */
	__u32 shape; /* index of the mask that made this key */
};
_Static_assert(sizeof(struct ic_tuple_key) == 40, "ABI");

/* Value of the tuple hash. */
struct ic_tuple_val {
	__u64 packets; /* packets that it decided or reported */
	__u16 rule; /* slot of the deciding rule */
	__u16 log_rule; /* slot of the reporting rule, where `log` is 1 */
	__u8 action; /* enum ic_action */
	__u8 log; /* 1 where packets are reported too */
	__u8 _pad[2];
};
_Static_assert(sizeof(struct ic_tuple_val) == 16, "ABI");

/* The bits of a packet that one shape of tuple compares. */
struct ic_tuple_mask {
	__be64 src[2]; /* mask of the source address */
	__be64 dst[2]; /* mask of the destination address */
	__be16 dport; /* all ones or zero */
	__u8 proto; /* 0xff or zero */
	__u8 kind; /* IC_TUPLE_V4 or IC_TUPLE_V6 */
	__u32 _pad;
};
_Static_assert(sizeof(struct ic_tuple_mask) == 40, "ABI");

/* Key of the `LPM_TRIE` back end, IPv4. */
struct ic_lpm4_key {
	__u32 prefixlen; /* bits of the prefix */
	__u8 addr[4]; /* network byte order */
};
_Static_assert(sizeof(struct ic_lpm4_key) == 8, "ABI");

/* Key of the `LPM_TRIE` back end, IPv6. */
struct ic_lpm6_key {
	__u32 prefixlen; /* bits of the prefix */
	__u8 addr[16]; /* network byte order */
};
_Static_assert(sizeof(struct ic_lpm6_key) == 20, "ABI");

/* Addresses that are never blocked. Unused ones are zero. */
struct ic_gateways {
	__u32 count4; /* addresses in `addr4` */
	__u32 count6; /* addresses in `addr6` */
	__be32 addr4[IC_GATEWAYS_MAX]; /* network byte order */
	__be64 addr6[IC_GATEWAYS_MAX][2]; /* network byte order */
};
_Static_assert(sizeof(struct ic_gateways) == 168, "ABI");

/* The policy in a slot. */
struct ic_generation {
	__u64 number; /* counts up from 1; 0 where the slot was never used */
	__u8 policy[32]; /* the policy's identity: SHA-256 over the compiled policy */
	__u32 cells; /* cells of the flat table */
	__u32 entries; /* distinct prefixes, the empty one at index 0 included */
	__u32 tuples; /* keys in the tuple hash */
	__u32 _pad;
};
_Static_assert(sizeof(struct ic_generation) == 56, "ABI");

/* Bits of ic_state.selector, one word so that one store changes it as a whole. */
enum ic_selector {
	IC_SELECTOR_ACTIVE = 1, /* the slot in force */
	IC_SELECTOR_FALLBACK = 2, /* the slot to return to at the deadline */
};

enum ic_selector_shift {
	/* The deadline in ic_state.selector: CLOCK_BOOTTIME in units of 4 ns; 0: none. */
	IC_SELECTOR_DEADLINE_SHIFT = 2,
};

/* Shared by every program of an instance, and by the agent that maps it. */
struct ic_state {
	__u32 magic; /* IC_ABI_MAGIC */
	__u32 abi; /* IC_ABI_VERSION */
	__u64 selector; /* the slot in force, and until when: see IC_SELECTOR_ACTIVE */
	__u32 gateways_active; /* index of the set in `gateways` that is in force */
	__u32 _pad;
	struct ic_gateways
		gateways[IC_SLOTS]; /* the set in force, and the one to be written next */
	struct ic_generation generation[IC_SLOTS]; /* the policy in each slot */
};
_Static_assert(sizeof(struct ic_state) == 472, "ABI");

/* Events of one rule in the present second, of all CPUs. */
struct ic_sample {
	__u64 window; /* jiffies when the present second ends */
	__u32 sent; /* events so far */
	struct bpf_spin_lock lock; /* held while the other fields are written */
};
_Static_assert(sizeof(struct ic_sample) == 16, "ABI");

/* Flags of a struct ic_shield_event. */
enum ic_shield_ev_flag {
	IC_SHIELD_EV_DRY_RUN = 1, /* a dry run: the verdict was not enforced */
	IC_SHIELD_EV_FRAGMENT = 2, /* the packet is a fragment */
	IC_SHIELD_EV_LATER_FRAGMENT = 4, /* a fragment without a transport header */
	IC_SHIELD_EV_LOG = 8, /* reported by a log set, not by the rule that decided */
};

/* The verdict on a packet or socket. */
enum ic_verdict {
	IC_VERDICT_PASS = 0, /* the packet or call is allowed */
	IC_VERDICT_DROP = 1, /* the packet is dropped, the call denied */
};

/* The event of a packet. */
struct ic_shield_event {
	struct ic_event_header hdr; /* the common head */
	__u64 generation; /* ic_generation.number of the policy that decided */
	__u32 ifindex; /* the interface that received the packet */
	__u32 rule; /* slot of the rule in ic_rules */
	__u32 entry; /* index of the struct ic_entry, 0 where no set decided */
	__u32 packet_len; /* bytes of the frame */
	__u8 src[16]; /* network byte order; IPv4 in the first four bytes */
	__u8 dst[16]; /* network byte order; IPv4 in the first four bytes */
	__be16 sport; /* network byte order */
	__be16 dport; /* network byte order; of ICMP, type and code */
	__u16 vlan[IC_VLAN_MAX]; /* tag ids in host byte order, outer first; 0xffff where no tag */
	__u8 family; /* 4, 6, or 0 where no address was read */
	__u8 proto; /* IP protocol */
	__u8 verdict; /* enum ic_verdict */
	__u8 reason; /* enum ic_reason */
	__u8 flags; /* enum ic_shield_ev_flag */
	__u8 _pad[3];
};
_Static_assert(sizeof(struct ic_shield_event) == 88, "ABI");

#endif
