/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * Directories that are being moved. The kernel tells of the end at the return of a function, where it
 * passes over a program that another task on this processor is within. Until a move is known to have ended
 * no process caches what covers which directory: its thread moves another, or ends, at the latest.
 */
#ifndef IRONCLAD_LIB_SENTINEL_DIR_RENAME_H
#define IRONCLAD_LIB_SENTINEL_DIR_RENAME_H

#include "../loss.h"
#include "state.h"

/* By their threads: the address of the task. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, IC_SENTINEL_DIR_RENAMES);
	__type(key, __u64);
	__type(value, __u32);
} ic_dir_renames SEC(".maps");

enum { IC_WORD_EPOCH = 2 }; /* the lowest of the epoch's bits */

/* Everybody begins to look anew: coverage has changed. */
IC_INLINE void ic_labels_changed(void)
{
	__sync_fetch_and_add(&ic_sentinel.word, IC_WORD_EPOCH);
}

IC_INLINE void ic_dir_rename_begins(void)
{
	__u64 task = bpf_get_current_task();
	__u32 moves = 1;

	if (bpf_map_update_elem(&ic_dir_renames, &task, &moves, BPF_NOEXIST)) {
		/* Asked twice, as of an exchange, or the end of the last one was not seen. */
		if (bpf_map_lookup_elem(&ic_dir_renames, &task))
			return;
		/* Nobody will find that it has ended: from now on everybody always looks. */
		ic_count_loss(IC_LOSS_MAP);
		if (IC_READ_ONCE(ic_sentinel.word) >> 63)
			return;
	}
	__sync_fetch_and_add(&ic_sentinel.word, 1ULL << IC_RENAME_SHIFT);
}

IC_INLINE void ic_dir_rename_ends(__u64 task)
{
	if (IC_READ_ONCE(ic_sentinel.word) >> IC_RENAME_SHIFT &&
	    !bpf_map_delete_elem(&ic_dir_renames, &task))
		__sync_fetch_and_add(&ic_sentinel.word, IC_WORD_EPOCH - (1ULL << IC_RENAME_SHIFT));
}

#endif
