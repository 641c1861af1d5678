/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
#include "hostile.h"

static long (*const loop)(u32, void *, void *, u64) = (void *)181;
static long (*const send_signal)(u32) = (void *)109;

static long each(u64 index, void *ctx)
{
	(void)ctx;
	return send_signal((u32)index) != 0;
}

SEC(GETPID)
int evil(void *ctx)
{
	(void)ctx;
	return loop(3, each, (void *)0, 0) != 0;
}

LICENSE;
