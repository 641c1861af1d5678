/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* The process table: what is recorded of each process, from its execve(2) to its end. */
#ifndef IRONCLAD_ABI_PROCESS_H
#define IRONCLAD_ABI_PROCESS_H

#include "base.h"

/*
 * A file, independent of its names, in the kernel's numbers and not those of stat(2). All zero:
 * none.
 */
struct ic_file_id {
	__u64 ino; /* inode number */
	__u32 dev; /* device of the superblock: major << 20 | minor */
	__u32 generation; /* distinguishes a file from an earlier one with the same inode number */
};
_Static_assert(sizeof(struct ic_file_id) == 16, "ABI");

enum ic_process_flag {
	IC_PROCESS_SEEDED = 1, /* its execve(2) was not seen: read from its memory map */
	IC_PROCESS_UNLINKED = 2, /* its file had no name when it was executed: memfd, deleted */
	IC_PROCESS_FORKED = 4, /* its fork(2) was seen: `ppid` is the parent that forked it */
};

/* A process, by its thread group. */
struct ic_process {
	struct ic_file_id exe; /* the file that it executes: of a script, the interpreter */
	struct ic_file_id parent; /* the executable of its parent at the moment of the fork(2) */
	/*
	 * CLOCK_BOOTTIME of its last execve(2). Where that was not seen: 0 if the process ran before
	 * the start, else the moment at which the process was recorded.
	 */
	__u64 exec_ns;
	__u64 parent_exec_ns; /* `exec_ns` of its parent at the moment of the fork(2) */
	__u64 exe_changed_ns; /* ic_open_file.changed_ns of its file at the execve(2); 0: none */
	__u64 start_ns; /* CLOCK_BOOTTIME of its fork(2): numbers of processes are used again */
	/* Bit n: the process or an ancestor executed a file that begins ancestry n, earlier. */
	__u64 ancestry;
	__u64 exe_row; /* a row of the policy in force; the upper half is the row's epoch */
	__u64 parent_row; /* a row of the policy in force; the upper half is the row's epoch */
	/* The row of a user: the epoch's lowest 16 bits, the row in 16 bits, the user in 32. */
	__u64 user_row;
	__u32 user_epoch; /* the epoch in which `user_row` was last cleared */
	__u32 exec_id; /* the kernel's number of its execve(2), from PID 1 on: the lower half */
	__u32 ppid; /* the thread group that forked it */
	__u32 flags; /* enum ic_process_flag */
};
_Static_assert(sizeof(struct ic_process) == 112, "ABI");

/* Controls the programs that maintain the process table. */
struct ic_process_ctl {
	/* The loaded copy of the programs that writes: each event has one writer. */
	__u64 owner;
	/* Ancestries that the iterator clears in every process, because their meaning changes. */
	__u64 forget;
};
_Static_assert(sizeof(struct ic_process_ctl) == 16, "ABI");

/* The path by which an executable was called. It is a label and proves nothing. */
struct ic_exe_name {
	__u8 path[256]; /* ended by a zero, which may be missing where the path was cut */
};
_Static_assert(sizeof(struct ic_exe_name) == 256, "ABI");

/* What the iterator over open files reports of each. */
struct ic_open_file {
	struct ic_file_id file; /* the file */
	/* When content or inode last changed (ctime), in nanoseconds of the file system; never 0. */
	__u64 changed_ns;
	__u32 fd; /* the descriptor */
	__u32 nlink; /* names of the file */
	__s32 writers; /* descriptors open for writing; below 0: the file is executed */
	__u32 _pad;
};
_Static_assert(sizeof(struct ic_open_file) == 40, "ABI");

/* What the iterator over open sockets reports of each. */
struct ic_open_socket {
	__u32 fd; /* the descriptor */
	__u8 may_lose_group; /* 1 where this kernel may lose the cgroup of a new socket */
	__u8 has_lost_group; /* 1 where it has lost the cgroup of this socket */
	__u16 _pad;
};
_Static_assert(sizeof(struct ic_open_socket) == 8, "ABI");

#endif
