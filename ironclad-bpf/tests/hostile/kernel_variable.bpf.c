/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
#include "hostile.h"

extern const int bpf_prog_active KSYM;

SEC(GETPID)
int evil(void *ctx)
{
	(void)ctx;
	return (u64)&bpf_prog_active == 1;
}

LICENSE;
