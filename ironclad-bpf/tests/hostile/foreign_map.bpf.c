/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
#include "hostile.h"

static void *(*const map_lookup_elem)(void *, const void *) = (void *)1;

/* Not a map of the object, but whatever the loading process has open as descriptor 5. */
SEC("xdp")
int evil(void *ctx)
{
	void *map;
	u32 key = 0;

	(void)ctx;
	asm volatile(".byte 0x18, 0x11, 0, 0, 5, 0, 0, 0\n"
		     ".byte 0, 0, 0, 0, 0, 0, 0, 0\n"
		     "%[map] = r1"
		     : [map] "=r"(map)
		     :
		     : "r1");
	return map_lookup_elem(map, &key) ? 1 : 2;
}

LICENSE;
