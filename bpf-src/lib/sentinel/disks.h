/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * Access to protected files that bypasses the blocks of their device: ioctls by descriptors for
 * reading, character devices, targets that export the device once more.
 */
#ifndef IRONCLAD_LIB_SENTINEL_DISKS_H
#define IRONCLAD_LIB_SENTINEL_DISKS_H

#include "rules.h"

enum {
	IC_CONFIGFS_MAGIC = 0x62656570, /* include/uapi/linux/magic.h */
	IC_FIFREEZE = 0xc0045877, /* include/uapi/linux/fs.h */
	IC_FITHAW = 0xc0045878,
	IC_FS_IOC_SHUTDOWN = 0x8004587d, /* of ext4, f2fs and XFS, which each have a name for it */
	IC_BLOCK_LAYER = 0x12, /* the type of BLKDISCARD and the like, include/uapi/linux/fs.h */
	IC_MINOR_BITS = 20, /* include/linux/kdev_t.h */
	IC_TTYAUX_MAJOR = 5, /* include/uapi/linux/major.h */
	IC_MISC_MAJOR = 10,
	IC_UNIX98_PTY_SLAVE_MAJOR = 136,
};

/*
 * Whether an ioctl of a disk only queries, or waits, by its type and number. Drivers have hundreds
 * of ioctls that write: any unknown one is treated as such.
 */
static __noinline bool ic_is_query_ioctl(__u32 cmd)
{
	static const __u16 questions[] = {
		/* FIGETBSZ. SCSI_IOCTL_SEND_COMMAND has the type 0, too. */
		0x0002,
		/* BLKROGET, BLKGETSIZE to BLKFRAGET, BLKSECTGET, BLKSSZGET, BLKBSZGET, BLKGETSIZE64 */
		0x125e, 0x1260, 0x1261, 0x1262, 0x1263, 0x1264, 0x1265, 0x1267, 0x1268, 0x1270,
		0x1272,
		/* BLKIOMIN to BLKDISCARDZEROES, BLKROTATIONAL, BLKGETDISKSEQ; zones */
		0x1278, 0x1279, 0x127a, 0x127b, 0x127c, 0x127e, 0x1280, 0x1282, 0x1284, 0x1285,
		/* HDIO_GETGEO, HDIO_GET_32BIT, HDIO_GET_IDENTITY */
		0x0301, 0x0309, 0x030d,
		/* LOOP_GET_STATUS, LOOP_GET_STATUS64 */
		0x4c03, 0x4c05,
		/* RAID_VERSION, GET_ARRAY_INFO, GET_DISK_INFO */
		0x0910, 0x0911, 0x0912,
		/* SG_GET_VERSION_NUM; SCSI_IOCTL_GET_IDLUN, _GET_BUS_NUMBER, _GET_PCI; NVME_IOCTL_ID */
		0x2282, 0x5382, 0x5386, 0x5387, 0x4e40,
		/* CDROMMULTISESSION, CDROM_DRIVE_STATUS, CDROM_GET_CAPABILITY */
		0x5310, 0x5326, 0x5331
	};
	__u32 type = cmd >> 8 & 0xff, i;

	/*
	 * ioctls that are not the disk's: of terminals, and of the file system that holds the
	 * device's name.
	 */
	if (type == 'T' || type == 'f' || type == 'X' || type == 'v')
		return true;
	for (i = 0; i < sizeof(questions) / sizeof(*questions); i++) {
		if ((cmd & 0xffff) == questions[i])
			return true;
	}
	return false;
}

/* Before Linux 5.11, and before the number of openers became an atomic_t. */
struct block_device___v5_10 {
	struct block_device *bd_contains;
	int bd_openers;
} __attribute__((preserve_access_index));

/* The disk of a partition; any other block device itself. */
IC_INLINE struct block_device *ic_whole_device(struct block_device *device)
{
	if (bpf_core_field_exists(struct block_device___v5_10, bd_contains))
		return BPF_CORE_READ((struct block_device___v5_10 *)device, bd_contains);
	return BPF_CORE_READ(device, bd_disk, part0);
}

/* Whether a device hands ioctls that it does not know to a device below: device-mapper, bcache. */
IC_INLINE bool ic_hands_ioctls_down(struct block_device *device)
{
	char name[8] = {};

	if (BPF_CORE_READ_STR_INTO(&name, device, bd_disk, disk_name) <= 0)
		return false;
	return (name[0] == 'd' && name[1] == 'm' && name[2] == '-') ||
	       (name[0] == 'b' && name[1] == 'c' && name[2] == 'a' && name[3] == 'c');
}

/*
 * The device that an ioctl of a block device addresses: the block layer's own act on the device.
 * The driver of a disk does not know of which partition an ioctl is. One that is handed down may
 * address any disk.
 */
static __noinline __u32 ic_addressed_by_ioctl(struct file *file, __u32 cmd)
{
	struct inode *inode = BPF_CORE_READ(file, f_mapping, host);
	__u64 at = ic_address(inode) - bpf_core_field_offset(struct bdev_inode, vfs_inode);
	struct block_device *device = ic_whole_device((struct block_device *)at);

	if ((cmd >> 8 & 0xff) == IC_BLOCK_LAYER || !device)
		return file->f_inode->i_rdev;
	return ic_hands_ioctls_down(device) ? IC_VOLUME_DISKS : BPF_CORE_READ(device, bd_dev);
}

IC_INLINE __u64 ic_rules_of_volume(__u32 key)
{
	const struct ic_name_val *volume = bpf_map_lookup_elem(&ic_volumes, &key);

	return volume ? volume->rules[ic_half()] : 0;
}

/* A write to a device changes the files of its file system, and so can an ioctl. */
IC_INLINE int ic_check_disk(__u8 hook, __u64 rules, struct dentry *dentry, __u32 detail)
{
	if (!rules || !ic_is_armed())
		return 0;
	return ic_enforce(hook, rules, IC_FILE_WRITE, IC_FILE_READ, dentry, detail);
}

/* An ioctl of a disk; some of these need no descriptor for writing. */
IC_INLINE int ic_check_disk_command(__u8 hook, struct file *file, __u32 cmd)
{
	__u64 rules;

	if (!(IC_READ_ONCE(ic_sentinel.refuse) & IC_REFUSE_DISKS) || ic_is_query_ioctl(cmd))
		return 0;
	rules = ic_rules_of_volume(file->f_inode->i_rdev) |
		ic_rules_of_volume(ic_addressed_by_ioctl(file, cmd));
	return ic_check_disk(hook, rules, file->f_path.dentry, cmd);
}

/*
 * The rules of files on disks that a character device sends commands to, also by a descriptor for
 * reading.
 */
IC_INLINE __u64 ic_rules_of_character_device(__u32 device)
{
	__u32 key = device | IC_VOLUME_CHARACTER, refuse = IC_REFUSE_MAPPER;
	__u32 major = device >> IC_MINOR_BITS;

	/* Memory and terminals, which are opened often. */
	if (major <= IC_TTYAUX_MAJOR || major == IC_UNIX98_PTY_SLAVE_MAJOR)
		return 0;
	if (major != IC_MISC_MAJOR) {
		key |= IC_VOLUME_ANY_MINOR;
		refuse = IC_REFUSE_DISKS;
	}
	return IC_READ_ONCE(ic_sentinel.refuse) & refuse ? ic_rules_of_volume(key) : 0;
}

/*
 * Whether an ioctl of the device mapper only queries: dmeventd(8), which was there before a rule, tries
 * again at once where it is refused.
 */
IC_INLINE bool ic_is_mapper_query(__u32 device, __u32 cmd)
{
	/*
	 * VERSION, LIST_DEVICES, DEV_STATUS, DEV_WAIT, TABLE_DEPS, TABLE_STATUS, LIST_VERSIONS,
	 * DEV_ARM_POLL of include/uapi/linux/dm-ioctl.h.
	 */
	const __u32 queries =
		1 << 0 | 1 << 2 | 1 << 7 | 1 << 8 | 1 << 11 | 1 << 12 | 1 << 13 | 1 << 16;

	return device >> IC_MINOR_BITS == IC_MISC_MAJOR && (cmd >> 8 & 0xff) == 0xfd &&
	       (cmd & 0xff) < 32 && queries >> (cmd & 31) & 1;
}

/*
 * Commands of character devices reach all disks. Other processes may therefore neither open them
 * nor use a descriptor that is older than a rule.
 */
IC_INLINE int ic_check_character_device(__u8 hook, struct file *file, __u32 detail)
{
	__u64 rules = ic_rules_of_character_device(file->f_inode->i_rdev);

	return ic_check_disk(hook, rules, file->f_path.dentry, detail);
}

/* Whether a directory of sysfs is that of an array of md, or of bcache. */
IC_INLINE bool ic_is_array_directory(struct dentry *dir)
{
	return ic_is_named(dir, "md") || ic_is_named(dir, "bcache");
}

/*
 * Whether a file of sysfs belongs to an array of md, or to bcache, while a protected file is on one:
 * by these files a member is replaced or a cache removed, and all writes wait.
 */
static __noinline bool ic_is_array_file(struct dentry *dentry)
{
	struct dentry *dir = BPF_CORE_READ(dentry, d_parent);
	__u32 key = IC_VOLUME_ARRAYS;
	const struct ic_name_val *volume;

	if (!(IC_READ_ONCE(ic_sentinel.refuse) & IC_REFUSE_DISKS))
		return false;
	if (!ic_is_array_directory(dir) && !ic_is_array_directory(BPF_CORE_READ(dir, d_parent)))
		return false;
	volume = bpf_map_lookup_elem(&ic_volumes, &key);
	return volume && volume->rules[ic_half()];
}

/* Whether an ioctl freezes or thaws a file system with protected files. */
IC_INLINE bool ic_is_freeze_ioctl(struct file *file, __u32 cmd)
{
	const struct ic_name_val *volume;
	__u32 device;

	if (cmd != IC_FIFREEZE && cmd != IC_FITHAW && cmd != IC_FS_IOC_SHUTDOWN)
		return false;
	device = file->f_inode->i_sb->s_dev;
	volume = bpf_map_lookup_elem(&ic_volumes, &device);
	return volume && volume->rules[ic_half()] && ic_is_armed();
}

/* Whether the name is that of a back end of LIO that sends SCSI commands: pscsi_0 and so on. */
IC_INLINE bool ic_is_pscsi(struct dentry *dentry)
{
	static const union ic_short_name wanted = { "pscsi_" };
	union ic_short_name name;

	return ic_short_name(&name, dentry) &&
	       !((name.word[0] ^ wanted.word[0]) & 0xffffffffffffULL);
}

/*
 * Whether a directory would be a target that writes to its disk without holding it: a namespace of
 * NVMe, and LIO's back end of SCSI commands, which holds another device than the one that it writes to.
 * Its other back ends hold the device that they export, and cannot open one that is mounted.
 */
static __noinline bool ic_is_target(struct inode *dir, struct dentry *dentry)
{
	if (dir->i_sb->s_magic != IC_CONFIGFS_MAGIC || !ic_is_armed() ||
	    !(IC_READ_ONCE(ic_sentinel.refuse) & IC_REFUSE_DISKS))
		return false;
	return ic_is_named(dentry->d_parent, "namespaces") || ic_is_pscsi(dentry);
}

#endif
