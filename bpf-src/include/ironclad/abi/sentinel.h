/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* Who is trusted, what is guarded, and what is reported of those who tried. */
#ifndef IRONCLAD_ABI_SENTINEL_H
#define IRONCLAD_ABI_SENTINEL_H

#include "process.h"

enum ic_sentinel_limit {
	IC_SENTINEL_SECRET = 32, /* bytes of a secret: the four words that prctl(2) takes */
	IC_SENTINEL_MARKS = 64,
	IC_SENTINEL_OBJECTS = 16384, /* maps and programs of trusted processes */
	IC_SENTINEL_LINKS = 1024,
	IC_SENTINEL_RULES = 64, /* file rules of a policy: a bit each */
	IC_SENTINEL_MOUNTS = 4096,
	IC_SENTINEL_VOLUMES = 1024, /* devices with files that rules cover, and what those lie on */
	IC_SENTINEL_EXEMPTIONS = 1024, /* executables that policies except from rules */
	IC_SENTINEL_NAME = 256, /* bytes of a name in a directory, its end included */
	IC_SENTINEL_DIR_RENAMES = 1024, /* threads that move directories */
	IC_RENAME_SHIFT = 48, /* lowest bit of the number of moves in ic_sentinel.word */
	IC_SENTINEL_DIRS = 8192, /* directories that are cached, a power of two */
	IC_SENTINEL_DEPTH = 64, /* directories on the way from a file to its root */
	IC_SENTINEL_PATH = 512, /* bytes of a path in an event */
	/* The first argument of prctl(2) with which a process presents a secret: "IRON". */
	IC_SENTINEL_HELLO = 0x49524f4e,
	/* What canaries are refused with, and no other process: ENOANO of asm-generic/errno.h. */
	IC_SENTINEL_ECANARY = 55,
};

/* Where a process was seen to try something, the hooks of BPF LSM by their names. */
enum ic_sentinel_hook {
	IC_HOOK_BPF = 1,
	IC_HOOK_BPF_MAP = 2,
	IC_HOOK_BPF_PROG = 3,
	IC_HOOK_TASK_PRCTL = 4,
	IC_HOOK_TASK_KILL = 5,
	IC_HOOK_PTRACE_ACCESS_CHECK = 6,
	IC_HOOK_TASK_SETRLIMIT = 7,
	IC_HOOK_TASK_SETSCHEDULER = 8,
	IC_HOOK_TASK_SETNICE = 9,
	IC_HOOK_TASK_SETIOPRIO = 10,
	IC_HOOK_TASK_MOVEMEMORY = 11,
	IC_HOOK_TASK_SETPGID = 12,
	IC_HOOK_FILE_OPEN = 13,
	IC_HOOK_INODE_UNLINK = 14,
	IC_HOOK_INODE_RMDIR = 15,
	IC_HOOK_INODE_RENAME = 16,
	IC_HOOK_INODE_LINK = 17,
	IC_HOOK_INODE_CREATE = 18,
	IC_HOOK_INODE_MKDIR = 19,
	IC_HOOK_INODE_MKNOD = 20,
	IC_HOOK_INODE_SYMLINK = 21,
	IC_HOOK_INODE_SETATTR = 22,
	IC_HOOK_INODE_SETXATTR = 23,
	IC_HOOK_INODE_REMOVEXATTR = 24,
	IC_HOOK_INODE_SET_ACL = 25,
	IC_HOOK_INODE_REMOVE_ACL = 26,
	IC_HOOK_FILE_IOCTL = 27,
	IC_HOOK_FILE_IOCTL_COMPAT = 28,
	IC_HOOK_INODE_FILE_SETATTR = 29,
	IC_HOOK_BPRM_CHECK_SECURITY = 30,
	IC_HOOK_SB_MOUNT = 31,
	IC_HOOK_SB_UMOUNT = 32,
	IC_HOOK_SB_PIVOTROOT = 34,
	IC_HOOK_MOVE_MOUNT = 35,
	IC_HOOK_LOCKED_DOWN = 36,
	IC_HOOK_SYSCTL = 37,
	IC_HOOK_FILE_PERMISSION = 38,
	IC_HOOK_MMAP_FILE = 39,
	IC_HOOK_KERNEL_LOAD_DATA = 40,
	IC_HOOK_KERNEL_READ_FILE = 41,
	IC_HOOK_FILE_SEND_SIGIOTASK = 42,
	IC_HOOK_PERF_EVENT_ALLOC = 43,
	IC_HOOK_SB_REMOUNT = 44,
	IC_HOOK_PATH_NOTIFY = 45,
	IC_HOOK_FILE_LOCK = 46,
	IC_SENTINEL_HOOKS = 47,
};

/* What a file rule speaks of. */
enum ic_file_op {
	IC_FILE_READ = 0,
	IC_FILE_WRITE = 1,
	IC_FILE_CREATE = 2,
	IC_FILE_DELETE = 3,
	IC_FILE_RENAME = 4,
	IC_FILE_LINK = 5,
	IC_FILE_METADATA = 6,
	IC_FILE_EXECUTE = 7,
	IC_FILE_MOUNT = 8, /* mounting over, unmounting; no rule's, part of every one that denies */
	IC_FILE_OPS = 9,
};

/* What is said once, of the whole instance. */
struct ic_sentinel {
	/*
	 * Bit 0: which half of labels and policies is in force. Above: the epoch of their meaning. From bit
	 * IC_RENAME_SHIFT on: how many directories are being moved, and nothing is cached meanwhile.
	 */
	__u64 word;
	__u64 gate; /* bit n: programs of type n (enum bpf_prog_type) are refused */
	__u64 gate_log; /* of those, and of others: they are reported and loaded */
	__u32 is_armed; /* 1: others are refused */
	__u32 canary; /* the thread that canary_hook refuses, whatever it does; 0: none */
	__u32 canary_hook; /* enum ic_sentinel_hook */
	__u32 adopting; /* the thread whose maps and programs, opened by id, are guarded from then on */
	__u32 refuse; /* enum ic_refuse_what */
	__u32 mount_namespace; /* the inode's number of the agent's */
	__u64 lost; /* alarms that found no room */
	__u64 group; /* the cgroup that the agent is started in, by id; 0: any */
	__u32 candidates; /* marks of that kind so far: none, and nobody looks for them */
	__u32 launch; /* enum ic_launch */
	/* Where the first agent ran: its successors run there, too. */
	__u32 root_mount; /* number of the mount that is its root */
	__u32 filters; /* seccomp(2) filters that it had */
	__u32 probes[2]; /* types of perf events that are kprobes and uprobes; 0: not known */
	/* Until then signals to trusted processes are let through, CLOCK_BOOTTIME: a token said so. */
	__u64 open_until_ns;
};
_Static_assert(sizeof(struct ic_sentinel) == 96, "ABI");

enum ic_refuse_what {
	IC_REFUSE_MEMORY =
		1, /* what lockdown(7) calls confidentiality: the kernel's memory, and probes */
	IC_REFUSE_MODULES = 2, /* modules, but from files that no other process may change */
	IC_REFUSE_KEXEC = 4,
	IC_REFUSE_DISKS = 8, /* commands to disks that guarded files lie on */
	IC_REFUSE_MAPPER = 16, /* the device mapper, where guarded files lie on what it maps */
};

/* Device numbers of the kernel's, and what is said of character devices beside those of blocks. */
enum ic_volume_key {
	IC_VOLUME_CHARACTER = 0x80000000, /* no number of a block device is as high */
	IC_VOLUME_ANY_MINOR = 0xfffff, /* but of misc devices, whose minor tells what they are */
};

/* A secret that gives its bearer a mark, once. */
struct ic_secret_key {
	__u64 word[4];
};
_Static_assert(sizeof(struct ic_secret_key) == IC_SENTINEL_SECRET, "ABI");

struct ic_secret_val {
	struct ic_file_id exe; /* what its bearer executes; all zero: anything */
	__u32 mark; /* enum ic_mark_flag */
	__u32 flags; /* enum ic_secret_flag */
};
_Static_assert(sizeof(struct ic_secret_val) == 24, "ABI");

enum ic_mark_flag {
	IC_MARK_TRUSTED = 1,
	/* The agent's program, started as agents are: it may read the secret, and present it. */
	IC_MARK_CANDIDATE = 2,
	/* A child of a trusted process, until it executes something: it has its memory and descriptors. */
	IC_MARK_CHILD = 4,
};

/* Who starts agents. */
enum ic_launch {
	IC_LAUNCH_INIT = 1, /* PID 1, which is the service manager */
	IC_LAUNCH_TRUSTED = 2, /* a trusted process */
};

/* Rules that Sentinel has for itself, behind those of policies. */
enum ic_own_rule {
	IC_OWN_MOUNTS = 58, /* what mounts with guarded files lie on */
	IC_OWN_GROUP = 59, /* the agent's cgroup */
	IC_OWN_EXECUTABLE = 60,
	IC_OWN_CODE = 61, /* what the executable maps: libraries, and the loader's cache */
	IC_OWN_STATE = 62, /* where the secret is */
	IC_OWN_PINS = 63,
};

enum ic_secret_flag {
	/* For an agent that was restarted: candidates alone, and as often as it takes to have another. */
	IC_SECRET_RESTART = 1,
};

/* A process that is trusted, by its thread group. */
struct ic_mark {
	__u64 start_ns; /* when that began, CLOCK_BOOTTIME: tells it from another of its number */
	__u32 flags; /* enum ic_mark_flag */
	__u32 _pad;
};
_Static_assert(sizeof(struct ic_mark) == 16, "ABI");

enum ic_label_flag {
	/* The way to something that is guarded leads through this directory: it keeps its name. */
	IC_LABEL_PATH_COMPONENT = 1,
};

/* What is known of a file or directory; halves by ic_sentinel.word. */
struct ic_label {
	__u64 own[2]; /* bit n: rule n covers it */
	__u64 below[2]; /* and what is in it, at any depth */
	__u32 flags[2]; /* enum ic_label_flag */
	/* Bit n: rules cover names of n, n + 32 … bytes in it, whatever file has them. */
	__u32 names[2];
};
_Static_assert(sizeof(struct ic_label) == 48, "ABI");

/* A name in a directory. Another name of the same hash is covered, too: nobody wins by that. */
struct ic_name_key {
	struct ic_file_id dir;
	__u64 hash; /* ic_name_hash() */
	__u32 len; /* bytes */
	__u32 _pad;
};
_Static_assert(sizeof(struct ic_name_key) == 32, "ABI");

/* Rules, of a name or a device. */
struct ic_name_val {
	__u64 rules[2];
};
_Static_assert(sizeof(struct ic_name_val) == 16, "ABI");

/* What rules cover in a directory, as last found on the way from it to the root. A cache line. */
struct ic_dir_cache {
	__u64 word; /* ic_sentinel.word of then */
	struct ic_file_id dir;
	__u64 below;
	__u32 names; /* of its label */
	__u32 flags; /* likewise */
	__u64 sum; /* over the rest: see ic_dir_sum() */
	__u64 _pad[2];
};
_Static_assert(sizeof(struct ic_dir_cache) == 64, "ABI");

/* The file rules of a half. */
struct ic_file_policy {
	__u64 op[IC_FILE_OPS]; /* bit n: rule n speaks of this operation */
	__u64 deny;
	__u64 log;
	__u64 below; /* rules that cover what is in a directory */
};
_Static_assert(sizeof(struct ic_file_policy) == 96, "ABI");

/* A file that is covered, and that somebody had open for writing before. */
struct ic_preopened_fd {
	__u64 rules;
	__u32 pid;
	__u32 fd;
};
_Static_assert(sizeof(struct ic_preopened_fd) == 16, "ABI");

enum ic_has_exemption {
	IC_MAY_KILL = 1, /* send signals to trusted processes */
	IC_MAY_TRACE = 2,
	IC_MAY_LOAD = 4, /* load programs that the gate refuses */
	IC_MAY_MOUNT = 8,
	IC_MAY_GROUP = 16, /* move processes between cgroups */
	IC_MAY_MANAGE = 32, /* what PID 1 may, where that has forked it */
};

/* What an executable may do in spite of rules. */
struct ic_exemptions {
	__u64 rules[2]; /* bit n: rule n does not bind it */
	__u32 may[2]; /* enum ic_has_exemption */
};
_Static_assert(sizeof(struct ic_exemptions) == 24, "ABI");

enum ic_object_kind {
	IC_OBJECT_MAP = 1,
	IC_OBJECT_PROG = 2,
};

enum ic_sentinel_verdict {
	IC_SENTINEL_DENIED = 1,
	IC_SENTINEL_LOGGED = 2, /* a rule that only tells, or a dry run */
	IC_SENTINEL_GRANTED = 3, /* a secret was taken */
	IC_SENTINEL_REFUSED = 4, /* a secret was not */
};

/* What somebody tried. */
struct ic_sentinel_ev {
	struct ic_ev_hdr hdr;
	__u64 lost; /* alarms that found no room before this one */
	__u64 cgroup;
	__u64 exec_ns; /* CLOCK_BOOTTIME of the actor's execve(2) */
	__u64 rules; /* bit n: rule n said so */
	struct ic_file_id exe; /* what the actor executes */
	struct ic_file_id parent; /* what its parent executed */
	struct ic_file_id file; /* what it was about; all zero: no file */
	__u32 pid;
	__u32 tid;
	__u32 ppid;
	__u32 uid;
	__u32 gid;
	__u32 target; /* a process, an id of a map, program or link, a program's type, a signal */
	__u32 detail; /* a command of bpf(2), a signal, ATTR_ flags */
	__u8 hook; /* enum ic_sentinel_hook */
	__u8 op; /* enum ic_file_op */
	__u8 verdict; /* enum ic_sentinel_verdict */
	__u8 flags;
	__u8 comm[16];
	__u16 path_len; /* bytes of path */
	__u16 path_cut; /* 1: directories are missing at its end */
	__u32 _pad;
	/* The names from the file up to its file system's root, each ended by a zero. */
	__u8 path[IC_SENTINEL_PATH];
};
_Static_assert(sizeof(struct ic_sentinel_ev) == 664, "ABI");

#endif
