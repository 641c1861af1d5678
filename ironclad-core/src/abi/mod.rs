//! The `repr(C)` mirror of `bpf-src/include/ironclad/abi/`: what maps and ring buffers hold.
//!
//! Numbers are in the machine's byte order unless a field says network byte order. A test in
//! `ironclad-bpf` compares sizes and offsets with the BTF of the compiled programs.

mod sentinel;
mod socket;

pub use sentinel::*;
pub use socket::*;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// Names the pin directory; raised whenever a pinned map changes its meaning.
pub const VERSION: u32 = 3;
/// "IRON": the first word of a state that Ironclad initialised.
pub const MAGIC: u32 = 0x4952_4f4e;

/// [`EventHeader::kind`] of a [`ShieldEvent`].
pub const EV_SHIELD: u16 = 1;
/// [`EventHeader::kind`] of a [`SockEvent`].
pub const EV_SOCKET: u16 = 2;
/// [`EventHeader::kind`] of [`SentinelEvent`].
pub const EV_SENTINEL: u16 = 3;

/// [`Entry::action`]: nothing decides.
pub const ACTION_NONE: u8 = 0;
/// [`Entry::action`]: drop.
pub const ACTION_DROP: u8 = 1;
/// [`Entry::action`]: allow.
pub const ACTION_ALLOW: u8 = 2;

/// What holds the address sets of one family: nothing.
pub const BACKEND_NONE: u8 = 0;
/// What holds the address sets of one family: the flat table.
pub const BACKEND_FLAT: u8 = 1;
/// What holds the address sets of one family: the kernel's `LPM_TRIE`.
pub const BACKEND_LPM: u8 = 2;

/// [`ShieldEvent::verdict`]: the packet goes on.
pub const VERDICT_PASS: u8 = 0;
/// [`ShieldEvent::verdict`]: the packet is dropped.
pub const VERDICT_DROP: u8 = 1;

/// Addresses per family in a [`Gateways`].
pub const GATEWAYS_MAX: usize = 8;
/// Rules with counters of their own.
pub const RULES_MAX: usize = 1024;
/// Distinct shapes of tuples in one policy.
pub const MASKS_MAX: usize = 32;
/// Most references in a [`FlatRuns`].
pub const FLAT_RUNS_MAX: usize = 6;
/// Most references in a [`FlatWide`].
pub const FLAT_WIDE_MAX: usize = 12;
/// Cells of a flat table's root.
pub const FLAT_ROOT_CELLS: u32 = 8192;
/// Bits of a flat reference that are an index; the three above are its kind.
pub const FLAT_INDEX_MASK: u32 = 0x1fff_ffff;
/// Where a flat reference's kind begins.
pub const FLAT_KIND_SHIFT: u32 = 29;
/// Kind of a flat reference: the index is that of an [`Entry`], 0 where no prefix matches.
pub const FLAT_KIND_LEAF: u32 = 0;
/// Kind of a flat reference: the index is that of a half cell, a [`FlatRuns`].
pub const FLAT_KIND_RUNS: u32 = 1;
/// Kind of a flat reference: the index is that of a cell, a [`FlatWide`].
pub const FLAT_KIND_WIDE: u32 = 2;
/// Kind of a flat reference: the index is that of a cell, a [`FlatBitmap`].
pub const FLAT_KIND_BITMAP: u32 = 3;
/// Kind of a flat reference: the index is that of a half cell, a [`FlatSkip`].
pub const FLAT_KIND_SKIP: u32 = 4;

/// [`State::selector`]: the slot in force.
pub const SELECTOR_ACTIVE: u64 = 1;
/// [`State::selector`]: the slot to return to at the deadline.
pub const SELECTOR_FALLBACK: u64 = 2;
/// [`State::selector`]: where the deadline begins, in units of 4 ns of `CLOCK_BOOTTIME`.
pub const SELECTOR_DEADLINE_SHIFT: u32 = 2;

/// [`TupleKey::kind`] of IPv4.
pub const TUPLE_V4: u8 = 4;
/// [`TupleKey::kind`] of IPv6.
pub const TUPLE_V6: u8 = 6;
/// Or-ed into [`TupleKey::kind`] for later fragments, which have no ports.
pub const TUPLE_FRAGMENT: u8 = 0x80;

/// [`ShieldEvent::flags`]: a dry run; the verdict is what would have been.
pub const SHIELD_EV_DRY_RUN: u8 = 1;
/// [`ShieldEvent::flags`]: the packet is a fragment.
pub const SHIELD_EV_FRAGMENT: u8 = 2;
/// [`ShieldEvent::flags`]: a fragment without a transport header.
pub const SHIELD_EV_LATER_FRAGMENT: u8 = 4;
/// [`ShieldEvent::flags`]: reported by a log set, not by the rule that decided.
pub const SHIELD_EV_LOG: u8 = 8;

/// Why a packet got its verdict. Every packet counts under exactly one reason.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
#[repr(u8)]
pub enum Reason {
    /// Nothing matched: the default action.
    Default = 0,
    /// The source is a gateway.
    Gateway = 1,
    /// An address set decided.
    Set = 2,
    /// A tuple decided.
    Tuple = 3,
    /// Address resolution passes.
    Arp = 4,
    /// IPv6 neighbour discovery passes.
    Neighbour = 5,
    /// Neither IP nor ARP.
    NonIp = 6,
    /// No whole Ethernet header.
    EthShort = 7,
    /// A VLAN tag is cut off.
    VlanShort = 8,
    /// More than IC_VLAN_MAX tags.
    VlanDeep = 9,
    /// The IPv4 header is cut off.
    Ip4Short = 10,
    /// Version, header length or total length contradict.
    Ip4Header = 11,
    /// The total length exceeds the frame.
    Ip4Length = 12,
    /// The IPv6 header is cut off.
    Ip6Short = 13,
    /// The version is not 6, or the source is an IPv4-mapped address.
    Ip6Header = 14,
    /// The payload length exceeds the frame.
    Ip6Length = 15,
    /// An IPv6 extension header is cut off.
    ExtShort = 16,
    /// More than IC_EXT_MAX extension headers.
    ExtDeep = 17,
    /// A hop-by-hop header that is not the first.
    ExtOrder = 18,
    /// A fragment that no sender makes: beyond 65,535 bytes, or empty.
    Fragment = 19,
    /// The transport header is cut off, also in a first fragment.
    L4Short = 20,
    /// The transport header contradicts itself or the packet's length.
    L4Header = 21,
    /// An ARP packet is cut off.
    ArpShort = 22,
}

impl Reason {
    /// Every reason, in the order of their numbers.
    pub const ALL: [Reason; 23] = [
        Reason::Default,
        Reason::Gateway,
        Reason::Set,
        Reason::Tuple,
        Reason::Arp,
        Reason::Neighbour,
        Reason::NonIp,
        Reason::EthShort,
        Reason::VlanShort,
        Reason::VlanDeep,
        Reason::Ip4Short,
        Reason::Ip4Header,
        Reason::Ip4Length,
        Reason::Ip6Short,
        Reason::Ip6Header,
        Reason::Ip6Length,
        Reason::ExtShort,
        Reason::ExtDeep,
        Reason::ExtOrder,
        Reason::Fragment,
        Reason::L4Short,
        Reason::L4Header,
        Reason::ArpShort,
    ];

    /// The reason with this number.
    pub fn from_abi(number: u8) -> Option<Self> {
        Self::ALL.get(usize::from(number)).copied()
    }

    /// The name in tables and logs, in lower case with hyphens.
    pub const fn name(self) -> &'static str {
        match self {
            Reason::Default => "default",
            Reason::Gateway => "gateway",
            Reason::Set => "set",
            Reason::Tuple => "tuple",
            Reason::Arp => "arp",
            Reason::Neighbour => "neighbour",
            Reason::NonIp => "non-ip",
            Reason::EthShort => "eth-short",
            Reason::VlanShort => "vlan-short",
            Reason::VlanDeep => "vlan-deep",
            Reason::Ip4Short => "ip4-short",
            Reason::Ip4Header => "ip4-header",
            Reason::Ip4Length => "ip4-length",
            Reason::Ip6Short => "ip6-short",
            Reason::Ip6Header => "ip6-header",
            Reason::Ip6Length => "ip6-length",
            Reason::ExtShort => "ext-short",
            Reason::ExtDeep => "ext-deep",
            Reason::ExtOrder => "ext-order",
            Reason::Fragment => "fragment",
            Reason::L4Short => "l4-short",
            Reason::L4Header => "l4-header",
            Reason::ArpShort => "arp-short",
        }
    }

    /// Whether the packet could not be parsed.
    pub const fn is_malformed(self) -> bool {
        self as u8 >= Reason::EthShort as u8
    }
}

impl std::fmt::Display for Reason {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name())
    }
}

/// A loss or failure that is nobody's verdict.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, serde::Serialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
#[repr(u8)]
pub enum Loss {
    /// An event found no room in the ring buffer.
    RingFull = 0,
    /// An event was over its rule's rate.
    SampledOut = 1,
    /// The dispatcher found no policy and passed the packet.
    NoPolicy = 2,
    /// A lookup that cannot fail did.
    Map = 3,
    /// A process found no room in the table of processes.
    Process = 4,
}

impl Loss {
    /// Every loss, in the order of their numbers.
    pub const ALL: [Loss; 5] =
        [Loss::RingFull, Loss::SampledOut, Loss::NoPolicy, Loss::Map, Loss::Process];
}

/// `struct ic_ev_hdr`: the head of every event in a ring buffer.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout,
)]
#[repr(C)]
pub struct EventHeader {
    /// Which event follows, e.g. [`EV_SHIELD`].
    pub kind: u16,
    /// Bytes, this head included.
    pub len: u16,
    /// The CPU that wrote it.
    pub cpu: u32,
    /// `CLOCK_BOOTTIME`, nanoseconds.
    pub time_ns: u64,
}
const _: () = assert!(size_of::<EventHeader>() == 16);

/// `struct ic_flat_slot`: what a root says of the first sixteen bits of an address.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout,
)]
#[repr(C)]
pub struct FlatSlot {
    /// The reference that decides them.
    pub reference: u32,
    /// Bit b is clear where no prefix covers any address whose next five bits are b.
    pub touched: u32,
}
const _: () = assert!(size_of::<FlatSlot>() == 8);

/// `struct ic_flat_runs`: a node of at most six runs of equal references, half a cell.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout,
)]
#[repr(C)]
pub struct FlatRuns {
    /// The references of the runs.
    pub refs: [u32; 6],
    /// Seven lanes of nine bits, lane 0 lowest: the first byte value of run i + 1, 256 where there is none.
    pub starts: u64,
}
const _: () = assert!(size_of::<FlatRuns>() == 32);

/// `struct ic_flat_wide`: a node of at most twelve runs of equal references, one cell.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout,
)]
#[repr(C)]
pub struct FlatWide {
    /// The references of the runs.
    pub refs: [u32; 12],
    /// Twice seven lanes of nine bits, as in [`FlatRuns`].
    pub starts: [u64; 2],
}
const _: () = assert!(size_of::<FlatWide>() == 64);

/// `struct ic_flat_bitmap`: a node of up to 256 runs, one cell.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout,
)]
#[repr(C)]
pub struct FlatBitmap {
    /// Bit b is set where byte value b begins a run; bit 0 never is.
    pub starts: [u64; 4],
    /// Set bits in the words before each word.
    pub rank: [u8; 4],
    /// Run r has its reference in word `base + r` of the map.
    pub base: u32,
    /// Zero.
    #[doc(hidden)]
    pub _pad: [u64; 3],
}
const _: () = assert!(size_of::<FlatBitmap>() == 64);

/// `struct ic_flat_skip`: a node that compares many bits at once, half a cell.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout,
)]
#[repr(C)]
pub struct FlatSkip {
    /// 64 bits of the address as a number.
    pub key: u64,
    /// The bits of `key` that count.
    pub mask: u64,
    /// The reference to follow where they are equal.
    pub hit: u32,
    /// The leaf elsewhere.
    pub miss: u32,
    /// 0: the first 64 bits of the address (IPv4: its upper half); 1: the last 64 of an IPv6 address.
    pub low: u32,
    /// Byte of the address that `hit` decides.
    pub depth: u32,
}
const _: () = assert!(size_of::<FlatSkip>() == 32);

/// `struct ic_stats`: packets and bytes, one of each per CPU.
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

/// `struct ic_entry`: what is known of one distinct prefix of a policy.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout,
)]
#[repr(C)]
pub struct Entry {
    /// Packets that it decided or reported; added to by every CPU.
    pub packets: u64,
    /// Slot of the deciding rule.
    pub rule: u16,
    /// Slot of the reporting rule, where `log` is 1.
    pub log_rule: u16,
    /// [`ACTION_NONE`], [`ACTION_DROP`] or [`ACTION_ALLOW`].
    pub action: u8,
    /// 1 where a log set covers the prefix too.
    pub log: u8,
    /// Zero.
    #[doc(hidden)]
    pub _pad: [u8; 2],
}
const _: () = assert!(size_of::<Entry>() == 16);

/// `struct ic_tuple_key`: key of the tuple hash.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout,
)]
#[repr(C)]
pub struct TupleKey {
    /// Source address, network byte order; IPv4 in the first four bytes.
    pub src: [u8; 16],
    /// Destination address, likewise.
    pub dst: [u8; 16],
    /// Destination port, network byte order; 0 where any.
    pub dport: [u8; 2],
    /// IP protocol; 0 where any.
    pub proto: u8,
    /// [`TUPLE_V4`] or [`TUPLE_V6`], perhaps with [`TUPLE_FRAGMENT`].
    pub kind: u8,
    /// Index of the mask that made this key.
    pub shape: u32,
}
const _: () = assert!(size_of::<TupleKey>() == 40);

/// `struct ic_tuple_val`: value of the tuple hash.
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
    /// [`ACTION_DROP`], [`ACTION_ALLOW`] or [`ACTION_NONE`].
    pub action: u8,
    /// 1 where packets are reported too.
    pub log: u8,
    /// Zero.
    #[doc(hidden)]
    pub _pad: [u8; 2],
}
const _: () = assert!(size_of::<TupleVal>() == 16);

/// `struct ic_tuple_mask`: the bits of a packet that one shape of tuple compares.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout,
)]
#[repr(C)]
pub struct TupleMask {
    /// Mask of the source address, network byte order.
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

/// `struct ic_lpm4_key`: key of the `LPM_TRIE` back end, IPv4.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout,
)]
#[repr(C)]
pub struct Lpm4Key {
    /// Bits.
    pub prefixlen: u32,
    /// Network byte order.
    pub addr: [u8; 4],
}
const _: () = assert!(size_of::<Lpm4Key>() == 8);

/// `struct ic_lpm6_key`: key of the `LPM_TRIE` back end, IPv6.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout,
)]
#[repr(C)]
pub struct Lpm6Key {
    /// Bits.
    pub prefixlen: u32,
    /// Network byte order.
    pub addr: [u8; 16],
}
const _: () = assert!(size_of::<Lpm6Key>() == 20);

/// `struct ic_gateways`: addresses that are never blocked.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout,
)]
#[repr(C)]
pub struct Gateways {
    /// How many of `addr4` are in use.
    pub count4: u32,
    /// How many of `addr6` are in use.
    pub count6: u32,
    /// Network byte order.
    pub addr4: [[u8; 4]; 8],
    /// Network byte order.
    pub addr6: [[u8; 16]; 8],
}
const _: () = assert!(size_of::<Gateways>() == 168);

/// `struct ic_generation`: which policy a slot holds.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout,
)]
#[repr(C)]
pub struct Generation {
    /// Counts up from 1; 0 where the slot was never used.
    pub number: u64,
    /// The [`PolicyId`](crate::PolicyId).
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

/// `struct ic_state`: shared by every program of an instance and by the agent.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout,
)]
#[repr(C)]
pub struct State {
    /// [`MAGIC`].
    pub magic: u32,
    /// [`VERSION`].
    pub abi: u32,
    /// Which slot is in force, and until when: see [`SELECTOR_ACTIVE`].
    pub selector: u64,
    /// Which of `gateways` is in force.
    pub gateways_active: u32,
    /// Zero.
    #[doc(hidden)]
    pub _pad: u32,
    /// The set in force and the one to be written next.
    pub gateways: [Gateways; 2],
    /// What each slot holds.
    pub generation: [Generation; 2],
}
const _: () = assert!(size_of::<State>() == 472);

/// `struct ic_sample`: events of one rule in the present second, shared by all CPUs.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout,
)]
#[repr(C)]
pub struct Sample {
    /// Jiffies when the second ends.
    pub window: u64,
    /// Events so far.
    pub sent: u32,
    /// A `bpf_spin_lock`.
    pub lock: u32,
}
const _: () = assert!(size_of::<Sample>() == 16);

/// `struct ic_shield_ev`: a packet, as the ring buffer reports it.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout,
)]
#[repr(C)]
pub struct ShieldEvent {
    /// The common head.
    pub hdr: EventHeader,
    /// [`Generation::number`] of the policy that decided.
    pub generation: u64,
    /// The interface that received it.
    pub ifindex: u32,
    /// Slot of the rule.
    pub rule: u32,
    /// Index of the [`Entry`], 0 where no set decided.
    pub entry: u32,
    /// Bytes of the frame.
    pub packet_len: u32,
    /// Network byte order; IPv4 in the first four bytes.
    pub src: [u8; 16],
    /// Likewise.
    pub dst: [u8; 16],
    /// Network byte order.
    pub sport: [u8; 2],
    /// Network byte order; of ICMP, type and code.
    pub dport: [u8; 2],
    /// Tag ids, outer first; 0xffff where there is none.
    pub vlan: [u16; 2],
    /// 4, 6, or 0 where no address was read.
    pub family: u8,
    /// IP protocol.
    pub proto: u8,
    /// [`VERDICT_PASS`] or [`VERDICT_DROP`].
    pub verdict: u8,
    /// A [`Reason`].
    pub reason: u8,
    /// [`SHIELD_EV_DRY_RUN`] and its like.
    pub flags: u8,
    /// Zero.
    #[doc(hidden)]
    pub _pad: [u8; 3],
}
const _: () = assert!(size_of::<ShieldEvent>() == 88);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reasons_are_numbered_in_order() {
        for (number, reason) in Reason::ALL.iter().enumerate() {
            assert_eq!(*reason as usize, number);
            assert_eq!(Reason::from_abi(number as u8), Some(*reason));
        }
        assert_eq!(Reason::from_abi(Reason::ALL.len() as u8), None);
    }
}
