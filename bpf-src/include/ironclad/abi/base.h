/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * The ABI between the eBPF programs and the Rust crates. These headers are its only source:
 * `cargo xtask abi` makes ironclad-core's `abi` module of them. It understands enums, structs and
 * unions with a comment on each member, and refuses anything else. A test compares the result with
 * the objects' BTF.
 */
#ifndef IRONCLAD_ABI_BASE_H
#define IRONCLAD_ABI_BASE_H

enum ic_abi {
	/* Names the pin directory. Raised when a pinned map changes its meaning. */
	IC_ABI_VERSION = 5,
	/* "IRON": the first word of an initialised struct ic_state. */
	IC_ABI_MAGIC = 0x49524f4e,
};

/* The kind of an event in a ring buffer. */
enum ic_ev_kind {
	IC_EV_SHIELD = 1,   /* struct ic_shield_event */
	IC_EV_SOCKET = 2,   /* struct ic_sock_event */
	IC_EV_SENTINEL = 3, /* struct ic_sentinel_event */
};

/* The head of every event in a ring buffer. */
struct ic_event_header {
	__u16 kind;    /* enum ic_ev_kind */
	__u16 len;     /* bytes of the event, this head included */
	__u32 cpu;     /* the CPU that wrote the event */
	__u64 time_ns; /* CLOCK_BOOTTIME, nanoseconds */
};
_Static_assert(sizeof(struct ic_event_header) == 16, "ABI");

#endif
