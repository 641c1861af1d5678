/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* Common definitions, which every program includes first. */
#ifndef IRONCLAD_LIB_BASE_H
#define IRONCLAD_LIB_BASE_H

#include "vmlinux.h"

#include <bpf/bpf_core_read.h>
#include <bpf/bpf_endian.h>
#include <bpf/bpf_helpers.h>

#include "ironclad/abi/base.h"
#include "ironclad/abi/flat.h"
#include "ironclad/abi/sentinel.h"
#include "ironclad/abi/shield.h"
#include "ironclad/abi/socket.h"

#define IC_INLINE static __always_inline

/*
 * Whether the program's type may take spin locks. LSM programs may since Linux 5.11, which the
 * agent probes. Their objects define IC_OBJECT_LSM before the first include.
 */
#ifdef IC_OBJECT_LSM
const volatile __u8 ic_cfg_may_lock = 1;
#else
enum { ic_cfg_may_lock = 1 };
#endif

/* One load or store that the compiler neither splits nor repeats. */
#define IC_READ_ONCE(x) (*(const volatile typeof(x) *)&(x))
#define IC_WRITE_ONCE(x, value) (*(volatile typeof(x) *)&(x) = (value))

/*
 * A kernel pointer as a number, which may be the argument of a global function. The verifier takes
 * a pointer for a number once a helper has copied it.
 */
IC_INLINE __u64 ic_address(const void *pointer)
{
	__u64 address = 0;

	bpf_probe_read_kernel(&address, sizeof(address), &pointer);
	return address;
}

/*
 * A 16-bit number in network byte order, as a host number. Before Linux 6.13 the verifier forgets
 * the range of a number after a byte swap, and clang drops a mask that it knows to have no effect.
 */
IC_INLINE __u32 ic_ntohs(__u16 value)
{
	__u64 swapped = bpf_ntohs(value);

	asm volatile("%0 &= 0xffff" : "+r"(swapped));
	return swapped;
}

#endif
