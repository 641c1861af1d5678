/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * Maps that all programs of an instance share, across policies and agents. The dispatcher's object
 * creates them; a policy's object receives their descriptors.
 */
#ifndef IRONCLAD_LIB_SHARED_H
#define IRONCLAD_LIB_SHARED_H

#include "loss.h"

struct ic_state ic_state SEC(".data.ic_state");

/* Indexed by 2 * enum ic_reason + enum ic_verdict. */
struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, IC_REASON_CELLS);
	__type(key, __u32);
	__type(value, struct ic_stats);
} ic_reasons SEC(".maps");

/* Indexed by rule slot. */
struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, IC_RULES_MAX);
	__type(key, __u32);
	__type(value, struct ic_stats);
} ic_rules SEC(".maps");

/* Sized at load: a power of two and a multiple of the page size. */
struct {
	__uint(type, BPF_MAP_TYPE_RINGBUF);
	__uint(max_entries, 4096);
} ic_events SEC(".maps");

/* Indexed by rule slot. Shared by all CPUs: the rate is the host's, not one CPU's. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, IC_RULES_MAX);
	__type(key, __u32);
	__type(value, struct ic_sample);
} ic_sample SEC(".maps");

#endif
