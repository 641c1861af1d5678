use std::fmt;

use serde::{Deserialize, Serialize};

/// What was done. The names are those of the field's own: program, map, link, pin, feed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "action", rename_all = "kebab-case")]
#[non_exhaustive]
pub enum AuditAction {
    /// A program was loaded after its instructions were audited.
    Load {
        /// The program's name.
        program: String,
        /// The kernel's tag over its instructions, in hexadecimal.
        tag: String,
        /// Instructions as audited.
        instructions: u32,
    },
    /// A program was refused before it reached the kernel, or by the kernel.
    Refuse {
        /// The program's name.
        program: String,
        /// Why.
        reason: String,
    },
    /// A program was attached to a hook.
    Attach {
        /// The program's name.
        program: String,
        /// The hook, e.g. `xdp`.
        hook: String,
        /// The interface.
        interface: String,
        /// How, e.g. `native`.
        mode: String,
    },
    /// A program was detached.
    Detach {
        /// The hook.
        hook: String,
        /// The interface.
        interface: String,
    },
    /// A running link got another program.
    Replace {
        /// The new program's name.
        program: String,
        /// The hook.
        hook: String,
        /// The interface.
        interface: String,
    },
    /// What was protected was removed and created again. It was unprotected until a program was attached
    /// to it.
    Gap {
        /// The hook.
        hook: String,
        /// The interface or cgroup.
        interface: String,
        /// For how long, in milliseconds.
        unchecked_ms: u64,
        /// Of a cgroup, the processes that were in it by then.
        processes: u64,
    },
    /// What is protected is not found where it was: it has another name, or something else hides it. The
    /// programs stay attached to it.
    Displaced {
        /// The hook.
        hook: String,
        /// The interface or cgroup, by its former name.
        interface: String,
        /// What became of it.
        change: String,
    },
    /// A map, program or link was pinned.
    Pin {
        /// What.
        object: String,
        /// Where in bpffs.
        path: String,
    },
    /// A pin was removed.
    Unpin {
        /// Where in bpffs.
        path: String,
    },
    /// What an earlier agent had pinned was adopted.
    Adopt {
        /// The pin directory.
        path: String,
        /// The policy in force, in hexadecimal.
        policy: String,
    },
    /// A map was written.
    MapWrite {
        /// The map's name.
        map: String,
        /// How many elements.
        elements: u64,
        /// What for.
        purpose: String,
    },
    /// Another policy came into force.
    Swap {
        /// The generation's number.
        generation: u64,
        /// The policy, in hexadecimal.
        policy: String,
        /// For how long without confirmation, in milliseconds; none where it is final.
        provisional_ms: Option<u64>,
    },
    /// A provisional policy was confirmed.
    Confirm {
        /// The generation's number.
        generation: u64,
    },
    /// The previous policy came back, by the deadline or by request.
    Revert {
        /// The generation's number that is in force again.
        generation: u64,
        /// Why.
        reason: String,
    },
    /// A feed has another version; it is about to be written to the cache.
    FeedUpdate {
        /// The feed's name.
        feed: String,
        /// Where it was fetched, without what may be secret.
        source: String,
        /// SHA-256 of the version, in hexadecimal.
        sha256: String,
        /// Its entries.
        entries: u64,
        /// Distinct prefixes that the version before did not have.
        added: u64,
        /// Distinct prefixes that only the version before had.
        removed: u64,
    },
    /// A refresh of a feed brought nothing acceptable: its last good version stays.
    FeedKeep {
        /// The feed's name.
        feed: String,
        /// Why.
        reason: String,
    },
    /// What the cache has of a feed is not as it was written.
    FeedDamage {
        /// The feed's name.
        feed: String,
        /// What is wrong.
        reason: String,
    },
    /// A policy was given an empty list in place of a feed that has no good version.
    FeedMissing {
        /// The feed's name.
        feed: String,
        /// Why it has none.
        reason: String,
    },
    /// The last good version of a feed was forgotten.
    FeedForget {
        /// The feed's name.
        feed: String,
    },
    /// An unsigned policy is accepted.
    PolicyUnsigned {
        /// The policy, in hexadecimal.
        policy: String,
    },
    /// A signed bundle was verified, and its serial is kept; its policy is about to come into force.
    BundleAccept {
        /// Counts up with each bundle.
        serial: u64,
        /// Seconds since 1970 UTC.
        expires: u64,
        /// The keys that signed it, as minisign shows them.
        signers: Vec<String>,
    },
    /// The bundle that was just accepted has expired: it is the last one, used again.
    BundleExpired {
        /// Counts up with each bundle.
        serial: u64,
        /// When, seconds since 1970 UTC.
        expires: u64,
    },
    /// A bundle was refused.
    BundleRefuse {
        /// Why.
        reason: String,
    },
    /// A break-glass token was verified, and is good no more; what it permits is about to be so.
    TokenAccept {
        /// Counts up with each token.
        serial: u64,
        /// What it permits.
        permits: String,
        /// The key that it names, as minisign shows it.
        key: String,
    },
    /// A break-glass token was refused.
    TokenRefuse {
        /// Why.
        reason: String,
    },
    /// A program that another process has loaded runs beside Sentinel's.
    ForeignProgram {
        /// Its name: whatever its owner says.
        program: String,
        /// The kernel's id.
        id: u32,
        /// Its type.
        kind: String,
        /// Where it is attached, as far as that is known.
        attached: String,
        /// The kernel's tag over its instructions, in hexadecimal.
        tag: String,
        /// Who loaded it.
        uid: u32,
        /// Whether it is of a type that could undo Sentinel.
        is_suspect: bool,
    },
    /// A hook of Sentinel's no longer denies its self-test.
    #[serde(alias = "hook-silent")]
    HookInactive {
        /// The hook.
        hook: String,
        /// What was seen.
        reason: String,
    },
    /// A hook that was inactive denies its self-test again.
    #[serde(alias = "hook-answers")]
    HookActive {
        /// The hook.
        hook: String,
    },
    /// A mount appeared over protected files that no hook refused: of a trusted or exempt process, or by a race.
    MountOver {
        /// The mount point: bytes that are not printable ASCII, and `%`, as `%` and two hexadecimal digits.
        at: String,
        /// The file system's name.
        kind: String,
    },
    /// A protected file is not as the baseline has it.
    FileChange {
        /// The file: bytes that are not printable ASCII, and `%`, as `%` and two hexadecimal digits.
        path: String,
        /// What became of it.
        change: String,
        /// Whether it changed while Sentinel was not armed, or the agent did not run.
        away: bool,
    },
    /// A baseline of the protected files was read at a start, or written.
    Baseline {
        /// Where it is.
        path: String,
        /// Whether it was written.
        written: bool,
        /// Files in it.
        files: u64,
        /// SHA-256 of the file, in hexadecimal.
        sha256: String,
        /// Files that are not as the one before has them.
        changes: u64,
    },
    /// There is no baseline to compare protected files with.
    BaselineMissing {
        /// Where it was looked for.
        path: String,
        /// Why.
        reason: String,
    },
    /// The audit file ended in a torn line; the line was set aside and the chain goes on.
    Recover {
        /// Where the torn line is kept.
        kept: String,
        /// Its length in bytes.
        bytes: u64,
        /// SHA-256 of its bytes, in hexadecimal.
        sha256: String,
    },
}

impl fmt::Display for AuditAction {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Load { program, tag, instructions } => {
                write!(f, "load {program} (tag {tag}, {instructions} instructions)")
            }
            Self::Refuse { program, reason } => write!(f, "refuse {program}: {reason}"),
            Self::Attach { program, hook, interface, mode } => {
                write!(f, "attach {program} to {hook} of {interface} ({mode})")
            }
            Self::Detach { hook, interface } => write!(f, "detach {hook} of {interface}"),
            Self::Replace { program, hook, interface } => {
                write!(f, "replace by {program} on {hook} of {interface}")
            }
            Self::Gap { hook, interface, unchecked_ms, processes } => write!(
                f,
                "attached again to {hook} of {interface}, which was created {unchecked_ms} ms before and had \
                 {processes} processes"
            ),
            Self::Displaced { hook, interface, change } => {
                write!(f, "still attached to {hook} of {interface}: {change}")
            }
            Self::Pin { object, path } => write!(f, "pin {object} at {path}"),
            Self::Unpin { path } => write!(f, "unpin {path}"),
            Self::Adopt { path, policy } => write!(f, "adopt {path} (policy {policy})"),
            Self::MapWrite { map, elements, purpose } => {
                write!(f, "write {elements} elements of {map}: {purpose}")
            }
            Self::Swap { generation, policy, provisional_ms: None } => {
                write!(f, "swap to generation {generation} (policy {policy})")
            }
            Self::Swap { generation, policy, provisional_ms: Some(ms) } => {
                write!(f, "swap to generation {generation} (policy {policy}) for {ms} ms")
            }
            Self::Confirm { generation } => write!(f, "confirm generation {generation}"),
            Self::Revert { generation, reason } => {
                write!(f, "revert to generation {generation}: {reason}")
            }
            Self::FeedUpdate { feed, source, sha256, entries, added, removed } => write!(
                f,
                "update feed {feed} from {source}: {entries} entries, {added} new, {removed} gone \
                 (SHA-256 {sha256})"
            ),
            Self::FeedKeep { feed, reason } => write!(f, "keep feed {feed} as it is: {reason}"),
            Self::FeedDamage { feed, reason } => write!(f, "feed {feed} is damaged: {reason}"),
            Self::FeedMissing { feed, reason } => write!(f, "feed {feed} stands empty: {reason}"),
            Self::FeedForget { feed } => write!(f, "forget feed {feed}"),
            Self::PolicyUnsigned { policy } => write!(f, "policy {policy} is unsigned"),
            Self::BundleAccept { serial, expires, signers } => {
                let signers = signers.join(", ");
                write!(f, "accept bundle {serial} of {signers} (expires {expires})")
            }
            Self::BundleExpired { serial, expires } => {
                write!(f, "bundle {serial} comes again, and expired at {expires}")
            }
            Self::BundleRefuse { reason } => write!(f, "refuse a bundle: {reason}"),
            Self::TokenAccept { serial, permits, key } => {
                write!(f, "accept break-glass token {serial} of {key}: {permits}")
            }
            Self::TokenRefuse { reason } => write!(f, "refuse a break-glass token: {reason}"),
            Self::ForeignProgram { program, id, kind, attached, tag, uid, is_suspect } => {
                match program.as_str() {
                    "" => write!(f, "found an unnamed program")?,
                    name => write!(f, "found program {name}")?,
                }
                write!(f, " of user {uid} (id {id}, {kind}, attached: {attached}, tag {tag})")?;
                f.write_str(if *is_suspect { ", which could undo Sentinel" } else { "" })
            }
            Self::HookInactive { hook, reason } => write!(f, "hook {hook} is inactive: {reason}"),
            Self::HookActive { hook } => write!(f, "hook {hook} is active again"),
            Self::MountOver { at, kind } => {
                write!(f, "{kind} was mounted over protected files at {at}")
            }
            Self::FileChange { path, change, away } => {
                write!(f, "{path} was {change}{}", if *away { " while away" } else { "" })
            }
            Self::Baseline { path, written, files, sha256, changes } => write!(
                f,
                "{} baseline {path} of {files} files, {changes} changes (SHA-256 {sha256})",
                if *written { "write" } else { "read" }
            ),
            Self::BaselineMissing { path, reason } => write!(f, "no baseline {path}: {reason}"),
            Self::Recover { kept, bytes, sha256 } => {
                write!(f, "set aside a torn line of {bytes} bytes at {kept} (SHA-256 {sha256})")
            }
        }
    }
}
