/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
#include "hostile.h"

SEC("fentry.s/bpf_fentry_test1")
int evil(void *ctx)
{
	(void)ctx;
	return 0;
}

LICENSE;
