/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * What every Ironclad program and every Ironclad crate agree on.
 * Mirrored by ironclad-core's `abi` module; a test compares the two with the object's BTF.
 */
#ifndef IRONCLAD_ABI_BASE_H
#define IRONCLAD_ABI_BASE_H

enum ic_abi {
	/* Raised whenever a pinned map changes its meaning: it names the pin directory. */
	IC_ABI_VERSION = 3,
	/* "IRON", the first word of a state that Ironclad initialised. */
	IC_ABI_MAGIC = 0x49524f4e,
};

enum ic_ev_kind {
	IC_EV_SHIELD = 1,
	IC_EV_SOCKET = 2,
	IC_EV_SENTINEL = 3,
};

/* The head of every event in a ring buffer. */
struct ic_ev_hdr {
	__u16 kind;    /* enum ic_ev_kind */
	__u16 len;     /* bytes, head included */
	__u32 cpu;     /* where it was written */
	__u64 time_ns; /* CLOCK_BOOTTIME */
};
_Static_assert(sizeof(struct ic_ev_hdr) == 16, "ABI");

#endif
