/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * Directory renames in progress. The end of a rename is seen at the return of a function, where the
 * kernel skips a program while another task on the same processor is within it. Until the end is
 * seen, nothing is cached of directories. It is seen at the latest when the thread renames again or
 * ends.
 */
#ifndef IRONCLAD_LIB_SENTINEL_DIR_RENAME_H
#define IRONCLAD_LIB_SENTINEL_DIR_RENAME_H

#include "../loss.h"
#include "state.h"

/* By thread: the address of the task. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, IC_SENTINEL_DIR_RENAMES);
	__type(key, __u64);
	__type(value, __u32);
} ic_dir_renames SEC(".maps");

enum { IC_WORD_EPOCH = 2 }; /* the lowest bit of the epoch */

/* Invalidates the cache on every CPU: the coverage of directories has changed. */
IC_INLINE void ic_labels_changed(void)
{
	__sync_fetch_and_add(&ic_sentinel.word, IC_WORD_EPOCH);
}

IC_INLINE void ic_dir_rename_begin(void)
{
	__u64 task = bpf_get_current_task();
	__u32 moves = 1;

	if (bpf_map_update_elem(&ic_dir_renames, &task, &moves, BPF_NOEXIST)) {
		/* Called twice, as for an exchange, or the end of the last rename was not seen. */
		if (bpf_map_lookup_elem(&ic_dir_renames, &task))
			return;
		/* The end will not be seen: from now on nothing is cached. */
		ic_count_loss(IC_LOSS_MAP);
		if (IC_READ_ONCE(ic_sentinel.word) >> 63)
			return;
	}
	__sync_fetch_and_add(&ic_sentinel.word, 1ULL << IC_RENAME_SHIFT);
}

IC_INLINE void ic_dir_rename_end(__u64 task)
{
	if (IC_READ_ONCE(ic_sentinel.word) >> IC_RENAME_SHIFT &&
	    !bpf_map_delete_elem(&ic_dir_renames, &task))
		__sync_fetch_and_add(&ic_sentinel.word, IC_WORD_EPOCH - (1ULL << IC_RENAME_SHIFT));
}

#endif
