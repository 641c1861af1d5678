//! What is looked at again and again: whether hooks answer, and what guarded files contain.

use std::collections::BTreeMap;
use std::fmt;
use std::io;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use ironclad_bpf::boottime_ns;
use ironclad_bpf::sentinel::{Guard, canaries};
use ironclad_core::ErrorChain;
use ironclad_core::audit::{AuditAction, AuditSink};
use serde::Serialize;

use crate::baseline::{Baseline, FileChange, Scopes};
use crate::error::SentinelError;
use crate::sentinel::{Scratch, State};

/// What Sentinel finds out by itself.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum Alarm {
    /// A hook no longer refuses what it is told to refuse.
    Silent {
        /// The hook.
        hook: String,
        /// What was seen.
        why: String,
    },
    /// A hook that was silent refuses again.
    Answers {
        /// The hook.
        hook: String,
    },
    /// Files that rules name are not as they were at the last look, by whoever may change them.
    Files(Vec<FileChange>),
}

impl fmt::Display for Alarm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Silent { hook, why } => write!(f, "hook {hook} is silent: {why}"),
            Self::Answers { hook } => write!(f, "hook {hook} answers again"),
            Self::Files(changes) => write!(f, "{} guarded files have changed", changes.len()),
        }
    }
}

/// Who is told.
pub(crate) type OnAlarm = Arc<dyn Fn(&Alarm) + Send + Sync>;

/// What a handle and the thread that looks share.
pub(crate) struct Watched {
    pub(crate) instance: String,
    pub(crate) audit: Arc<dyn AuditSink>,
    pub(crate) on_alarm: Option<OnAlarm>,
    pub(crate) scratch: Scratch,
    pub(crate) state: Mutex<State>,
    pub(crate) baseline: Option<Baseline>,
    pub(crate) guard: Guard,
    /// The kernel knows one canary at a time.
    pub(crate) trying: Mutex<()>,
}

impl Watched {
    /// The instance, and where its audit records go.
    #[cfg(feature = "signed")]
    pub(crate) fn audited(&self) -> (&str, &dyn AuditSink) {
        (&self.instance, &*self.audit)
    }

    pub(crate) fn record(&self, action: &AuditAction) -> Result<(), SentinelError> {
        Ok(self.audit.record(&self.instance, action)?)
    }

    pub(crate) fn lock(&self) -> MutexGuard<'_, State> {
        // Whoever panicked had changed nothing that the kernel does not know of.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn tell(&self, alarm: &Alarm) {
        match alarm {
            Alarm::Answers { .. } | Alarm::Files(_) => tracing::warn!("{alarm}"),
            Alarm::Silent { .. } => tracing::error!("{alarm}"),
        }
        self.on_alarm.iter().for_each(|tell| tell(alarm));
    }

    /// Sees whether each hook refuses a call that it is told to refuse, says what is wrong, and tells of
    /// those that were not so the last time.
    pub(crate) fn look(&self) -> Result<Vec<String>, SentinelError> {
        let alone = self.trying.lock().unwrap_or_else(PoisonError::into_inner);
        let found = canaries(&self.guard, &self.scratch.0);
        let now = boottime_ns();
        let silent = found.iter().filter_map(|canary| {
            canary.silent.as_ref().map(|why| format!("hook {}: {why}", canary.hook))
        });
        let missing = self.guard.missing().iter().filter(|it| !it.is_optional);
        let missing = missing.map(|it| format!("hook {}: this kernel has none", it.hook));
        let wrong = silent.chain(missing).collect();
        let alarms = {
            let mut state = self.lock();
            let was: BTreeMap<_, _> =
                state.canaries.iter().map(|it| (it.hook, it.silent.is_some())).collect();
            let alarms: Vec<_> = found
                .iter()
                .filter_map(|canary| {
                    let hook = canary.hook.name().to_owned();
                    match (was.get(&canary.hook).copied().unwrap_or(false), &canary.silent) {
                        (false, Some(why)) => Some(Alarm::Silent { hook, why: why.clone() }),
                        (true, None) => Some(Alarm::Answers { hook }),
                        _ => None,
                    }
                })
                .collect();
            let answered = found.iter().filter(|canary| canary.silent.is_none());
            state.answered.extend(answered.map(|canary| (canary.hook, now)));
            state.canaries = found;
            alarms
        };
        drop(alone);
        alarms.iter().for_each(|alarm| self.tell(alarm));
        let mut records = alarms.iter().filter_map(|alarm| match alarm.clone() {
            Alarm::Silent { hook, why } => Some(AuditAction::HookSilent { hook, reason: why }),
            Alarm::Answers { hook } => Some(AuditAction::HookAnswers { hook }),
            Alarm::Files(_) => None,
        });
        records.try_for_each(|record| self.record(&record))?;
        Ok(wrong)
    }

    /// Takes over what guarded files contain by now, of those that `scopes` name, and tells of it.
    pub(crate) fn look_at_files(
        &self,
        scopes: Option<(Scopes, &str)>,
    ) -> Result<Vec<FileChange>, SentinelError> {
        let Some(baseline) = &self.baseline else { return Ok(Vec::new()) };
        let look = baseline.look(scopes).map_err(|source| baseline.failed(source))?;
        let Some(look) = look else { return Ok(Vec::new()) };
        if !look.changes.is_empty() {
            self.tell(&Alarm::Files(look.changes.clone()));
        }
        look.records.iter().try_for_each(|record| self.record(record))?;
        Ok(look.changes)
    }

    fn watch(&self) {
        let looked = self.look().map(drop).and_then(|()| self.look_at_files(None).map(drop));
        let why = looked.err().map(|error| ErrorChain::new(&error).to_string());
        if let Some(error) = &why {
            tracing::error!(%error, "looking at hooks and files");
        }
        self.lock().unwatched = why;
    }
}

/// The thread that looks. Dropping it ends it, and waits until it has ended.
pub(crate) struct Watch {
    watched: Arc<Watched>,
    is_over: Arc<(Mutex<bool>, Condvar)>,
    thread: Option<JoinHandle<()>>,
}

impl Watch {
    pub(crate) fn start(watched: &Arc<Watched>, every: Duration) -> io::Result<Self> {
        let is_over = Arc::new((Mutex::new(false), Condvar::new()));
        let (told, theirs) = (Arc::clone(&is_over), Arc::clone(watched));
        let thread = std::thread::Builder::new().name("sentinel-watch".to_owned());
        let thread = thread.spawn(move || {
            while !is_told(&told, every) {
                theirs.watch();
            }
        })?;
        Ok(Self { watched: Arc::clone(watched), is_over, thread: Some(thread) })
    }

    /// Lets it finish what it looks at.
    pub(crate) fn end(&mut self) {
        let (is_over, told) = &*self.is_over;
        *is_over.lock().unwrap_or_else(PoisonError::into_inner) = true;
        told.notify_all();
        let Some(thread) = self.thread.take() else { return };
        // A callback of `on_alarm` may drop the handle.
        if thread.thread().id() != std::thread::current().id() {
            // It has told already what it panicked of.
            let _ = thread.join();
        }
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        if let Some(baseline) = &self.watched.baseline {
            baseline.end();
        }
        self.end();
    }
}

/// Waits until it is over, at most so long.
fn is_told((is_over, told): &(Mutex<bool>, Condvar), within: Duration) -> bool {
    let is_over = is_over.lock().unwrap_or_else(PoisonError::into_inner);
    let waited = told.wait_timeout_while(is_over, within, |is_over| !*is_over);
    *waited.unwrap_or_else(PoisonError::into_inner).0
}
