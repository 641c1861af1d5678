//! Self-tests of hooks and comparisons of protected files, at the start and by a thread.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::fs::File;
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::sync::mpsc::{self, RecvTimeoutError};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use ironclad_bpf::sentinel::{Canary, Guard, canaries};
use ironclad_bpf::{BpfError, EventRing, boottime_ns};
use ironclad_core::ErrorChain;
use ironclad_core::audit::{AuditAction, AuditLog};
use ironclad_policy::trust::UnsignedWarning;
use rustix::event::{EventfdFlags, PollFd, PollFlags, Timespec, eventfd, poll};
use rustix::io::Errno;
use serde::Serialize;

use crate::baseline::{Baseline, FileChange, Scopes};
use crate::error::{Failure, SentinelError};
use crate::preopened::Preopened;
use crate::resolve;
use crate::sentinel::{Scratch, State};
use crate::status::Swapped;
use crate::volumes::{self, MountOver};

/// What the self-test of hooks, or a comparison of files, has found.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum Alarm {
    /// A hook failed its self-test: it is inactive.
    HookInactive {
        /// The hook.
        hook: String,
        /// What the self-test found.
        why: String,
    },
    /// A hook that was inactive passed its self-test.
    HookActive {
        /// The hook.
        hook: String,
    },
    /// A mount appeared over protected files that no hook refused: of a trusted or exempt process, or of a process that
    /// had the mount point change after the hook.
    MountOver(MountOver),
    /// Swap was switched on while protected files are on a tmpfs: see [`crate::Degraded::Swap`].
    Swap {
        /// The mount point of the tmpfs.
        at: PathBuf,
    },
    /// Protected files have changed since the last comparison: by trusted or exempt processes.
    Files(Vec<FileChange>),
    /// The audit sink has not returned for 5 s. A process may hold its file: a direct read (`O_DIRECT`) into memory that
    /// never comes holds the lock that a write waits for. Further alarms do not wait for their records.
    AuditWaits,
}

impl fmt::Display for Alarm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::HookInactive { hook, why } => write!(f, "hook {hook} is inactive: {why}"),
            Self::HookActive { hook } => write!(f, "hook {hook} is active again"),
            Self::MountOver(mount) => mount.fmt(f),
            Self::Swap { at } => Swapped(at).fmt(f),
            Self::Files(changes) => write!(f, "{} protected files have changed", changes.len()),
            Self::AuditWaits => write!(
                f,
                "the audit sink has not returned for {} s: a process may hold its file",
                AUDIT_PATIENCE.as_secs()
            ),
        }
    }
}

/// How long alarms wait for their records.
const AUDIT_PATIENCE: Duration = Duration::from_secs(5);
const AUDIT_THREAD: &str = "sentinel-audit";

/// The callback of the builder.
pub(crate) type OnAlarm = Arc<dyn Fn(&Alarm) + Send + Sync>;

/// What the handle and the watch thread share.
pub(crate) struct Watched {
    pub(crate) audit: AuditLog,
    pub(crate) unsigned: UnsignedWarning,
    pub(crate) on_alarm: Option<OnAlarm>,
    pub(crate) scratch: Scratch,
    pub(crate) state: Mutex<State>,
    pub(crate) baseline: Option<Baseline>,
    pub(crate) guard: Guard,
    /// Held during a self-test: the kernel has room for one test.
    pub(crate) testing: Mutex<()>,
}

/// Whether the hook passed its self-test.
fn is_active(it: &Canary) -> bool {
    it.inactive.is_none() && it.not_tested.is_none() && it.refused_elsewhere.is_none()
}

impl Watched {
    pub(crate) fn record(&self, action: &AuditAction) -> Result<(), SentinelError> {
        self.report(std::slice::from_ref(action), &[])
    }

    /// Writes records, then raises alarms: these print, and a reader of the log may have stopped. Where the sink does not
    /// return, another thread raises the alarms.
    fn report(&self, records: &[AuditAction], alarms: &[Alarm]) -> Result<(), SentinelError> {
        let raise = || alarms.iter().for_each(|alarm| self.raise(alarm));
        if records.is_empty() {
            raise();
            return Ok(());
        }
        std::thread::scope(|scope| {
            let (done, is_done) = mpsc::channel::<()>();
            let thread = ironclad_core::thread(AUDIT_THREAD);
            // Without a thread, alarms wait.
            let waiting = thread.spawn_scoped(scope, move || {
                let waited = is_done.recv_timeout(AUDIT_PATIENCE);
                let is_late = waited == Err(RecvTimeoutError::Timeout);
                if is_late {
                    self.raise(&Alarm::AuditWaits);
                    raise();
                }
                is_late
            });
            let recorded = records.iter().try_for_each(|record| self.audit.record(record));
            drop(done);
            // A callback that panicked was called.
            if !waiting.is_ok_and(|it| it.join().unwrap_or(true)) {
                raise();
            }
            Ok(recorded?)
        })
    }

    pub(crate) fn lock(&self) -> MutexGuard<'_, State> {
        // A thread that panicked has left this state in agreement with the kernel.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn raise(&self, alarm: &Alarm) {
        match alarm {
            Alarm::HookActive { .. } | Alarm::Files(_) => tracing::warn!("{alarm}"),
            Alarm::HookInactive { .. }
            | Alarm::MountOver(_)
            | Alarm::Swap { .. }
            | Alarm::AuditWaits => {
                tracing::error!("{alarm}");
            }
        }
        self.on_alarm.iter().for_each(|call| call(alarm));
    }

    /// Tests each hook, raises alarms for hooks whose state has changed, and returns what is wrong.
    pub(crate) fn test_hooks(&self) -> Result<Vec<String>, SentinelError> {
        let alone = self.testing.lock().unwrap_or_else(PoisonError::into_inner);
        let found = canaries(&self.guard, &self.scratch.path());
        let now = boottime_ns();
        let inactive = found.iter().filter_map(|canary| {
            canary.inactive.as_ref().map(|why| format!("hook {}: {why}", canary.hook))
        });
        let missing = self.guard.missing().iter().filter(|it| !it.is_optional);
        let missing = missing.map(|it| format!("hook {}: this kernel lacks it", it.hook));
        let wrong = inactive.chain(missing).collect();
        let alarms = {
            let mut state = self.lock();
            let was: BTreeMap<_, _> =
                state.canaries.iter().map(|it| (it.hook, it.inactive.is_some())).collect();
            let alarms: Vec<_> = found
                .iter()
                .filter_map(|canary| {
                    let hook = canary.hook.name().to_owned();
                    match (was.get(&canary.hook).copied().unwrap_or(false), &canary.inactive) {
                        (false, Some(why)) => Some(Alarm::HookInactive { hook, why: why.clone() }),
                        (true, None) if is_active(canary) => Some(Alarm::HookActive { hook }),
                        _ => None,
                    }
                })
                .collect();
            let active = found.iter().filter(|it| is_active(it));
            state.last_active.extend(active.map(|canary| (canary.hook, now)));
            state.canaries = found;
            alarms
        };
        drop(alone);
        let record = |alarm: &Alarm| match alarm.clone() {
            Alarm::HookInactive { hook, why } => {
                Some(AuditAction::HookInactive { hook, reason: why })
            }
            Alarm::HookActive { hook } => Some(AuditAction::HookActive { hook }),
            Alarm::MountOver(_) | Alarm::Swap { .. } | Alarm::Files(_) | Alarm::AuditWaits => None,
        };
        let records: Vec<_> = alarms.iter().filter_map(record).collect();
        self.report(&records, &alarms).map(|()| wrong)
    }

    /// Updates the baseline to the present content of the files in `scopes`, and raises an alarm for changes.
    pub(crate) fn compare_files(
        &self,
        scopes: Option<(Scopes, &str)>,
    ) -> Result<Vec<FileChange>, SentinelError> {
        let Some(baseline) = &self.baseline else { return Ok(Vec::new()) };
        let found = baseline.compare(scopes).map_err(|source| baseline.failed(source))?;
        let Some(found) = found else { return Ok(Vec::new()) };
        let has_changed = !found.changes.is_empty();
        let alarm = has_changed.then(|| Alarm::Files(found.changes.clone()));
        self.report(&found.records, alarm.as_slice()).map(|()| found.changes)
    }

    /// Raises an alarm for each mount that appeared over protected files since the policy was applied.
    pub(crate) fn check_mounts(&self) -> Result<(), SentinelError> {
        let alarms = {
            let mut state = self.lock();
            let found = match state.coverage() {
                Some(coverage) => state.known_mounts.unknown(coverage, resolve::mounts()?),
                None => return Ok(()),
            };
            let former = std::mem::replace(&mut state.mounts_over, found.clone());
            found.into_iter().filter(|it| !former.contains(it)).collect::<Vec<_>>()
        };
        let records: Vec<_> = alarms.iter().map(MountOver::record).collect();
        let alarms: Vec<_> = alarms.into_iter().map(Alarm::MountOver).collect();
        self.report(&records, &alarms)
    }

    /// Raises an alarm for each tmpfs with protected files that may be swapped out since the last call.
    pub(crate) fn check_swap(&self) -> Result<(), SentinelError> {
        let failed = |source| BpfError::system("reading mounts and swap", source);
        let found = match volumes::has_swap().map_err(failed)? {
            true => {
                let scopes = self.lock().scopes.clone();
                let volumes = volumes::of(&scopes).map_err(failed)?;
                volumes.into_iter().filter(|it| it.is_swapped).map(|it| it.at).collect()
            }
            false => BTreeSet::new(),
        };
        let former = std::mem::replace(&mut self.lock().swapped, found.clone());
        let alarm = |at: &PathBuf| Alarm::Swap { at: at.clone() };
        let alarms: Vec<_> = found.difference(&former).map(alarm).collect();
        self.report(&[], &alarms)
    }

    /// Counts again what has protected files open for writing since before the rules covered them.
    pub(crate) fn find_preopened(&self) -> Result<(), SentinelError> {
        let mut state = self.lock();
        let Some(coverage) = state.coverage() else { return Ok(()) };
        let found = Preopened::find(&self.guard, coverage)?;
        let is_new = state.preopened != found;
        state.preopened = found;
        if is_new {
            state.warn_of_preopened();
        }
        Ok(())
    }

    fn watch(&self) {
        let done = self.test_hooks().and_then(|_| self.find_preopened());
        let done = done.and_then(|()| self.check_mounts()).and_then(|()| self.check_swap());
        self.finish(done.and_then(|()| self.compare_files(None)).err());
    }

    /// Has writes by descriptors checked, before the next count: a file that is open gets a protected name.
    fn check_writes(&self) {
        // A count that is under way ends first.
        let state = self.lock();
        let done = self.guard.check_writes(true);
        drop(state);
        if let Err(error) = done {
            self.finish(Some(error.into()));
        }
    }

    fn finish(&self, error: Option<SentinelError>) {
        let why = error.map(|error| ErrorChain::new(&error).to_string());
        if let Some(error) = &why {
            tracing::error!(%error, "testing hooks and comparing files");
        }
        self.lock().watch_error = why;
    }
}

/// From a wake to the count of files that are open for writing: their renames have ended by then.
const COUNT_AFTER: Duration = Duration::from_secs(1);

/// The threads that test hooks and compare files, and that have writes checked where an open file gets a protected
/// name. Dropping this value ends the threads and waits for them.
pub(crate) struct Watch {
    watched: Arc<Watched>,
    /// Readable once the threads are to end.
    stop: Arc<OwnedFd>,
    threads: Vec<JoinHandle<()>>,
}

impl Watch {
    pub(crate) fn start(watched: &Arc<Watched>, every: Duration) -> Result<Self, SentinelError> {
        let stop = eventfd(0, EventfdFlags::CLOEXEC).map_err(|e| Failure::Thread(e.into()))?;
        let wakes = EventRing::new(watched.guard.wakes())?;
        let (mounts, swap) = (volumes::changes()?, volumes::swap_changes()?);
        let mut this =
            Self { watched: Arc::clone(watched), stop: Arc::new(stop), threads: Vec::new() };
        this.spawn("sentinel-watch", move |watched, stop| {
            while !wait(stop, None, Some(every)).stop {
                watched.watch();
            }
        })?;
        this.spawn("sentinel-wake", move |watched, stop| {
            follow_wakes(watched, stop, wakes, &mounts, swap.as_ref());
        })?;
        Ok(this)
    }

    fn spawn(
        &mut self,
        name: &str,
        run: impl FnOnce(&Watched, &OwnedFd) + Send + 'static,
    ) -> Result<(), SentinelError> {
        let (watched, stop) = (Arc::clone(&self.watched), Arc::clone(&self.stop));
        let thread = ironclad_core::thread(name)
            .spawn(move || run(&watched, &stop))
            .map_err(Failure::Thread)?;
        self.threads.push(thread);
        Ok(())
    }

    /// Ends the threads after the run that is under way.
    pub(crate) fn end(&mut self) {
        // Its counter has room for one more.
        let _ = rustix::io::write(&*self.stop, &1u64.to_ne_bytes());
        let here = std::thread::current();
        for thread in self.threads.drain(..) {
            // A callback of `on_alarm` may drop the handle, also where a thread waits for the callback.
            if thread.thread().id() != here.id() && here.name() != Some(AUDIT_THREAD) {
                // A panic of the thread has been printed.
                let _ = thread.join();
            }
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

/// Has writes checked at once at each wake, and until a later count finds no reason to. Looks at the mounts and at swap
/// whenever they have changed. None of these keeps the others waiting by coming often; a record of a mount waits for the
/// audit file.
fn follow_wakes(
    watched: &Watched,
    stop: &OwnedFd,
    mut wakes: EventRing,
    mounts: &File,
    swap: Option<&File>,
) {
    let mut count_at: Option<Instant> = None;
    let mut ready = Ready { mounts: true, swap: true, ..Ready::default() };
    while !ready.stop {
        if ready.wake {
            // A record that is not complete wakes, too.
            if let Err(error) = wakes.poll(Duration::ZERO, |_| {}) {
                watched.lock().wake_error = Some(ErrorChain::new(&error).to_string());
                tracing::error!(error = %ErrorChain::new(&error), "the thread of wakes has ended");
                return;
            }
            watched.check_writes();
            count_at.get_or_insert_with(|| Instant::now() + COUNT_AFTER);
        }
        let mut done = Ok(());
        if count_at.take_if(|at| *at <= Instant::now()).is_some() {
            done = watched.find_preopened();
        }
        if ready.mounts {
            done = done.and(watched.check_mounts());
        }
        if ready.swap {
            done = done.and(watched.check_swap());
        }
        if let Err(error) = done {
            watched.finish(Some(error));
        }
        let left = count_at.map(|at| at.saturating_duration_since(Instant::now()));
        ready = wait(stop, Some((&wakes, mounts, swap)), left);
    }
}

/// What has come; nothing when the time has passed.
#[derive(Debug, Default, PartialEq, Eq)]
struct Ready {
    stop: bool,
    wake: bool,
    mounts: bool,
    swap: bool,
}

/// Waits for the end, a wake, a change of the mounts or of swap, or the time.
fn wait(
    stop: &OwnedFd,
    changes: Option<(&EventRing, &File, Option<&File>)>,
    time: Option<Duration>,
) -> Ready {
    let until = time.and_then(|time| Instant::now().checked_add(time));
    loop {
        let left = until.map(|until| until.saturating_duration_since(Instant::now()));
        let left = left.and_then(|left| Timespec::try_from(left).ok());
        let mut fds = vec![PollFd::new(stop, PollFlags::IN)];
        if let Some((wakes, mounts, swap)) = changes {
            fds.push(PollFd::new(wakes, PollFlags::IN));
            fds.push(PollFd::new(mounts, PollFlags::PRI));
            fds.extend(swap.map(|swap| PollFd::new(swap, PollFlags::PRI)));
        }
        match poll(&mut fds, left.as_ref()) {
            Err(Errno::INTR) => continue,
            // Of valid arguments: out of memory.
            Err(_) => std::thread::yield_now(),
            // The answer of poll(2) about mounts and swap is the only one: the next counts changes since.
            Ok(_) => {
                let is_ready =
                    |at: usize| fds.get(at).is_some_and(|it: &PollFd<'_>| !it.revents().is_empty());
                let [stop, wake, mounts, swap] = [0, 1, 2, 3].map(is_ready);
                return Ready { stop, wake, mounts, swap };
            }
        }
    }
}
