/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
#include "hostile.h"

/* Not hostile: another security module that refuses changes of priority to every process. */
SEC("lsm/task_setnice")
int refuser(void *ctx)
{
	(void)ctx;
	return -1; /* EPERM */
}

LICENSE;
