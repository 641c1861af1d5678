/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * From a frame to addresses, protocol and ports. Each step advances the cursor and returns
 * IC_PARSE_OK or the reason why the policy is not evaluated: the packet is malformed, or not IP.
 */
#ifndef IRONCLAD_LIB_PACKET_PARSE_H
#define IRONCLAD_LIB_PACKET_PARSE_H

#include "../proto.h"
#include "packet.h"

enum {
	IC_ETH_P_IP = 0x0800,
	IC_ETH_P_ARP = 0x0806,
	IC_ETH_P_8021Q = 0x8100,
	IC_ETH_P_IPV6 = 0x86dd,
	IC_ETH_P_8021AD = 0x88a8,

	IC_IP4_MORE = 0x2000,
	IC_IP4_OFFSET = 0x1fff,

	IC_ND_FIRST = 133, /* router solicitation */
	IC_ND_LAST = 137,  /* redirect */
	IC_ND_HOPS = 255,  /* RFC 4861: never forwarded */
};

/*
 * The parser's position: a number, not a pointer. The verifier then treats paths that differ only
 * in what they have skipped as one.
 */
struct ic_cursor {
	void *data;
	void *end;
	__u32 off;    /* bytes from `data` on */
	__u32 left;   /* bytes after `off` according to the IP header */
	__u16 proto;  /* ethertype in network byte order */
	__u8 hops;    /* IPv6 hop limit */
	__u8 partial; /* the first fragment of several: later ones carry the rest */
	__u8 jumbo;   /* IPv6 with a payload length of 0, to the end of the frame */
};

/* Link layer, IPv6 header and IC_EXT_MAX extension headers of 2,048 bytes take less. */
enum { IC_OFF_MAX = 0x47ff };

IC_INLINE void *ic_cursor_at(const struct ic_cursor *cur)
{
	return cur->data + (cur->off > IC_OFF_MAX ? IC_OFF_MAX : cur->off);
}

struct ic_eth {
	__u8 dst[6];
	__u8 src[6];
	__u16 proto;
};

struct ic_vlan {
	__u16 tci;
	__u16 proto;
};

/* ARP for IPv4 over Ethernet. */
enum { IC_ARP_LEN = 28 };

IC_INLINE __u32 ic_parse_eth(struct ic_cursor *cur, struct ic_packet *packet)
{
	struct ic_eth *eth = cur->data;
	int i;

	if ((void *)(eth + 1) > cur->end)
		return IC_REASON_ETH_SHORT;
	cur->off = sizeof(*eth);
	cur->proto = eth->proto;
#pragma unroll
	for (i = 0; i < IC_VLAN_MAX + 1; i++) {
		struct ic_vlan *vlan = ic_cursor_at(cur);

		if (cur->proto != bpf_htons(IC_ETH_P_8021Q) &&
		    cur->proto != bpf_htons(IC_ETH_P_8021AD))
			break;
		if (i == IC_VLAN_MAX)
			return IC_REASON_VLAN_DEEP;
		if ((void *)(vlan + 1) > cur->end)
			return IC_REASON_VLAN_SHORT;
		packet->vlan[i] = bpf_ntohs(vlan->tci) & 0xfff;
		cur->proto = vlan->proto;
		cur->off += sizeof(*vlan);
	}
	return IC_PARSE_OK;
}

/* A frame that begins with the IP header: the version stands for the ethertype. */
IC_INLINE __u32 ic_parse_version(struct ic_cursor *cur)
{
	__u8 *first = cur->data;

	if ((void *)(first + 1) > cur->end)
		return IC_REASON_IP_VERSION;
	switch (*first >> 4) {
	case 4:
		cur->proto = bpf_htons(IC_ETH_P_IP);
		return IC_PARSE_OK;
	case 6:
		cur->proto = bpf_htons(IC_ETH_P_IPV6);
		return IC_PARSE_OK;
	}
	return IC_REASON_IP_VERSION;
}

/*
 * A fragment's offset and length in bytes. RFC 3128: one that begins eight bytes into a TCP segment
 * would rewrite the ports' flags after a filter has seen them.
 */
IC_INLINE bool ic_fragment_is_sane(__u32 offset, __u32 len, __u8 proto)
{
	if (!offset)
		return true;
	return len && offset + len <= 65535 && !(proto == IC_PROTO_TCP && offset == 8);
}

IC_INLINE __u32 ic_parse_ip4(struct ic_cursor *cur, struct ic_packet *packet)
{
	struct iphdr *ip = ic_cursor_at(cur);
	__u32 header, total, fragment;

	if ((void *)(ip + 1) > cur->end)
		return IC_REASON_IP4_SHORT;
	if (*(__u8 *)ip >> 4 != 4)
		return IC_REASON_IP4_HEADER;
	/* Rules see the addresses also of a packet whose lengths are wrong. */
	packet->family = IC_TUPLE_V4;
	packet->src.word[0] = ip->saddr;
	packet->dst.word[0] = ip->daddr;
	packet->proto = ip->protocol;
	header = (*(__u8 *)ip & 0xf) * 4;
	total = ic_ntohs(ip->tot_len);
	if (header < sizeof(*ip) || total < header)
		return IC_REASON_IP4_HEADER;
	if ((void *)ip + header > cur->end)
		return IC_REASON_IP4_SHORT;
	if ((void *)ip + total > cur->end)
		return IC_REASON_IP4_LENGTH;
	cur->left = total - header;
	cur->off += header;
	fragment = ic_ntohs(ip->frag_off);
	if (fragment & (IC_IP4_MORE | IC_IP4_OFFSET)) {
		__u32 offset = (fragment & IC_IP4_OFFSET) * 8;

		packet->flags |= IC_SHIELD_EV_FRAGMENT;
		cur->partial = 1;
		if (offset)
			packet->flags |= IC_SHIELD_EV_LATER_FRAGMENT;
		if (!ic_fragment_is_sane(offset, cur->left, packet->proto))
			return IC_REASON_FRAGMENT;
	}
	return IC_PARSE_OK;
}

/* The fixed header alone: addresses are known, extension headers follow. */
IC_INLINE __u32 ic_parse_ip6(struct ic_cursor *cur, struct ic_packet *packet)
{
	struct ipv6hdr *ip = ic_cursor_at(cur);

	if ((void *)(ip + 1) > cur->end)
		return IC_REASON_IP6_SHORT;
	if (*(__u8 *)ip >> 4 != 6)
		return IC_REASON_IP6_HEADER;
	/* Rules see the addresses also of a packet whose length is wrong. */
	packet->family = IC_TUPLE_V6;
	__builtin_memcpy(&packet->src, &ip->saddr, sizeof(packet->src));
	__builtin_memcpy(&packet->dst, &ip->daddr, sizeof(packet->dst));
	packet->proto = ip->nexthdr;
	cur->left = ic_ntohs(ip->payload_len);
	cur->off += sizeof(*ip);
	if ((void *)(ip + 1) + cur->left > cur->end)
		return IC_REASON_IP6_LENGTH;
	/*
	 * Linux 5.10 and 6.18 take the whole frame, also without the option of jumbograms (RFC
	 * 2675); 7.3 drops the packet.
	 */
	if (!cur->left && ip->nexthdr == IC_PROTO_HOPOPTS) {
		cur->left = cur->end - (void *)(ip + 1);
		cur->jumbo = 1;
	}
	/*
	 * An IPv4-mapped source: a socket would treat the packet as IPv4, and bypass the rules of
	 * IPv4.
	 */
	if (!packet->src.half[0] && packet->src.word[2] == bpf_htonl(0xffff))
		return IC_REASON_IP6_HEADER;
	cur->hops = ip->hop_limit;
	return IC_PARSE_OK;
}

/* The header at the cursor, of protocol `packet->proto`; IC_PARSE_OK moves the cursor behind it. */
IC_INLINE __u32 ic_parse_ext_one(struct ic_cursor *cur, struct ic_packet *packet, __u8 kind)
{
	struct ic_ext *ext = ic_cursor_at(cur);
	__u32 len;

	/* Every extension header has at least eight bytes. */
	if ((void *)(ext + 1) > cur->end)
		return IC_REASON_EXT_SHORT;
	len = ic_ext_len(kind, ext->len);
	if (len > cur->left)
		return IC_REASON_EXT_SHORT;
	cur->left -= len;
	cur->off += len;
	packet->proto = ext->next;
	if (kind == IC_EXT_FIXED) {
		__u32 fragment = ic_ntohs(ext->fragment);

		/* Offset zero and no more: an atomic fragment (RFC 6946), like a whole packet. */
		if (fragment & (IC_IP6_MORE | IC_IP6_OFFSET)) {
			packet->flags |= IC_SHIELD_EV_FRAGMENT;
			cur->partial = 1;
		}
		if (fragment & IC_IP6_OFFSET)
			packet->flags |= IC_SHIELD_EV_LATER_FRAGMENT;
		if (!ic_fragment_is_sane(fragment & IC_IP6_OFFSET, cur->left, ext->next))
			return IC_REASON_FRAGMENT;
	}
	return IC_PARSE_OK;
}

/* The bytes of `left` are within the frame: ic_parse_ip6() has checked them. */
IC_INLINE __u32 ic_parse_ext_all(struct ic_cursor *cur, struct ic_packet *packet)
{
	__u64 i;

	for (i = 0; i <= IC_EXT_MAX; i++) {
		__u8 proto = packet->proto, kind = ic_cfg_ext_kind[proto];
		__u32 reason;

		if (!kind || packet->flags & IC_SHIELD_EV_LATER_FRAGMENT)
			return IC_PARSE_OK;
		if (i == IC_EXT_MAX)
			return IC_REASON_EXT_DEEP;
		if (proto == IC_PROTO_HOPOPTS && i)
			return IC_REASON_EXT_ORDER;
		reason = ic_parse_ext_one(cur, packet, kind);
		if (reason != IC_PARSE_OK)
			return reason;
	}
	return IC_REASON_EXT_DEEP;
}

/* The position behind all extension headers, in one word. */
union ic_ext_end {
	__u64 word;
	struct {
		__u16 off;
		__u16 left;
		__u8 proto;
		__u8 flags;
		__u8 partial;
		__u8 reason;
	};
};

/*
 * A global function with only the context and numbers as arguments: the verifier checks it once,
 * and not for each path that leads to it.
 */
__noinline __u64 ic_parse_ext_from(struct xdp_md *ctx, __u32 off, __u32 left, __u32 proto)
{
	struct ic_cursor cur = {
		.data = (void *)(long)ctx->data,
		.end = (void *)(long)ctx->data_end,
		/* The link layer and the IPv6 header are shorter. */
		.off = off & 0xff,
		.left = left & 0xffff,
	};
	struct ic_packet packet = { .proto = proto };
	union ic_ext_end end = { .reason = ic_parse_ext_all(&cur, &packet) };

	end.off = cur.off;
	end.left = cur.left;
	end.proto = packet.proto;
	end.flags = packet.flags;
	end.partial = cur.partial;
	return end.word;
}

IC_INLINE __u32 ic_parse_ext(struct xdp_md *ctx, struct ic_cursor *cur, struct ic_packet *packet)
{
	union ic_ext_end end;

	if (!ic_cfg_ext_kind[packet->proto])
		return IC_PARSE_OK;
	end.word = ic_parse_ext_from(ctx, cur->off, cur->left, packet->proto);
	cur->off = end.off;
	cur->left = end.left;
	cur->partial = end.partial;
	packet->proto = end.proto;
	packet->flags = end.flags;
	return end.reason;
}

/*
 * The ports, with which transport headers begin: read before the header is checked, because rules
 * see them also where the kernel accepts a packet that is malformed here.
 */
IC_INLINE bool ic_parse_ports(struct ic_cursor *cur, struct ic_packet *packet)
{
	__u16 *port = ic_cursor_at(cur);

	if ((void *)(port + 2) > cur->end || cur->left < 2 * sizeof(*port))
		return false;
	packet->sport = port[0];
	packet->dport = port[1];
	packet->has_ports = 1;
	return true;
}

IC_INLINE __u32 ic_parse_tcp(struct ic_cursor *cur)
{
	struct tcphdr *tcp = ic_cursor_at(cur);
	__u32 header;

	if ((void *)(tcp + 1) > cur->end || cur->left < sizeof(*tcp))
		return IC_REASON_L4_SHORT;
	header = (((__u8 *)tcp)[12] >> 4) * 4;
	if (header < sizeof(*tcp))
		return IC_REASON_L4_HEADER;
	return header > cur->left ? IC_REASON_L4_SHORT : IC_PARSE_OK;
}

IC_INLINE __u32 ic_parse_udp(struct ic_cursor *cur, struct ic_packet *packet)
{
	struct udphdr *udp = ic_cursor_at(cur);
	__u32 len;

	if ((void *)(udp + 1) > cur->end || cur->left < sizeof(*udp))
		return IC_REASON_L4_SHORT;
	len = ic_ntohs(udp->len);
	if (packet->proto == IC_PROTO_UDP &&
	    (len < sizeof(*udp) || (len > cur->left && !cur->partial)))
		return IC_REASON_L4_HEADER;
	return IC_PARSE_OK;
}

/* The shortest header of SCTP and of DCCP. */
IC_INLINE __u32 ic_parse_twelve(struct ic_cursor *cur)
{
	return ic_cursor_at(cur) + 12 > cur->end || cur->left < 12 ? IC_REASON_L4_SHORT
								   : IC_PARSE_OK;
}

IC_INLINE __u32 ic_parse_icmp(struct ic_cursor *cur, struct ic_packet *packet)
{
	__u16 *icmp = ic_cursor_at(cur);

	if ((void *)icmp + 8 > cur->end || cur->left < 8)
		return IC_REASON_L4_SHORT;
	packet->dport = icmp[0];
	return IC_PARSE_OK;
}

/* The transport header. Protocols that Shield does not know have none. */
IC_INLINE __u32 ic_parse_l4(struct ic_cursor *cur, struct ic_packet *packet)
{
	if (packet->flags & IC_SHIELD_EV_LATER_FRAGMENT)
		return IC_PARSE_OK;
	switch (packet->proto) {
	case IC_PROTO_TCP:
		return ic_parse_ports(cur, packet) ? ic_parse_tcp(cur) : IC_REASON_L4_SHORT;
	case IC_PROTO_UDP:
	case IC_PROTO_UDPLITE:
		return ic_parse_ports(cur, packet) ? ic_parse_udp(cur, packet) : IC_REASON_L4_SHORT;
	case IC_PROTO_SCTP:
	case IC_PROTO_DCCP:
		return ic_parse_ports(cur, packet) ? ic_parse_twelve(cur) : IC_REASON_L4_SHORT;
	case IC_PROTO_ICMP:
		return packet->family == IC_TUPLE_V4 ? ic_parse_icmp(cur, packet) : IC_PARSE_OK;
	case IC_PROTO_ICMPV6:
		return packet->family == IC_TUPLE_V6 ? ic_parse_icmp(cur, packet) : IC_PARSE_OK;
	}
	return IC_PARSE_OK;
}

/* Neighbour discovery: messages that a link needs to work, and that no router forwards. */
IC_INLINE bool ic_is_neighbour(const struct ic_cursor *cur, const struct ic_packet *packet)
{
	__u8 type = packet->dport & 0xff; /* the first byte on the wire */

	return packet->family == IC_TUPLE_V6 && packet->proto == IC_PROTO_ICMPV6 &&
	       cur->hops == IC_ND_HOPS && !(packet->flags & IC_SHIELD_EV_FRAGMENT) &&
	       type >= IC_ND_FIRST && type <= IC_ND_LAST;
}

#endif
