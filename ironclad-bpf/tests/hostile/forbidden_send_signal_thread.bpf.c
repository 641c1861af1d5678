/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
#include "hostile.h"

static long (*const send_signal_thread)(u32) = (void *)117;

SEC(GETPID)
int evil(void *ctx)
{
	(void)ctx;
	return send_signal_thread(9) != 0;
}

LICENSE;
