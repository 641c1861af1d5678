/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* Lookup in the flat table of include/ironclad/abi/flat.h. */
#ifndef IRONCLAD_LIB_FLAT_H
#define IRONCLAD_LIB_FLAT_H

#include "base.h"

/* The cells of a table: in an array map, from `first` on. */
struct ic_flat_at {
	void *map;
	__u32 first;
};

IC_INLINE const union ic_flat_cell *ic_flat_cell(const struct ic_flat_at *flat, __u32 index)
{
	index += flat->first;
	return bpf_map_lookup_elem(flat->map, &index);
}

IC_INLINE __u32 ic_flat_word(const struct ic_flat_at *flat, __u32 word)
{
	const union ic_flat_cell *cell = ic_flat_cell(flat, word >> 4);

	return cell ? cell->row.refs[word & 15] : 0;
}

/* The root's reference for the first 21 bits of an address: 0 where no prefix touches them. */
IC_INLINE __u32 ic_flat_begin(const struct ic_flat_at *flat, __u32 root, __u32 bits)
{
	const union ic_flat_cell *cell = ic_flat_cell(flat, root + (bits >> 8));
	const struct ic_flat_slot *slot;

	if (!cell)
		return 0;
	slot = &cell->slot[bits >> 5 & 7];
	return slot->touched >> (bits & 31) & 1 ? slot->reference : 0;
}

/*
 * Prefetches what ic_flat_begin() reads. No instruction depends on the load, so the processor
 * continues meanwhile.
 */
IC_INLINE void ic_flat_prefetch(const struct ic_flat_at *flat, __u32 root, __u32 bits)
{
	const union ic_flat_cell *cell = ic_flat_cell(flat, root + (bits >> 8));
	__u64 slot;

	if (!cell)
		return;
	slot = *(const volatile __u64 *)&cell->slot[bits >> 5 & 7];
	asm volatile("" : : "r"(slot));
}

/*
 * Seven comparisons at once: each lane is 256 + byte − start, whose bit 8 is set if the run has
 * begun. The multiplication adds those bits up in the top lane.
 */
IC_INLINE __u32 ic_flat_begun(__u64 starts, __u32 byte)
{
	const __u64 ones = 0x0040201008040201;
	__u64 begun = ((byte + 256) * ones - starts) >> 8 & ones;

	return begun * ones >> 54 & 7;
}

/* The index of three bits stays within the half cell or the cell, whatever the table holds. */
IC_INLINE __u32 ic_flat_runs(const struct ic_flat_at *flat, __u32 index, __u32 byte)
{
	const union ic_flat_cell *cell = ic_flat_cell(flat, index >> 1);
	const struct ic_flat_runs *runs;

	if (!cell)
		return 0;
	runs = &cell->runs[index & 1];
	return ((const __u32 *)runs)[ic_flat_begun(runs->starts, byte)];
}

IC_INLINE __u32 ic_flat_wide(const struct ic_flat_at *flat, __u32 index, __u32 byte)
{
	const union ic_flat_cell *cell = ic_flat_cell(flat, index);
	const struct ic_flat_wide *wide;

	if (!cell)
		return 0;
	wide = &cell->wide;
	return ((const __u32 *)wide)[ic_flat_begun(wide->starts[0], byte) +
				     ic_flat_begun(wide->starts[1], byte)];
}

IC_INLINE __u32 ic_popcount(__u64 x)
{
	x -= x >> 1 & 0x5555555555555555;
	x = (x & 0x3333333333333333) + (x >> 2 & 0x3333333333333333);
	x = x + (x >> 4) & 0x0f0f0f0f0f0f0f0f;
	return x * 0x0101010101010101 >> 56;
}

IC_INLINE __u32 ic_flat_bitmap(const struct ic_flat_at *flat, __u32 index, __u32 byte)
{
	const union ic_flat_cell *cell = ic_flat_cell(flat, index);
	const struct ic_flat_bitmap *node;
	__u32 word = byte >> 6 & 3;

	if (!cell)
		return 0;
	node = &cell->bitmap;
	return ic_flat_word(
		flat, node->base + node->rank[word] +
			      ic_popcount(node->starts[word] & ((__u64)2 << (byte & 63)) - 1));
}

/* The entry that covers an IPv4 address, 0 for none. */
IC_INLINE __u32 ic_flat_lookup4(const struct ic_flat_at *flat, __u32 root, __u32 addr_be)
{
	__u32 addr = bpf_ntohl(addr_be), depth = 2, ref, i;

	ref = ic_flat_begin(flat, root, addr >> 11);
#pragma unroll
	for (i = 0; i < 2; i++) {
		__u32 kind = ref >> IC_FLAT_KIND_SHIFT, index = ref & IC_FLAT_INDEX_MASK;
		__u32 byte = addr >> (24 - 8 * depth & 31) & 0xff;

		if (kind == IC_FLAT_KIND_LEAF)
			return ref;
		if (kind == IC_FLAT_KIND_SKIP) {
			const union ic_flat_cell *cell = ic_flat_cell(flat, index >> 1);
			const struct ic_flat_skip *skip;

			if (!cell)
				return 0;
			skip = &cell->skip[index & 1];
			if (((__u64)addr << 32 ^ skip->key) & skip->mask)
				return skip->miss;
			ref = skip->hit;
		} else if (kind == IC_FLAT_KIND_RUNS) {
			ref = ic_flat_runs(flat, index, byte);
		} else if (kind == IC_FLAT_KIND_WIDE) {
			ref = ic_flat_wide(flat, index, byte);
		} else {
			ref = ic_flat_bitmap(flat, index, byte);
		}
		depth = 3;
	}
	return ref >> IC_FLAT_KIND_SHIFT == IC_FLAT_KIND_LEAF ? ref : 0;
}

/* The entry that covers an IPv6 address, 0 for none. Address as two halves in network byte order. */
IC_INLINE __u32 ic_flat_lookup6(const struct ic_flat_at *flat, __u32 root, __u64 high_be,
				__u64 low_be)
{
	__u64 high = bpf_be64_to_cpu(high_be), low = bpf_be64_to_cpu(low_be);
	__u32 depth = 2, ref;
	__u64 i; /* 64 bits: the verifier forgets the range of a 32-bit number on the stack */

	ref = ic_flat_begin(flat, root, high >> 43);
	for (i = 0; i < 16; i++) {
		__u32 kind = ref >> IC_FLAT_KIND_SHIFT, index = ref & IC_FLAT_INDEX_MASK;
		__u64 half = depth & 8 ? low : high;
		__u32 byte = half >> (56 - 8 * (depth & 7)) & 0xff;

		if (kind == IC_FLAT_KIND_LEAF)
			return ref;
		depth++;
		if (kind == IC_FLAT_KIND_SKIP) {
			const union ic_flat_cell *cell = ic_flat_cell(flat, index >> 1);
			const struct ic_flat_skip *skip;

			if (!cell)
				return 0;
			skip = &cell->skip[index & 1];
			half = skip->low ? low : high;
			if ((half ^ skip->key) & skip->mask)
				return skip->miss;
			ref = skip->hit;
			depth = skip->depth;
		} else if (kind == IC_FLAT_KIND_RUNS) {
			ref = ic_flat_runs(flat, index, byte);
		} else if (kind == IC_FLAT_KIND_WIDE) {
			ref = ic_flat_wide(flat, index, byte);
		} else {
			ref = ic_flat_bitmap(flat, index, byte);
		}
	}
	return ref >> IC_FLAT_KIND_SHIFT == IC_FLAT_KIND_LEAF ? ref : 0;
}

#endif
