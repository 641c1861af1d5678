/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
#include "hostile.h"

struct pt_regs {
	u64 ip;
};

extern void crash_kexec(struct pt_regs *regs) KSYM;

SEC("syscall")
int evil(void *ctx)
{
	crash_kexec(ctx);
	return 0;
}

LICENSE;
