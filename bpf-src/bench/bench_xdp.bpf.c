/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* Gives each run of an XDP program a packet from another source. Never part of a firewall. */
#include "../lib/packet/packet.h"

enum {
	IC_BENCH_PROBES = 65536,
	IC_ETH_LEN = 14,
};

/* IPv4 addresses are adjacent: the harness's own reads should not fill the cache. */
union {
	union ic_addr v6[IC_BENCH_PROBES];
	__u32 v4[IC_BENCH_PROBES];
} ic_probes SEC(".data.ic_probes");

struct {
	__uint(type, BPF_MAP_TYPE_PROG_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, __u32);
} ic_bench_next SEC(".maps");

const volatile __u8 ic_cfg_bench_v6 = 0;

__u32 ic_bench_run;

SEC("xdp")
int ic_bench_empty(struct xdp_md *ctx)
{
	(void)ctx;
	return XDP_PASS;
}

SEC("xdp")
int ic_bench_xdp(struct xdp_md *ctx)
{
	__u32 at = ic_bench_run++ & (IC_BENCH_PROBES - 1);
	void *data = (void *)(long)ctx->data, *end = (void *)(long)ctx->data_end;

	if (ic_cfg_bench_v6) {
		struct ipv6hdr *ip = data + IC_ETH_LEN;

		if ((void *)(ip + 1) > end)
			return XDP_ABORTED;
		__builtin_memcpy(&ip->saddr, &ic_probes.v6[at], sizeof(ip->saddr));
	} else {
		struct iphdr *ip = data + IC_ETH_LEN;

		if ((void *)(ip + 1) > end)
			return XDP_ABORTED;
		ip->saddr = ic_probes.v4[at];
	}
	bpf_tail_call_static(ctx, &ic_bench_next, 0);
	return XDP_ABORTED;
}

char _license[] SEC("license") = "Dual BSD/GPL";
