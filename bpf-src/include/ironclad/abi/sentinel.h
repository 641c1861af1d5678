/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* Sentinel: trusted processes, protected files, and alarms. */
#ifndef IRONCLAD_ABI_SENTINEL_H
#define IRONCLAD_ABI_SENTINEL_H

#include "process.h"

/* Limits of Sentinel. */
enum ic_sentinel_limit {
	IC_SENTINEL_SECRET = 32, /* bytes of a secret: the four words that prctl(2) takes */
	IC_SENTINEL_RULES = 64, /* file rules of a policy: a bit each */
	IC_SENTINEL_NAME = 256, /* bytes of a name in a directory, its end included */
	/* Directories from a file up to its root. Below more, all rules on directories apply. */
	IC_SENTINEL_DEPTH = 64,
	IC_SENTINEL_PATH = 512, /* bytes of a path in an event */
	IC_SENTINEL_HELPERS = 256, /* helpers of programs: a bit each */
};

/* Limits of Sentinel that size maps. */
enum ic_sentinel_entries {
	IC_SENTINEL_MARKS = 64, /* trusted processes at once, and outstanding secrets */
	IC_SENTINEL_OBJECTS = 16384, /* maps and programs of trusted processes */
	IC_SENTINEL_LINKS = 1024, /* links of trusted processes */
	IC_SENTINEL_MOUNTS = 4096, /* mounts on the paths to protected files */
	IC_SENTINEL_VOLUMES = 1024, /* devices with protected files, and their backing devices */
	IC_SENTINEL_EXEMPTIONS = 1024, /* executables with an exemption */
	IC_SENTINEL_DIR_RENAMES = 1024, /* threads that rename directories */
	IC_SENTINEL_DIRS = 8192, /* directories that are cached, a power of two */
	IC_SENTINEL_KFUNCS = 1024, /* kernel functions that programs may call */
	IC_SENTINEL_HELD = 1024, /* entries of the census of open files and devices */
	IC_SENTINEL_GROUPS = 4096, /* cgroups that the agent was moved to, and those above them */
	IC_SENTINEL_GROUP_DEPTH = 128, /* cgroups above one another that are recorded at a move */
};

enum ic_sentinel_word {
	/* The lowest bit of the rename counter in ic_sentinel.word. */
	IC_RENAME_SHIFT = 48,
};

/* Numbers by which the agent and the hooks recognise each other's calls. */
enum ic_sentinel_call {
	/* The first argument of prctl(2) with which a process presents a secret: "IRON". */
	IC_SENTINEL_HELLO = 0x49524f4e,
	/* The error of a canary call, and of no other: ENOANO of asm-generic/errno.h. */
	IC_SENTINEL_ECANARY = 55,
};

/* A hook of BPF LSM at which Sentinel decides, or a tracepoint that it reports, by the kernel's name. */
enum ic_sentinel_hook {
	IC_HOOK_BPF = 1, /* a command of bpf(2) */
	IC_HOOK_BPF_MAP = 2, /* a descriptor of a map */
	IC_HOOK_BPF_PROG = 3, /* a descriptor of a program */
	IC_HOOK_TASK_PRCTL = 4, /* a secret, presented by prctl(2) */
	IC_HOOK_TASK_KILL = 5, /* a signal */
	IC_HOOK_PTRACE_ACCESS_CHECK = 6, /* ptrace(2), and every call that needs its rights */
	IC_HOOK_TASK_SETRLIMIT = 7, /* a resource limit of another process */
	IC_HOOK_TASK_SETSCHEDULER = 8, /* a task's scheduling policy or CPU affinity */
	IC_HOOK_TASK_SETNICE = 9, /* a task's nice value */
	IC_HOOK_TASK_SETIOPRIO = 10, /* a task's I/O priority */
	IC_HOOK_TASK_MOVEMEMORY = 11, /* the NUMA nodes of a task's memory */
	IC_HOOK_TASK_SETPGID = 12, /* a task's process group */
	IC_HOOK_FILE_OPEN = 13, /* open(2) and its relatives */
	IC_HOOK_INODE_UNLINK = 14, /* unlink(2) */
	IC_HOOK_INODE_RMDIR = 15, /* rmdir(2) */
	IC_HOOK_INODE_RENAME = 16, /* rename(2) */
	IC_HOOK_INODE_LINK = 17, /* link(2) */
	IC_HOOK_INODE_CREATE = 18, /* creation of a regular file */
	IC_HOOK_INODE_MKDIR = 19, /* mkdir(2) */
	IC_HOOK_INODE_MKNOD = 20, /* mknod(2), also of sockets */
	IC_HOOK_INODE_SYMLINK = 21, /* symlink(2) */
	IC_HOOK_INODE_SETATTR = 22, /* truncate(2), chmod(2), chown(2), utimensat(2) */
	IC_HOOK_INODE_SETXATTR = 23, /* setxattr(2) */
	IC_HOOK_INODE_REMOVEXATTR = 24, /* removexattr(2) */
	IC_HOOK_INODE_SET_ACL = 25, /* an access control list is set */
	IC_HOOK_INODE_REMOVE_ACL = 26, /* an access control list is removed */
	IC_HOOK_FILE_IOCTL = 27, /* attributes of files by ioctl(2): chattr(1) */
	IC_HOOK_FILE_IOCTL_COMPAT = 28, /* the same by 32-bit programs */
	IC_HOOK_INODE_FILE_SETATTR = 29, /* file_setattr(2) */
	IC_HOOK_BPRM_CHECK_SECURITY = 30, /* execve(2) */
	IC_HOOK_SB_MOUNT = 31, /* mount(2) */
	IC_HOOK_SB_UMOUNT = 32, /* umount(2) */
	IC_HOOK_SB_PIVOTROOT = 34, /* pivot_root(2) */
	IC_HOOK_MOVE_MOUNT = 35, /* move_mount(2) */
	IC_HOOK_LOCKED_DOWN = 36, /* an operation that the kernel's lockdown restricts */
	IC_HOOK_SYSCTL = 37, /* a write to a sysctl */
	IC_HOOK_FILE_PERMISSION = 38, /* read(2) and write(2) */
	IC_HOOK_MMAP_FILE = 39, /* a file is mapped to be executed */
	IC_HOOK_KERNEL_LOAD_DATA = 40, /* a module or kernel from memory */
	IC_HOOK_KERNEL_READ_FILE = 41, /* a module or kernel from a file */
	IC_HOOK_FILE_SEND_SIGIOTASK = 42, /* a signal by F_SETOWN of fcntl(2) */
	IC_HOOK_PERF_EVENT_ALLOC = 43, /* perf_event_open(2) */
	IC_HOOK_SB_REMOUNT = 44, /* a change of the options of a file system */
	IC_HOOK_PATH_NOTIFY = 45, /* a mark of fanotify(7) or inotify(7) */
	IC_HOOK_FILE_LOCK = 46, /* a lock of flock(2) or fcntl(2), or a lease */
	IC_HOOK_BPF_PROG_LOAD = 47, /* a call in a program that is being loaded */
	IC_HOOK_QUOTA_ON = 48, /* quotactl(2) with a file of quotas */
	IC_HOOK_URING_CMD = 49, /* a command to a device or a file by io_uring */
	IC_HOOK_TASK_ALLOC = 50, /* clone3(2) into another cgroup */
	IC_HOOK_CGROUP_ATTACH_TASK = 51, /* a move to another cgroup, by a tracepoint */
	IC_SENTINEL_HOOKS, /* one more than the highest number of a hook */
};

/* An operation that a file rule covers. */
enum ic_file_op {
	IC_FILE_READ = 0, /* opening a file for reading, and listing a directory */
	IC_FILE_WRITE = 1, /* opening a file for writing, and truncate(2) */
	IC_FILE_CREATE = 2, /* a new name in a directory, of any kind of file */
	IC_FILE_DELETE = 3, /* removing a name, also by a rename over it */
	IC_FILE_RENAME = 4, /* changing a name */
	IC_FILE_LINK = 5, /* adding a name */
	/* Mode, owner, times, extended attributes, access control lists, flags. */
	IC_FILE_METADATA = 6,
	IC_FILE_EXECUTE = 7, /* execve(2), or mapping a file to be executed */
	/* Mounting over a file or directory, and unmounting. Part of every rule that denies. */
	IC_FILE_MOUNT = 8,
	IC_FILE_OPS, /* how many operations there are */
};

/* The state of an instance. */
struct ic_sentinel {
	/*
	 * Bit 0: the half of labels and policies that is in force. From bit 1 on: the epoch of their
	 * meaning. From bit IC_RENAME_SHIFT on: the number of directories that are being renamed,
	 * during which nothing is cached.
	 */
	__u64 word;
	__u64 gate; /* bit n: programs of type n (enum bpf_prog_type) are refused */
	__u64 gate_log; /* bit n: programs of type n are reported, and loaded unless refused */
	__u32 is_armed; /* 1: Sentinel refuses */
	__u32 canary; /* the thread whose every call `canary_hook` refuses; 0: none */
	__u32 canary_hook; /* enum ic_sentinel_hook */
	__u32 adopting; /* the thread whose maps and programs, opened by id, become protected */
	__u32 refuse; /* enum ic_refuse_what */
	__u32 mount_namespace; /* inode number of the agent's mount namespace */
	__u64 lost; /* alarms that found no room */
	__u64 group; /* the cgroup that the agent is started in, by id; 0: any */
	__u32 candidates; /* processes with IC_MARK_CANDIDATE so far; 0: none are looked up */
	__u32 launch; /* enum ic_launch */
	__u32 root_mount; /* number of the mount that is the first agent's root */
	__u32 filters; /* seccomp(2) filters of the first agent */
	__u32 probes[2]; /* types of perf events that are kprobes and uprobes; 0: not known */
	/* CLOCK_BOOTTIME until which a break-glass token allows signals to trusted processes. */
	__u64 open_until_ns;
	__u64 name_key[2]; /* of the hashes of names, random */
};
_Static_assert(sizeof(struct ic_sentinel) == 112, "ABI");

/* Operations on the host that are refused. */
enum ic_refuse_what {
	/* The kernel's memory, and probes: the confidentiality mode of lockdown(7). */
	IC_REFUSE_MEMORY = 1,
	IC_REFUSE_MODULES = 2, /* modules, except from files that no other process may change */
	IC_REFUSE_KEXEC = 4, /* other kernels by kexec(8) */
	IC_REFUSE_DISKS = 8, /* commands to disks with protected files */
	IC_REFUSE_MAPPER = 16, /* the device mapper, where protected files are on a mapped device */
	IC_REFUSE_CALLS = 32, /* programs that act on other processes, or read their memory */
	/* Programs at cgroups that may rewrite the address of connect(2) and its like. */
	IC_REFUSE_REWRITES = 128,
	/* All descriptors of programs: set by a hook that had no room to refuse one of them. */
	IC_REFUSE_PROGRAMS = 64,
};

/* Keys of volumes: the kernel's device numbers of block devices, and these bits. */
enum ic_volume_key {
	IC_VOLUME_CHARACTER = 0x80000000, /* a character device; no block device has this bit */
	/* Any minor of a character device; of misc devices the minor is the kind of device. */
	IC_VOLUME_ANY_MINOR = 0xfffff,
	/* Arrays of md (major number 9), of which any has a protected file. */
	IC_VOLUME_ARRAYS = 0x80900000,
	/* Disks (major number 8), of which any has a protected file. */
	IC_VOLUME_DISKS = 0x80800000,
};

/* A secret that gives its bearer a mark, once. */
struct ic_secret_key {
	__u64 word[4]; /* the words that prctl(2) takes */
};
_Static_assert(sizeof(struct ic_secret_key) == IC_SENTINEL_SECRET, "ABI");

/* What a secret gives its bearer. */
struct ic_secret_val {
	struct ic_file_id exe; /* the executable of its bearer; all zero: any */
	__u32 mark; /* the mark of its bearer: enum ic_mark_flag */
	__u32 flags; /* enum ic_secret_flag */
};
_Static_assert(sizeof(struct ic_secret_val) == 24, "ABI");

/* Flags of a struct ic_mark. */
enum ic_mark_flag {
	IC_MARK_TRUSTED = 1, /* the process is trusted */
	/* The agent's program, started as agents are: it may read the secret, and present it. */
	IC_MARK_CANDIDATE = 2,
	/* A child of a trusted process until its execve(2): it shares memory and descriptors. */
	IC_MARK_CHILD = 4,
};

/* The processes that start agents. */
enum ic_launch {
	IC_LAUNCH_INIT = 1, /* PID 1, which is the service manager */
	IC_LAUNCH_TRUSTED = 2, /* a trusted process */
};

/* Rules of Sentinel's own, behind those of policies. */
enum ic_own_rule {
	IC_OWN_LOCKED = 57, /* the agent's audit file, which other processes may not lock */
	IC_OWN_MOUNTS = 58, /* the directories below mounts with protected files */
	IC_OWN_GROUP = 59, /* the agent's cgroup */
	IC_OWN_EXECUTABLE = 60, /* the agent's executable */
	IC_OWN_CODE = 61, /* files that the executable maps: libraries, and the loader's cache */
	IC_OWN_STATE = 62, /* the directory of the secret */
	IC_OWN_PINS = 63, /* the pins */
};

/* Flags of a struct ic_secret_val. */
enum ic_secret_flag {
	/* For an agent that restarts: valid for candidates only, and until another secret exists. */
	IC_SECRET_RESTART = 1,
};

/* The trust mark of a process, by its thread group. */
struct ic_mark {
	/* CLOCK_BOOTTIME of the process's start: numbers of processes are used again. */
	__u64 start_ns;
	__u32 flags; /* enum ic_mark_flag */
	__u32 _pad;
};
_Static_assert(sizeof(struct ic_mark) == 16, "ABI");

/* Flags of a struct ic_label. */
enum ic_label_flag {
	/* The directory is a component of the path to a protected file: it keeps its name. */
	IC_LABEL_PATH_COMPONENT = 1,
};

/* The label of a file or directory. Each array has a value for each half of ic_sentinel.word. */
struct ic_label {
	__u64 own[2]; /* bit n: rule n covers the file or directory itself */
	__u64 below[2]; /* bit n: rule n covers the files below it, at any depth */
	__u32 flags[2]; /* enum ic_label_flag */
	/* Bit n: rules cover names of n, n + 32 … bytes in the directory, of whatever file. */
	__u32 names[2];
};
_Static_assert(sizeof(struct ic_label) == 48, "ABI");

/* A name in a directory. Another name with the same hash would be covered, too. */
struct ic_name_key {
	struct ic_file_id dir; /* the directory */
	__u64 hash; /* SipHash-1-3 of the name by ic_sentinel.name_key */
	__u32 len; /* bytes of the name */
	__u32 _pad;
};
_Static_assert(sizeof(struct ic_name_key) == 32, "ABI");

/* The rules on a name or a device. */
struct ic_name_val {
	__u64 rules[2]; /* bit n: rule n covers it; a value for each half */
};
_Static_assert(sizeof(struct ic_name_val) == 16, "ABI");

/* The rules that cover the files in a directory, as found on a walk to the root. A cache line. */
struct ic_dir_cache {
	__u64 word; /* ic_sentinel.word at the walk */
	struct ic_file_id dir; /* the directory */
	__u64 below; /* bit n: rule n covers the files in it */
	__u32 names; /* ic_label.names of the directory */
	__u32 flags; /* ic_label.flags of the directory */
	__u64 sum; /* checksum of the other fields: ic_dir_sum() */
	__u64 _pad[2];
};
_Static_assert(sizeof(struct ic_dir_cache) == 64, "ABI");

/* The file rules of a half. */
struct ic_file_policy {
	__u64 op[IC_FILE_OPS]; /* bit n: rule n covers this operation */
	__u64 deny; /* rules that deny */
	__u64 log; /* rules that report */
	__u64 below; /* rules that cover the files in a directory */
};
_Static_assert(sizeof(struct ic_file_policy) == 96, "ABI");

/* Flags of a struct ic_open_descriptor. */
enum ic_open_flag {
	IC_OPEN_WRITES = 1, /* it is open for writing */
	IC_OPEN_TRUSTED = 2, /* of a trusted process */
	IC_OPEN_DEVICE = 4, /* of a block device */
};

/* A descriptor of a file that a rule denies to write, or of a block device below one. */
struct ic_open_descriptor {
	__u64 rules; /* bit n: rule n denies writing */
	__u64 open_file; /* the open file, which several descriptors may share: an opaque number */
	struct ic_file_id file; /* the file; of a device, its number is `dev` */
	__u32 pid; /* the process, by its thread group */
	__u32 fd; /* the descriptor */
	__u32 flags; /* enum ic_open_flag */
	__u32 _pad;
};
_Static_assert(sizeof(struct ic_open_descriptor) == 48, "ABI");

/* What the census counts. */
enum ic_held_kind {
	IC_HELD_FILE = 0, /* open files that can write to a file that a rule denies to write */
	IC_HELD_DEVICE = 1, /* open files of a block device, the kernel's own included */
	IC_HELD_MOUNT = 2, /* a file system that is mounted from a device */
};

/* An entry of the census of open files and devices. */
struct ic_held {
	__u64 rules; /* bit n: rule n denies writing; 0: no rule covers the device */
	struct ic_file_id file; /* the file; of a device, its number is `dev` */
	__u32 kind; /* enum ic_held_kind */
	__u32 count; /* open files */
	__u32 whole; /* of a partition, the number of its disk */
	__u32 _pad;
	__u8 name[64]; /* the file's name, cut; ended by a zero */
};
_Static_assert(sizeof(struct ic_held) == 104, "ABI");

/* A census, its outcome, and what follows from it. */
struct ic_census {
	__u32 device; /* the device of the file system; 0: all block devices */
	__u32 held; /* entries of ic_held */
	__u32 is_incomplete; /* 1: a list changed, or was too long, or there was no room */
	__u32 checks_writes; /* 1: writes by pre-opened descriptors are checked */
};
_Static_assert(sizeof(struct ic_census) == 16, "ABI");

/* Operations that an exemption allows. */
enum ic_may {
	IC_MAY_KILL = 1, /* send signals to trusted processes, and change their limits */
	IC_MAY_TRACE = 2, /* trace trusted processes */
	IC_MAY_LOAD = 4, /* load programs that the gate refuses */
	IC_MAY_MOUNT = 8, /* mount over protected files, and unmount them */
	IC_MAY_GROUP = 16, /* move processes between cgroups */
	IC_MAY_MANAGE = 32, /* what PID 1 may, where PID 1 has forked the process */
};

/* The exemption of an executable. Each array has a value for each half of ic_sentinel.word. */
struct ic_exemption {
	__u64 rules[2]; /* bit n: rule n does not apply */
	__u32 may[2]; /* enum ic_may */
};
_Static_assert(sizeof(struct ic_exemption) == 24, "ABI");

/* The kind of an object of a trusted process. */
enum ic_object_kind {
	IC_OBJECT_MAP = 1, /* a map */
	IC_OBJECT_PROG = 2, /* a program */
	IC_OBJECT_REFUSED = 3, /* a program whose calls are refused, which has no descriptor yet */
};

/* The number of what a program calls. */
enum ic_call {
	IC_CALL_KFUNC = 0x80000000, /* a kernel function, by its number in BTF; else a helper */
	IC_CALL_MODULE = 0x40000000, /* of a module */
	IC_CALL_UNKNOWN = 0x20000000, /* not known: the instructions could not be read */
};

/* The outcome of an attempt. */
enum ic_sentinel_verdict {
	IC_SENTINEL_DENIED = 1, /* the call was denied */
	/* The call was allowed and reported, by a log rule or in a dry run. */
	IC_SENTINEL_LOGGED = 2,
	IC_SENTINEL_GRANTED = 3, /* a secret was accepted: its bearer is trusted */
	IC_SENTINEL_REFUSED = 4, /* a secret was rejected */
};

/* The alarm of an attempt. */
struct ic_sentinel_event {
	struct ic_event_header hdr; /* the common head */
	__u64 lost; /* alarms that found no room before this one */
	__u64 cgroup; /* id of the process's cgroup */
	__u64 exec_ns; /* CLOCK_BOOTTIME of the process's execve(2) */
	__u64 rules; /* bit n: file rule n matched */
	struct ic_file_id exe; /* the executable of the process */
	struct ic_file_id parent; /* the executable of its parent */
	struct ic_file_id file; /* the file of the attempt; all zero: none */
	__u32 pid; /* thread group */
	__u32 tid; /* thread */
	__u32 ppid; /* the thread group that forked it */
	__u32 uid; /* real user */
	__u32 gid; /* real group */
	__u32 target; /* a process, an id of a map, program or link, a program's type, a signal */
	__u32 detail; /* a command of bpf(2), a signal, ATTR_ flags, enum ic_call, a cgroup */
	__u8 hook; /* enum ic_sentinel_hook */
	__u8 op; /* enum ic_file_op */
	__u8 verdict; /* enum ic_sentinel_verdict */
	__u8 flags; /* zero */
	__u8 comm[16]; /* the thread's name, which a thread may set itself; zero behind its end */
	__u16 path_len; /* bytes of `path` */
	__u16 path_cut; /* 1: directories are missing at its end */
	__u32 _pad;
	/* The names from the file up to its file system's root, each ended by a zero. */
	__u8 path[IC_SENTINEL_PATH];
};
_Static_assert(sizeof(struct ic_sentinel_event) == 664, "ABI");

#endif
