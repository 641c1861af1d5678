/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
#include "hostile.h"

static long (*const btf_find_by_name_kind)(char *, int, u32, int) = (void *)167;

SEC("syscall")
int evil(void *ctx)
{
	u64 buffer = 0;

	(void)ctx;
	return btf_find_by_name_kind((char *)&buffer, sizeof(buffer), 4, 0) != 0;
}

LICENSE;
