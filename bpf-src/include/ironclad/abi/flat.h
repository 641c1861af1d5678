/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * The flat table: longest-prefix match without pointers, compiled in user space and read-only here.
 *
 * One array map of 64-byte cells (one cache line each) holds the whole table. A lookup follows
 * 32-bit references. The top three bits of a reference are its kind, the other 29 an index:
 *
 *   leaf    index of an entry; 0 means that no prefix covers this address
 *   runs    index of a half cell (32 bytes): a node of at most six runs of equal references
 *   wide    index of a cell: a node of at most twelve runs
 *   bitmap  index of a cell: a node of up to 256 runs, its references in the cells behind it
 *   skip    index of a half cell: compares many bits at once where the tree would be one long path
 *
 * A node decides eight bits of the address. A root decides the first sixteen by direct index:
 * 65,536 slots in 8,192 cells. Beside its reference each slot has a bit for each of the 32 ranges
 * that the next five bits distinguish: whether a prefix touches the range at all. Most addresses
 * that no prefix covers are answered by that one word, and the lookup reads no node.
 */
#ifndef IRONCLAD_ABI_FLAT_H
#define IRONCLAD_ABI_FLAT_H

/* References and roots. */
enum ic_flat {
	IC_FLAT_KIND_LEAF = 0,   /* the index is that of an entry, 0 where no prefix matches */
	IC_FLAT_KIND_RUNS = 1,   /* the index is that of a half cell, a struct ic_flat_runs */
	IC_FLAT_KIND_WIDE = 2,   /* the index is that of a cell, a struct ic_flat_wide */
	IC_FLAT_KIND_BITMAP = 3, /* the index is that of a cell, a struct ic_flat_bitmap */
	IC_FLAT_KIND_SKIP = 4,   /* the index is that of a half cell, a struct ic_flat_skip */
	IC_FLAT_KIND_SHIFT = 29, /* the lowest bit of a reference's kind */
	IC_FLAT_INDEX_MASK = 0x1fffffff, /* the bits of a reference that are its index */
	IC_FLAT_ROOT_CELLS = 8192, /* cells of a root */
};

enum ic_flat_limit {
	IC_FLAT_RUNS_MAX = 6,  /* runs of a struct ic_flat_runs */
	IC_FLAT_WIDE_MAX = 12, /* runs of a struct ic_flat_wide */
};

/* What a root holds for one value of the first sixteen bits of an address. */
struct ic_flat_slot {
	__u32 reference; /* decides the first sixteen bits */
	/* Bit b is clear where no prefix covers any address whose next five bits are b. */
	__u32 touched;
};
_Static_assert(sizeof(struct ic_flat_slot) == 8, "ABI");

/* A cell as sixteen references: rows of bitmap nodes' values. */
struct ic_flat_row {
	__u32 refs[16]; /* the references */
};
_Static_assert(sizeof(struct ic_flat_row) == 64, "ABI");

/*
 * A node of at most six runs of equal references, half a cell. With `refs` first, any index of
 * three bits stays within the half cell.
 */
struct ic_flat_runs {
	__u32 refs[IC_FLAT_RUNS_MAX]; /* the references of the runs */
	/*
	 * Seven lanes of nine bits, lane 0 lowest: the first byte value of run i + 1, or 256 where
	 * there is no such run. The number of lanes at or below a byte is its run.
	 */
	__u64 starts;
};
_Static_assert(sizeof(struct ic_flat_runs) == 32, "ABI");

/*
 * A node of at most twelve runs of equal references, one cell. Most nodes of a table of a hundred
 * thousand prefixes and more are of this size, and take one cache line.
 */
struct ic_flat_wide {
	__u32 refs[IC_FLAT_WIDE_MAX]; /* the references of the runs */
	__u64 starts[2]; /* twice seven lanes of nine bits, as in struct ic_flat_runs */
};
_Static_assert(sizeof(struct ic_flat_wide) == 64, "ABI");

/* A node of up to 256 runs, one cell. */
struct ic_flat_bitmap {
	/*
	 * Bit b is set where byte value b begins a run; bit 0 never is. The number of set bits at or
	 * below a byte is its run.
	 */
	__u64 starts[4];
	__u8 rank[4]; /* set bits in the words before each word */
	/* The reference of run r is word `base + r` of the map seen as an array of 32-bit words. */
	__u32 base;
	__u64 _pad[3];
};
_Static_assert(sizeof(struct ic_flat_bitmap) == 64, "ABI");

/* A node that compares many bits at once, half a cell. */
struct ic_flat_skip {
	__u64 key; /* 64 bits of the address as a number */
	__u64 mask; /* the bits of `key` that count */
	__u32 hit; /* the reference to follow where `(address ^ key) & mask` is zero */
	__u32 miss; /* the leaf that answers elsewhere */
	/* 0: the first 64 bits of the address (IPv4: the upper half); 1: the last 64 of IPv6. */
	__u32 low;
	__u32 depth; /* the byte of the address that `hit` decides */
};
_Static_assert(sizeof(struct ic_flat_skip) == 32, "ABI");

/* Any cell. */
union ic_flat_cell {
	struct ic_flat_slot slot[8];
	struct ic_flat_row row;
	struct ic_flat_wide wide;
	struct ic_flat_bitmap bitmap;
	struct ic_flat_runs runs[2];
	struct ic_flat_skip skip[2];
};
_Static_assert(sizeof(union ic_flat_cell) == 64, "ABI");

#endif
