/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
#include "hostile.h"

static long (*const sys_bpf)(u32, void *, u32) = (void *)166;

SEC("syscall")
int evil(void *ctx)
{
	(void)ctx;
	return sys_bpf(0, ctx, 8) != 0;
}

LICENSE;
