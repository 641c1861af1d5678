/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* Measures lookups inside the kernel; needs bpf_loop (Linux 5.17). Never part of a firewall. */
#include "../lib/packet/sets.h"

enum {
	IC_BENCH_PROBES = 65536,
};

/*
 * Distinct addresses, so that no lookup is in the cache already. IPv4 addresses are adjacent: the
 * loop's own reads should not fill the cache.
 */
union {
	union ic_addr v6[IC_BENCH_PROBES];
	__u32 v4[IC_BENCH_PROBES];
} ic_probes SEC(".data.ic_probes");

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__uint(max_entries, 1);
	__type(key, union ic_addr);
	__type(value, __u32);
} ic_hash SEC(".maps");

/* enum ic_bench_what of the Rust side. */
const volatile __u32 ic_cfg_bench_what = 0;
/* 1: the addresses are of IPv6. */
const volatile __u32 ic_cfg_bench_v6 = 0;
/* 1: read the entry too, as the firewall does. */
const volatile __u32 ic_cfg_bench_entry = 0;

__u64 ic_bench_ns;
__u64 ic_bench_sum;
__u64 ic_bench_hits;

IC_INLINE __u32 ic_bench_one(const union ic_addr *probe)
{
	const struct ic_flat_at flat = { .map = &ic_flat };
	const __u32 *found;

	switch (ic_cfg_bench_what) {
	case 1:
		return ic_flat_lookup4(&flat, ic_cfg_flat_root4, probe->word[0]);
	case 2:
		return ic_lpm_lookup4(probe->word[0]);
	case 3:
		return ic_flat_lookup6(&flat, ic_cfg_flat_root6, probe->half[0], probe->half[1]);
	case 4:
		return ic_lpm_lookup6(probe);
	case 5:
		found = bpf_map_lookup_elem(&ic_hash, probe);
		return found ? *found : 0;
	}
	/* The address is read, without a branch that could be mispredicted. */
	asm volatile("" ::"r"(probe->word[0]));
	return 0;
}

static long ic_bench_step(__u32 i, void *ctx)
{
	union ic_addr probe = {};
	__u64 *sums = ctx;
	__u32 entry;

	if (ic_cfg_bench_v6)
		probe = ic_probes.v6[i & (IC_BENCH_PROBES - 1)];
	else
		probe.word[0] = ic_probes.v4[i & (IC_BENCH_PROBES - 1)];
	entry = ic_bench_one(&probe);

	if (ic_cfg_bench_entry && entry) {
		const struct ic_entry *found = bpf_map_lookup_elem(&ic_entries, &entry);

		if (found)
			sums[0] += found->rule + found->action;
	}
	sums[0] += entry;
	sums[1] += !!entry;
	return 0;
}

SEC("tc")
int ic_bench(void *ctx)
{
	__u64 sums[2] = {};
	__u64 begin = bpf_ktime_get_ns();

	bpf_loop(1 << 20, ic_bench_step, sums, 0);
	(void)ctx;
	ic_bench_ns = bpf_ktime_get_ns() - begin;
	ic_bench_sum = sums[0];
	ic_bench_hits = sums[1];
	return 0;
}

char _license[] SEC("license") = "Dual BSD/GPL";
