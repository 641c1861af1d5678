/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* A program of packets that reads the memory of the process which runs it. */
#include "hostile.h"

static long (*const probe_read_user)(void *, u32, const void *) = (void *)112;

SEC("tc")
int reader(void *ctx)
{
	u64 word = 0;

	(void)ctx;
	probe_read_user(&word, sizeof(word), (void *)8);
	return word != 0;
}

LICENSE;
