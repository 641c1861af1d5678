/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
#include "hostile.h"

static long (*const send_signal)(u32) = (void *)109;

/* The verifier knows that it is zero and removes the branch. */
const volatile u8 never = 0;

SEC(GETPID)
int evil(void *ctx)
{
	(void)ctx;
	if (never)
		return send_signal(9) != 0;
	return 0;
}

LICENSE;
