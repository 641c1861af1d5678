/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
#include "hostile.h"

static long (*const kallsyms_lookup_name)(const char *, int, int, u64 *) = (void *)179;

SEC("syscall")
int evil(void *ctx)
{
	(void)ctx;
	return kallsyms_lookup_name((const char *)ctx, 8, 0, ctx) != 0;
}

LICENSE;
