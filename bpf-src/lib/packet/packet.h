/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* The parsed packet. */
#ifndef IRONCLAD_LIB_PACKET_PACKET_H
#define IRONCLAD_LIB_PACKET_PACKET_H

#include "../base.h"

/* An address in network byte order; IPv4 in word[0], the rest zero. */
union ic_addr {
	__u64 half[2];
	__u32 word[4];
	__u8 byte[16];
};

struct ic_packet {
	union ic_addr src;
	union ic_addr dst;
	__u32 len;      /* bytes of the frame */
	__u16 sport;    /* network byte order */
	__u16 dport;    /* network byte order; ICMP: type and code */
	__u16 vlan[2];  /* 0xffff where there is no tag */
	__u8 family;    /* IC_TUPLE_V4, IC_TUPLE_V6, or 0 where no address was read */
	__u8 proto;
	__u8 flags;     /* IC_SHIELD_EV_FRAGMENT, IC_SHIELD_EV_LATER_FRAGMENT */
	__u8 has_ports; /* sport and dport are ports */
};

/* The `reason` of a packet that is well-formed and has addresses: the policy decides. */
enum { IC_PARSE_OK = 255 };

#endif
