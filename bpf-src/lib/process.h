/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* The table of processes: one lookup tells a hook who is asking. */
#ifndef IRONCLAD_LIB_PROCESS_H
#define IRONCLAD_LIB_PROCESS_H

#include "loss.h"

/*
 * By thread group. Sized at load for as many as the kernel lets run, so that it is never full; not
 * preallocated. Task storage would do the same, but cgroup programs may not read it before 6.13.
 */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct ic_process);
} ic_processes SEC(".maps");

#endif
