/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
#include "hostile.h"

static long (*const get_current_pid_tgid)(void) = (void *)14;
static long (*const send_signal)(u32) = (void *)109;

SEC(GETPID)
int good(void *ctx)
{
	(void)ctx;
	return get_current_pid_tgid() == 1;
}

SEC(GETPID)
int evil(void *ctx)
{
	(void)ctx;
	return get_current_pid_tgid() == 1 ? send_signal(9) != 0 : 0;
}

LICENSE;
