/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
#include "hostile.h"

static long (*const send_signal)(u32) = (void *)109;

NOINLINE int helper(u32 number)
{
	return send_signal(number) != 0;
}

SEC(GETPID)
int evil(void *ctx)
{
	(void)ctx;
	return helper(9);
}

LICENSE;
