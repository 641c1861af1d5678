/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
#include "hostile.h"

SEC("nothing/known")
int evil(void *ctx)
{
	(void)ctx;
	return 2;
}

LICENSE;
