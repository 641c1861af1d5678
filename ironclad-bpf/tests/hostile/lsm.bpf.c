/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
#include "hostile.h"

/* Not hostile: permits everything and counts. */
u64 calls = 0;

SEC("lsm/file_open")
int opened(void *ctx)
{
	(void)ctx;
	__sync_fetch_and_add(&calls, 1);
	return 0;
}

LICENSE;
