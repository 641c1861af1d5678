//! Ironclad defends a Linux host from inside the kernel with eBPF.
//!
//! This crate is the facade. It re-exports what an agent needs of the other crates of the family, item by item.
//!
//! - [`policy`]: address lists, feeds and policies, compiled.
//! - [`shield`]: the firewall.
//! - [`sentinel`]: the integrity guard.
//! - [`events`]: what the kernel reports, decoded.
//! - [`probe`]: what this kernel supports.
//! - [`core`](mod@core): the shared vocabulary, audit records.
//!
//! # Features
//!
//! No feature changes what others add. `shield` and `sentinel` are on by default.
//!
//! | feature | adds |
//! |---|---|
//! | `shield`, `sentinel` | the modules of these names, and their eBPF programs |
//! | `build-bpf` | nothing: the eBPF programs are compiled from their sources, also where the package carries them |
//! | `crossbeam` | `EventReceiver::as_crossbeam`, for `select!` of crossbeam-channel |
//! | `feed` | `policy::feed`: address lists that change, with their last good versions on disk |
//! | `fetch` | `feed`, and fetching lists by HTTPS |
//! | `maxmind` | countries from databases in MaxMind's format |
//! | `schema` | `policy::document::schema`: the JSON Schema of policy files |
//! | `signed` | `policy::bundle`: policies in bundles that minisign signs |
//! | `unstable` | `bpf` (programs, maps, pins, links, the instruction audit) and `core::abi` (the layout of maps and records), which may change in any release |
//!
//! # Example
//!
//! ```no_run
//! use ironclad::core::{Action, RuleId};
//! use ironclad::policy::{AddressSet, Policy};
//! use ironclad::shield::Shield;
//!
//! let set = AddressSet::new(RuleId(1), "bad", Action::Drop).cidrs(["192.0.2.0/24".parse()?]);
//! let policy = Policy::builder().set(set).compile()?;
//! let shield = Shield::builder("my-agent")
//!     .interface("eth0")
//!     .gateways(["10.0.0.1".parse()?])
//!     .start(&policy)?;
//! println!("{} packets dropped", shield.counters()?.dropped().packets);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
#![forbid(unsafe_code)]

/// Programs, maps, pins, links and the instruction audit. Not covered by semantic versioning.
#[cfg(feature = "unstable")]
pub use ironclad_bpf as bpf;
pub use ironclad_bpf::probe;

/// The shared vocabulary: prefixes, rule ids, verdicts, audit records.
pub mod core {
    /// The layout of maps and records. Not covered by semantic versioning.
    #[cfg(feature = "unstable")]
    pub use ironclad_core::abi;
    pub use ironclad_core::audit;
    pub use ironclad_core::{
        Action, Cidr, CidrError, ErrorChain, Family, InstanceName, InstanceNameError, PolicyId,
        Protocol, RuleId, SocketProtocol, SocketVerdict, Verdict, WallTime,
    };
}

/// What the kernel reports, decoded.
pub mod events {
    pub use ironclad_core::abi::{
        FileId, FileOp, Loss, Reason, SentinelHook, SentinelVerdict, SocketOp, SocketReason,
    };
    pub use ironclad_events::{
        DecodeError, Event, EventPump, EventReceiver, EventSender, IntoIter, Iter, Overflow,
        Record, SentinelEvent, SentinelRecord, ShieldEvent, ShieldRecord, SocketEvent,
        SocketRecord, Stats, channel, decode,
    };
}

/// Address lists, feeds and policies, compiled.
pub mod policy {
    #[cfg(feature = "signed")]
    pub use ironclad_policy::bundle;
    #[cfg(all(unix, feature = "feed"))]
    pub use ironclad_policy::feed;
    pub use ironclad_policy::{
        AddressList, AddressSet, Backend, ChecksumError, CompiledPolicy, Cover, EVENTS_PER_SECOND,
        Explanation, FlatTable, Limits, Meaning, Memory, PacketExplanation, PacketQuery, Policy,
        PolicyDiff, PolicyError, PolicyErrorKind, PolicyPart, PolicySource, PolicyWarning,
        PrefixChange, Protocol, Provenance, Rule, Settings, Sha256Sum, SocketMemory,
        SocketProtocol, TupleRule,
    };
    pub use ironclad_policy::{country, document, file, learn, list, socket, trust};
}

/// The integrity guard on BPF LSM.
#[cfg(feature = "sentinel")]
pub mod sentinel {
    pub use ironclad_bpf::uapi::{AttachType, ProgramType};
    pub use ironclad_core::abi::FileId;
    pub use ironclad_sentinel::{
        Alarm, BaselineOptions, BaselineReport, Change, Compared, CompiledPolicy, Dangerous,
        Degraded, EventPump, EventReceiver, ExplainedAlarm, FileChange, FileState, Foreign,
        ForeignProgram, HeldFile, Holder, HookState, HookStatus, KernelStatus, Launch,
        LoadedProgram, Missing, MissingKind, MountOver, OnSuspect, Overflow, PolicyPart,
        PolicySource, PreopenedDescriptor, Progress, Provenance, Record, Refreshed, Secret,
        Sentinel, SentinelBuilder, SentinelError, SentinelErrorKind, SentinelRecord, Status,
        Unread, VolumeStatus,
    };
}

/// The firewall at XDP and at cgroups.
#[cfg(feature = "shield")]
pub mod shield {
    pub use ironclad_bpf::Program;
    pub use ironclad_core::abi::FileId;
    pub use ironclad_shield::{
        ApplyOptions, BPFFS, BpfError, BpfErrorKind, CgroupStatus, CompiledPolicy, Count, Counters,
        DescribedEvent, DescribedProcess, EventPump, EventReceiver, EventRing, ExplainedEvent,
        ExplainedSocket, Interface, InterfaceChange, InterfaceStatus, Learning, LinkLayer,
        LossCount, NamedRule, Overflow, PathChange, PinDirectory, PolicyPart, PolicySource,
        PrefixCount, Provenance, ReasonCount, Record, RuleCount, Shield, ShieldBuilder,
        ShieldError, ShieldErrorKind, ShieldRecord, SocketCount, SocketRecord, Status, TestRun,
        TrustError, TrustErrorKind, UnprotectedInterface, XdpMode,
    };
}

#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
