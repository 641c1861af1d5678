/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
#include "hostile.h"

static long (*const kallsyms_lookup_name)(const char *, int, int, u64 *) = (void *)179;

SEC("syscall")
int evil(void *ctx)
{
	u64 buffer = 0;
	u64 address;

	(void)ctx;
	return kallsyms_lookup_name((const char *)&buffer, sizeof(buffer), 0, &address) != 0;
}

LICENSE;
