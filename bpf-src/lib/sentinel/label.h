/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* Labels of files and directories: the rules that name a file by its identity. */
#ifndef IRONCLAD_LIB_SENTINEL_LABEL_H
#define IRONCLAD_LIB_SENTINEL_LABEL_H

#include "alarm.h"

/* Sized at load. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__uint(max_entries, 1);
	__type(key, struct ic_file_id);
	__type(value, struct ic_label);
} ic_labels SEC(".maps");

/*
 * A Bloom filter of one hash: a bit for each label. Most files have none, and one word answers. A
 * power of two.
 */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(map_flags, BPF_F_MMAPABLE);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, __u64);
} ic_label_bits SEC(".maps");

/* The number of its words, less one. */
const volatile __u32 ic_cfg_label_mask = 0;

IC_INLINE __u32 ic_label_hash(__u64 ino, __u32 dev)
{
	/* Fibonacci hashing: Knuth, The Art of Computer Programming, volume 3, section 6.4. */
	__u64 hash = (ino ^ ((__u64)dev << 32)) * 0x9e3779b97f4a7c15ULL;

	return hash >> 32;
}

/* Whether a file may have a label, by the hash of its identity. */
IC_INLINE bool ic_may_have_label(__u32 hash)
{
	__u32 index = (hash >> 6) & ic_cfg_label_mask;
	const __u64 *bits = bpf_map_lookup_elem(&ic_label_bits, &index);

	return bits && *bits >> (hash & 63) & 1;
}

IC_INLINE const struct ic_label *ic_label_of(const struct ic_file_id *id)
{
	if (!ic_may_have_label(ic_label_hash(id->ino, id->dev)))
		return NULL;
	return bpf_map_lookup_elem(&ic_labels, id);
}

/* By loads and not by helpers, since every open(2) calls it. The verifier trusts the pointer. */
IC_INLINE struct ic_file_id ic_inode_id(struct inode *inode)
{
	return (struct ic_file_id){
		.ino = inode->i_ino,
		.dev = inode->i_sb->s_dev,
		.generation = inode->i_generation,
	};
}

/* Most files have no label: fields that the filter does not need are read after it. */
IC_INLINE const struct ic_label *ic_label_lookup(struct inode *inode, __u32 dev)
{
	struct ic_file_id id;

	if (!ic_may_have_label(ic_label_hash(inode->i_ino, dev)))
		return NULL;
	id = ic_inode_id(inode);
	return bpf_map_lookup_elem(&ic_labels, &id);
}

IC_INLINE const struct ic_label *ic_label_of_inode(struct inode *inode)
{
	return ic_label_lookup(inode, inode->i_sb->s_dev);
}

#endif
