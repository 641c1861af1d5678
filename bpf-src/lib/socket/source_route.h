/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * Source-routed packets. Rules are evaluated for the destination, and the packet goes to its first
 * stop.
 */
#ifndef IRONCLAD_LIB_SOCKET_SOURCE_ROUTE_H
#define IRONCLAD_LIB_SOCKET_SOURCE_ROUTE_H

#include "../packet/packet.h"
#include "../proto.h"

/* The fields of either header that show whether there are options or extension headers. */
enum {
	IC_IP4_PLAIN = 0x45, /* a header without options */
	IC_IP4_OPTIONS_MAX = 40,
	IC_IP4_OPTION_END = 0,
	IC_IP4_OPTION_NONE = 1,
	IC_IP4_OPTION_LSRR = 131, /* loose source route, RFC 791 */
	IC_IP4_OPTION_SSRR = 137, /* strict source route */
};

/*
 * Whether the options include a source route. Unknown options count as one. `option` has one byte
 * more than the options can have.
 */
IC_INLINE bool ic_has_source_route(const __u8 *option)
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

IC_INLINE bool ic_is_source_routed4(struct __sk_buff *skb, __u32 len)
{
	__u8 option[IC_IP4_OPTIONS_MAX + 1] = {};
	__u64 last = len - 1;

	/*
	 * Linux 5.10 infers from this comparison that there is a byte, and not from a comparison
	 * with zero.
	 */
	asm volatile("" : "+r"(last));
	if (last >= IC_IP4_OPTIONS_MAX)
		return true;
	if (bpf_skb_load_bytes(skb, sizeof(struct iphdr), option, last + 1))
		return true;
	return ic_has_source_route(option);
}

/*
 * Whether there is a routing header of any type, whether or not segments are left. In a routing
 * header that the kernel adds for a socket, the first stop is not the address that the rules have
 * checked.
 */
IC_INLINE bool ic_is_source_routed6(struct __sk_buff *skb, __u8 proto)
{
	__u32 off = sizeof(struct ipv6hdr), i;

	for (i = 0; i < IC_EXT_MAX; i++) {
		__u8 kind = ic_cfg_ext_kind[proto];
		struct ic_ext ext;

		if (!kind)
			return false;
		if (proto == IC_PROTO_ROUTING || bpf_skb_load_bytes(skb, off, &ext, sizeof(ext)))
			return true;
		/* The packet is a later fragment; the first fragment was checked. */
		if (kind == IC_EXT_FIXED && ext.fragment & bpf_htons(IC_IP6_OFFSET))
			return false;
		off += ic_ext_len(kind, ext.len);
		proto = ext.next;
	}
	return ic_cfg_ext_kind[proto];
}

/* Whether a packet, which begins with its IP header, is source-routed. */
IC_INLINE bool ic_is_source_routed(struct __sk_buff *skb, struct ic_packet *packet)
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
		return ic_is_source_routed4(skb, (first & 0xf) * 4 - sizeof(*ip4));
	}
	if ((void *)(ip6 + 1) > end)
		return true;
	if (!ic_cfg_ext_kind[ip6->nexthdr])
		return false;
	packet->family = IC_TUPLE_V6;
	packet->proto = ip6->nexthdr;
	__builtin_memcpy(&packet->dst, &ip6->daddr, sizeof(packet->dst));
	return ic_is_source_routed6(skb, packet->proto);
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
	IC_SOCKOPT_SEEN = 4096, /* bytes that a program can read: a page, or more */
};

/* Whether an option sets a source route. An option that removes one has no bytes. */
IC_INLINE bool ic_is_source_route_option(struct bpf_sockopt *ctx)
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
	return ic_has_source_route(option);
}

#endif
