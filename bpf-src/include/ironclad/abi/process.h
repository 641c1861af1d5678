/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* Who runs: what is known of each process, kept from its execve(2) to its end. */
#ifndef IRONCLAD_ABI_PROCESS_H
#define IRONCLAD_ABI_PROCESS_H

#include "base.h"

/* A file, whatever its name: as the kernel counts, not as stat(2) shows it. All zero: none. */
struct ic_file_id {
	__u64 ino;
	__u32 dev;        /* of the superblock: major << 20 | minor */
	__u32 generation; /* tells a file from an earlier one with its number */
};
_Static_assert(sizeof(struct ic_file_id) == 16, "ABI");

enum ic_process_flag {
	IC_PROCESS_SEEDED = 1, /* its execve(2) was not seen: read from its memory map */
	IC_PROCESS_UNLINKED = 2, /* its file had no name when it was executed: memfd, deleted */
	IC_PROCESS_FORKED = 4, /* its fork(2) was seen: `ppid` is not who adopted it */
};

/* A process, by its thread group. */
struct ic_process {
	struct ic_file_id exe; /* what it executes: of a script, the interpreter */
	struct ic_file_id parent; /* what the process executed that forked it, at that moment */
	/*
	 * CLOCK_BOOTTIME of the execve(2) that it runs since. Where that was not seen, 0 of what ran before, and
	 * else of the moment when it was looked at.
	 */
	__u64 exec_ns;
	__u64 parent_exec_ns; /* the same of the process that forked it, at that moment */
	__u64 exe_changed_ns; /* ctime of its file at that moment, see ic_open_file; 0: none */
	__u64 start_ns; /* CLOCK_BOOTTIME of its fork(2): its number may have been another's before */
	/* Bit n: before what it is now, it or a ancestor was an executable that begins ancestry n. */
	__u64 ancestry;
	/* Rows of the policy in force; the upper half is the epoch that they are of. */
	__u64 exe_row;
	__u64 parent_row;
	/* The row of a user, who is in the lower half; above it the row, and the epoch's lowest 16 bits. */
	__u64 user_row;
	__u32 user_epoch; /* the whole of the epoch in which user_row was last cleared */
	__u32 exec_id; /* how the kernel numbers its execve(2), from PID 1 on: the lower half */
	__u32 ppid; /* thread group that forked it */
	__u32 flags; /* enum ic_process_flag */
};
_Static_assert(sizeof(struct ic_process) == 112, "ABI");

/* What the programs that keep the table are told. */
struct ic_process_ctl {
	/* The one of several loaded copies of the programs that writes: each event has one writer. */
	__u64 owner;
	/* Ancestries that the iterator takes from every process, because they are to mean another. */
	__u64 forget;
};
_Static_assert(sizeof(struct ic_process_ctl) == 16, "ABI");

/* How an executable was called: ended by a zero, which may be missing where it was cut. */
struct ic_exe_name {
	__u8 path[256];
};
_Static_assert(sizeof(struct ic_exe_name) == 256, "ABI");

/* What the iterator over open files tells of one. */
struct ic_open_file {
	struct ic_file_id file;
	/* When content or inode were last changed, in nanoseconds as the file system tells; never 0. */
	__u64 changed_ns;
	__u32 fd;
	__u32 nlink;
	__s32 writers; /* how many have it open for writing; below 0: it is executed */
	__u32 _pad;
};
_Static_assert(sizeof(struct ic_open_file) == 40, "ABI");

/* What the iterator over open sockets tells of one. */
struct ic_open_socket {
	__u32 fd;
	__u8 may_lose_group; /* this kernel may forget to which cgroup a new socket belongs */
	__u8 has_lost_group; /* and has */
	__u16 _pad;
};
_Static_assert(sizeof(struct ic_open_socket) == 8, "ABI");

#endif
