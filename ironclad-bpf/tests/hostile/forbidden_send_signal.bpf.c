/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
#include "hostile.h"

static long (*const send_signal)(u32) = (void *)109;

SEC(GETPID)
int evil(void *ctx)
{
	(void)ctx;
	return send_signal(9) != 0;
}

LICENSE;
