/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
#include "hostile.h"

/* Not hostile: shows whether the kernel takes, and runs, programs for its own functions. */
u64 calls = 0;

SEC("fentry/bpf_fentry_test1")
int entered(void *ctx)
{
	(void)ctx;
	__sync_fetch_and_add(&calls, 1);
	return 0;
}

LICENSE;
