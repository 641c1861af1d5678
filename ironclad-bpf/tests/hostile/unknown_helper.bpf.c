/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
#include "hostile.h"

static long (*const unknown)(void) = (void *)4711;

SEC("xdp")
int evil(void *ctx)
{
	(void)ctx;
	return unknown() != 0;
}

LICENSE;
