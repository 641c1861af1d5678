/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * The state that all of Sentinel's programs read first. The programs return 0 or a negative error
 * number: before Linux 6.12 a positive number would let the caller of the hook continue.
 */
#ifndef IRONCLAD_LIB_SENTINEL_STATE_H
#define IRONCLAD_LIB_SENTINEL_STATE_H

#include "../base.h"

#include <bpf/bpf_tracing.h>

enum { IC_EPERM = 1 };

struct ic_sentinel ic_sentinel SEC(".data.ic_sentinel");

IC_INLINE bool ic_is_armed(void)
{
	return IC_READ_ONCE(ic_sentinel.is_armed);
}

IC_INLINE __u32 ic_half(void)
{
	return IC_READ_ONCE(ic_sentinel.word) & 1;
}

/*
 * Whether the call is a canary: the agent verifies a hook with a thread of its own, whose every
 * call the hook refuses with an error that the kernel itself does not return there.
 */
IC_INLINE bool ic_is_canary(__u8 hook)
{
	__u32 canary = IC_READ_ONCE(ic_sentinel.canary);

	return canary && (__u32)bpf_get_current_pid_tgid() == canary &&
	       IC_READ_ONCE(ic_sentinel.canary_hook) == hook;
}

#endif
