/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
#include "hostile.h"

static long (*const sys_close)(u32) = (void *)168;

SEC("syscall")
int evil(void *ctx)
{
	(void)ctx;
	return sys_close(0) != 0;
}

LICENSE;
