/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
#include "hostile.h"

extern int bpf_cpumask_any(const void *ctx) __attribute__((weak)) KSYM;

/* The kernel has no such function: libbpf replaces the call, and the verifier never reaches it. */
SEC("xdp")
int checked(void *ctx)
{
	if (bpf_cpumask_any)
		return bpf_cpumask_any(ctx);
	return 2;
}

LICENSE;
