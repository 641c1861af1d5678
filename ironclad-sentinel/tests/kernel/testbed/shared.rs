//! One running Sentinel for all tests that do not test starting and stopping.
//!
//! While no test uses it, it has no rules and is not armed: its hooks allow everything, and attacks succeed.

use std::collections::BTreeSet;
use std::mem::offset_of;
use std::ops::Deref;
use std::os::fd::AsFd;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use ironclad_core::{ErrorChain, abi};
use ironclad_lab::harness::Shared;
use ironclad_lab::test_process::ends_within;
use ironclad_policy::{CompiledPolicy, Policy};
use ironclad_sentinel::{Degraded, HookState, Sentinel, Status};
use ironclad_syscalls::write_word;
use libbpf_rs::query::{LinkInfoIter, MapInfoIter};
use libbpf_rs::{MapCore, MapHandle, RingBufferBuilder};

use super::PATIENCE;

pub(crate) const SHARED: Shared = Shared { check, stop };

static PAUSED: Mutex<Option<Paused>> = Mutex::new(None);
/// The error when a test returned the instance.
static WRONG: Mutex<Option<String>> = Mutex::new(None);

/// The instance, while no test uses it.
pub(crate) struct Paused {
    sentinel: Sentinel,
    hooks: Vec<(String, HookState)>,
    links: usize,
    degraded: Vec<Degraded>,
}

/// An armed Sentinel with a test's policy. Dropping it removes the policy, or stops an instance of the test's own.
pub(crate) enum Running {
    /// An instance of the test's own.
    Own(Sentinel),
    /// The shared instance. `None` once it is returned.
    Shared(Option<Paused>),
}

impl Running {
    /// The shared instance.
    pub(crate) fn shared(policy: &CompiledPolicy) -> Self {
        let paused = lock(&PAUSED).take().unwrap_or_else(Paused::start);
        // Alarms that an earlier test did not read.
        let alarms = own_map("ic_alarms");
        let mut reader = RingBufferBuilder::new();
        reader.add(&alarms, |_| 0).unwrap();
        reader.build().unwrap().consume().unwrap();
        // Returned if the policy is refused.
        let running = Self::Shared(Some(paused));
        running.apply(policy).unwrap();
        arm(true);
        running
    }
}

impl Deref for Running {
    type Target = Sentinel;

    fn deref(&self) -> &Sentinel {
        match self {
            Self::Own(sentinel) => sentinel,
            Self::Shared(paused) => &paused.as_ref().unwrap().sentinel,
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let Self::Shared(paused) = self else { return };
        let paused = paused.take().unwrap();
        arm(false);
        match paused.sentinel.apply(&empty_policy()) {
            Ok(()) => *lock(&PAUSED) = Some(paused),
            Err(error) => *lock(&WRONG) = Some(ErrorChain::new(&error).to_string()),
        }
    }
}

impl Paused {
    fn start() -> Self {
        let builder = Sentinel::builder("test").watch_every(Duration::ZERO);
        let sentinel = builder.start(&empty_policy()).unwrap();
        let status = sentinel.status().unwrap();
        let (hooks, links, degraded) = (hooks(&status), links(&sentinel), status.degraded);
        arm(false);
        Self { sentinel, hooks, links, degraded }
    }

    /// Whether its state is that of its start.
    fn check(&self) -> Result<(), String> {
        let status = self.sentinel.status().map_err(|error| ErrorChain::new(&error).to_string())?;
        if status.policy != empty_policy().id().to_string()
            || status.is_armed
            || !status.missing.is_empty()
            || !status.preopened.is_empty()
        {
            return Err(format!("it has a policy: {status:?}"));
        }
        if status.degraded != self.degraded {
            return Err(format!("{:?} and not {:?}", status.degraded, self.degraded));
        }
        let hooks = hooks(&status);
        if hooks != self.hooks {
            return Err(format!("{hooks:?} and not {:?}", self.hooks));
        }
        let links = links(&self.sentinel);
        if links != self.links {
            return Err(format!("{links} programs are attached and not {}", self.links));
        }
        // The trust mark of a test process is removed at its exit, which may be under way.
        let agent = std::process::id();
        let marks = own_map("ic_marks");
        let marked =
            marks.keys().map(|key| u32::from_ne_bytes(key.try_into().expect("a process id")));
        let left: Vec<_> = marked.filter(|pid| *pid != agent && !has_ended(*pid)).collect();
        if !left.is_empty() {
            return Err(format!("processes {left:?} are trusted"));
        }
        let secrets = own_map("ic_secrets").keys().count();
        if secrets != 0 {
            return Err(format!("{secrets} secrets were not presented"));
        }
        Ok(())
    }
}

fn hooks(status: &Status) -> Vec<(String, HookState)> {
    status.hooks.iter().map(|hook| (hook.name.clone(), hook.state.clone())).collect()
}

/// The number of links of its programs.
fn links(sentinel: &Sentinel) -> usize {
    let programs: BTreeSet<u32> = sentinel.program_ids().collect();
    LinkInfoIter::default().filter(|link| programs.contains(&link.prog_id)).count()
}

fn has_ended(pid: u32) -> bool {
    matches!(ends_within(pid, PATIENCE), Ok(true) | Err(_))
}

fn check() -> Result<(), String> {
    let wrong = lock(&WRONG).take();
    let mut paused = lock(&PAUSED);
    let checked = wrong.map_or_else(|| paused.as_ref().map_or(Ok(()), Paused::check), Err);
    if checked.is_err() {
        // The next test starts another.
        *paused = None;
    }
    checked
}

fn stop() {
    *lock(&PAUSED) = None;
}

fn empty_policy() -> CompiledPolicy {
    Policy::builder().compile().unwrap()
}

/// Arms or disarms the programs by their map: this process is trusted and may write to it.
fn arm(armed: bool) {
    let state = own_map(".data.ic_sentin");
    let offset = offset_of!(abi::Sentinel, is_armed);
    write_word(state.as_fd(), offset, u32::from(armed)).unwrap();
}

/// A map of the instance, by the kernel's name.
pub(crate) fn own_map(name: &str) -> MapHandle {
    let found = MapInfoIter::default().filter(|map| map.name.to_string_lossy() == name);
    let ids: Vec<_> = found.map(|map| map.id).collect();
    let [id] = ids[..] else { panic!("maps {name}: {ids:?}") };
    MapHandle::from_map_id(id).unwrap()
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
