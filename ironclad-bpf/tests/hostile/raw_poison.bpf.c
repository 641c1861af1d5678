/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
#include "hostile.h"

SEC("xdp")
int evil(void *ctx)
{
	(void)ctx;
	asm volatile(".byte 0x85, 0, 0, 0, 0x10, 0x23, 0xad, 0x0b"
		     :
		     :
		     : "r0", "r1", "r2", "r3", "r4", "r5");
	return 2;
}

LICENSE;
