/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * Packets that say by which way they are to go. Processes are asked for the last stop, and the wire
 * leads to the first.
 */
#ifndef IRONCLAD_LIB_SOCKET_SOURCE_ROUTE_H
#define IRONCLAD_LIB_SOCKET_SOURCE_ROUTE_H

#include "../packet/packet.h"
#include "../proto.h"

/* The beginning of either header, as far as it tells whether there is more to look at. */
enum {
	IC_IP4_PLAIN = 0x45, /* a header without options */
	IC_IP4_OPTIONS_MAX = 40,
	IC_IP4_OPTION_END = 0,
	IC_IP4_OPTION_NONE = 1,
	IC_IP4_OPTION_LSRR = 131, /* loose source route, RFC 791 */
	IC_IP4_OPTION_SSRR = 137, /* strict source route */
};

/* Whether the options name stops. Those that are no options might. One byte more than there are. */
IC_INLINE bool ic_source_route_named(const __u8 *option)
{
	__u32 i, next = 0;

	for (i = 0; i < IC_IP4_OPTIONS_MAX; i++) {
		__u8 kind = option[i], size = option[i + 1];

		if (i < next)
			continue;
		if (kind == IC_IP4_OPTION_END)
			return false;
		if (kind == IC_IP4_OPTION_LSRR || kind == IC_IP4_OPTION_SSRR)
			return true;
		if (kind != IC_IP4_OPTION_NONE && size < 2)
			return true;
		next = i + (kind == IC_IP4_OPTION_NONE ? 1 : size);
	}
	return false;
}

IC_INLINE bool ic_source_route4(struct __sk_buff *skb, __u32 len)
{
	__u8 option[IC_IP4_OPTIONS_MAX + 1] = {};
	__u64 last = len - 1;

	/* Linux 5.10 learns from this comparison that there is a byte, and from none with zero. */
	asm volatile("" : "+r"(last));
	if (last >= IC_IP4_OPTIONS_MAX)
		return true;
	if (bpf_skb_load_bytes(skb, sizeof(struct iphdr), option, last + 1))
		return true;
	return ic_source_route_named(option);
}

/*
 * Whether there is a routing header of any type, with stops left or without: of those that the
 * kernel makes for a socket, the first stop is what the process wrote, not what it was asked for.
 */
IC_INLINE bool ic_source_route6(struct __sk_buff *skb, __u8 proto)
{
	__u32 off = sizeof(struct ipv6hdr), i;

	for (i = 0; i < IC_EXT_MAX; i++) {
		__u8 kind = ic_cfg_ext_kind[proto];
		struct ic_ext ext;

		if (!kind)
			return false;
		if (proto == IC_PROTO_ROUTING || bpf_skb_load_bytes(skb, off, &ext, sizeof(ext)))
			return true;
		/* What follows is the middle of something, whose beginning was looked at. */
		if (kind == IC_EXT_FIXED && ext.fragment & bpf_htons(IC_IP6_OFFSET))
			return false;
		off += ic_ext_len(kind, ext.len);
		proto = ext.next;
	}
	return ic_cfg_ext_kind[proto];
}

/* Whether a packet, which begins with its IP header, names stops on its way. */
IC_INLINE bool ic_source_route(struct __sk_buff *skb, struct ic_packet *packet)
{
	void *data = (void *)(long)skb->data, *end = (void *)(long)skb->data_end;
	struct ipv6hdr *ip6 = data;
	struct iphdr *ip4 = data;
	__u8 first;

	if ((void *)(ip4 + 1) > end)
		return true;
	first = *(__u8 *)data;
	if (first == IC_IP4_PLAIN)
		return false;
	if (first >> 4 == 4) {
		packet->family = IC_TUPLE_V4;
		packet->proto = ip4->protocol;
		packet->dst.word[0] = ip4->daddr;
		return ic_source_route4(skb, (first & 0xf) * 4 - sizeof(*ip4));
	}
	if ((void *)(ip6 + 1) > end)
		return true;
	if (!ic_cfg_ext_kind[ip6->nexthdr])
		return false;
	packet->family = IC_TUPLE_V6;
	packet->proto = ip6->nexthdr;
	__builtin_memcpy(&packet->dst, &ip6->daddr, sizeof(packet->dst));
	return ic_source_route6(skb, packet->proto);
}

enum {
	/* Levels and options of setsockopt(2): include/uapi/linux/in.h, in6.h. */
	IC_SOL_IP = 0,
	IC_IP_OPTIONS = 4,
	IC_SOL_IPV6 = 41,
	IC_IPV6_2292PKTOPTIONS = 6,
	IC_IPV6_FLOWLABEL_MGR = 32,
	IC_IPV6_RTHDR = 57,
	IC_FLOWLABEL_SIZE = 32, /* of struct in6_flowlabel_req; options follow */
	IC_SOCKOPT_SEEN = 4096, /* bytes that a program may see: a page, or more */
};

/* Whether an option lets a socket name stops. One that takes them back has no bytes. */
IC_INLINE bool ic_source_route_option(struct bpf_sockopt *ctx)
{
	__u8 option[IC_IP4_OPTIONS_MAX + 1] = {};
	const __u8 *value = ctx->optval, *end = ctx->optval_end;
	__u32 i;

	if (ctx->optlen <= 0)
		return false;
	if (ctx->level == IC_SOL_IPV6 && ctx->optname == IC_IPV6_FLOWLABEL_MGR)
		return ctx->optlen > IC_FLOWLABEL_SIZE;
	if (ctx->level == IC_SOL_IPV6)
		return ctx->optname == IC_IPV6_RTHDR || ctx->optname == IC_IPV6_2292PKTOPTIONS;
	if (ctx->level != IC_SOL_IP || ctx->optname != IC_IP_OPTIONS)
		return false;
#pragma unroll
	for (i = 0; i < IC_IP4_OPTIONS_MAX; i++) {
		if (value + i + 1 > end)
			break;
		option[i] = value[i];
	}
	return ic_source_route_named(option);
}

#endif
