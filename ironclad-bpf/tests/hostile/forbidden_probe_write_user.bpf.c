/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
#include "hostile.h"

static long (*const probe_write_user)(void *, const void *, u32) = (void *)36;

SEC(GETPID)
int evil(void *ctx)
{
	u64 buffer = 0;

	return probe_write_user(ctx, &buffer, sizeof(buffer)) != 0;
}

LICENSE;
