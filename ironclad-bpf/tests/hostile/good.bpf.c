/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
#include "hostile.h"

/* Everything that a well-behaved program has: maps, variables, functions of both kinds, a callback's
 * worth of helpers that Shield may call. */
struct {
	TYPE(1); /* hash */
	u32 *key;
	u64 *value;
	ENTRIES(16);
} counters SEC(".maps");

struct {
	TYPE(27); /* ringbuf */
	ENTRIES(4096);
} events SEC(".maps");

struct {
	TYPE(3); /* prog_array */
	u32 *key;
	u32 *value;
	ENTRIES(2);
} next SEC(".maps");

static void *(*const map_lookup_elem)(void *, const void *) = (void *)1;
static u32 (*const get_smp_processor_id)(void) = (void *)8;
static long (*const tail_call)(void *, void *, u32) = (void *)12;
static u64 (*const jiffies64)(void) = (void *)118;
static u64 (*const ktime_get_boot_ns)(void) = (void *)125;
static void *(*const ringbuf_reserve)(void *, u64, u64) = (void *)131;
static void (*const ringbuf_submit)(void *, u64) = (void *)132;
static u64 (*const ringbuf_query)(void *, u64) = (void *)134;

const volatile u32 limit = 3;
u64 seen = 0;

static NOINLINE int report(u64 what)
{
	u64 *event = ringbuf_reserve(&events, sizeof(*event), 0);

	if (!event)
		return 0;
	*event = what + ktime_get_boot_ns() + jiffies64();
	ringbuf_submit(event, 0);
	return 1;
}

NOINLINE int count(u32 key)
{
	u64 *value = map_lookup_elem(&counters, &key);

	if (!value)
		return 0;
	__sync_fetch_and_add(value, 1);
	return *value > limit;
}

SEC("xdp")
int good(void *ctx)
{
	u32 cpu = get_smp_processor_id();

	seen += 1;
	if (count(cpu) && ringbuf_query(&events, 0) < 2048)
		report(seen);
	tail_call(ctx, &next, cpu & 1);
	return 2;
}

SEC("xdp")
int second(void *ctx)
{
	(void)ctx;
	return count(9) ? 1 : 2;
}

LICENSE;
