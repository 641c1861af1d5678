/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
#include "hostile.h"

static long (*const send_signal)(u32) = (void *)109;

static NOINLINE int helper(u32 number)
{
	return send_signal(number) != 0;
}

SEC("xdp")
int good(void *ctx)
{
	(void)ctx;
	return 2;
}

SEC("?" GETPID)
int evil(void *ctx)
{
	return helper((u32)(u64)ctx);
}

LICENSE;
