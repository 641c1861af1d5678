/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* Protocol numbers, and the extension headers of IPv6. */
#ifndef IRONCLAD_LIB_PROTO_H
#define IRONCLAD_LIB_PROTO_H

#include "base.h"

enum {
	IC_PROTO_HOPOPTS = 0,
	IC_PROTO_ICMP = 1,
	IC_PROTO_TCP = 6,
	IC_PROTO_UDP = 17,
	IC_PROTO_DCCP = 33,
	IC_PROTO_ROUTING = 43,
	IC_PROTO_FRAGMENT = 44,
	IC_PROTO_AH = 51,
	IC_PROTO_ICMPV6 = 58,
	IC_PROTO_NONE = 59,
	IC_PROTO_DSTOPTS = 60,
	IC_PROTO_SCTP = 132,
	IC_PROTO_MH = 135,
	IC_PROTO_UDPLITE = 136,
	IC_PROTO_HIP = 139,
	IC_PROTO_SHIM6 = 140,
	IC_PROTO_MPTCP = 262, /* of sockets only */
};

struct ic_ext {
	__u8 next;
	__u8 len;
	__u16 fragment; /* of a fragment header */
	__u32 id;
};

/* Of `fragment`. */
enum {
	IC_IP6_MORE = 0x0001,
	IC_IP6_OFFSET = 0xfff8,
};

/*
 * How an extension header gives its length, by protocol; 0 where the protocol is no extension
 * header.
 */
enum ic_ext_kind {
	IC_EXT_EIGHTS = 1, /* (len + 1) * 8 bytes */
	IC_EXT_FOURS = 2, /* (len + 2) * 4 bytes */
	IC_EXT_FIXED = 3, /* eight bytes */
};

/* A table instead of a switch: one path for the verifier. */
const volatile __u8 ic_cfg_ext_kind[256] = {
	[IC_PROTO_HOPOPTS] = IC_EXT_EIGHTS, [IC_PROTO_ROUTING] = IC_EXT_EIGHTS,
	[IC_PROTO_FRAGMENT] = IC_EXT_FIXED, [IC_PROTO_AH] = IC_EXT_FOURS,
	[IC_PROTO_DSTOPTS] = IC_EXT_EIGHTS, [IC_PROTO_MH] = IC_EXT_EIGHTS,
	[IC_PROTO_HIP] = IC_EXT_EIGHTS,     [IC_PROTO_SHIM6] = IC_EXT_EIGHTS,
};

/* The bytes of an extension header, by its kind and its length field. */
IC_INLINE __u32 ic_ext_len(__u8 kind, __u8 len)
{
	return kind == IC_EXT_FIXED ? 8 : kind == IC_EXT_FOURS ? (len + 2) * 4 : (len + 1) * 8;
}

#endif
