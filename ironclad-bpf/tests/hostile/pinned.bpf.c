/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
#include "hostile.h"

/* Declares a pin by name: libbpf would pin the map, or use the one that is pinned. */
struct {
	TYPE(1); /* hash */
	u32 *key;
	u64 *value;
	ENTRIES(16);
	int (*pinning)[1];
} ic_hostile_pin SEC(".maps");

static void *(*const map_lookup_elem)(void *, const void *) = (void *)1;

SEC("xdp")
int evil(void *ctx)
{
	u32 key = 0;

	(void)ctx;
	return map_lookup_elem(&ic_hostile_pin, &key) ? 1 : 2;
}

LICENSE;
