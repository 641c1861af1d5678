use std::fmt;

use ironclad_bpf::BpfError;
use ironclad_bpf::socket::SlotTables;
use ironclad_core::abi::{Process, SockIdVal, SockPolicy, SockRow, SockRule, SocketReason};
use ironclad_events::SocketRecord;
use ironclad_policy::Protocol;
use ironclad_policy::socket::{
    Cgroups, Decider, ProcessContext, SHA256_MISMATCH, SocketExplanation, SocketQuery,
    SocketTables, explain,
};
use serde::Serialize;

use super::{Control, Shield};
use crate::error::ShieldError;
use crate::sockets::cgroup_paths::{self, CgroupPath, cgroup_root};
use crate::sockets::process_context::{self, DescribedProcess};

/// Why a process would get its answer now.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct ExplainedSocket {
    /// What the tables in the kernel say.
    #[serde(flatten)]
    pub why: SocketExplanation,
    /// False where the process is in no cgroup that is protected: nobody asks the rules of
    /// sockets that it makes. None where its cgroups are not known.
    pub is_asked: Option<bool>,
}

/// Why a process got the answer that an event reports.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct ExplainedEvent {
    /// What the tables in the kernel say now.
    #[serde(flatten)]
    pub why: SocketExplanation,
    /// The process's cgroup; none where it is gone, and rules that ask of it stay open.
    pub cgroup: Option<String>,
    /// The policy that decided is in the kernel no more: this is what the one in force says.
    pub is_replaced: bool,
    /// A source route was refused ([`SocketReason::Route`]), whatever rules say of its first stop: what
    /// they say of that is explained here; of a socket that was told one, nothing.
    pub is_source_route: bool,
    /// The rule that the event names, by its place from 0.
    pub recorded: Option<usize>,
    /// Whether that is the one found now; none where the policy was replaced, an answer is open or
    /// no rule was asked.
    pub agrees: Option<bool>,
}

/// A slot's tables, for whoever explains.
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
    /// Which socket rule decides what a process asks for, and by what each earlier one does not
    /// match: from the tables in the kernel, of the policy that is in force there now.
    ///
    /// A rule with a limit allows as long as its bucket has tokens left, which this does not take.
    ///
    /// # Errors
    /// [`ShieldError::NoCgroup`] where Shield was started without cgroups, and
    /// [`ShieldError::Bpf`].
    pub fn explain_socket(&self, query: &SocketQuery) -> Result<ExplainedSocket, ShieldError> {
        let control = self.lock();
        let why = self.explain_locked(&control, query, None)?;
        let protected = |ids: &Vec<u64>| {
            let mut groups = control.sockets.iter().flat_map(|sockets| sockets.cgroups());
            groups.any(|known| ids.contains(&known.links.id))
        };
        let is_asked = match &query.process_context.cgroups {
            Cgroups::Known(ids) if !ids.is_empty() => Some(protected(ids)),
            _ => None,
        };
        Ok(ExplainedSocket { why, is_asked })
    }

    /// The same of what an event reports. Where its policy is still in the kernel, that one is
    /// asked.
    ///
    /// # Errors
    /// As of [`explain_socket`](Self::explain_socket).
    pub fn explain_event(&self, event: &SocketRecord) -> Result<ExplainedEvent, ShieldError> {
        // Of source routes no rule is asked, and nobody knows who it was.
        let is_source_route = event.reason == SocketReason::Route;
        let group = cgroup_paths::by_id(&cgroup_root()?, event.cgroup);
        let (cgroups, cgroup) = match group {
            Some(CgroupPath { path, ids }) => (Cgroups::Known(ids), Some(path)),
            None => (Cgroups::Unknown, None),
        };
        // The content is not in the event, but none that is pinned where that rule is named.
        let rule = event.rule.and_then(|place| self.socket_rule(event.generation, place));
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
            protocol: Protocol(event.protocol),
            addr: event.addr,
            process_context: ProcessContext {
                process: (!event.unidentified).then_some(process),
                uid: (!is_source_route).then_some(event.uid),
                gid: (!is_source_route).then_some(event.gid),
                cgroups,
                comm: event.comm.as_bytes().to_vec(),
            },
        };
        let mut why = self.explain_locked(&self.lock(), &query, Some(event.generation))?;
        why.certain &= !is_source_route;
        let is_replaced = why.generation != event.generation;
        let found = match (event.log, why.decided_by) {
            (true, _) => why.reported_by().next().map(|rule| rule.place),
            (false, Decider::Rule { place }) => Some(place),
            (false, _) => None,
        };
        let is_told = !is_replaced && !is_source_route && why.certain;
        let agrees = is_told.then_some(found == event.rule);
        Ok(ExplainedEvent {
            why,
            cgroup,
            is_replaced,
            is_source_route,
            recorded: event.rule,
            agrees,
        })
    }

    /// Who a process is, for [`explain_socket`](Self::explain_socket): by its number in the initial
    /// pid namespace. Of threads with names of their own, the first counts.
    ///
    /// # Errors
    /// [`ShieldError::NoProcess`] where it has ended, [`ShieldError::NoCgroup`],
    /// [`ShieldError::Bpf`].
    pub fn process_context(&self, pid: u32) -> Result<ProcessContext, ShieldError> {
        let control = self.lock();
        process_context::running(
            control.sockets.as_ref().ok_or(ShieldError::NoCgroup)?.processes(),
            pid,
        )
    }

    /// The same of a process that need not be. Its paths mean the files that they lead to now.
    ///
    /// # Errors
    /// [`ShieldError::NoFile`], [`ShieldError::NoCgroup`], [`ShieldError::Bpf`].
    pub fn described(&self, process: &DescribedProcess) -> Result<ProcessContext, ShieldError> {
        let control = self.lock();
        process.process_context(control.sockets.as_ref().ok_or(ShieldError::NoCgroup)?.processes())
    }

    /// By the slot of a generation where one holds it, else by the one in force.
    fn explain_locked(
        &self,
        control: &Control,
        query: &SocketQuery,
        generation: Option<u64>,
    ) -> Result<SocketExplanation, ShieldError> {
        let sockets = control.sockets.as_ref().ok_or(ShieldError::NoCgroup)?;
        loop {
            let in_force = self.shared.selector().in_force();
            let of_event = |slot: &u32| Some(self.shared.generation(*slot).number) == generation;
            let slot = [in_force, 1 - in_force].into_iter().find(of_event).unwrap_or(in_force);
            let tables = Tables(sockets.read_slot(slot));
            let why = explain(&tables, query)?;
            // A deadline may pass meanwhile.
            if !tables.0.is_current() || self.shared.selector().in_force() != in_force {
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

/// The answer, then a line for each rule up to the one that decides.
impl fmt::Display for ExplainedSocket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.is_asked == Some(false) {
            f.write_str("not asked, its cgroup is not protected; otherwise ")?;
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
            f.write_str("a source route, refused as rules ask of addresses; of its first stop: ")?;
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
            Some(false) => write!(f, "\n  but the event names {recorded}: what files mean changed"),
            None => write!(f, "\n  the event names {recorded}"),
        }
    }
}
