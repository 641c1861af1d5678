/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
#include "hostile.h"

static long (*const override_return)(void *, u64) = (void *)58;

SEC("kprobe/__x64_sys_getpid")
int evil(void *ctx)
{
	(void)ctx;
	return override_return(ctx, 1) != 0;
}

LICENSE;
