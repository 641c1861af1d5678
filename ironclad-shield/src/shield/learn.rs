use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};

use ironclad_bpf::socket::Processes;
use ironclad_core::SocketVerdict;
use ironclad_core::abi::{FileId, Loss};
use ironclad_events::SocketRecord;
use ironclad_policy::CompiledPolicy;
use ironclad_policy::learn::{LearnOptions, Learner, Observation};
use ironclad_policy::socket::CompiledSockets;

use super::{Control, Shield};
use crate::error::{Failure, ShieldError};

/// Learns from events which connections processes need. The policy in force has to be a
/// [`learning`](ironclad_policy::Policy::learning) one, or it reports little.
///
/// ```no_run
/// use std::time::{Duration, Instant};
///
/// use ironclad_policy::Policy;
/// use ironclad_policy::learn::LearnOptions;
/// use ironclad_shield::{Overflow, Record, Shield};
///
/// let policy = Policy::builder().learning().compile()?;
/// let shield = Shield::builder("agent").cgroup("/sys/fs/cgroup/user.slice").start(&policy)?;
/// let (pump, events) = shield.events(65_536, Overflow::DropNewest)?;
/// let mut learning = shield.learn(LearnOptions::default())?;
/// let end = Instant::now() + Duration::from_secs(3600);
/// while Instant::now() < end {
///     let record = events.recv_timeout(Duration::from_secs(1));
///     if let Some(event) = record.and_then(Record::into_socket) {
///         learning.saw(&event)?;
///     }
/// }
/// learning.lost(pump.stats().lost);
/// println!("{}", learning.document()?);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct Learning<'a> {
    shield: &'a Shield,
    learner: Learner,
    /// Events that had been lost when it began.
    lost_before: u64,
}

impl Shield {
    /// Begins to learn: pass events to [`saw`](Learning::saw).
    ///
    /// # Errors
    /// `ShieldErrorKind::NoCgroup` where Shield was started without cgroups, and
    /// `ShieldErrorKind::Bpf`.
    pub fn learn(&self, options: LearnOptions) -> Result<Learning<'_>, ShieldError> {
        processes(&self.core.lock())?;
        let lost_before = self.events_lost()?;
        let mut learner = Learner::new(options);
        let policy = self.policy();
        let sockets = policy.as_ref().and_then(CompiledPolicy::sockets);
        if sockets.and_then(CompiledSockets::packet_sockets).is_none() {
            learner.packets_unseen();
        }
        Ok(Learning { shield: self, learner, lost_before })
    }

    /// The path by which a file is executed, to show with events. It is a label and no proof: the
    /// argument of the first execve(2), or else the path in `/proc` of a process that runs it. It may be
    /// relative to another root, or lead to another file by now. None where it is not known.
    ///
    /// # Errors
    /// `ShieldErrorKind::NoCgroup` where Shield was started without cgroups, and
    /// `ShieldErrorKind::Bpf`.
    pub fn exe_path(&self, exe: &FileId) -> Result<Option<PathBuf>, ShieldError> {
        Ok(processes(&self.core.lock())?.exe_path(exe)?)
    }

    /// Events that the kernel did not write, those of packets included.
    fn events_lost(&self) -> Result<u64, ShieldError> {
        let counters = self.counters()?;
        Ok(counters.loss(Loss::RingFull) + counters.loss(Loss::SampledOut))
    }
}

fn processes(control: &Control) -> Result<&Processes, ShieldError> {
    Ok(control.sockets.as_ref().ok_or(Failure::NoCgroup)?.processes())
}

impl Learning<'_> {
    /// Learns from an event. Reads the path of its executable when that is new: call it soon, while
    /// the process runs.
    ///
    /// # Errors
    /// `ShieldErrorKind::Bpf` where the kernel refuses.
    pub fn saw(&mut self, event: &SocketRecord) -> Result<(), ShieldError> {
        if event.log {
            // Another event reports the decision.
            return Ok(());
        }
        if event.verdict == SocketVerdict::Deny {
            self.learner.denied();
            return Ok(());
        }
        let exe = (!event.unidentified).then_some(event.exe);
        let is_new = self.learner.saw(&Observation {
            exe,
            uid: event.uid,
            op: event.op,
            protocol: event.protocol,
            addr: event.addr,
        });
        if let Some(exe) = exe.filter(|_| is_new) {
            let control = self.shield.core.lock();
            let processes = processes(&control)?;
            let label = processes.exe_path(&exe)?;
            // The path itself, and not a link to it, which any user may have created.
            let path = label.as_ref().and_then(|label| std::fs::canonicalize(label).ok());
            match path {
                Some(path) if leads_to(processes, &path, exe)? => self.learner.name(exe, path),
                Some(_) => self.learner.unnamed(exe, label, "the path leads to another file"),
                None if label.is_some() && processes.is_deleted(&exe)? => {
                    self.learner.unnamed(exe, label, "the file was deleted");
                }
                None if label.is_some() => {
                    self.learner.unnamed(exe, label, "the path leads to no file");
                }
                None => self.learner.unnamed(exe, None, "its path is not known"),
            }
        }
        Ok(())
    }

    /// Adds events that the channel lost.
    pub fn lost(&mut self, events: u64) {
        self.learner.lost(events);
    }

    /// A policy file that allows what was seen, with comments on what it lacks. Paths are resolved again:
    /// a file that was replaced meanwhile is a comment.
    ///
    /// # Errors
    /// `ShieldErrorKind::Bpf` where the kernel refuses.
    pub fn document(&self) -> Result<String, ShieldError> {
        let mut learner = self.learner.clone();
        learner.lost(self.shield.events_lost()?.saturating_sub(self.lost_before));
        let named: BTreeMap<FileId, PathBuf> =
            self.learner.named().map(|(file, path)| (file, path.clone())).collect();
        let paths: Vec<&Path> = named.values().map(PathBuf::as_path).collect();
        let control = self.shield.core.lock();
        let found = processes(&control)?.identify(&paths)?;
        for ((file, path), found) in named.iter().zip(found) {
            let why = match found {
                Some(found) if found == *file => continue,
                Some(_) => "the file was replaced meanwhile",
                None => "the file was deleted meanwhile",
            };
            learner.unnamed(*file, Some(path.clone()), why);
        }
        Ok(learner.document())
    }
}

fn leads_to(processes: &Processes, path: &Path, exe: FileId) -> Result<bool, ShieldError> {
    Ok(processes.identify(&[path])?.first() == Some(&Some(exe)))
}

impl fmt::Debug for Learning<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Learning").field("learner", &self.learner).finish_non_exhaustive()
    }
}
