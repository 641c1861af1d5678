/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* Identity of executables and open files. */
#ifndef IRONCLAD_LIB_PROCESS_FILE_H
#define IRONCLAD_LIB_PROCESS_FILE_H

#include "process.h"

enum {
	IC_OVERLAYFS_MAGIC = 0x794c7630, /* include/uapi/linux/magic.h */
	IC_STACKED_MAX = 2, /* FILESYSTEM_MAX_STACK_DEPTH of include/linux/fs.h */
	IC_FMODE_READ = 1, /* include/linux/fs.h */
	IC_FMODE_WRITE = 2,
	IC_FMODE_EXEC = 0x20, /* opened by execve(2), not by open(2) */
	IC_S_IFMT = 0170000,
	IC_S_IFREG = 0100000,
	IC_S_IFBLK = 0060000,
	IC_S_IFSOCK = 0140000,
};

/*
 * By a helper and not by loads: btf_nested_type_is_trusted(), which 6.5 has and 6.2 lacks, searches
 * all types of the kernel for the type of each pointer that is loaded, at each path. On 6.18 it
 * took 0.27 s of a start.
 */
IC_INLINE void ic_file_identify(struct ic_file_id *id, struct inode *inode)
{
	id->ino = BPF_CORE_READ(inode, i_ino);
	id->dev = BPF_CORE_READ(inode, i_sb, s_dev);
	id->generation = BPF_CORE_READ(inode, i_generation);
}

/* Whether a pointer is that of an open file below an overlay, which has the pages of its inode. */
IC_INLINE bool ic_is_file(struct file *file)
{
	struct inode *inode = BPF_CORE_READ(file, f_inode);
	struct address_space *pages = BPF_CORE_READ(file, f_mapping);

	return inode && pages && BPF_CORE_READ(inode, i_mapping) == pages;
}

/*
 * The file below an overlay that is read and executed. Since Linux 6.13 it is the first field of a
 * struct ovl_file (fs/overlayfs/file.c); before, it is the private data itself, whose own first
 * field is no file.
 */
IC_INLINE struct file *ic_file_backing(struct file *file)
{
	struct file *below = BPF_CORE_READ(file, private_data), *first = NULL;

	bpf_probe_read_kernel(&first, sizeof(first), below);
	return ic_is_file(first) ? first : below;
}

/*
 * The inode that holds the executed content. An overlay's own inode has the number of an inode of
 * some layer, no generation, and the overlay's device: a process that may write to one layer could
 * create files there until one has the number of a file in another layer. NULL where the file below
 * is not open.
 */
IC_INLINE struct inode *ic_file_inode(struct file *file)
{
	struct inode *inode;
	__u32 i;

	for (i = 0; i <= IC_STACKED_MAX; i++) {
		inode = BPF_CORE_READ(file, f_inode);
		if (!inode || BPF_CORE_READ(inode, i_sb, s_magic) != IC_OVERLAYFS_MAGIC)
			return inode;
		file = ic_file_backing(file);
		if (!ic_is_file(file))
			break;
	}
	return NULL;
}

/*
 * The executable in a process's memory map. prctl(2) can replace it with a file that open(2) has
 * opened; the process is unidentified then.
 */
IC_INLINE struct file *ic_exe_file(struct task_struct *task)
{
	struct file *file = BPF_CORE_READ(task, mm, exe_file);

	return file && BPF_CORE_READ(file, f_flags) & IC_FMODE_EXEC ? file : NULL;
}

/* Identifies the executable of a task; false, and all zero, where it is not known. */
IC_INLINE bool ic_exe_identify(struct ic_file_id *exe, struct task_struct *task)
{
	struct file *file = ic_exe_file(task);
	struct inode *inode = file ? ic_file_inode(file) : NULL;

	__builtin_memset(exe, 0, sizeof(*exe));
	if (inode)
		ic_file_identify(exe, inode);
	return inode;
}

/* The names of the ctime before 6.11 and before 6.6. */
struct timespec64___old {
	__s64 tv_sec;
	long tv_nsec;
} __attribute__((preserve_access_index));

struct inode___v6_6 {
	struct timespec64___old __i_ctime;
} __attribute__((preserve_access_index));

struct inode___v5_10 {
	struct timespec64___old i_ctime;
} __attribute__((preserve_access_index));

IC_INLINE __u64 ic_file_ctime(struct inode *inode)
{
	__u64 sec, nsec;

	if (bpf_core_field_exists(inode->i_ctime_nsec)) {
		sec = BPF_CORE_READ(inode, i_ctime_sec);
		/*
		 * From 6.13 on the highest bit records a query of the time: not part of the time.
		 */
		nsec = BPF_CORE_READ(inode, i_ctime_nsec) & ~(1U << 31);
	} else if (bpf_core_field_exists(((struct inode___v6_6 *)0)->__i_ctime)) {
		struct inode___v6_6 *old = (void *)inode;

		sec = BPF_CORE_READ(old, __i_ctime.tv_sec);
		nsec = BPF_CORE_READ(old, __i_ctime.tv_nsec);
	} else {
		struct inode___v5_10 *old = (void *)inode;

		sec = BPF_CORE_READ(old, i_ctime.tv_sec);
		nsec = BPF_CORE_READ(old, i_ctime.tv_nsec);
	}
	return sec * 1000000000 + nsec ?: 1;
}

#endif
