/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * First match of ordered rules on many dimensions at once, by bit vectors: each dimension gives a
 * row, and the first bit that all rows have is the rule. A summary at the beginning of each row
 * leads to the few words that can have such a bit (T. V. Lakshman and D. Stiliadis, "High-speed
 * policy-based packet forwarding", SIGCOMM 1998; F. Baboescu and G. Varghese, "Scalable packet
 * classification", SIGCOMM 2001).
 */
#ifndef IRONCLAD_LIB_MATCH_H
#define IRONCLAD_LIB_MATCH_H

#include "count.h"

/* Rows behind each other, each of as many cells. Sized at load; filled through a mapping, frozen. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(map_flags, BPF_F_MMAPABLE);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct ic_sock_cell);
} ic_sock_rows SEC(".maps");

/* Bit d is set where some rule asks of dimension d. */
const volatile __u32 ic_cfg_sock_dims = 0;
/* Words of the summary that say anything; 0 where there are no rules. */
const volatile __u32 ic_cfg_sock_summary = 0;
/* Cells of a row. */
const volatile __u32 ic_cfg_sock_stride = 1;
/* First cell of each dimension's rows: the row of what no rule names. */
const volatile __u32 ic_cfg_sock_none[IC_DIM_MAX] = {};

struct ic_match {
	__u32 row[IC_DIM_MAX]; /* first cells */
	__u64 summary;
	__u64 bits;
	__u32 summaries; /* words of the summary that were read */
	__u32 word; /* that `bits` is what is left of */
};

IC_INLINE bool ic_match_asks(__u32 dim)
{
	return ic_cfg_sock_dims >> dim & 1;
}

/* One word of the AND of all rows. */
IC_INLINE __u64 ic_match_word(const struct ic_match *match, __u32 word)
{
	__u64 bits = ~0ULL;
	__u32 dim;

#pragma unroll
	for (dim = 0; dim < IC_DIM_MAX; dim++) {
		const struct ic_sock_cell *cell;
		__u32 index;

		if (!ic_match_asks(dim))
			continue;
		index = match->row[dim] + (word >> 3);
		cell = bpf_map_lookup_elem(&ic_sock_rows, &index);
		if (!cell) {
			ic_count_loss(IC_LOSS_MAP);
			return 0;
		}
		bits &= cell->word[word & 7];
	}
	return bits;
}

/*
 * Number of the lowest bit that is set in a word that has one: a de Bruijn sequence holds every six
 * bits once, so what it shows when it is multiplied by that bit tells which (C. E. Leiserson et
 * al., "Using de Bruijn sequences to index a 1 in a computer word", 1998).
 */
static const __u8 ic_match_bit[64] = {
	0,  1,  2,  7,  3,  13, 8,  19, 4,  25, 14, 28, 9,  34, 20, 40, 5,  17, 26, 38, 15, 46,
	29, 48, 10, 31, 35, 54, 21, 50, 41, 57, 63, 6,  12, 18, 24, 27, 33, 39, 16, 37, 45, 47,
	30, 53, 49, 56, 62, 11, 23, 32, 36, 44, 52, 55, 61, 22, 43, 51, 60, 42, 59, 58,
};

IC_INLINE __u32 ic_match_lowest(__u64 bits)
{
	return ic_match_bit[(bits & -bits) * 0x0218a392cd3d5dbf >> 58];
}

enum { IC_MATCH_NONE = -1, IC_MATCH_MORE = -2 };

/*
 * One step to the next rule that matches: its number, IC_MATCH_MORE where the step found none but
 * another may, IC_MATCH_NONE where there is none.
 */
IC_INLINE __s32 ic_match_step(struct ic_match *match)
{
	__u32 rule;

	if (!match->bits) {
		if (!match->summary) {
			if (match->summaries >= ic_cfg_sock_summary ||
			    match->summaries >= IC_SOCK_SUMMARY_WORDS)
				return IC_MATCH_NONE;
			match->summary = ic_match_word(match, match->summaries++);
			return IC_MATCH_MORE;
		}
		match->word = (match->summaries - 1) * 64 + ic_match_lowest(match->summary);
		match->summary &= match->summary - 1;
		match->bits = ic_match_word(match, IC_SOCK_SUMMARY_WORDS + match->word);
		if (!match->bits)
			return IC_MATCH_MORE;
	}
	rule = match->word * 64 + ic_match_lowest(match->bits);
	match->bits &= match->bits - 1;
	return rule & (IC_SOCK_RULES_MAX - 1);
}

#endif
