/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
#include "hostile.h"

extern int ic_no_such_function(const void *ctx) __attribute__((weak)) KSYM;

/* The kernel has no such function: libbpf replaces the call, and the verifier never reaches it. */
SEC("xdp")
int checked(void *ctx)
{
	if (ic_no_such_function)
		return ic_no_such_function(ctx);
	return 2;
}

LICENSE;
