/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
#include "hostile.h"

static long (*const send_signal)(u32) = (void *)109;
extern void bpf_throw(u64 cookie) KSYM;

/* Apparently called by the program alone that is not loaded. */
NOINLINE int after(u64 cookie)
{
	return send_signal((u32)cookie) != 0;
}

SEC("?tc")
int asleep(void *ctx)
{
	return after((u64)ctx);
}

SEC("tc")
__attribute__((btf_decl_tag("exception_callback:after"))) int evil(void *ctx)
{
	if (!ctx)
		bpf_throw(9);
	return 0;
}

LICENSE;
