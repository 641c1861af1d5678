// Made by `cargo xtask abi` of bpf-src/include/ironclad/abi: do not edit.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

// base.h
//
// The ABI between the eBPF programs and the Rust crates. These headers are its only source:
// `cargo xtask abi` makes ironclad-core's `abi` module of them. It understands enums, structs and
// unions with a comment on each member, and refuses anything else. A test compares the result with
// the objects' BTF.

/// Names the pin directory. Raised when a pinned map changes its meaning.
pub const VERSION: u32 = 5;
/// "IRON": the first word of an initialised [`State`].
pub const MAGIC: u32 = 0x49524f4e;

// enum ic_ev_kind: The kind of an event in a ring buffer.

/// [`ShieldEvent`].
pub const EV_SHIELD: u16 = 1;
/// [`SockEvent`].
pub const EV_SOCKET: u16 = 2;
/// [`SentinelEvent`].
pub const EV_SENTINEL: u16 = 3;

/// The head of every event in a ring buffer.
///
/// `struct ic_event_header` in C.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout,
)]
#[repr(C)]
pub struct EventHeader {
    /// `EV_*`.
    pub kind: u16,
    /// Bytes of the event, this head included.
    pub len: u16,
    /// The CPU that wrote the event.
    pub cpu: u32,
    /// `CLOCK_BOOTTIME`, nanoseconds.
    pub time_ns: u64,
}
const _: () = assert!(size_of::<EventHeader>() == 16);

// flat.h
//
// The flat table: longest-prefix match without pointers, compiled in user space and read-only here.
//
// One array map of 64-byte cells (one cache line each) holds the whole table. A lookup follows
// 32-bit references. The top three bits of a reference are its kind, the other 29 an index:
//
//   leaf    index of an entry; 0 means that no prefix covers this address
//   runs    index of a half cell (32 bytes): a node of at most six runs of equal references
//   wide    index of a cell: a node of at most twelve runs
//   bitmap  index of a cell: a node of up to 256 runs, its references in the cells behind it
//   skip    index of a half cell: compares many bits at once where the tree would be one long path
//
// A node decides eight bits of the address. A root decides the first sixteen by direct index:
// 65,536 slots in 8,192 cells. Beside its reference each slot has a bit for each of the 32 ranges
// that the next five bits distinguish: whether a prefix touches the range at all. Most addresses
// that no prefix covers are answered by that one word, and the lookup reads no node.

// enum ic_flat: References and roots.

/// The index is that of an entry, 0 where no prefix matches.
pub const FLAT_KIND_LEAF: u32 = 0;
/// The index is that of a half cell, a [`FlatRuns`].
pub const FLAT_KIND_RUNS: u32 = 1;
/// The index is that of a cell, a [`FlatWide`].
pub const FLAT_KIND_WIDE: u32 = 2;
/// The index is that of a cell, a [`FlatBitmap`].
pub const FLAT_KIND_BITMAP: u32 = 3;
/// The index is that of a half cell, a [`FlatSkip`].
pub const FLAT_KIND_SKIP: u32 = 4;
/// The lowest bit of a reference's kind.
pub const FLAT_KIND_SHIFT: u32 = 29;
/// The bits of a reference that are its index.
pub const FLAT_INDEX_MASK: u32 = 0x1fffffff;
/// Cells of a root.
pub const FLAT_ROOT_CELLS: u32 = 8192;

/// Runs of a [`FlatRuns`].
pub const FLAT_RUNS_MAX: usize = 6;
/// Runs of a [`FlatWide`].
pub const FLAT_WIDE_MAX: usize = 12;

/// What a root holds for one value of the first sixteen bits of an address.
///
/// `struct ic_flat_slot` in C.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout,
)]
#[repr(C)]
pub struct FlatSlot {
    /// Decides the first sixteen bits.
    pub reference: u32,
    /// Bit b is clear where no prefix covers any address whose next five bits are b.
    pub touched: u32,
}
const _: () = assert!(size_of::<FlatSlot>() == 8);

/// A cell as sixteen references: rows of bitmap nodes' values.
///
/// `struct ic_flat_row` in C.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout,
)]
#[repr(C)]
pub struct FlatRow {
    /// The references.
    pub refs: [u32; 16],
}
const _: () = assert!(size_of::<FlatRow>() == 64);

/// A node of at most six runs of equal references, half a cell. With `refs` first, any index of
/// three bits stays within the half cell.
///
/// `struct ic_flat_runs` in C.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout,
)]
#[repr(C)]
pub struct FlatRuns {
    /// The references of the runs.
    pub refs: [u32; FLAT_RUNS_MAX],
    /// Seven lanes of nine bits, lane 0 lowest: the first byte value of run i + 1, or 256 where
    /// there is no such run. The number of lanes at or below a byte is its run.
    pub starts: u64,
}
const _: () = assert!(size_of::<FlatRuns>() == 32);

/// A node of at most twelve runs of equal references, one cell. Most nodes of a table of a hundred
/// thousand prefixes and more are of this size, and take one cache line.
///
/// `struct ic_flat_wide` in C.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout,
)]
#[repr(C)]
pub struct FlatWide {
    /// The references of the runs.
    pub refs: [u32; FLAT_WIDE_MAX],
    /// Twice seven lanes of nine bits, as in [`FlatRuns`].
    pub starts: [u64; 2],
}
const _: () = assert!(size_of::<FlatWide>() == 64);

/// A node of up to 256 runs, one cell.
///
/// `struct ic_flat_bitmap` in C.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout,
)]
#[repr(C)]
pub struct FlatBitmap {
    /// Bit b is set where byte value b begins a run; bit 0 never is. The number of set bits at or
    /// below a byte is its run.
    pub starts: [u64; 4],
    /// Set bits in the words before each word.
    pub rank: [u8; 4],
    /// The reference of run r is word `base + r` of the map seen as an array of 32-bit words.
    pub base: u32,
    /// Zero.
    #[doc(hidden)]
    pub _pad: [u64; 3],
}
const _: () = assert!(size_of::<FlatBitmap>() == 64);

/// A node that compares many bits at once, half a cell.
///
/// `struct ic_flat_skip` in C.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout,
)]
#[repr(C)]
pub struct FlatSkip {
    /// 64 bits of the address as a number.
    pub key: u64,
    /// The bits of `key` that count.
    pub mask: u64,
    /// The reference to follow where `(address ^ key) & mask` is zero.
    pub hit: u32,
    /// The leaf that answers elsewhere.
    pub miss: u32,
    /// 0: the first 64 bits of the address (IPv4: the upper half); 1: the last 64 of IPv6.
    pub low: u32,
    /// The byte of the address that `hit` decides.
    pub depth: u32,
}
const _: () = assert!(size_of::<FlatSkip>() == 32);

// shield.h
//
// Shield: the maps, counters and events of the XDP firewall.

// enum ic_limit: Limits of a packet policy.

/// Addresses of a family in a [`Gateways`].
pub const GATEWAYS_MAX: usize = 8;
/// The policy in force and the one before or after it.
pub const SLOTS: usize = 2;
/// Rules with counters of their own.
pub const RULES_MAX: usize = 1024;
/// Distinct shapes of tuples in one policy.
pub const MASKS_MAX: usize = 32;
/// IPv6 extension headers followed in one packet.
pub const EXT_MAX: usize = 8;
/// VLAN tags followed in one packet.
pub const VLAN_MAX: usize = 2;

// enum ic_action: The action of an entry or tuple.

/// No action: another rule decides.
pub const ACTION_NONE: u8 = 0;
/// The packet is dropped.
pub const ACTION_DROP: u8 = 1;
/// The packet passes.
pub const ACTION_ALLOW: u8 = 2;

// enum ic_backend: The structure that holds the address sets of one family.

/// No address sets.
pub const BACKEND_NONE: u8 = 0;
/// The flat table.
pub const BACKEND_FLAT: u8 = 1;
/// The kernel's `LPM_TRIE`.
pub const BACKEND_LPM: u8 = 2;

numbered! {
    /// Why a packet got its verdict. Every packet counts under exactly one reason.
    ///
    /// `enum ic_reason` in C.
    #[non_exhaustive]
    Reason {
        /// No rule matched: the default action.
        Default = 0, "default";
        /// The source is a gateway.
        Gateway = 1, "gateway";
        /// An address set decided.
        Set = 2, "set";
        /// A tuple decided.
        Tuple = 3, "tuple";
        /// Address resolution passes.
        Arp = 4, "arp";
        /// IPv6 neighbour discovery passes.
        Neighbour = 5, "neighbour";
        /// Neither IP nor ARP.
        NonIp = 6, "non-ip";
        /// No whole Ethernet header. This and all later reasons are those of malformed packets.
        EthShort = 7, "eth-short";
        /// A VLAN tag is cut off.
        VlanShort = 8, "vlan-short";
        /// More than [`VLAN_MAX`] tags.
        VlanDeep = 9, "vlan-deep";
        /// The IPv4 header is cut off.
        Ip4Short = 10, "ip4-short";
        /// Version, header length or total length contradict.
        Ip4Header = 11, "ip4-header";
        /// The total length exceeds the frame.
        Ip4Length = 12, "ip4-length";
        /// The IPv6 header is cut off.
        Ip6Short = 13, "ip6-short";
        /// The version is not 6, or the source is an IPv4-mapped address.
        Ip6Header = 14, "ip6-header";
        /// The payload length exceeds the frame.
        Ip6Length = 15, "ip6-length";
        /// An IPv6 extension header is cut off.
        ExtShort = 16, "ext-short";
        /// More than [`EXT_MAX`] extension headers.
        ExtDeep = 17, "ext-deep";
        /// A hop-by-hop header that is not the first.
        ExtOrder = 18, "ext-order";
        /// A fragment that no sender makes: beyond 65,535 bytes, or empty.
        Fragment = 19, "fragment";
        /// The transport header is cut off, also in a first fragment.
        L4Short = 20, "l4-short";
        /// The transport header contradicts itself or the packet's length.
        L4Header = 21, "l4-header";
        /// An ARP packet is cut off.
        ArpShort = 22, "arp-short";
        /// At an interface without Ethernet headers: empty, or of an IP version neither 4 nor 6.
        IpVersion = 23, "ip-version";
    }
}
/// How many reasons there are.
pub const REASON_MAX: usize = 24;

/// Counters of packets: that of a reason and a verdict has the index 2 * reason + verdict.
pub const REASON_CELLS: usize = 48;

numbered! {
    /// A loss or failure that is not the verdict on a packet.
    ///
    /// `enum ic_loss` in C.
    #[non_exhaustive]
    Loss {
        /// An event found no room in the ring buffer.
        RingFull = 0, "ring-full";
        /// An event exceeded its rule's rate limit.
        SampledOut = 1, "sampled-out";
        /// A program found no policy and allowed the packet or socket.
        NoPolicy = 2, "no-policy";
        /// An entry found no room in a table, or a lookup that cannot fail did.
        Map = 3, "map";
        /// A process found no room in the process table.
        Process = 4, "process";
    }
}
/// How many kinds of loss there are.
pub const LOSS_MAX: usize = 5;

/// Packets and bytes, one of each per CPU.
///
/// `struct ic_stats` in C.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout,
)]
#[repr(C)]
pub struct Stats {
    /// Packets.
    pub packets: u64,
    /// Bytes of their frames.
    pub bytes: u64,
    /// Packets that a dry run would have dropped.
    pub dry_packets: u64,
    /// Bytes of their frames.
    pub dry_bytes: u64,
}
const _: () = assert!(size_of::<Stats>() == 32);

/// The action for one distinct prefix of a policy, and its count.
///
/// `struct ic_entry` in C.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout,
)]
#[repr(C)]
pub struct Entry {
    /// Packets that it decided or reported; every CPU adds to it.
    pub packets: u64,
    /// Slot of the deciding rule in `ic_rules`.
    pub rule: u16,
    /// Slot of the reporting rule, where `log` is 1.
    pub log_rule: u16,
    /// `ACTION_*`.
    pub action: u8,
    /// 1 where a log set covers the prefix too.
    pub log: u8,
    /// Zero.
    #[doc(hidden)]
    pub _pad: [u8; 2],
}
const _: () = assert!(size_of::<Entry>() == 16);

// enum ic_tuple_kind: The kind of a tuple.

/// IPv4.
pub const TUPLE_V4: u8 = 4;
/// IPv6.
pub const TUPLE_V6: u8 = 6;
/// Or-ed in for packets without ports: later fragments.
pub const TUPLE_FRAGMENT: u8 = 0x80;

/// Key of the tuple hash.
///
/// `struct ic_tuple_key` in C.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout,
)]
#[repr(C)]
pub struct TupleKey {
    /// Source address, network byte order; IPv4 in the first four bytes.
    pub src: [u8; 16],
    /// Destination address, network byte order; IPv4 in the first four bytes.
    pub dst: [u8; 16],
    /// Destination port, network byte order; 0 where any.
    pub dport: [u8; 2],
    /// IP protocol; 0 where any.
    pub proto: u8,
    /// `TUPLE_*`.
    pub kind: u8,
    /// Index of the mask that made this key.
    pub shape: u32,
}
const _: () = assert!(size_of::<TupleKey>() == 40);

/// Value of the tuple hash.
///
/// `struct ic_tuple_val` in C.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout,
)]
#[repr(C)]
pub struct TupleVal {
    /// Packets that it decided or reported.
    pub packets: u64,
    /// Slot of the deciding rule.
    pub rule: u16,
    /// Slot of the reporting rule, where `log` is 1.
    pub log_rule: u16,
    /// `ACTION_*`.
    pub action: u8,
    /// 1 where packets are reported too.
    pub log: u8,
    /// Zero.
    #[doc(hidden)]
    pub _pad: [u8; 2],
}
const _: () = assert!(size_of::<TupleVal>() == 16);

/// The bits of a packet that one shape of tuple compares.
///
/// `struct ic_tuple_mask` in C.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout,
)]
#[repr(C)]
pub struct TupleMask {
    /// Mask of the source address.
    pub src: [u8; 16],
    /// Mask of the destination address.
    pub dst: [u8; 16],
    /// All ones or zero.
    pub dport: [u8; 2],
    /// 0xff or zero.
    pub proto: u8,
    /// [`TUPLE_V4`] or [`TUPLE_V6`].
    pub kind: u8,
    /// Zero.
    #[doc(hidden)]
    pub _pad: u32,
}
const _: () = assert!(size_of::<TupleMask>() == 40);

/// Key of the `LPM_TRIE` back end, IPv4.
///
/// `struct ic_lpm4_key` in C.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout,
)]
#[repr(C)]
pub struct Lpm4Key {
    /// Bits of the prefix.
    pub prefixlen: u32,
    /// Network byte order.
    pub addr: [u8; 4],
}
const _: () = assert!(size_of::<Lpm4Key>() == 8);

/// Key of the `LPM_TRIE` back end, IPv6.
///
/// `struct ic_lpm6_key` in C.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout,
)]
#[repr(C)]
pub struct Lpm6Key {
    /// Bits of the prefix.
    pub prefixlen: u32,
    /// Network byte order.
    pub addr: [u8; 16],
}
const _: () = assert!(size_of::<Lpm6Key>() == 20);

/// Addresses that are never blocked. Unused ones are zero.
///
/// `struct ic_gateways` in C.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout,
)]
#[repr(C)]
pub struct Gateways {
    /// Addresses in `addr4`.
    pub count4: u32,
    /// Addresses in `addr6`.
    pub count6: u32,
    /// Network byte order.
    pub addr4: [[u8; 4]; GATEWAYS_MAX],
    /// Network byte order.
    pub addr6: [[u8; 16]; GATEWAYS_MAX],
}
const _: () = assert!(size_of::<Gateways>() == 168);

/// The policy in a slot.
///
/// `struct ic_generation` in C.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout,
)]
#[repr(C)]
pub struct Generation {
    /// Counts up from 1; 0 where the slot was never used.
    pub number: u64,
    /// The policy's identity: SHA-256 over the compiled policy.
    pub policy: [u8; 32],
    /// Cells of the flat table.
    pub cells: u32,
    /// Distinct prefixes, the empty one at index 0 included.
    pub entries: u32,
    /// Keys in the tuple hash.
    pub tuples: u32,
    /// Zero.
    #[doc(hidden)]
    pub _pad: u32,
}
const _: () = assert!(size_of::<Generation>() == 56);

// enum ic_selector: Bits of ic_state.selector, one word so that one store changes it as a whole.

/// The slot in force.
pub const SELECTOR_ACTIVE: u64 = 1;
/// The slot to return to at the deadline.
pub const SELECTOR_FALLBACK: u64 = 2;

/// The deadline in [`State::selector`]: `CLOCK_BOOTTIME` in units of 4 ns; 0: none.
pub const SELECTOR_DEADLINE_SHIFT: u32 = 2;

/// Shared by every program of an instance, and by the agent that maps it.
///
/// `struct ic_state` in C.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout,
)]
#[repr(C)]
pub struct State {
    /// [`MAGIC`].
    pub magic: u32,
    /// [`VERSION`].
    pub abi: u32,
    /// The slot in force, and until when: see [`SELECTOR_ACTIVE`].
    pub selector: u64,
    /// Index of the set in `gateways` that is in force.
    pub gateways_active: u32,
    /// Zero.
    #[doc(hidden)]
    pub _pad: u32,
    /// The set in force, and the one to be written next.
    pub gateways: [Gateways; SLOTS],
    /// The policy in each slot.
    pub generation: [Generation; SLOTS],
}
const _: () = assert!(size_of::<State>() == 472);

/// Events of one rule in the present second, of all CPUs.
///
/// `struct ic_sample` in C.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout,
)]
#[repr(C)]
pub struct Sample {
    /// Jiffies when the present second ends.
    pub window: u64,
    /// Events so far.
    pub sent: u32,
    /// Held while the other fields are written.
    pub lock: u32,
}
const _: () = assert!(size_of::<Sample>() == 16);

// enum ic_shield_ev_flag: Flags of a struct ic_shield_event.

/// A dry run: the verdict was not enforced.
pub const SHIELD_EV_DRY_RUN: u8 = 1;
/// The packet is a fragment.
pub const SHIELD_EV_FRAGMENT: u8 = 2;
/// A fragment without a transport header.
pub const SHIELD_EV_LATER_FRAGMENT: u8 = 4;
/// Reported by a log set, not by the rule that decided.
pub const SHIELD_EV_LOG: u8 = 8;

// enum ic_verdict: The verdict on a packet or socket.

/// The packet or call is allowed.
pub const VERDICT_PASS: u8 = 0;
/// The packet is dropped, the call denied.
pub const VERDICT_DROP: u8 = 1;

/// The event of a packet.
///
/// `struct ic_shield_event` in C.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout,
)]
#[repr(C)]
pub struct ShieldEvent {
    /// The common head.
    pub hdr: EventHeader,
    /// [`Generation::number`] of the policy that decided.
    pub generation: u64,
    /// The interface that received the packet.
    pub ifindex: u32,
    /// Slot of the rule in `ic_rules`.
    pub rule: u32,
    /// Index of the [`Entry`], 0 where no set decided.
    pub entry: u32,
    /// Bytes of the frame.
    pub packet_len: u32,
    /// Network byte order; IPv4 in the first four bytes.
    pub src: [u8; 16],
    /// Network byte order; IPv4 in the first four bytes.
    pub dst: [u8; 16],
    /// Network byte order.
    pub sport: [u8; 2],
    /// Network byte order; of ICMP, type and code.
    pub dport: [u8; 2],
    /// Tag ids in host byte order, outer first; 0xffff where no tag.
    pub vlan: [u16; VLAN_MAX],
    /// 4, 6, or 0 where no address was read.
    pub family: u8,
    /// IP protocol.
    pub proto: u8,
    /// `VERDICT_*`.
    pub verdict: u8,
    /// [`Reason`].
    pub reason: u8,
    /// `SHIELD_EV_*`.
    pub flags: u8,
    /// Zero.
    #[doc(hidden)]
    pub _pad: [u8; 3],
}
const _: () = assert!(size_of::<ShieldEvent>() == 88);

// process.h
//
// The process table: what is recorded of each process, from its execve(2) to its end.

/// A file, independent of its names, in the kernel's numbers and not those of stat(2). All zero:
/// none.
///
/// `struct ic_file_id` in C.
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
    /// Distinguishes a file from an earlier one with the same inode number.
    pub generation: u32,
}
const _: () = assert!(size_of::<FileId>() == 16);

/// Its execve(2) was not seen: read from its memory map.
pub const PROCESS_SEEDED: u32 = 1;
/// Its file had no name when it was executed: memfd, deleted.
pub const PROCESS_UNLINKED: u32 = 2;
/// Its fork(2) was seen: `ppid` is the parent that forked it.
pub const PROCESS_FORKED: u32 = 4;

/// A process, by its thread group.
///
/// `struct ic_process` in C.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout,
)]
#[repr(C)]
pub struct Process {
    /// The file that it executes: of a script, the interpreter.
    pub exe: FileId,
    /// The executable of its parent at the moment of the fork(2).
    pub parent: FileId,
    /// `CLOCK_BOOTTIME` of its last execve(2). Where that was not seen: 0 if the process ran before
    /// the start, else the moment at which the process was recorded.
    pub exec_ns: u64,
    /// `exec_ns` of its parent at the moment of the fork(2).
    pub parent_exec_ns: u64,
    /// [`OpenFile::changed_ns`] of its file at the execve(2); 0: none.
    pub exe_changed_ns: u64,
    /// `CLOCK_BOOTTIME` of its fork(2): numbers of processes are used again.
    pub start_ns: u64,
    /// Bit n: the process or an ancestor executed a file that begins ancestry n, earlier.
    pub ancestry: u64,
    /// A row of the policy in force; the upper half is the row's epoch.
    pub exe_row: u64,
    /// A row of the policy in force; the upper half is the row's epoch.
    pub parent_row: u64,
    /// The row of a user: the epoch's lowest 16 bits, the row in 16 bits, the user in 32.
    pub user_row: u64,
    /// The epoch in which `user_row` was last cleared.
    pub user_epoch: u32,
    /// The kernel's number of its execve(2), from PID 1 on: the lower half.
    pub exec_id: u32,
    /// The thread group that forked it.
    pub ppid: u32,
    /// `PROCESS_*`.
    pub flags: u32,
}
const _: () = assert!(size_of::<Process>() == 112);

/// Controls the programs that maintain the process table.
///
/// `struct ic_process_ctl` in C.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout,
)]
#[repr(C)]
pub struct ProcessCtl {
    /// The loaded copy of the programs that writes: each event has one writer.
    pub owner: u64,
    /// Ancestries that the iterator clears in every process, because their meaning changes.
    pub forget: u64,
}
const _: () = assert!(size_of::<ProcessCtl>() == 16);

/// The path by which an executable was called. It is a label and proves nothing.
///
/// `struct ic_exe_name` in C.
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct ExeName {
    /// Ended by a zero, which may be missing where the path was cut.
    pub path: [u8; 256],
}
const _: () = assert!(size_of::<ExeName>() == 256);

/// What the iterator over open files reports of each.
///
/// `struct ic_open_file` in C.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout,
)]
#[repr(C)]
pub struct OpenFile {
    /// The file.
    pub file: FileId,
    /// When content or inode last changed (ctime), in nanoseconds of the file system; never 0.
    pub changed_ns: u64,
    /// The descriptor.
    pub fd: u32,
    /// Names of the file.
    pub nlink: u32,
    /// Descriptors open for writing; below 0: the file is executed.
    pub writers: i32,
    /// Zero.
    #[doc(hidden)]
    pub _pad: u32,
}
const _: () = assert!(size_of::<OpenFile>() == 40);

/// What the iterator over open sockets reports of each.
///
/// `struct ic_open_socket` in C.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout,
)]
#[repr(C)]
pub struct OpenSocket {
    /// The descriptor.
    pub fd: u32,
    /// 1 where this kernel may lose the cgroup of a new socket.
    pub may_lose_group: u8,
    /// 1 where it has lost the cgroup of this socket.
    pub has_lost_group: u8,
    /// Zero.
    #[doc(hidden)]
    pub _pad: u16,
}
const _: () = assert!(size_of::<OpenSocket>() == 8);

// socket.h
//
// Socket rules: their tables, counters and events. The cgroup hooks enforce them.

numbered! {
    /// The operation of a process on a socket.
    ///
    /// `enum ic_socket_op` in C.
    SocketOp {
        /// connect(2), or a first datagram with TCP Fast Open.
        Connect = 0, "connect";
        /// A datagram from a socket that is not connected.
        Send = 1, "send";
        /// bind(2): which processes may listen.
        Bind = 2, "bind";
        /// socket(2), of sockets without another hook: raw, ICMP, SCTP, packet sockets and such.
        Create = 3, "create";
    }
}
/// How many operations there are.
pub const SOCK_OPS: usize = 4;

// enum ic_sock_dim: A dimension: a property that a rule may compare.

/// Operation and protocol.
pub const DIM_KIND: usize = 0;
/// The peer's address; of bind(2), the local one.
pub const DIM_WHERE: usize = 1;
/// The port that belongs to the address.
pub const DIM_PORT: usize = 2;
/// The executable.
pub const DIM_EXE: usize = 3;
/// The real user.
pub const DIM_UID: usize = 4;
/// The executable of the parent. This and all later dimensions are rare in policies.
pub const DIM_PARENT: usize = 5;
/// The real group.
pub const DIM_GID: usize = 6;
/// The cgroup.
pub const DIM_CGROUP: usize = 7;
/// The thread's name, which a thread may set itself.
pub const DIM_COMM: usize = 8;
/// The ancestry: the first of [`SOCK_ANCESTRIES`] dimensions of eight ancestries each.
pub const DIM_ANCESTRY: usize = 9;
/// How many dimensions there are.
pub const DIM_MAX: usize = 11;

// enum ic_sock_limit: Limits of socket rules.

/// Rules of a policy that decide.
pub const SOCK_RULES_MAX: usize = 12288;
/// Rules of a policy that report and decide nothing.
pub const SOCK_LOGS_MAX: usize = 64;
/// Words of [`SockRow::summary`].
pub const SOCK_SUMMARY_WORDS: usize = 3;
/// Words of [`SockRow::word`].
pub const SOCK_WORDS_MAX: usize = 192;
/// Protocols that a rule can name.
pub const SOCK_PROTOCOLS: usize = 256;
/// Cells of 32 ports each.
pub const SOCK_PORT_CELLS: usize = 2048;
/// Depths at which rules of a policy name cgroups.
pub const SOCK_LEVELS_MAX: usize = 8;
/// Dimensions of ancestry.
pub const SOCK_ANCESTRIES: usize = 2;
/// Moments at which a file is known to have had one content.
pub const SOCK_CTIMES: usize = 4;

// enum ic_sock_entries: Limits of socket rules that size maps.

/// Rows of a policy, whose numbers have 16 bits.
pub const SOCK_ROWS_MAX: u32 = 65536;
/// Cgroups whose packet sockets are checked.
pub const SOCK_CGROUPS_MAX: u32 = 256;

// enum ic_sock_proto: Protocols of socket rules that are not IP protocols.

/// Sockets of families that reach other hosts without IP: packet sockets foremost.
pub const SOCK_PROTO_PACKET: u8 = 254;
/// Raw sockets, and protocols that have no number of their own here.
pub const SOCK_PROTO_RAW: u8 = 255;

/// The user and the group of kernel threads. No process can have this number.
pub const SOCK_KERNEL: u32 = 0xffffffff;

// enum ic_sock_action: The action of a socket rule.

/// The operation is allowed.
pub const SOCK_ALLOW: u8 = 0;
/// The operation is denied.
pub const SOCK_DENY: u8 = 1;

/// The rules that one value of a dimension satisfies. The AND of the rows of all dimensions leaves
/// the rules that match, and its first bit decides.
///
/// `struct ic_sock_row` in C.
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct SockRow {
    /// Bit w: word w has any bit set.
    pub summary: [u64; SOCK_SUMMARY_WORDS],
    /// Bit n: rule n of the rules that report and decide nothing.
    pub logs: u64,
    /// Bit r: rule r of the rules that decide.
    pub word: [u64; SOCK_WORDS_MAX],
}
const _: () = assert!(size_of::<SockRow>() == 1568);

/// The rows of 32 ports.
///
/// `struct ic_sock_ports` in C.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout,
)]
#[repr(C)]
pub struct SockPorts {
    /// Number of the row, counted from the first row of ports.
    pub row: [u16; 32],
}
const _: () = assert!(size_of::<SockPorts>() == 64);

/// The socket rules of a slot, without its tables. Rows are numbers in the slot's map of rows.
///
/// `struct ic_sock_policy` in C.
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct SockPolicy {
    /// [`Generation::number`]; 0: none is loaded.
    pub generation: u64,
    /// Changes with the meaning of executables. No two policies of an instance share an epoch.
    pub epoch: u32,
    /// Bit d: a rule compares dimension d.
    pub dims: u32,
    /// Words of [`SockRow::summary`] in use.
    pub summary: u32,
    /// Levels of `level` in use.
    pub levels: u32,
    /// First cell of the flat table's IPv4 root, or all ones.
    pub root4: u32,
    /// First cell of the flat table's IPv6 root, or all ones.
    pub root6: u32,
    /// Events a second of operations that no rule decided.
    pub rate: u32,
    /// Of operations that no rule decided, by [`SocketOp`].
    pub verdict: [u8; 4],
    /// 1: nothing is denied.
    pub dry_run: u8,
    /// Rules that report and decide nothing.
    pub logs: u8,
    /// Bit n: a rule compares ancestry n.
    pub ancestries: u16,
    /// Rules that decide.
    pub rules: u32,
    /// Depths at which rules name cgroups, the deepest first.
    pub level: [u8; SOCK_LEVELS_MAX],
    /// The row of values that no rule names, by dimension. Where inactive, row 0: all rules.
    pub none: [u32; DIM_MAX],
    /// 1: packet sockets are checked.
    pub packets: u8,
    /// Zero.
    #[doc(hidden)]
    pub _pad: [u8; 3],
    /// Rows, by operation and protocol.
    pub kind: [u16; 1024],
}
const _: () = assert!(size_of::<SockPolicy>() == 2152);

/// A value that rules can name: a file, user, group, cgroup or thread's name.
///
/// `struct ic_sock_id_key` in C.
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
    /// The lower half of the policy's generation.
    pub generation: u32,
    /// The dimension: `DIM_*`.
    pub dim: u32,
    /// The words of the value; of names, their bytes.
    pub value: [u64; 2],
}
const _: () = assert!(size_of::<SockIdKey>() == 24);

/// The row of a value that rules name.
///
/// `struct ic_sock_id_val` in C.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout,
)]
#[repr(C)]
pub struct SockIdVal {
    /// Of files: a process with an execve(2) at this moment or later is unidentified; 0: none.
    pub until_ns: u64,
    /// Of executables: a process whose [`Process::exe_changed_ns`] is one of these has `row`, any
    /// other `changed_row`. Where the first is 0, every process has `row`.
    pub changed_ns: [u64; SOCK_CTIMES],
    /// The row.
    pub row: u32,
    /// The row of a changed executable: see `changed_ns`.
    pub changed_row: u32,
}
const _: () = assert!(size_of::<SockIdVal>() == 48);

// enum ic_sock_rule_flag: Flags of a struct ic_sock_rule.

/// Operations that it allows are reported, too.
pub const SOCK_RULE_REPORT: u8 = 1;
/// Counts operations that it would deny, and allows them.
pub const SOCK_RULE_DRY: u8 = 2;
/// Takes from a bucket, and denies when that is empty.
pub const SOCK_RULE_LIMITED: u8 = 4;

/// A socket rule's action.
///
/// `struct ic_sock_rule` in C.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout,
)]
#[repr(C)]
pub struct SockRule {
    /// The time for one token.
    pub interval_ns: u64,
    /// The time for all tokens of a full bucket.
    pub burst_ns: u64,
    /// 1 + the rule's index in the policy.
    pub number: u32,
    /// Index in `ic_sock_stats`.
    pub slot: u32,
    /// Index in `ic_buckets`.
    pub bucket: u32,
    /// Events a second.
    pub report_rate: u32,
    /// `SOCK_*`.
    pub action: u8,
    /// `SOCK_RULE_*`.
    pub flags: u8,
    /// Rules before it that report and decide nothing.
    pub logs: u8,
    /// Zero.
    #[doc(hidden)]
    pub _pad: [u8; 5],
}
const _: () = assert!(size_of::<SockRule>() == 40);

/// Decisions of a rule, one of each per CPU.
///
/// `struct ic_sock_stats` in C.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout,
)]
#[repr(C)]
pub struct SockStats {
    /// Operations that were allowed.
    pub allowed: u64,
    /// Operations that were denied by the rule's action.
    pub denied: u64,
    /// Operations that were denied because the bucket was empty.
    pub limited: u64,
    /// Operations that would have been denied.
    pub dry: u64,
    /// Operations that were reported by a rule that decides nothing.
    pub logged: u64,
}
const _: () = assert!(size_of::<SockStats>() == 40);

/// A token bucket of the generic cell rate algorithm: one moment instead of a count. All CPUs share
/// it, so that the limit is the host's and not one CPU's.
///
/// `struct ic_bucket` in C.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout,
)]
#[repr(C)]
pub struct Bucket {
    /// `CLOCK_MONOTONIC`: when the bucket will be full again.
    pub full_ns: u64,
    /// Held while `full_ns` is written.
    pub lock: u32,
    /// Zero.
    #[doc(hidden)]
    pub _pad: u32,
}
const _: () = assert!(size_of::<Bucket>() == 16);

numbered! {
    /// Why an operation on a socket got its verdict.
    ///
    /// `enum ic_socket_reason` in C.
    #[non_exhaustive]
    SocketReason {
        /// No rule matched.
        Default = 0, "default";
        /// A rule decided.
        Rule = 1, "rule";
        /// The rule's bucket was empty.
        Limit = 2, "limit";
        /// A source route (a routing header of IPv6, LSRR or SSRR of IPv4), where rules compare
        /// addresses. No rule was evaluated for its first stop. The event is of a packet that names
        /// one ([`SocketOp::Send`]), or of a socket option that would set one
        /// ([`SocketOp::Create`], without an address).
        Route = 3, "route";
    }
}

// enum ic_sock_ev_flag: Flags of a struct ic_sock_event.

/// A dry run: the verdict was not enforced.
pub const SOCK_EV_DRY_RUN: u8 = 1;
/// Reported by a rule that decides nothing.
pub const SOCK_EV_LOG: u8 = 2;
/// The process is unidentified.
pub const SOCK_EV_UNIDENTIFIED: u8 = 4;
/// The address was written as IPv4-mapped IPv6.
pub const SOCK_EV_MAPPED: u8 = 8;

/// The event of an operation on a socket.
///
/// `struct ic_sock_event` in C.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout,
)]
#[repr(C)]
pub struct SockEvent {
    /// The common head.
    pub hdr: EventHeader,
    /// [`Generation::number`] of the policy that decided.
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
    /// The thread group that forked it.
    pub ppid: u32,
    /// Real user.
    pub uid: u32,
    /// Real group.
    pub gid: u32,
    /// 1 + the rule's index in its policy, 0 where none matched.
    pub rule: u32,
    /// Network byte order; IPv4 in the first four bytes.
    pub addr: [u8; 16],
    /// The thread's name, which a thread may set itself; zero behind its end.
    pub comm: [u8; 16],
    /// Network byte order.
    pub port: [u8; 2],
    /// 4, 6, or 0 where the operation has no address.
    pub family: u8,
    /// [`SocketOp`].
    pub op: u8,
    /// IP protocol, [`SOCK_PROTO_PACKET`] or [`SOCK_PROTO_RAW`].
    pub proto: u8,
    /// `VERDICT_*`.
    pub verdict: u8,
    /// [`SocketReason`].
    pub reason: u8,
    /// `SOCK_EV_*`.
    pub flags: u8,
}
const _: () = assert!(size_of::<SockEvent>() == 144);

// sentinel.h
//
// Sentinel: trusted processes, protected files, and alarms.

// enum ic_sentinel_limit: Limits of Sentinel.

/// Bytes of a secret: the four words that prctl(2) takes.
pub const SENTINEL_SECRET: usize = 32;
/// File rules of a policy: a bit each.
pub const SENTINEL_RULES: usize = 64;
/// Bytes of a name in a directory, its end included.
pub const SENTINEL_NAME: usize = 256;
/// Directories from a file up to its root. Below more, all rules on directories apply.
pub const SENTINEL_DEPTH: usize = 64;
/// Bytes of a path in an event.
pub const SENTINEL_PATH: usize = 512;
/// Helpers of programs: a bit each.
pub const SENTINEL_HELPERS: usize = 256;

// enum ic_sentinel_entries: Limits of Sentinel that size maps.

/// Trusted processes at once, and outstanding secrets.
pub const SENTINEL_MARKS: u32 = 64;
/// Maps and programs of trusted processes.
pub const SENTINEL_OBJECTS: u32 = 16384;
/// Links of trusted processes.
pub const SENTINEL_LINKS: u32 = 1024;
/// Mounts on the paths to protected files.
pub const SENTINEL_MOUNTS: u32 = 4096;
/// Devices with protected files, and their backing devices.
pub const SENTINEL_VOLUMES: u32 = 1024;
/// Executables with an exemption.
pub const SENTINEL_EXEMPTIONS: u32 = 1024;
/// Threads that rename directories.
pub const SENTINEL_DIR_RENAMES: u32 = 1024;
/// Directories that are cached, a power of two.
pub const SENTINEL_DIRS: u32 = 8192;
/// Kernel functions that programs may call.
pub const SENTINEL_KFUNCS: u32 = 1024;
/// Entries of the census of open files and devices.
pub const SENTINEL_HELD: u32 = 1024;
/// Cgroups that the agent was moved to, and those above them.
pub const SENTINEL_GROUPS: u32 = 4096;
/// Cgroups above one another that are recorded at a move.
pub const SENTINEL_GROUP_DEPTH: u32 = 128;

/// The lowest bit of the rename counter in [`Sentinel::word`].
pub const RENAME_SHIFT: u32 = 48;

// enum ic_sentinel_call: Numbers by which the agent and the hooks recognise each other's calls.

/// The first argument of prctl(2) with which a process presents a secret: "IRON".
pub const SENTINEL_HELLO: i32 = 0x49524f4e;
/// The error of a canary call, and of no other: ENOANO of asm-generic/errno.h.
pub const SENTINEL_ECANARY: i32 = 55;

numbered! {
    /// A hook of BPF LSM at which Sentinel decides, or a tracepoint that it reports, by the
    /// kernel's name.
    ///
    /// `enum ic_sentinel_hook` in C.
    #[non_exhaustive]
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
        /// ptrace(2), and every call that needs its rights.
        PtraceAccessCheck = 6, "ptrace_access_check";
        /// A resource limit of another process.
        TaskSetrlimit = 7, "task_setrlimit";
        /// A task's scheduling policy or CPU affinity.
        TaskSetscheduler = 8, "task_setscheduler";
        /// A task's nice value.
        TaskSetnice = 9, "task_setnice";
        /// A task's I/O priority.
        TaskSetioprio = 10, "task_setioprio";
        /// The NUMA nodes of a task's memory.
        TaskMovememory = 11, "task_movememory";
        /// A task's process group.
        TaskSetpgid = 12, "task_setpgid";
        /// open(2) and its relatives.
        FileOpen = 13, "file_open";
        /// unlink(2).
        InodeUnlink = 14, "inode_unlink";
        /// rmdir(2).
        InodeRmdir = 15, "inode_rmdir";
        /// rename(2).
        InodeRename = 16, "inode_rename";
        /// link(2).
        InodeLink = 17, "inode_link";
        /// Creation of a regular file.
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
        /// An access control list is removed.
        InodeRemoveAcl = 26, "inode_remove_acl";
        /// Attributes of files by ioctl(2): chattr(1).
        FileIoctl = 27, "file_ioctl";
        /// The same by 32-bit programs.
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
        /// An operation that the kernel's lockdown restricts.
        LockedDown = 36, "locked_down";
        /// A write to a sysctl.
        Sysctl = 37, "sysctl";
        /// read(2) and write(2).
        FilePermission = 38, "file_permission";
        /// A file is mapped to be executed.
        MmapFile = 39, "mmap_file";
        /// A module or kernel from memory.
        KernelLoadData = 40, "kernel_load_data";
        /// A module or kernel from a file.
        KernelReadFile = 41, "kernel_read_file";
        /// A signal by `F_SETOWN` of fcntl(2).
        FileSendSigiotask = 42, "file_send_sigiotask";
        /// perf_event_open(2).
        PerfEventAlloc = 43, "perf_event_alloc";
        /// A change of the options of a file system.
        SbRemount = 44, "sb_remount";
        /// A mark of fanotify(7) or inotify(7).
        PathNotify = 45, "path_notify";
        /// A lock of flock(2) or fcntl(2), or a lease.
        FileLock = 46, "file_lock";
        /// A call in a program that is being loaded.
        BpfProgLoad = 47, "bpf_prog_load";
        /// quotactl(2) with a file of quotas.
        QuotaOn = 48, "quota_on";
        /// A command to a device or a file by io_uring.
        UringCmd = 49, "uring_cmd";
        /// clone3(2) into another cgroup.
        TaskAlloc = 50, "task_alloc";
        /// A move to another cgroup, by a tracepoint.
        CgroupAttachTask = 51, "cgroup_attach_task";
    }
}
/// One more than the highest number of a hook.
pub const SENTINEL_HOOKS: usize = 52;

numbered! {
    /// An operation that a file rule covers.
    ///
    /// `enum ic_file_op` in C.
    #[non_exhaustive]
    FileOp {
        /// Opening a file for reading, and listing a directory.
        Read = 0, "read";
        /// Opening a file for writing, and truncate(2).
        Write = 1, "write";
        /// A new name in a directory, of any kind of file.
        Create = 2, "create";
        /// Removing a name, also by a rename over it.
        Delete = 3, "delete";
        /// Changing a name.
        Rename = 4, "rename";
        /// Adding a name.
        Link = 5, "link";
        /// Mode, owner, times, extended attributes, access control lists, flags.
        Metadata = 6, "metadata";
        /// execve(2), or mapping a file to be executed.
        Execute = 7, "execute";
        /// Mounting over a file or directory, and unmounting. Part of every rule that denies.
        Mount = 8, "mount";
    }
}
/// How many operations there are.
pub const FILE_OPS: usize = 9;

/// The state of an instance.
///
/// `struct ic_sentinel` in C.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout,
)]
#[repr(C)]
pub struct Sentinel {
    /// Bit 0: the half of labels and policies that is in force. From bit 1 on: the epoch of their
    /// meaning. From bit [`RENAME_SHIFT`] on: the number of directories that are being renamed,
    /// during which nothing is cached.
    pub word: u64,
    /// Bit n: programs of type n (enum bpf_prog_type) are refused.
    pub gate: u64,
    /// Bit n: programs of type n are reported, and loaded unless refused.
    pub gate_log: u64,
    /// 1: Sentinel refuses.
    pub is_armed: u32,
    /// The thread whose every call `canary_hook` refuses; 0: none.
    pub canary: u32,
    /// [`SentinelHook`].
    pub canary_hook: u32,
    /// The thread whose maps and programs, opened by id, become protected.
    pub adopting: u32,
    /// `REFUSE_*`.
    pub refuse: u32,
    /// Inode number of the agent's mount namespace.
    pub mount_namespace: u32,
    /// Alarms that found no room.
    pub lost: u64,
    /// The cgroup that the agent is started in, by id; 0: any.
    pub group: u64,
    /// Processes with [`MARK_CANDIDATE`] so far; 0: none are looked up.
    pub candidates: u32,
    /// `LAUNCH_*`.
    pub launch: u32,
    /// Number of the mount that is the first agent's root.
    pub root_mount: u32,
    /// seccomp(2) filters of the first agent.
    pub filters: u32,
    /// Types of perf events that are kprobes and uprobes; 0: not known.
    pub probes: [u32; 2],
    /// `CLOCK_BOOTTIME` until which a break-glass token allows signals to trusted processes.
    pub open_until_ns: u64,
    /// Of the hashes of names, random.
    pub name_key: [u64; 2],
}
const _: () = assert!(size_of::<Sentinel>() == 112);

// enum ic_refuse_what: Operations on the host that are refused.

/// The kernel's memory, and probes: the confidentiality mode of lockdown(7).
pub const REFUSE_MEMORY: u32 = 1;
/// Modules, except from files that no other process may change.
pub const REFUSE_MODULES: u32 = 2;
/// Other kernels by kexec(8).
pub const REFUSE_KEXEC: u32 = 4;
/// Commands to disks with protected files.
pub const REFUSE_DISKS: u32 = 8;
/// The device mapper, where protected files are on a mapped device.
pub const REFUSE_MAPPER: u32 = 16;
/// Programs that act on other processes, or read their memory.
pub const REFUSE_CALLS: u32 = 32;
/// Programs at cgroups that may rewrite the address of connect(2) and its like.
pub const REFUSE_REWRITES: u32 = 128;
/// All descriptors of programs: set by a hook that had no room to refuse one of them.
pub const REFUSE_PROGRAMS: u32 = 64;

// enum ic_volume_key: Keys of volumes: the kernel's device numbers of block devices, and these
// bits.

/// A character device; no block device has this bit.
pub const VOLUME_CHARACTER: u32 = 0x80000000;
/// Any minor of a character device; of misc devices the minor is the kind of device.
pub const VOLUME_ANY_MINOR: u32 = 0xfffff;
/// Arrays of md (major number 9), of which any has a protected file.
pub const VOLUME_ARRAYS: u32 = 0x80900000;
/// Disks (major number 8), of which any has a protected file.
pub const VOLUME_DISKS: u32 = 0x80800000;

/// A secret that gives its bearer a mark, once.
///
/// `struct ic_secret_key` in C.
#[derive(Clone, Copy, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct SecretKey {
    /// The words that prctl(2) takes.
    pub word: [u64; 4],
}
const _: () = assert!(size_of::<SecretKey>() == SENTINEL_SECRET);

/// What a secret gives its bearer.
///
/// `struct ic_secret_val` in C.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout,
)]
#[repr(C)]
pub struct SecretVal {
    /// The executable of its bearer; all zero: any.
    pub exe: FileId,
    /// The mark of its bearer: `MARK_*`.
    pub mark: u32,
    /// [`SECRET_RESTART`].
    pub flags: u32,
}
const _: () = assert!(size_of::<SecretVal>() == 24);

// enum ic_mark_flag: Flags of a struct ic_mark.

/// The process is trusted.
pub const MARK_TRUSTED: u32 = 1;
/// The agent's program, started as agents are: it may read the secret, and present it.
pub const MARK_CANDIDATE: u32 = 2;
/// A child of a trusted process until its execve(2): it shares memory and descriptors.
pub const MARK_CHILD: u32 = 4;

// enum ic_launch: The processes that start agents.

/// PID 1, which is the service manager.
pub const LAUNCH_INIT: u32 = 1;
/// A trusted process.
pub const LAUNCH_TRUSTED: u32 = 2;

// enum ic_own_rule: Rules of Sentinel's own, behind those of policies.

/// The agent's audit file, which other processes may not lock.
pub const OWN_LOCKED: u32 = 57;
/// The directories below mounts with protected files.
pub const OWN_MOUNTS: u32 = 58;
/// The agent's cgroup.
pub const OWN_GROUP: u32 = 59;
/// The agent's executable.
pub const OWN_EXECUTABLE: u32 = 60;
/// Files that the executable maps: libraries, and the loader's cache.
pub const OWN_CODE: u32 = 61;
/// The directory of the secret.
pub const OWN_STATE: u32 = 62;
/// The pins.
pub const OWN_PINS: u32 = 63;

// enum ic_secret_flag: Flags of a struct ic_secret_val.

/// For an agent that restarts: valid for candidates only, and until another secret exists.
pub const SECRET_RESTART: u32 = 1;

/// The trust mark of a process, by its thread group.
///
/// `struct ic_mark` in C.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout,
)]
#[repr(C)]
pub struct Mark {
    /// `CLOCK_BOOTTIME` of the process's start: numbers of processes are used again.
    pub start_ns: u64,
    /// `MARK_*`.
    pub flags: u32,
    /// Zero.
    #[doc(hidden)]
    pub _pad: u32,
}
const _: () = assert!(size_of::<Mark>() == 16);

// enum ic_label_flag: Flags of a struct ic_label.

/// The directory is a component of the path to a protected file: it keeps its name.
pub const LABEL_PATH_COMPONENT: u32 = 1;

/// The label of a file or directory. Each array has a value for each half of [`Sentinel::word`].
///
/// `struct ic_label` in C.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout,
)]
#[repr(C)]
pub struct Label {
    /// Bit n: rule n covers the file or directory itself.
    pub own: [u64; 2],
    /// Bit n: rule n covers the files below it, at any depth.
    pub below: [u64; 2],
    /// [`LABEL_PATH_COMPONENT`].
    pub flags: [u32; 2],
    /// Bit n: rules cover names of n, n + 32 … bytes in the directory, of whatever file.
    pub names: [u32; 2],
}
const _: () = assert!(size_of::<Label>() == 48);

/// A name in a directory. Another name with the same hash would be covered, too.
///
/// `struct ic_name_key` in C.
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
    /// SipHash-1-3 of the name by [`Sentinel::name_key`].
    pub hash: u64,
    /// Bytes of the name.
    pub len: u32,
    /// Zero.
    #[doc(hidden)]
    pub _pad: u32,
}
const _: () = assert!(size_of::<NameKey>() == 32);

/// The rules on a name or a device.
///
/// `struct ic_name_val` in C.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout,
)]
#[repr(C)]
pub struct NameVal {
    /// Bit n: rule n covers it; a value for each half.
    pub rules: [u64; 2],
}
const _: () = assert!(size_of::<NameVal>() == 16);

/// The rules that cover the files in a directory, as found on a walk to the root. A cache line.
///
/// `struct ic_dir_cache` in C.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout,
)]
#[repr(C)]
pub struct DirCache {
    /// [`Sentinel::word`] at the walk.
    pub word: u64,
    /// The directory.
    pub dir: FileId,
    /// Bit n: rule n covers the files in it.
    pub below: u64,
    /// [`Label::names`] of the directory.
    pub names: u32,
    /// [`Label::flags`] of the directory.
    pub flags: u32,
    /// Checksum of the other fields: `ic_dir_sum()`.
    pub sum: u64,
    /// Zero.
    #[doc(hidden)]
    pub _pad: [u64; 2],
}
const _: () = assert!(size_of::<DirCache>() == 64);

/// The file rules of a half.
///
/// `struct ic_file_policy` in C.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout,
)]
#[repr(C)]
pub struct FilePolicy {
    /// Bit n: rule n covers this operation.
    pub op: [u64; FILE_OPS],
    /// Rules that deny.
    pub deny: u64,
    /// Rules that report.
    pub log: u64,
    /// Rules that cover the files in a directory.
    pub below: u64,
}
const _: () = assert!(size_of::<FilePolicy>() == 96);

// enum ic_open_flag: Flags of a struct ic_open_descriptor.

/// It is open for writing.
pub const OPEN_WRITES: u32 = 1;
/// Of a trusted process.
pub const OPEN_TRUSTED: u32 = 2;
/// Of a block device.
pub const OPEN_DEVICE: u32 = 4;

/// A descriptor of a file that a rule denies to write, or of a block device below one.
///
/// `struct ic_open_descriptor` in C.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout,
)]
#[repr(C)]
pub struct OpenDescriptor {
    /// Bit n: rule n denies writing.
    pub rules: u64,
    /// The open file, which several descriptors may share: an opaque number.
    pub open_file: u64,
    /// The file; of a device, its number is `dev`.
    pub file: FileId,
    /// The process, by its thread group.
    pub pid: u32,
    /// The descriptor.
    pub fd: u32,
    /// `OPEN_*`.
    pub flags: u32,
    /// Zero.
    #[doc(hidden)]
    pub _pad: u32,
}
const _: () = assert!(size_of::<OpenDescriptor>() == 48);

// enum ic_held_kind: What the census counts.

/// Open files that can write to a file that a rule denies to write.
pub const HELD_FILE: u32 = 0;
/// Open files of a block device, the kernel's own included.
pub const HELD_DEVICE: u32 = 1;
/// A file system that is mounted from a device.
pub const HELD_MOUNT: u32 = 2;

/// An entry of the census of open files and devices.
///
/// `struct ic_held` in C.
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Held {
    /// Bit n: rule n denies writing; 0: no rule covers the device.
    pub rules: u64,
    /// The file; of a device, its number is `dev`.
    pub file: FileId,
    /// `HELD_*`.
    pub kind: u32,
    /// Open files.
    pub count: u32,
    /// Of a partition, the number of its disk.
    pub whole: u32,
    /// Zero.
    #[doc(hidden)]
    pub _pad: u32,
    /// The file's name, cut; ended by a zero.
    pub name: [u8; 64],
}
const _: () = assert!(size_of::<Held>() == 104);

/// A census, its outcome, and what follows from it.
///
/// `struct ic_census` in C.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout,
)]
#[repr(C)]
pub struct Census {
    /// The device of the file system; 0: all block devices.
    pub device: u32,
    /// Entries of `ic_held`.
    pub held: u32,
    /// 1: a list changed, or was too long, or there was no room.
    pub is_incomplete: u32,
    /// 1: writes by pre-opened descriptors are checked.
    pub checks_writes: u32,
}
const _: () = assert!(size_of::<Census>() == 16);

// enum ic_may: Operations that an exemption allows.

/// Send signals to trusted processes, and change their limits.
pub const MAY_KILL: u32 = 1;
/// Trace trusted processes.
pub const MAY_TRACE: u32 = 2;
/// Load programs that the gate refuses.
pub const MAY_LOAD: u32 = 4;
/// Mount over protected files, and unmount them.
pub const MAY_MOUNT: u32 = 8;
/// Move processes between cgroups.
pub const MAY_GROUP: u32 = 16;
/// What PID 1 may, where PID 1 has forked the process.
pub const MAY_MANAGE: u32 = 32;

/// The exemption of an executable. Each array has a value for each half of [`Sentinel::word`].
///
/// `struct ic_exemption` in C.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout,
)]
#[repr(C)]
pub struct Exemption {
    /// Bit n: rule n does not apply.
    pub rules: [u64; 2],
    /// `MAY_*`.
    pub may: [u32; 2],
}
const _: () = assert!(size_of::<Exemption>() == 24);

// enum ic_object_kind: The kind of an object of a trusted process.

/// A map.
pub const OBJECT_MAP: u32 = 1;
/// A program.
pub const OBJECT_PROG: u32 = 2;
/// A program whose calls are refused, which has no descriptor yet.
pub const OBJECT_REFUSED: u32 = 3;

// enum ic_call: The number of what a program calls.

/// A kernel function, by its number in BTF; else a helper.
pub const CALL_KFUNC: u32 = 0x80000000;
/// Of a module.
pub const CALL_MODULE: u32 = 0x40000000;
/// Not known: the instructions could not be read.
pub const CALL_UNKNOWN: u32 = 0x20000000;

numbered! {
    /// The outcome of an attempt.
    ///
    /// `enum ic_sentinel_verdict` in C.
    #[non_exhaustive]
    SentinelVerdict {
        /// The call was denied.
        Denied = 1, "denied";
        /// The call was allowed and reported, by a log rule or in a dry run.
        Logged = 2, "logged";
        /// A secret was accepted: its bearer is trusted.
        Granted = 3, "granted";
        /// A secret was rejected.
        Refused = 4, "refused";
    }
}

/// The alarm of an attempt.
///
/// `struct ic_sentinel_event` in C.
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct SentinelEvent {
    /// The common head.
    pub hdr: EventHeader,
    /// Alarms that found no room before this one.
    pub lost: u64,
    /// Id of the process's cgroup.
    pub cgroup: u64,
    /// `CLOCK_BOOTTIME` of the process's execve(2).
    pub exec_ns: u64,
    /// Bit n: file rule n matched.
    pub rules: u64,
    /// The executable of the process.
    pub exe: FileId,
    /// The executable of its parent.
    pub parent: FileId,
    /// The file of the attempt; all zero: none.
    pub file: FileId,
    /// Thread group.
    pub pid: u32,
    /// Thread.
    pub tid: u32,
    /// The thread group that forked it.
    pub ppid: u32,
    /// Real user.
    pub uid: u32,
    /// Real group.
    pub gid: u32,
    /// A process, an id of a map, program or link, a program's type, a signal.
    pub target: u32,
    /// A command of bpf(2), a signal, `ATTR_` flags, `CALL_*`, a cgroup.
    pub detail: u32,
    /// [`SentinelHook`].
    pub hook: u8,
    /// [`FileOp`].
    pub op: u8,
    /// [`SentinelVerdict`].
    pub verdict: u8,
    /// Zero.
    pub flags: u8,
    /// The thread's name, which a thread may set itself; zero behind its end.
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

layouts! {
    ic_event_header = EventHeader {
        kind, len, cpu, time_ns
    }
    ic_flat_slot = FlatSlot {
        reference, touched
    }
    ic_flat_row = FlatRow {
        refs
    }
    ic_flat_runs = FlatRuns {
        refs, starts
    }
    ic_flat_wide = FlatWide {
        refs, starts
    }
    ic_flat_bitmap = FlatBitmap {
        starts, rank, base, _pad
    }
    ic_flat_skip = FlatSkip {
        key, mask, hit, miss, low, depth
    }
    ic_stats = Stats {
        packets, bytes, dry_packets, dry_bytes
    }
    ic_entry = Entry {
        packets, rule, log_rule, action, log, _pad
    }
    ic_tuple_key = TupleKey {
        src, dst, dport, proto, kind, shape
    }
    ic_tuple_val = TupleVal {
        packets, rule, log_rule, action, log, _pad
    }
    ic_tuple_mask = TupleMask {
        src, dst, dport, proto, kind, _pad
    }
    ic_lpm4_key = Lpm4Key {
        prefixlen, addr
    }
    ic_lpm6_key = Lpm6Key {
        prefixlen, addr
    }
    ic_gateways = Gateways {
        count4, count6, addr4, addr6
    }
    ic_generation = Generation {
        number, policy, cells, entries, tuples, _pad
    }
    ic_state = State {
        magic, abi, selector, gateways_active, _pad, gateways, generation
    }
    ic_sample = Sample {
        window, sent, lock
    }
    ic_shield_event = ShieldEvent {
        hdr, generation, ifindex, rule, entry, packet_len, src, dst, sport, dport, vlan, family,
        proto, verdict, reason, flags, _pad
    }
    ic_file_id = FileId {
        ino, dev, generation
    }
    ic_process = Process {
        exe, parent, exec_ns, parent_exec_ns, exe_changed_ns, start_ns, ancestry, exe_row,
        parent_row, user_row, user_epoch, exec_id, ppid, flags
    }
    ic_process_ctl = ProcessCtl {
        owner, forget
    }
    ic_exe_name = ExeName {
        path
    }
    ic_open_file = OpenFile {
        file, changed_ns, fd, nlink, writers, _pad
    }
    ic_open_socket = OpenSocket {
        fd, may_lose_group, has_lost_group, _pad
    }
    ic_sock_row = SockRow {
        summary, logs, word
    }
    ic_sock_ports = SockPorts {
        row
    }
    ic_sock_policy = SockPolicy {
        generation, epoch, dims, summary, levels, root4, root6, rate, verdict, dry_run, logs,
        ancestries, rules, level, none, packets, _pad, kind
    }
    ic_sock_id_key = SockIdKey {
        generation, dim, value
    }
    ic_sock_id_val = SockIdVal {
        until_ns, changed_ns, row, changed_row
    }
    ic_sock_rule = SockRule {
        interval_ns, burst_ns, number, slot, bucket, report_rate, action, flags, logs, _pad
    }
    ic_sock_stats = SockStats {
        allowed, denied, limited, dry, logged
    }
    ic_bucket = Bucket {
        full_ns, lock, _pad
    }
    ic_sock_event = SockEvent {
        hdr, generation, cgroup, exec_ns, ancestry, exe, parent, pid, tid, ppid, uid, gid, rule,
        addr, comm, port, family, op, proto, verdict, reason, flags
    }
    ic_sentinel = Sentinel {
        word, gate, gate_log, is_armed, canary, canary_hook, adopting, refuse, mount_namespace,
        lost, group, candidates, launch, root_mount, filters, probes, open_until_ns, name_key
    }
    ic_secret_key = SecretKey {
        word
    }
    ic_secret_val = SecretVal {
        exe, mark, flags
    }
    ic_mark = Mark {
        start_ns, flags, _pad
    }
    ic_label = Label {
        own, below, flags, names
    }
    ic_name_key = NameKey {
        dir, hash, len, _pad
    }
    ic_name_val = NameVal {
        rules
    }
    ic_dir_cache = DirCache {
        word, dir, below, names, flags, sum, _pad
    }
    ic_file_policy = FilePolicy {
        op, deny, log, below
    }
    ic_open_descriptor = OpenDescriptor {
        rules, open_file, file, pid, fd, flags, _pad
    }
    ic_held = Held {
        rules, file, kind, count, whole, _pad, name
    }
    ic_census = Census {
        device, held, is_incomplete, checks_writes
    }
    ic_exemption = Exemption {
        rules, may
    }
    ic_sentinel_event = SentinelEvent {
        hdr, lost, cgroup, exec_ns, rules, exe, parent, file, pid, tid, ppid, uid, gid, target,
        detail, hook, op, verdict, flags, comm, path_len, path_cut, _pad, path
    }
}
