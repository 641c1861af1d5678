/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * The flat table: longest-prefix match without pointers, compiled in user space and read-only here.
 *
 * One array map of 64-byte cells (one cache line each) holds everything. A lookup follows 32-bit
 * references. The top three bits of a reference are its kind, the other 29 an index:
 *
 *   leaf    index of an entry; 0 is "no prefix covers this address"
 *   runs    index of a half cell (32 bytes): a node of at most six runs of equal references
 *   wide    index of a cell: a node of at most twelve runs
 *   bitmap  index of a cell: a node of up to 256 runs, its references in the cells behind it
 *   skip    index of a half cell: compares many bits at once where the tree would be one long path
 *
 * A node decides eight bits of the address. A root decides the first sixteen by direct index:
 * 65,536 slots in 8,192 cells. Beside its reference each slot says which of the 32 ranges that the
 * next five bits tell apart a prefix touches at all: most addresses that no prefix covers are
 * answered by that one word, and a node is a line that the cache would seldom hold.
 */
#ifndef IRONCLAD_ABI_FLAT_H
#define IRONCLAD_ABI_FLAT_H

enum ic_flat {
	IC_FLAT_KIND_LEAF = 0,
	IC_FLAT_KIND_RUNS = 1,
	IC_FLAT_KIND_WIDE = 2,
	IC_FLAT_KIND_BITMAP = 3,
	IC_FLAT_KIND_SKIP = 4,
	IC_FLAT_KIND_SHIFT = 29,
	IC_FLAT_INDEX_MASK = 0x1fffffff,
	IC_FLAT_ROOT_CELLS = 8192,
	IC_FLAT_RUNS_MAX = 6,
	IC_FLAT_WIDE_MAX = 12,
};

/* Bit b of `touched` is clear where no prefix covers any address whose next five bits are b. */
struct ic_flat_slot {
	__u32 ref;
	__u32 touched;
};
_Static_assert(sizeof(struct ic_flat_slot) == 8, "ABI");

/* A cell as sixteen references: rows of bitmap nodes' values. */
struct ic_flat_row {
	__u32 ref[16];
};
_Static_assert(sizeof(struct ic_flat_row) == 64, "ABI");

/*
 * Half a cell. `starts` holds seven lanes of nine bits, lane 0 lowest: the first byte value of run
 * i + 1, or 256 where there is no such run. The number of lanes at or below a byte is its run.
 * With `ref` first, whatever three bits index stays within the half cell.
 */
struct ic_flat_runs {
	__u32 ref[6];
	__u64 starts;
};
_Static_assert(sizeof(struct ic_flat_runs) == 32, "ABI");

/*
 * A cell: the same with twice the runs, and two words of lanes to count. Most nodes of a table of a
 * hundred thousand prefixes and more are of this size, and one cache line is all that they take.
 */
struct ic_flat_wide {
	__u32 ref[12];
	__u64 starts[2];
};
_Static_assert(sizeof(struct ic_flat_wide) == 64, "ABI");

/*
 * A cell. Bit b of `starts` is set where byte value b begins a run (bit 0 never is); the number of
 * set bits at or below a byte is its run. `rank[w]` counts the set bits in the words before w.
 * The reference of run r is word `base + r` of the map seen as an array of 32-bit words.
 */
struct ic_flat_bitmap {
	__u64 starts[4];
	__u8 rank[4];
	__u32 base;
	__u64 _pad[3];
};
_Static_assert(sizeof(struct ic_flat_bitmap) == 64, "ABI");

/*
 * Half a cell. `key` and `mask` are 64 bits of the address as a number: the first 64 (an IPv4
 * address is the upper half of them) or, where `low` is 1, the last 64 of an IPv6 address. Where
 * `(address ^ key) & mask` is zero the walk goes on at `hit`, which decides byte `depth` of the
 * address; elsewhere `miss`, a leaf, is the answer.
 */
struct ic_flat_skip {
	__u64 key;
	__u64 mask;
	__u32 hit;
	__u32 miss;
	__u32 low;
	__u32 depth;
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
