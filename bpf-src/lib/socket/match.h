/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * First match of ordered rules on many dimensions at once, by bit vectors: each dimension gives a
 * row, and the first bit that all rows have is the rule. A summary at the beginning of each row
 * leads to the few words that can have such a bit (T. V. Lakshman and D. Stiliadis, "High-speed
 * policy-based packet forwarding", SIGCOMM 1998; F. Baboescu and G. Varghese, "Scalable packet
 * classification", SIGCOMM 2001).
 */
#ifndef IRONCLAD_LIB_SOCKET_MATCH_H
#define IRONCLAD_LIB_SOCKET_MATCH_H

#include "maps.h"

/*
 * The query: numbers of rows in the slot, 16 bits each, in the order of the dimensions. The last
 * number, which no dimension has, is 1 if the rare dimensions are compared at all.
 */
struct ic_match {
	__u64 rows[3];
};
enum { IC_MATCH_RARE = 11 };
_Static_assert(IC_DIM_MAX <= IC_MATCH_RARE, "places");

/* The rows of a query. */
struct ic_match_rows {
	const struct ic_sock_row *row[IC_DIM_MAX];
};

IC_INLINE void ic_match_set(struct ic_match *match, __u32 dim, __u16 row)
{
	match->rows[dim >> 2] |= (__u64)row << 16 * (dim & 3);
}

/*
 * Number of the lowest bit that is set in a word that has one: a de Bruijn sequence holds every six
 * bits once, so its product with that bit identifies the number (C. E. Leiserson et al., "Using de
 * Bruijn sequences to index a 1 in a computer word", 1998).
 */
static const __u8 ic_match_bit[64] = {
	0,  1,  2,  7,  3,  13, 8,  19, 4,  25, 14, 28, 9,  34, 20, 40, 5,  17, 26, 38, 15, 46,
	29, 48, 10, 31, 35, 54, 21, 50, 41, 57, 63, 6,  12, 18, 24, 27, 33, 39, 16, 37, 45, 47,
	30, 53, 49, 56, 62, 11, 23, 32, 36, 44, 52, 55, 61, 22, 43, 51, 60, 42, 59, 58,
};

IC_INLINE __u32 ic_match_lowest(__u64 bits)
{
	__u64 bit = ic_match_bit[(bits & -bits) * 0x0218a392cd3d5dbf >> 58];

	/* The compiler knows the table's values and would drop a mask; the verifier does not. */
	asm volatile("%0 &= 63" : "+r"(bit));
	return bit;
}

/* False where a row is missing, which cannot happen. */
IC_INLINE bool ic_match_row(struct ic_match_rows *found, const struct ic_match *match, __u32 slot,
			    __u32 dim)
{
	__u32 row = slot * ic_cfg_sock_rows + (__u16)(match->rows[dim >> 2] >> 16 * (dim & 3));

	found->row[dim] = bpf_map_lookup_elem(&ic_sock_rows, &row);
	return found->row[dim];
}

IC_INLINE bool ic_match_find(struct ic_match_rows *found, const struct ic_match *match, __u32 slot)
{
	bool rare = match->rows[IC_MATCH_RARE >> 2] >> 16 * (IC_MATCH_RARE & 3);
	__u32 dim;

#pragma unroll
	for (dim = 0; dim < IC_DIM_PARENT; dim++) {
		if (!ic_match_row(found, match, slot, dim))
			return false;
	}
	/* One branch for all of them: each would double the paths of the verifier. */
	if (rare) {
#pragma unroll
		for (dim = IC_DIM_PARENT; dim < IC_DIM_MAX; dim++) {
			if (!ic_match_row(found, match, slot, dim))
				return false;
		}
	} else {
		/* A row that is read anyway changes nothing in the AND. */
#pragma unroll
		for (dim = IC_DIM_PARENT; dim < IC_DIM_MAX; dim++)
			found->row[dim] = found->row[IC_DIM_KIND];
	}
	return true;
}

IC_INLINE __u64 ic_match_cell(const struct ic_match_rows *rows, __u32 dim, __u32 cell)
{
	return ((const __u64 *)rows->row[dim])[cell];
}

/*
 * The AND of all rows in one of their cells. The rows that distinguish most rules come first:
 * nearly always they have no bit in common, and the cache lines of the other rows are not read. One
 * branch, because each doubles the paths of the verifier.
 */
IC_INLINE __u64 ic_match_and(const struct ic_match_rows *rows, __u32 cell)
{
	__u64 bits =
		ic_match_cell(rows, IC_DIM_EXE, cell) & ic_match_cell(rows, IC_DIM_WHERE, cell);
	__u32 dim;

	if (!bits)
		return 0;
	bits &= ic_match_cell(rows, IC_DIM_UID, cell) & ic_match_cell(rows, IC_DIM_PORT, cell) &
		ic_match_cell(rows, IC_DIM_KIND, cell);
#pragma unroll
	for (dim = IC_DIM_PARENT; dim < IC_DIM_MAX; dim++)
		bits &= ic_match_cell(rows, dim, cell);
	return bits;
}

/* Cells of a row, in the order of its members. */
enum {
	IC_MATCH_LOGS = IC_SOCK_SUMMARY_WORDS,
	IC_MATCH_WORDS,
	IC_MATCH_CELLS = IC_MATCH_WORDS + IC_SOCK_WORDS_MAX,
};

/* Words of a summary that are visited without another look-up of the rows. */
enum { IC_MATCH_SOON = 4 };

enum {
	IC_MATCH_NONE = -1,
	IC_MATCH_FAILED = -2, /* a row is missing, which cannot happen */
};

/*
 * ic_match_and() for the rare cases: it looks the rows up again. A global function, because the
 * verifier checks it once. Before Linux 5.12 its arguments can be numbers, and no other pointers than
 * the context.
 */
__noinline __u64 ic_match_slow_and(__u64 rows0, __u64 rows1, __u64 rows2, __u32 slot, __u32 cell)
{
	const struct ic_match match = { .rows = { rows0, rows1, rows2 } };
	struct ic_match_rows rows;

	if (cell >= IC_MATCH_CELLS || !ic_match_find(&rows, &match, slot))
		return 0;
	return ic_match_and(&rows, cell);
}

/* The matching rules among those that report and decide nothing. Few policies have such rules. */
IC_INLINE __u64 ic_match_logs(const struct ic_match *match, __u32 slot)
{
	return ic_match_slow_and(match->rows[0], match->rows[1], match->rows[2], slot,
				 IC_MATCH_LOGS);
}

/* Words of a summary that ic_match_rest() visits in one call. */
enum { IC_MATCH_CHUNK = 15 };

/*
 * The first matching rule in the lowest words of `summary`, after another look-up of the rows. The
 * low byte of `at` is the slot, the next one the number of the summary.
 */
__noinline __s32 ic_match_rest(__u64 rows0, __u64 rows1, __u64 rows2, __u64 summary, __u32 at)
{
	const struct ic_match match = { .rows = { rows0, rows1, rows2 } };
	__u32 slot = at & 0xff, first = (at >> 8 & 3) * 64, n;
	struct ic_match_rows rows;

	if (!ic_match_find(&rows, &match, slot))
		return IC_MATCH_NONE;
	for (n = 0; n < IC_MATCH_CHUNK; n++) {
		__u32 word;
		__u64 bits;

		if (!summary)
			break;
		word = first + ic_match_lowest(summary);
		if (word >= IC_SOCK_WORDS_MAX)
			break;
		summary &= summary - 1;
		bits = ic_match_and(&rows, IC_MATCH_WORDS + word);
		if (bits)
			return word * 64 + ic_match_lowest(bits);
	}
	return IC_MATCH_NONE;
}

/* A summary without the words that ic_match_rest() has visited. */
IC_INLINE __u64 ic_match_visited(__u64 summary)
{
	__u32 n;

#pragma unroll
	for (n = 0; n < IC_MATCH_CHUNK; n++)
		summary &= summary - 1;
	return summary;
}

/*
 * The first matching rule among those that decide. The first words of each summary are visited
 * here, and the others in a global function: the verifier would check a loop over all words of
 * all summaries several times.
 */
IC_INLINE __s32 ic_match_first(const struct ic_match *match, __u32 slot, __u32 summaries)
{
	struct ic_match_rows rows;
	__u32 i, n;

	if (!ic_match_find(&rows, match, slot))
		return IC_MATCH_FAILED;
	for (i = 0; i < IC_SOCK_SUMMARY_WORDS; i++) {
		__u64 summary;
		__s32 first;

		if (i >= summaries)
			break;
		summary = ic_match_and(&rows, i);
#pragma unroll
		for (n = 0; n < IC_MATCH_SOON; n++) {
			__u32 word;
			__u64 bits;

			if (!summary)
				break;
			word = i * 64 + ic_match_lowest(summary);
			summary &= summary - 1;
			bits = ic_match_and(&rows, IC_MATCH_WORDS + word);
			if (bits)
				return word * 64 + ic_match_lowest(bits);
		}
		for (n = IC_MATCH_SOON; n < 64 && summary; n += IC_MATCH_CHUNK) {
			first = ic_match_rest(match->rows[0], match->rows[1], match->rows[2],
					      summary, slot | i << 8);
			if (first >= 0)
				return first;
			summary = ic_match_visited(summary);
		}
	}
	return IC_MATCH_NONE;
}

#endif
