/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * Sends packets from one source after another, by BPF_PROG_TEST_RUN with live frames (Linux 5.18).
 * Never part of a firewall.
 */
#include "../lib/packet/packet.h"

enum {
	IC_BENCH_PROBES = 65536,
	IC_ETH_LEN = 14,
};

/*
 * One word of each IPv4 source, four of each IPv6 one: the sender's reads take cache from the
 * receiver.
 */
__u32 ic_sources[IC_BENCH_PROBES * 4] SEC(".data.ic_sources");

const volatile __u8 ic_cfg_bench_v6 = 0;
const volatile __u32 ic_cfg_bench_sources = IC_BENCH_PROBES;
/* The interface that the packets leave by. */
const volatile __u32 ic_cfg_bench_ifindex = 0;

__u32 ic_bench_next;
/* One receiver at a time. */
__u64 ic_bench_dropped;

/* RFC 1624: the checksum of a header in which one word has changed. */
IC_INLINE __u16 ic_bench_checksum(__u16 check, __u32 old, __u32 new)
{
	__u32 sum = (__u16)~check;

	sum += (__u16)~old + (__u16) ~(old >> 16);
	sum += (__u16) new + (__u16)(new >> 16);
	sum = (sum & 0xffff) + (sum >> 16);
	sum = (sum & 0xffff) + (sum >> 16);
	return ~sum;
}

SEC("xdp")
int ic_bench_send(struct xdp_md *ctx)
{
	__u32 next = ic_bench_next & (IC_BENCH_PROBES - 1);
	void *data = (void *)(long)ctx->data, *end = (void *)(long)ctx->data_end;

	ic_bench_next = next + 1 < ic_cfg_bench_sources ? next + 1 : 0;
	/* Frames are reused: each still has its former source. */
	if (ic_cfg_bench_v6) {
		struct ipv6hdr *ip = data + IC_ETH_LEN;

		if ((void *)(ip + 1) > end)
			return XDP_ABORTED;
		__builtin_memcpy(&ip->saddr, &ic_sources[next * 4], sizeof(ip->saddr));
	} else {
		struct iphdr *ip = data + IC_ETH_LEN;

		if ((void *)(ip + 1) > end)
			return XDP_ABORTED;
		ip->check = ic_bench_checksum(ip->check, ip->saddr, ic_sources[next]);
		ip->saddr = ic_sources[next];
	}
	return bpf_redirect(ic_cfg_bench_ifindex, 0);
}

/* The smallest firewall that drops everything. */
SEC("xdp")
int ic_bench_drop(struct xdp_md *ctx)
{
	(void)ctx;
	ic_bench_dropped++;
	return XDP_DROP;
}

char _license[] SEC("license") = "Dual BSD/GPL";
