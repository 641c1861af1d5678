/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
#include "hostile.h"

static long (*const sys_bpf)(u32, void *, u32) = (void *)166;

SEC("syscall")
int evil(void *ctx)
{
	u64 buffer = 0;

	(void)ctx;
	return sys_bpf(0, &buffer, sizeof(buffer)) != 0;
}

LICENSE;
