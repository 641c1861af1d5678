/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * Token buckets by the generic cell rate algorithm (ITU-T I.371, annex A): a bucket is the moment
 * at which it will be full, and a token moves that moment by one interval.
 */
#ifndef IRONCLAD_LIB_SOCKET_RATELIMIT_H
#define IRONCLAD_LIB_SOCKET_RATELIMIT_H

#include "maps.h"

/* CPUs read the clock before they take the lock, and may be preempted in between. */
enum { IC_BUCKET_SKEW_NS = 1000000000 };

/*
 * Takes a token; false where there is none. With a lock, because 5.10 has no compare-and-exchange.
 */
IC_INLINE bool ic_bucket_take(__u32 index, __u64 interval_ns, __u64 burst_ns)
{
	struct ic_bucket *bucket = bpf_map_lookup_elem(&ic_buckets, &index);
	__u64 now = bpf_ktime_get_ns(), full;
	bool taken;

	if (!bucket) {
		ic_count_loss(IC_LOSS_MAP);
		return true;
	}
	/* Not reached: the agent rejects policies that would need it here. */
	if (!ic_cfg_may_lock)
		return false;
	bpf_spin_lock(&bucket->lock);
	full = bucket->full_ns > now ? bucket->full_ns : now;
	/*
	 * A debt that this limit cannot have comes from an earlier limit of the bucket, or an
	 * earlier rate.
	 */
	if (full - now > burst_ns + IC_BUCKET_SKEW_NS)
		bucket->full_ns = full = now + burst_ns;
	taken = full + interval_ns - now <= burst_ns;
	if (taken)
		bucket->full_ns = full + interval_ns;
	bpf_spin_unlock(&bucket->lock);
	return taken;
}

#endif
