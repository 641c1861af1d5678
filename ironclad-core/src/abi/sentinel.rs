//! Who is trusted, what is guarded, and what is reported of those who tried: `ironclad/abi/sentinel.h`.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use super::{EventHeader, FileId};

/// Bytes of a secret.
pub const SENTINEL_SECRET: usize = 32;
/// Processes that may be trusted at once, and secrets that may be outstanding.
pub const SENTINEL_MARKS: u32 = 64;
/// Maps and programs that may be guarded.
pub const SENTINEL_OBJECTS: u32 = 16_384;
/// Links that may be guarded.
pub const SENTINEL_LINKS: u32 = 1024;
/// File rules of a policy.
pub const SENTINEL_RULES: usize = 64;
/// Devices with directories that rules cover.
pub const SENTINEL_VOLUMES: u32 = 1024;
/// Mounts on the ways to what is guarded.
pub const SENTINEL_MOUNTS: u32 = 4096;
/// Executables that policies may except.
pub const SENTINEL_EXEMPTIONS: u32 = 1024;
/// Bytes of a name in a directory, its end included.
pub const SENTINEL_NAME: usize = 256;
/// Directories on the way from a file to its root; of more, every rule on directories is taken to cover it.
pub const SENTINEL_DEPTH: usize = 64;
/// Directories that are cached.
pub const SENTINEL_DIRS: u32 = 8192;
/// The lowest bit of the number of moves in [`Sentinel::word`].
pub const RENAME_SHIFT: u32 = 48;
/// Bytes of a path in an event.
pub const SENTINEL_PATH: usize = 512;
/// The first argument of prctl(2) with which a process presents a secret.
pub const SENTINEL_HELLO: i32 = 0x4952_4f4e;
/// What canaries are refused with: `ENOANO`.
pub const SENTINEL_ECANARY: i32 = 55;

macro_rules! numbered {
    ($(#[$doc:meta])* $name:ident { $($(#[$each:meta])* $variant:ident = $number:literal, $text:literal;)* }) => {
        $(#[$doc])*
        #[derive(
            Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize, serde::Deserialize,
        )]
        #[serde(rename_all = "kebab-case")]
        #[non_exhaustive]
        #[repr(u8)]
        pub enum $name {
            $($(#[$each])* $variant = $number,)*
        }

        impl $name {
            /// All of them, in the order of their numbers.
            pub const ALL: &[Self] = &[$(Self::$variant),*];

            /// The one with this number.
            pub fn from_abi(number: u8) -> Option<Self> {
                Self::ALL.iter().copied().find(|it| *it as u8 == number)
            }

            /// The name in tables and logs.
            pub const fn name(self) -> &'static str {
                match self { $(Self::$variant => $text,)* }
            }
        }

        impl std::fmt::Display for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str(self.name())
            }
        }
    };
}

numbered! {
    /// A hook of BPF LSM at which Sentinel decides: `enum ic_sentinel_hook`. Its names are the kernel's.
    SentinelHook {
        /// A command of bpf(2).
        Bpf = 1, "bpf";
        /// A descriptor of a map.
        BpfMap = 2, "bpf_map";
        /// A descriptor of a program.
        BpfProg = 3, "bpf_prog";
        /// A secret, presented by prctl(2).
        TaskPrctl = 4, "task_prctl";
        /// A signal.
        TaskKill = 5, "task_kill";
        /// ptrace(2) and all that asks for its rights.
        PtraceAccessCheck = 6, "ptrace_access_check";
        /// A limit of another process.
        TaskSetrlimit = 7, "task_setrlimit";
        /// Its policy of scheduling, or its processors.
        TaskSetscheduler = 8, "task_setscheduler";
        /// Its nice value.
        TaskSetnice = 9, "task_setnice";
        /// Its priority of input and output.
        TaskSetioprio = 10, "task_setioprio";
        /// Where its memory lies.
        TaskMovememory = 11, "task_movememory";
        /// Its process group.
        TaskSetpgid = 12, "task_setpgid";
        /// open(2) and its like.
        FileOpen = 13, "file_open";
        /// unlink(2).
        InodeUnlink = 14, "inode_unlink";
        /// rmdir(2).
        InodeRmdir = 15, "inode_rmdir";
        /// rename(2).
        InodeRename = 16, "inode_rename";
        /// link(2).
        InodeLink = 17, "inode_link";
        /// A new file.
        InodeCreate = 18, "inode_create";
        /// mkdir(2).
        InodeMkdir = 19, "inode_mkdir";
        /// mknod(2), also of sockets.
        InodeMknod = 20, "inode_mknod";
        /// symlink(2).
        InodeSymlink = 21, "inode_symlink";
        /// truncate(2), chmod(2), chown(2), utimensat(2).
        InodeSetattr = 22, "inode_setattr";
        /// setxattr(2).
        InodeSetxattr = 23, "inode_setxattr";
        /// removexattr(2).
        InodeRemovexattr = 24, "inode_removexattr";
        /// An access control list is set.
        InodeSetAcl = 25, "inode_set_acl";
        /// One is removed.
        InodeRemoveAcl = 26, "inode_remove_acl";
        /// Attributes of files by ioctl(2): chattr(1).
        FileIoctl = 27, "file_ioctl";
        /// The same by programs of 32 bits.
        FileIoctlCompat = 28, "file_ioctl_compat";
        /// file_setattr(2).
        InodeFileSetattr = 29, "inode_file_setattr";
        /// execve(2).
        BprmCheckSecurity = 30, "bprm_check_security";
        /// mount(2).
        SbMount = 31, "sb_mount";
        /// umount(2).
        SbUmount = 32, "sb_umount";
        /// pivot_root(2).
        SbPivotroot = 34, "sb_pivotroot";
        /// move_mount(2).
        MoveMount = 35, "move_mount";
        /// What the kernel's lockdown speaks of.
        LockedDown = 36, "locked_down";
        /// A sysctl is written.
        Sysctl = 37, "sysctl";
        /// read(2) and write(2).
        FilePermission = 38, "file_permission";
        /// A file is mapped to be executed.
        MmapFile = 39, "mmap_file";
        /// A module or kernel from memory.
        KernelLoadData = 40, "kernel_load_data";
        /// A module or kernel from a file.
        KernelReadFile = 41, "kernel_read_file";
        /// A signal by F_SETOWN of fcntl(2).
        FileSendSigiotask = 42, "file_send_sigiotask";
        /// perf_event_open(2).
        PerfEventAlloc = 43, "perf_event_alloc";
        /// A file system gets other options.
        SbRemount = 44, "sb_remount";
        /// A mark of fanotify(7) or inotify(7).
        PathNotify = 45, "path_notify";
        /// A lock of flock(2) or fcntl(2), and a lease.
        FileLock = 46, "file_lock";
    }
}

numbered! {
    /// What a file rule speaks of: `enum ic_file_op`.
    FileOp {
        /// Opening it to read, and listing a directory.
        Read = 0, "read";
        /// Opening it to write, and truncate(2).
        Write = 1, "write";
        /// A new name in a directory, of whatever kind of file.
        Create = 2, "create";
        /// Taking a name away, also by a rename over it.
        Delete = 3, "delete";
        /// Giving it another name.
        Rename = 4, "rename";
        /// Giving it one more name.
        Link = 5, "link";
        /// Mode, owner, times, extended attributes, access control lists, flags.
        Metadata = 6, "metadata";
        /// execve(2), or mapping it to be executed.
        Execute = 7, "execute";
        /// Mounting over it, unmounting what it lies on. No rule's: part of every one that denies.
        Mount = 8, "mount";
    }
}

numbered! {
    /// What became of an attempt: `enum ic_sentinel_verdict`.
    SentinelVerdict {
        /// Refused.
        Denied = 1, "denied";
        /// Let go on, and told of.
        Logged = 2, "logged";
        /// A secret was taken: its bearer is trusted.
        Granted = 3, "granted";
        /// A secret was not.
        Refused = 4, "refused";
    }
}

/// [`Mark::flags`]: the process is trusted.
pub const MARK_TRUSTED: u32 = 1;
/// [`Mark::flags`]: the agent's program, started as agents are: it may read the secret, and present it.
pub const MARK_CANDIDATE: u32 = 2;
/// [`Mark::flags`]: a child of a trusted process, until it executes something.
pub const MARK_CHILD: u32 = 4;
/// [`Sentinel::launch`]: PID 1 starts agents.
pub const LAUNCH_INIT: u32 = 1;
/// [`Sentinel::launch`]: trusted processes start agents.
pub const LAUNCH_TRUSTED: u32 = 2;
/// Bit of Sentinel's own rule on the directories that mounts with guarded files lie on.
pub const OWN_MOUNTS: u32 = 58;
/// Bit of Sentinel's own rule on the agent's cgroup.
pub const OWN_GROUP: u32 = 59;
/// Bit of that on the agent's executable.
pub const OWN_EXECUTABLE: u32 = 60;
/// Bit of that on what the executable maps.
pub const OWN_CODE: u32 = 61;
/// Bit of that on where the secret is.
pub const OWN_STATE: u32 = 62;
/// Bit of that on pins.
pub const OWN_PINS: u32 = 63;
/// [`SecretVal::flags`]: for an agent that was restarted: candidates alone, and as often as it takes to
/// have another.
pub const SECRET_RESTART: u32 = 1;
/// [`Label::flags`]: the way to something that is guarded leads through it.
pub const LABEL_PATH_COMPONENT: u32 = 1;
/// [`Exemption::may`]: may send signals to trusted processes, and give them other limits.
pub const MAY_KILL: u32 = 1;
/// [`Exemption::may`]: may trace trusted processes.
pub const MAY_TRACE: u32 = 2;
/// [`Exemption::may`]: may load programs that the gate refuses.
pub const MAY_LOAD: u32 = 4;
/// [`Exemption::may`]: may mount over what is guarded, and unmount it.
pub const MAY_MOUNT: u32 = 8;
/// [`Exemption::may`]: may move processes between cgroups.
pub const MAY_GROUP: u32 = 16;
/// [`Exemption::may`]: may what PID 1 may, where that has forked it.
pub const MAY_MANAGE: u32 = 32;

/// [`Sentinel::refuse`]: the kernel's memory, and probes: what lockdown calls confidentiality.
pub const REFUSE_MEMORY: u32 = 1;
/// [`Sentinel::refuse`]: modules, but from files that no other process may change.
pub const REFUSE_MODULES: u32 = 2;
/// [`Sentinel::refuse`]: other kernels by kexec(8).
pub const REFUSE_KEXEC: u32 = 4;
/// [`Sentinel::refuse`]: commands to disks that guarded files lie on.
pub const REFUSE_DISKS: u32 = 8;
/// [`Sentinel::refuse`]: the device mapper, where guarded files lie on what it maps.
pub const REFUSE_MAPPER: u32 = 16;
/// Of keys of volumes, which are device numbers of the kernel's: it is a character device.
pub const VOLUME_CHARACTER: u32 = 0x8000_0000;
/// Of these, but misc devices: whatever minor it has.
pub const VOLUME_ANY_MINOR: u32 = 0xf_ffff;

/// `struct ic_sentinel`: what is said once, of the whole instance.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout,
)]
#[repr(C)]
pub struct Sentinel {
    /// Bit 0: which half of labels and policies is in force. Above: the epoch of their meaning. From bit
    /// [`RENAME_SHIFT`] on: how many directories are being moved, and nothing is cached meanwhile.
    pub word: u64,
    /// Bit n: programs of type n are refused.
    pub gate: u64,
    /// Of others than those: they are reported.
    pub gate_log: u64,
    /// 1: others are refused.
    pub is_armed: u32,
    /// The thread that `canary_hook` refuses, whatever it does; 0: none.
    pub canary: u32,
    /// A [`SentinelHook`].
    pub canary_hook: u32,
    /// The thread whose maps and programs, opened by id, are guarded from then on.
    pub adopting: u32,
    /// [`REFUSE_MEMORY`] and its like.
    pub refuse: u32,
    /// The inode's number of the agent's.
    pub mount_namespace: u32,
    /// Alarms that found no room.
    pub lost: u64,
    /// The cgroup that the agent is started in, by id; 0: any.
    pub group: u64,
    /// Marks of candidates so far.
    pub candidates: u32,
    /// [`LAUNCH_INIT`] and its like.
    pub launch: u32,
    /// Number of the mount that is the first agent's root.
    pub root_mount: u32,
    /// seccomp(2) filters that it had.
    pub filters: u32,
    /// Types of perf events that are kprobes and uprobes; 0: not known.
    pub probes: [u32; 2],
    /// Until then signals to trusted processes are let through, CLOCK_BOOTTIME.
    pub open_until_ns: u64,
}
const _: () = assert!(size_of::<Sentinel>() == 96);

/// `struct ic_secret_key`: a secret, as the words that prctl(2) takes.
#[derive(Clone, Copy, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct SecretKey {
    /// Its words.
    pub word: [u64; 4],
}
const _: () = assert!(size_of::<SecretKey>() == SENTINEL_SECRET);

/// Says nothing of it.
impl std::fmt::Debug for SecretKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("SecretKey")
    }
}

/// `struct ic_secret_val`: what a secret gives its bearer.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout,
)]
#[repr(C)]
pub struct SecretVal {
    /// What its bearer executes; [`FileId::NONE`]: anything.
    pub exe: FileId,
    /// [`Mark::flags`] that its bearer gets.
    pub mark: u32,
    /// [`SECRET_RESTART`].
    pub flags: u32,
}
const _: () = assert!(size_of::<SecretVal>() == 24);

/// `struct ic_mark`: a process that is trusted.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout,
)]
#[repr(C)]
pub struct Mark {
    /// When it began, `CLOCK_BOOTTIME`.
    pub start_ns: u64,
    /// [`MARK_TRUSTED`].
    pub flags: u32,
    /// Zero.
    #[doc(hidden)]
    pub _pad: u32,
}
const _: () = assert!(size_of::<Mark>() == 16);

/// `struct ic_label`: what is known of a file or directory, by the two halves of [`Sentinel::word`].
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout,
)]
#[repr(C)]
pub struct Label {
    /// Bit n: rule n covers it.
    pub own: [u64; 2],
    /// And what is in it, at any depth.
    pub below: [u64; 2],
    /// [`LABEL_PATH_COMPONENT`].
    pub flags: [u32; 2],
    /// Bit n: rules cover names of n, n + 32 … bytes in it.
    pub names: [u32; 2],
}
const _: () = assert!(size_of::<Label>() == 48);

/// `struct ic_name_key`: a name in a directory.
#[derive(
    Clone,
    Copy,
    Debug,
    Default,
    PartialEq,
    Eq,
    PartialOrd,
    Ord,
    FromBytes,
    IntoBytes,
    Immutable,
    KnownLayout,
)]
#[repr(C)]
pub struct NameKey {
    /// The directory.
    pub dir: FileId,
    /// Over the name; another name with the same hash is covered, too.
    pub hash: u64,
    /// Bytes of the name.
    pub len: u32,
    /// Zero.
    #[doc(hidden)]
    pub _pad: u32,
}
const _: () = assert!(size_of::<NameKey>() == 32);

impl NameKey {
    /// `ic_name_hash()`.
    pub fn new(dir: FileId, name: &[u8]) -> Self {
        let mut hash = name.len() as u64;
        for chunk in name.chunks(8) {
            let mut word = [0; 8];
            word[..chunk.len()].copy_from_slice(chunk);
            hash = (hash ^ u64::from_ne_bytes(word)).wrapping_mul(0x9e37_79b9_7f4a_7c15);
            hash ^= hash >> 32;
        }
        Self { dir, hash, len: name.len() as u32, _pad: 0 }
    }
}

/// `struct ic_name_val`: what rules cover a name, or speak of directories of a device.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout,
)]
#[repr(C)]
pub struct NameVal {
    /// By the two halves.
    pub rules: [u64; 2],
}
const _: () = assert!(size_of::<NameVal>() == 16);

/// `struct ic_file_policy`: the file rules of a half.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout,
)]
#[repr(C)]
pub struct FilePolicy {
    /// Bit n: rule n speaks of this [`FileOp`].
    pub op: [u64; 9],
    /// Those that deny.
    pub deny: u64,
    /// Those that tell.
    pub log: u64,
    /// Those that cover what is in a directory.
    pub below: u64,
}
const _: () = assert!(size_of::<FilePolicy>() == 96);

/// `struct ic_preopened_fd`: a file that is covered, and that somebody had open for writing before.
#[derive(
    Clone,
    Copy,
    Debug,
    Default,
    PartialEq,
    Eq,
    serde::Serialize,
    FromBytes,
    IntoBytes,
    Immutable,
    KnownLayout,
)]
#[repr(C)]
pub struct PreopenedDescriptor {
    /// Bit n: rule n denies writing to it.
    pub rules: u64,
    /// Who.
    pub pid: u32,
    /// By which descriptor.
    pub fd: u32,
}
const _: () = assert!(size_of::<PreopenedDescriptor>() == 16);

/// `struct ic_exemptions`: what an executable may do in spite of rules.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout,
)]
#[repr(C)]
pub struct Exemption {
    /// Bit n: rule n does not bind it.
    pub rules: [u64; 2],
    /// [`MAY_KILL`] and its like.
    pub may: [u32; 2],
}
const _: () = assert!(size_of::<Exemption>() == 24);

/// `struct ic_sentinel_ev`: what somebody tried, as the ring buffer reports it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct SentinelEvent {
    /// The common head.
    pub hdr: EventHeader,
    /// Alarms that found no room before this one.
    pub lost: u64,
    /// Id of the actor's cgroup.
    pub cgroup: u64,
    /// `CLOCK_BOOTTIME` of the actor's execve(2).
    pub exec_ns: u64,
    /// Bit n: file rule n said so.
    pub rules: u64,
    /// What the actor executes.
    pub exe: FileId,
    /// What its parent executed.
    pub parent: FileId,
    /// What it was about; [`FileId::NONE`]: no file.
    pub file: FileId,
    /// Thread group.
    pub pid: u32,
    /// Thread.
    pub tid: u32,
    /// Thread group that forked it.
    pub ppid: u32,
    /// Real user.
    pub uid: u32,
    /// Real group.
    pub gid: u32,
    /// A process, an id of a map, program or link, or a program's type.
    pub target: u32,
    /// A command of bpf(2), a signal, attributes.
    pub detail: u32,
    /// A [`SentinelHook`].
    pub hook: u8,
    /// A [`FileOp`].
    pub op: u8,
    /// A [`SentinelVerdict`].
    pub verdict: u8,
    /// Zero.
    pub flags: u8,
    /// The name that the thread gives itself, zero behind its end.
    pub comm: [u8; 16],
    /// Bytes of `path`.
    pub path_len: u16,
    /// 1: directories are missing at its end.
    pub path_cut: u16,
    /// Zero.
    #[doc(hidden)]
    pub _pad: u32,
    /// The names from the file up to its file system's root, each ended by a zero.
    pub path: [u8; SENTINEL_PATH],
}
const _: () = assert!(size_of::<SentinelEvent>() == 664);
