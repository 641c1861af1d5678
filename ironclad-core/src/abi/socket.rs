//! Processes, sockets and their rules: `ironclad/abi/process.h` and `ironclad/abi/socket.h`.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use super::EventHeader;

/// [`Process::flags`]: it ran before Ironclad; its executable was read from its memory map.
pub const PROCESS_SEEDED: u32 = 1;
/// [`Process::flags`]: its file had no name when it was executed.
pub const PROCESS_UNLINKED: u32 = 2;
/// [`Process::flags`]: its fork(2) was seen, so that [`Process::ppid`] is not who adopted it.
pub const PROCESS_FORKED: u32 = 4;

/// What a process asks for: `enum ic_sock_op`.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize, serde::Deserialize,
)]
#[serde(rename_all = "kebab-case")]
#[repr(u8)]
pub enum SocketOp {
    /// connect(2), or a first datagram with TCP Fast Open.
    Connect = 0,
    /// A datagram from a socket that is not connected.
    Send = 1,
    /// bind(2): who may listen.
    Bind = 2,
    /// socket(2), of what has no other hook: raw sockets, ICMP, SCTP, packet sockets and the like.
    Create = 3,
}

impl SocketOp {
    /// Every operation, in the order of their numbers.
    pub const ALL: [Self; 4] = [Self::Connect, Self::Send, Self::Bind, Self::Create];

    /// The operation with this number.
    pub fn from_abi(number: u8) -> Option<Self> {
        Self::ALL.get(usize::from(number)).copied()
    }

    /// The name in tables and logs.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Connect => "connect",
            Self::Send => "send",
            Self::Bind => "bind",
            Self::Create => "create",
        }
    }
}

impl std::fmt::Display for SocketOp {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name())
    }
}

/// Dimension: operation and protocol.
pub const DIM_KIND: usize = 0;
/// Dimension: the other's address; of bind(2), our own.
pub const DIM_WHERE: usize = 1;
/// Dimension: the port that belongs to the address.
pub const DIM_PORT: usize = 2;
/// Dimension: the executable.
pub const DIM_EXE: usize = 3;
/// Dimension: the real user.
pub const DIM_UID: usize = 4;
/// Dimension: the executable of the process that forked it.
pub const DIM_PARENT: usize = 5;
/// Dimension: the real group.
pub const DIM_GID: usize = 6;
/// Dimension: the cgroup.
pub const DIM_CGROUP: usize = 7;
/// Dimension: the name that a thread gives itself.
pub const DIM_COMM: usize = 8;
/// The first of [`SOCK_ANCESTRIES`] dimensions: what it or a ancestor was before.
pub const DIM_ANCESTRY: usize = 9;
/// How many dimensions there are.
pub const DIM_MAX: usize = 11;

/// Rules of one policy that decide.
pub const SOCK_RULES_MAX: usize = 12_288;
/// Rules of one policy that report and decide nothing.
pub const SOCK_LOGS_MAX: usize = 64;
/// Rows of one policy, whose numbers have 16 bits.
pub const SOCK_ROWS_MAX: u32 = 65_536;
/// Cells of 32 ports each.
pub const SOCK_PORT_CELLS: usize = 2048;
/// Depths at which rules of a policy name cgroups.
pub const SOCK_LEVELS_MAX: usize = 8;
/// Protocols that a rule can name.
pub const SOCK_PROTOCOLS: usize = 256;
/// Dimensions of ancestry, of eight ancestries each.
pub const SOCK_ANCESTRIES: usize = 2;
/// Moments at which a file is known to have had one content.
pub const SOCK_CTIMES: usize = 4;
/// Cgroups whose packet sockets are asked for.
pub const SOCK_CGROUPS_MAX: u32 = 256;
/// The protocol of sockets of families that reach others without IP: packet sockets foremost.
pub const SOCK_PROTO_PACKET: u8 = 254;
/// The protocol of raw sockets, and of those that have no number below.
pub const SOCK_PROTO_RAW: u8 = 255;

/// The user and the group that threads of the kernel's are: no process can be these.
pub const SOCK_KERNEL: u32 = u32::MAX;

/// [`SockRule::action`].
pub const SOCK_ALLOW: u8 = 0;
/// [`SockRule::action`].
pub const SOCK_DENY: u8 = 1;

/// [`SockRule::flags`]: what it allows is reported too.
pub const SOCK_RULE_REPORT: u8 = 1;
/// [`SockRule::flags`]: what it would deny is counted and allowed.
pub const SOCK_RULE_DRY: u8 = 2;
/// [`SockRule::flags`]: it takes from a bucket, and denies when that is empty.
pub const SOCK_RULE_LIMITED: u8 = 4;

/// Why a process got its answer: `enum ic_sock_reason`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, serde::Serialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
#[repr(u8)]
pub enum SocketReason {
    /// No rule matched.
    Default = 0,
    /// A rule decided.
    Rule = 1,
    /// The rule's bucket was empty.
    Limit = 2,
    /// A source route (a routing header of IPv6, LSRR or SSRR of IPv4), where rules ask of addresses:
    /// nobody was asked for its first stop. Either a packet that names one ([`SocketOp::Send`]), or
    /// a socket that was to be told one ([`SocketOp::Create`], without an address).
    Route = 3,
}

impl SocketReason {
    /// The reason with this number.
    pub fn from_abi(number: u8) -> Option<Self> {
        [Self::Default, Self::Rule, Self::Limit, Self::Route].get(usize::from(number)).copied()
    }
}

/// [`SockEvent::flags`]: a dry run; the verdict is what would have been.
pub const SOCK_EV_DRY_RUN: u8 = 1;
/// [`SockEvent::flags`]: reported by a rule that decides nothing.
pub const SOCK_EV_LOG: u8 = 2;
/// [`SockEvent::flags`]: nothing was known of the process.
pub const SOCK_EV_UNIDENTIFIED: u8 = 4;
/// [`SockEvent::flags`]: the address was written as IPv4-mapped IPv6.
pub const SOCK_EV_MAPPED: u8 = 8;

/// `struct ic_file_id`: a file, whatever its name, as the kernel counts. All zero: none.
#[derive(
    Clone,
    Copy,
    Debug,
    Default,
    PartialEq,
    Eq,
    PartialOrd,
    Ord,
    Hash,
    serde::Serialize,
    FromBytes,
    IntoBytes,
    Immutable,
    KnownLayout,
)]
#[repr(C)]
pub struct FileId {
    /// Inode number.
    pub ino: u64,
    /// Device of the superblock: major << 20 | minor.
    pub dev: u32,
    /// Tells a file from an earlier one with its number.
    pub generation: u32,
}
const _: () = assert!(size_of::<FileId>() == 16);

impl FileId {
    /// No file.
    pub const NONE: Self = Self { ino: 0, dev: 0, generation: 0 };

    /// As a key of a map holds it.
    pub const fn words(self) -> [u64; 2] {
        [self.ino, (self.dev as u64) << 32 | self.generation as u64]
    }
}

/// `struct ic_process`: a process, by its thread group.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout,
)]
#[repr(C)]
pub struct Process {
    /// What it executes: of a script, the interpreter.
    pub exe: FileId,
    /// What the process executed that forked it, at that moment.
    pub parent: FileId,
    /// `CLOCK_BOOTTIME` of the execve(2) that it runs since. Where that was not seen, 0 of what ran before,
    /// and else of the moment when it was looked at.
    pub exec_ns: u64,
    /// The same of the process that forked it, at that moment.
    pub parent_exec_ns: u64,
    /// [`OpenFile::changed_ns`] of its file at that moment.
    pub exe_changed_ns: u64,
    /// `CLOCK_BOOTTIME` of its fork(2): its number may have been another's before.
    pub start_ns: u64,
    /// Bit n: before what it is now, it or a ancestor was an executable that begins ancestry n.
    pub ancestry: u64,
    /// A row of the policy in force; the upper half is its epoch.
    pub exe_row: u64,
    /// Likewise.
    pub parent_row: u64,
    /// The row of a user: the epoch's lowest 16 bits, the row, the user.
    pub user_row: u64,
    /// The epoch in which `user_row` was last cleared.
    pub user_epoch: u32,
    /// How the kernel numbers its execve(2), from PID 1 on: the lower half.
    pub exec_id: u32,
    /// Thread group that forked it.
    pub ppid: u32,
    /// [`PROCESS_SEEDED`] and its like.
    pub flags: u32,
}
const _: () = assert!(size_of::<Process>() == 112);

/// `struct ic_process_ctl`: what the programs that keep the table of processes are told.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout,
)]
#[repr(C)]
pub struct ProcessCtl {
    /// The one of several loaded copies of the programs that writes.
    pub owner: u64,
    /// Ancestries that the iterator takes from every process.
    pub forget: u64,
}
const _: () = assert!(size_of::<ProcessCtl>() == 16);

/// `struct ic_exe_name`: how an executable was called. A label: it proves nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct ExeName {
    /// Ended by a zero. What fills it may have been cut.
    pub path: [u8; 256],
}
const _: () = assert!(size_of::<ExeName>() == 256);

/// `struct ic_open_file`: what the iterator over open files tells of one.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout,
)]
#[repr(C)]
pub struct OpenFile {
    /// Which.
    pub file: FileId,
    /// When content or inode were last changed (ctime), in nanoseconds as the file system tells;
    /// never 0.
    pub changed_ns: u64,
    /// The descriptor.
    pub fd: u32,
    /// How many names it has.
    pub nlink: u32,
    /// How many have it open for writing; below 0 where it is executed.
    pub writers: i32,
    /// Zero.
    #[doc(hidden)]
    pub _pad: u32,
}
const _: () = assert!(size_of::<OpenFile>() == 40);

/// `struct ic_open_socket`: what the iterator over open sockets tells of one.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout,
)]
#[repr(C)]
pub struct OpenSocket {
    /// The descriptor.
    pub fd: u32,
    /// Not 0 where this kernel may forget to which cgroup a new socket belongs.
    pub may_lose_group: u8,
    /// Not 0 where it has forgotten that of this one.
    pub has_lost_group: u8,
    /// Zero.
    #[doc(hidden)]
    pub _pad: u16,
}
const _: () = assert!(size_of::<OpenSocket>() == 8);

/// `struct ic_sock_row`: the rules that one answer of a dimension satisfies.
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct SockRow {
    /// Bit w: word w has any bit.
    pub summary: [u64; 3],
    /// Bit n: rule n of those that report and decide nothing.
    pub logs: u64,
    /// Bit r: rule r of those that decide.
    pub word: [u64; 192],
}
const _: () = assert!(size_of::<SockRow>() == 1568);

impl SockRow {
    /// The row of no rule.
    pub const NONE: Self = Self { summary: [0; 3], logs: 0, word: [0; 192] };
}

/// `struct ic_sock_policy`: the socket rules of a slot, but for its tables.
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct SockPolicy {
    /// [`Generation::number`](super::Generation::number); 0: none is loaded.
    pub generation: u64,
    /// Changes with what executables mean; no two policies of an instance have the same.
    pub epoch: u32,
    /// Bit d: a rule asks of dimension d.
    pub dims: u32,
    /// Words of the summary that say anything.
    pub summary: u32,
    /// How many of `level` are in use.
    pub levels: u32,
    /// First cell of the flat table's IPv4 root, or all ones.
    pub root4: u32,
    /// First cell of the flat table's IPv6 root, or all ones.
    pub root6: u32,
    /// Events a second of what no rule decided.
    pub rate: u32,
    /// Of what no rule decided, by [`SocketOp`].
    pub verdict: [u8; 4],
    /// 1: nothing is denied.
    pub dry_run: u8,
    /// Rules that report and decide nothing.
    pub logs: u8,
    /// Bit n: a rule asks of ancestry n.
    pub ancestries: u16,
    /// Rules that decide.
    pub rules: u32,
    /// Depths at which rules name cgroups, the deepest first.
    pub level: [u8; 8],
    /// First row of each dimension: that of what no rule names.
    pub none: [u32; 11],
    /// 1: packet sockets are asked for.
    pub packets: u8,
    /// Zero.
    #[doc(hidden)]
    pub _pad: [u8; 3],
    /// Rows, by operation and protocol.
    pub kind: [u16; 1024],
}
const _: () = assert!(size_of::<SockPolicy>() == 2152);

impl SockPolicy {
    /// That of an empty slot.
    pub const NONE: Self = Self {
        generation: 0,
        epoch: 0,
        dims: 0,
        summary: 0,
        levels: 0,
        root4: u32::MAX,
        root6: u32::MAX,
        rate: 0,
        verdict: [0; 4],
        dry_run: 0,
        logs: 0,
        ancestries: 0,
        rules: 0,
        level: [0; 8],
        none: [0; 11],
        packets: 0,
        _pad: [0; 3],
        kind: [0; 1024],
    };
}

/// `struct ic_sock_id_key`: a file, user, group, cgroup or name that a rule names.
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
pub struct SockIdKey {
    /// The lower half of the policy's.
    pub generation: u32,
    /// Which dimension.
    pub dim: u32,
    /// What: see [`FileId::words`]; of names, their bytes.
    pub value: [u64; 2],
}
const _: () = assert!(size_of::<SockIdKey>() == 24);

/// `struct ic_sock_id_val`: what it means.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout,
)]
#[repr(C)]
pub struct SockIdVal {
    /// Of files: whoever was executed at this moment or later is an unidentified process; 0: none.
    pub until_ns: u64,
    /// Of executables: a process whose file had one of these [`OpenFile::changed_ns`] at its execve(2)
    /// has `row`, any other `changed_row`. Where the first is 0, any has `row`.
    pub changed_ns: [u64; SOCK_CTIMES],
    /// Its row.
    pub row: u32,
    /// See `changed_ns`.
    pub changed_row: u32,
}
const _: () = assert!(size_of::<SockIdVal>() == 48);

/// `struct ic_sock_rule`: what a rule does.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout,
)]
#[repr(C)]
pub struct SockRule {
    /// One token.
    pub interval_ns: u64,
    /// All tokens of a full bucket.
    pub burst_ns: u64,
    /// 1 + its place in the policy.
    pub number: u32,
    /// Where its counters are.
    pub slot: u32,
    /// Which bucket it takes from.
    pub bucket: u32,
    /// Events a second.
    pub report_rate: u32,
    /// [`SOCK_ALLOW`] or [`SOCK_DENY`].
    pub action: u8,
    /// [`SOCK_RULE_REPORT`] and its like.
    pub flags: u8,
    /// How many rules that only report come before it.
    pub logs: u8,
    /// Zero.
    #[doc(hidden)]
    pub _pad: [u8; 5],
}
const _: () = assert!(size_of::<SockRule>() == 40);

/// `struct ic_sock_ports`: the rows of 32 ports.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout,
)]
#[repr(C)]
pub struct SockPorts {
    /// Number of the row, counted from the first row of ports.
    pub row: [u16; 32],
}
const _: () = assert!(size_of::<SockPorts>() == 64);

/// `struct ic_sock_stats`: decisions of a rule.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout,
)]
#[repr(C)]
pub struct SockStats {
    /// Allowed.
    pub allowed: u64,
    /// Denied by the rule's action.
    pub denied: u64,
    /// Denied because its bucket was empty.
    pub limited: u64,
    /// Would have been denied.
    pub dry: u64,
    /// Reported by a rule that decides nothing.
    pub logged: u64,
}
const _: () = assert!(size_of::<SockStats>() == 40);

/// `struct ic_bucket`: tokens, shared by all CPUs.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout,
)]
#[repr(C)]
pub struct Bucket {
    /// `CLOCK_MONOTONIC`: when it will be full again.
    pub full_ns: u64,
    /// A `bpf_spin_lock`.
    pub lock: u32,
    /// Zero.
    #[doc(hidden)]
    pub _pad: u32,
}
const _: () = assert!(size_of::<Bucket>() == 16);

/// `struct ic_sock_ev`: a decision, as the ring buffer reports it.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout,
)]
#[repr(C)]
pub struct SockEvent {
    /// The common head.
    pub hdr: EventHeader,
    /// [`Generation::number`](super::Generation::number) of the policy that decided.
    pub generation: u64,
    /// Id of the process's cgroup: the inode number of its directory.
    pub cgroup: u64,
    /// [`Process::exec_ns`].
    pub exec_ns: u64,
    /// [`Process::ancestry`].
    pub ancestry: u64,
    /// [`Process::exe`].
    pub exe: FileId,
    /// [`Process::parent`].
    pub parent: FileId,
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
    /// 1 + the rule's number in its policy, 0 where none matched.
    pub rule: u32,
    /// Network byte order; IPv4 in the first four bytes.
    pub addr: [u8; 16],
    /// The name that the thread gives itself, zero behind its end.
    pub comm: [u8; 16],
    /// Network byte order.
    pub port: [u8; 2],
    /// 4, 6, or 0 where the operation has no address.
    pub family: u8,
    /// A [`SocketOp`].
    pub op: u8,
    /// IP protocol, [`SOCK_PROTO_PACKET`] or [`SOCK_PROTO_RAW`].
    pub proto: u8,
    /// [`VERDICT_PASS`](super::VERDICT_PASS) or [`VERDICT_DROP`](super::VERDICT_DROP).
    pub verdict: u8,
    /// A [`SocketReason`].
    pub reason: u8,
    /// [`SOCK_EV_DRY_RUN`] and its like.
    pub flags: u8,
}
const _: () = assert!(size_of::<SockEvent>() == 144);
