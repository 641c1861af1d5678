/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
#include "hostile.h"

/* Not hostile. */
SEC("tp_btf/sched_process_exec")
int executed(void *ctx)
{
	(void)ctx;
	return 0;
}

LICENSE;
