/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * ioctls of file systems, by type and number: a command has another size in 32-bit programs. Most
 * file systems carry them out on descriptors that only read.
 */
#ifndef IRONCLAD_LIB_SENTINEL_FS_COMMANDS_H
#define IRONCLAD_LIB_SENTINEL_FS_COMMANDS_H

#include "../base.h"

enum {
	IC_FS_IOC_SETFLAGS = 0x6602, /* include/uapi/linux/fs.h */
	IC_FS_IOC_FSSETXATTR = 0x5820,
	IC_FS_IOC_SET_ENCRYPTION_POLICY = 0x6613, /* include/uapi/linux/fscrypt.h */
	IC_FS_IOC_ENABLE_VERITY = 0x6685, /* include/uapi/linux/fsverity.h */
	IC_EXT4_IOC_GETFSUUID = 0x662c, /* include/uapi/linux/ext4.h; also EXT4_IOC_SETFSUUID */
	IC_IOC_WRITE = 1 << 30, /* include/uapi/asm-generic/ioctl.h */
	IC_F2FS_IOC = 0xf5, /* include/uapi/linux/f2fs.h */
	IC_BTRFS_IOC = 0x94, /* include/uapi/linux/btrfs.h; include/uapi/linux/fs.h has some, too */
	IC_FS_IOC = 0x15, /* include/uapi/linux/fs.h */
};

/* What an ioctl of a file system changes. */
enum ic_command {
	IC_COMMAND_HARMLESS, /* no file, or none of a file system */
	IC_COMMAND_METADATA, /* the attributes of its own file */
	IC_COMMAND_CONTENT, /* the content or the blocks of its own file */
	IC_COMMAND_UNKNOWN, /* any file of the file system */
};

/* Commands that change no file. */
static __noinline bool ic_is_harmless_command(__u32 which)
{
	static const __u16 harmless[] = {
		/* FS_IOC_GETFLAGS, EXT4_IOC_GETVERSION, _GETRSVSZ; FS_IOC_FIEMAP */
		0x6601, 0x6603, 0x6605, 0x660b,
		/* EXT4_IOC_GROUP_EXTEND, _GROUP_ADD, _ALLOC_DA_BLKS, _RESIZE_FS, _PRECACHE_EXTENTS */
		0x6607, 0x6608, 0x660c, 0x6610, 0x6612,
		/* FS_IOC_GET_ENCRYPTION_POLICY, _POLICY_EX, _ADD_ENCRYPTION_KEY, _KEY_STATUS, _NONCE */
		0x6615, 0x6616, 0x6617, 0x661a, 0x661b,
		/* EXT4_IOC_CLEAR_ES_CACHE, _GETSTATE, _GET_ES_CACHE, _CHECKPOINT, _GET_TUNE_SB_PARAM */
		0x6628, 0x6629, 0x662a, 0x662b, 0x662d,
		/* FS_IOC_MEASURE_VERITY, _READ_VERITY_METADATA, _GETVERSION */
		0x6686, 0x6687, 0x7601,
		/* XFS_IOC_DIOINFO, FS_IOC_FSGETXATTR, XFS_IOC_GETBMAP, _GETBMAPA, _FSGETXATTRA */
		0x581e, 0x581f, 0x5826, 0x582c, 0x582d,
		/* XFS_IOC_GETBMAPX, _FREE_EOFBLOCKS, FS_IOC_GETFSMAP; XFS_IOC_AG_GEOMETRY, _GETPARENTS */
		0x5838, 0x583a, 0x583b, 0x583d, 0x583e,
		/* XFS_IOC_GETPARENTS_BY_HANDLE, _RTGROUP_GEOMETRY, _FSGEOMETRY_V1, _FSBULKSTAT */
		0x583f, 0x5840, 0x5864, 0x5865,
		/* XFS_IOC_FSBULKSTAT_SINGLE, _FSINUMBERS, _PATH_TO_FSHANDLE, _PATH_TO_HANDLE */
		0x5866, 0x5867, 0x5868, 0x5869,
		/* XFS_IOC_FD_TO_HANDLE, _OPEN_BY_HANDLE, _READLINK_BY_HANDLE, _FSGROWFSDATA */
		0x586a, 0x586b, 0x586c, 0x586e,
		/* XFS_IOC_FSCOUNTS, _GET_RESBLKS, FITRIM, XFS_IOC_ATTRLIST_BY_HANDLE, _FSGEOMETRY_V4 */
		0x5871, 0x5873, 0x5879, 0x587a, 0x587c,
		/* XFS_IOC_FSGEOMETRY, _BULKSTAT, _INUMBERS, _START_COMMIT */
		0x587e, 0x587f, 0x5880, 0x5882,
		/* FS_IOC_GETFSLABEL; FIDEDUPERANGE, whose targets are checked as written files are */
		0x9431, 0x9436,
		/* FS_IOC_GETFSUUID, _GETFSSYSFSPATH, _GETLBMD_CAP */
		0x1500, 0x1501, 0x1502,
		/* F2FS_IOC_GARBAGE_COLLECT, _WRITE_CHECKPOINT, _GET_FEATURES, _GET_PIN_FILE */
		0xf506, 0xf507, 0xf50c, 0xf50e,
		/* F2FS_IOC_PRECACHE_EXTENTS, _RESIZE_FS, _GET_COMPRESS_BLOCKS, _GET_COMPRESS_OPTION */
		0xf50f, 0xf510, 0xf511, 0xf515
	};
	__u32 i;

	for (i = 0; i < sizeof(harmless) / sizeof(*harmless); i++) {
		if (which == harmless[i])
			return true;
	}
	return false;
}

/* Commands that change the content or the blocks of their own file alone. */
static __noinline bool ic_is_content_command(__u32 which)
{
	static const __u16 content[] = {
		/* EXT4_IOC_SETRSVSZ, _MIGRATE; XFS_IOC_ALLOCSP64, _FREESP64 */
		0x6606, 0x6609, 0x5824, 0x5825,
		/* FS_IOC_RESVSP, _UNRESVSP, _RESVSP64, _UNRESVSP64, _ZERO_RANGE */
		0x5828, 0x5829, 0x582a, 0x582b, 0x5839,
		/* BTRFS_IOC_DEFRAG, FICLONE, FICLONERANGE, BTRFS_IOC_DEFRAG_RANGE */
		0x9402, 0x9409, 0x940d, 0x9410,
		/* F2FS_IOC_START_ATOMIC_WRITE, _COMMIT_ATOMIC_WRITE, _START_VOLATILE_WRITE */
		0xf501, 0xf502, 0xf503,
		/* F2FS_IOC_RELEASE_VOLATILE_WRITE, _ABORT_ATOMIC_WRITE, _DEFRAGMENT, _SET_PIN_FILE */
		0xf504, 0xf505, 0xf508, 0xf50d,
		/* F2FS_IOC_RELEASE_COMPRESS_BLOCKS, _RESERVE_COMPRESS_BLOCKS, _SEC_TRIM_FILE */
		0xf512, 0xf513, 0xf514,
		/* F2FS_IOC_SET_COMPRESS_OPTION, _DECOMPRESS_FILE, _COMPRESS_FILE, _START_ATOMIC_REPLACE */
		0xf516, 0xf517, 0xf518, 0xf519
	};
	__u32 i;

	for (i = 0; i < sizeof(content) / sizeof(*content); i++) {
		if (which == content[i])
			return true;
	}
	return false;
}

/* What an ioctl changes, if it is one of a file system. */
IC_INLINE enum ic_command ic_file_system_command(__u32 cmd)
{
	__u32 which = cmd & 0xffff, type = which >> 8;

	if (type != 'f' && type != 'X' && type != 'v' && type != IC_BTRFS_IOC &&
	    type != IC_FS_IOC && type != IC_F2FS_IOC)
		return IC_COMMAND_HARMLESS;
	if (which == IC_FS_IOC_SETFLAGS || which == IC_FS_IOC_FSSETXATTR ||
	    which == IC_FS_IOC_SET_ENCRYPTION_POLICY || which == IC_FS_IOC_ENABLE_VERITY)
		return IC_COMMAND_METADATA;
	if (which == IC_EXT4_IOC_GETFSUUID)
		return cmd & IC_IOC_WRITE ? IC_COMMAND_UNKNOWN : IC_COMMAND_HARMLESS;
	if (ic_is_harmless_command(which))
		return IC_COMMAND_HARMLESS;
	return ic_is_content_command(which) ? IC_COMMAND_CONTENT : IC_COMMAND_UNKNOWN;
}

#endif
