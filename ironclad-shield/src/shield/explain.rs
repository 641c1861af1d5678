use std::fmt;

use ironclad_bpf::BpfError;
use ironclad_bpf::socket::SlotTables;
use ironclad_core::abi::{Process, SockIdVal, SockPolicy, SockRow, SockRule, SocketReason};
use ironclad_events::SocketRecord;
use ironclad_policy::socket::{
    Cgroups, Decider, ProcessContext, SHA256_MISMATCH, SocketExplanation, SocketQuery,
    SocketTables, explain,
};
use serde::Serialize;

use super::{Control, Shield};
use crate::error::{Failure, ShieldError};
use crate::sockets::cgroup_paths::{CgroupPath, CgroupTree};
use crate::sockets::process_context::{self, DescribedProcess};

/// The decision on a query, and how the rules lead to it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct ExplainedSocket {
    /// The decision by the tables in the kernel.
    #[serde(flatten)]
    pub why: SocketExplanation,
    /// False where no protected cgroup holds the process: rules are not enforced for sockets that it
    /// creates. None where its cgroups are not known.
    pub is_enforced: Option<bool>,
}

/// The decision that an event reports, and how the rules lead to it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct ExplainedEvent {
    /// The decision by the tables that are in the kernel now.
    #[serde(flatten)]
    pub why: SocketExplanation,
    /// The cgroup of the process; none where it was removed, and the match of rules that name one is
    /// unknown.
    pub cgroup: Option<String>,
    /// Whether the policy that decided was replaced: then this is the decision of the one in force.
    pub is_replaced: bool,
    /// Whether a source route was refused ([`SocketReason::Route`]), for which rules are not evaluated.
    /// Explained is the decision on the first stop of a packet; for a socket option, nothing.
    pub is_source_route: bool,
    /// The index from 0 of the rule that the event names.
    pub recorded: Option<usize>,
    /// Whether the rule found now is the same; none where the policy was replaced, a match is unknown or
    /// no rule was evaluated.
    pub agrees: Option<bool>,
}

/// The tables of a slot, for [`explain`].
struct Tables<'a>(SlotTables<'a>);

impl SocketTables for Tables<'_> {
    type Error = BpfError;

    fn policy(&self) -> &SockPolicy {
        self.0.policy()
    }

    fn row(&self, number: u32) -> Option<SockRow> {
        self.0.row(number)
    }

    fn port(&self, port: u16) -> u32 {
        self.0.port(port)
    }

    fn flat(&self, word: usize) -> u32 {
        self.0.flat(word)
    }

    fn rule(&self, number: usize) -> Option<SockRule> {
        self.0.rule(number)
    }

    fn log(&self, number: usize) -> Option<SockRule> {
        self.0.log(number)
    }

    fn id(&self, dim: usize, value: [u64; 2]) -> Result<Option<SockIdVal>, BpfError> {
        self.0.id(dim, value)
    }
}

impl Shield {
    /// Which socket rule decides a query, and by which attribute each earlier one does not match. Reads
    /// the tables in the kernel of the policy in force.
    ///
    /// A rule with a limit allows while its bucket has tokens; this takes none.
    ///
    /// # Errors
    /// `ShieldErrorKind::NoCgroup` where Shield was started without cgroups, and
    /// `ShieldErrorKind::Bpf`.
    pub fn explain_socket(&self, query: &SocketQuery) -> Result<ExplainedSocket, ShieldError> {
        let control = self.core.lock();
        let why = self.explain_locked(&control, query, None)?;
        let protected = |ids: &Vec<u64>| {
            let mut groups = control.sockets.iter().flat_map(|sockets| sockets.cgroups());
            groups.any(|known| ids.contains(&known.links.id))
        };
        let is_enforced = match &query.process_context.cgroups {
            Cgroups::Known(ids) if !ids.is_empty() => Some(protected(ids)),
            _ => None,
        };
        Ok(ExplainedSocket { why, is_enforced })
    }

    /// The same for an event, by the policy that decided where that is still in the kernel.
    ///
    /// # Errors
    /// As of [`explain_socket`](Self::explain_socket).
    pub fn explain_event(&self, event: &SocketRecord) -> Result<ExplainedEvent, ShieldError> {
        // Rules are not evaluated for source routes, and the process is not known.
        let is_source_route = event.reason == SocketReason::Route;
        let group = CgroupTree::open()?.by_id(event.cgroup);
        let (cgroups, cgroup) = match group {
            Some(CgroupPath { path, ids }) => (Cgroups::Known(ids), Some(path)),
            None => (Cgroups::Unknown, None),
        };
        // The event does not have the ctime; where this rule decided, it is none of the pinned ones.
        let rule = self.core.lock().socket_rule(event).map(|rule| rule.id);
        let exe_changed_ns = if rule == Some(SHA256_MISMATCH) { u64::MAX } else { 0 };
        let process = Process {
            exe: event.exe,
            exe_changed_ns,
            parent: event.parent,
            exec_ns: event.exec_ns,
            ancestry: event.ancestry,
            ..Process::default()
        };
        let query = SocketQuery {
            op: event.op,
            protocol: event.protocol,
            addr: event.addr,
            process_context: ProcessContext {
                process: (!event.unidentified).then_some(process),
                uid: (!is_source_route).then_some(event.uid),
                gid: (!is_source_route).then_some(event.gid),
                cgroups,
                comm: event.comm.as_bytes().to_vec(),
            },
        };
        let mut why = self.explain_locked(&self.core.lock(), &query, Some(event.generation))?;
        why.certain &= !is_source_route;
        let is_replaced = why.generation != event.generation;
        let found = match (event.log, why.decided_by) {
            (true, _) => why.reported_by().next().map(|rule| rule.place),
            (false, Decider::Rule { place }) => Some(place),
            (false, _) => None,
        };
        let is_comparable = !is_replaced && !is_source_route && why.certain;
        let agrees = is_comparable.then_some(found == event.rule);
        Ok(ExplainedEvent {
            why,
            cgroup,
            is_replaced,
            is_source_route,
            recorded: event.rule,
            agrees,
        })
    }

    /// The context of a running process for [`explain_socket`](Self::explain_socket), by its number in
    /// the initial pid namespace. It has the name of the first thread.
    ///
    /// # Errors
    /// `ShieldErrorKind::NoProcess` where it has ended, `ShieldErrorKind::NoCgroup`,
    /// `ShieldErrorKind::Bpf`.
    pub fn process_context(&self, pid: u32) -> Result<ProcessContext, ShieldError> {
        let control = self.core.lock();
        process_context::running(
            control.sockets.as_ref().ok_or(Failure::NoCgroup)?.processes(),
            pid,
        )
    }

    /// The context of a process that need not exist. Its paths are resolved now.
    ///
    /// # Errors
    /// `ShieldErrorKind::NoFile`, `ShieldErrorKind::NoCgroup`, `ShieldErrorKind::Bpf`.
    pub fn described(&self, process: &DescribedProcess) -> Result<ProcessContext, ShieldError> {
        let control = self.core.lock();
        process.process_context(control.sockets.as_ref().ok_or(Failure::NoCgroup)?.processes())
    }

    /// By the slot that holds `generation`, else by the one in force.
    fn explain_locked(
        &self,
        control: &Control,
        query: &SocketQuery,
        generation: Option<u64>,
    ) -> Result<SocketExplanation, ShieldError> {
        let sockets = control.sockets.as_ref().ok_or(Failure::NoCgroup)?;
        loop {
            let in_force = self.core.shared.selector().in_force();
            let of_event =
                |slot: &u32| Some(self.core.shared.generation(*slot).number) == generation;
            let slot = [in_force, 1 - in_force].into_iter().find(of_event).unwrap_or(in_force);
            let tables = Tables(sockets.read_slot(slot));
            let why = explain(&tables, query)?;
            // A deadline may pass meanwhile.
            if !tables.0.is_current() || self.core.shared.selector().in_force() != in_force {
                continue;
            }
            let loaded = control.policies[slot as usize].as_ref();
            let loaded = loaded.filter(|loaded| loaded.number == why.generation);
            let policy = loaded.and_then(|loaded| loaded.policy.as_ref()?.sockets());
            return Ok(match policy {
                Some(policy) => why.named(policy),
                None => why,
            });
        }
    }
}

/// The decision, then a line for each rule up to the one that decides.
impl fmt::Display for ExplainedSocket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.is_enforced == Some(false) {
            f.write_str("not enforced, its cgroup is not protected; otherwise ")?;
        }
        self.why.fmt(f)
    }
}

/// Likewise.
impl fmt::Display for ExplainedEvent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.is_replaced {
            f.write_str("the policy that decided was replaced; by the one in force: ")?;
        }
        if self.is_source_route {
            f.write_str(
                "a source route, refused as rules compare addresses; for its first stop: ",
            )?;
        }
        self.why.fmt(f)?;
        if self.is_source_route {
            return Ok(());
        }
        let recorded = match self.recorded {
            Some(place) => format!("rule #{}", place + 1),
            None => "the default".to_owned(),
        };
        match self.agrees {
            Some(true) => Ok(()),
            Some(false) => {
                write!(f, "\n  but the event names {recorded}: files of rules were replaced")
            }
            None => write!(f, "\n  the event names {recorded}"),
        }
    }
}
