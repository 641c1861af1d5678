/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
#include "hostile.h"

extern void crash_kexec(void *regs) KSYM;

SEC("syscall")
int evil(void *ctx)
{
	crash_kexec(ctx);
	return 0;
}

LICENSE;
