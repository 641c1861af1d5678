//! Shield running once for all tests of socket rules that do not test how it starts and ends.
//!
//! While no test has it, it has no rules and protects no cgroup but an empty one of its own.

use std::ops::Deref;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

use ironclad_lab::Cgroup;
use ironclad_lab::harness::Shared;
use ironclad_policy::{CompiledPolicy, Policy};
use ironclad_shield::{Shield, ShieldError};
use libbpf_rs::query::MapInfoIter;
use libbpf_rs::{MapCore, MapFlags, MapHandle, RingBufferBuilder};

pub(crate) const SHARED: Shared = Shared { check, stop };

/// One that follows paths and one that does not, while no test has them.
static PAUSED: [Mutex<Option<Paused>>; 2] = [const { Mutex::new(None) }; 2];
/// What went wrong when a test gave an instance back.
static WRONG: Mutex<Option<String>> = Mutex::new(None);

/// An instance that no test has.
pub(crate) struct Paused {
    shield: Shield,
    /// What it protects.
    cgroup: Cgroup,
    follows_paths: bool,
}

/// Shield with the policy of a test on the cgroup of a test. Dropping it removes both, and ends an instance that
/// is not shared.
pub(crate) enum Running {
    /// Of this test alone. `None` once it is stopped.
    Own(Option<Shield>),
    /// `None` once it is given back.
    Shared(Option<Paused>, PathBuf),
}

impl Running {
    /// The shared instance.
    pub(crate) fn shared(cgroup: &Path, policy: &CompiledPolicy, follows_paths: bool) -> Self {
        let paused = lock(&PAUSED[usize::from(follows_paths)]).take();
        let paused = paused.unwrap_or_else(|| Paused::start(follows_paths));
        forget_earlier_tests();
        // Given back where the policy is refused.
        let running = Self::Shared(Some(paused), cgroup.to_owned());
        running.apply(policy).unwrap();
        running.protect_cgroup(cgroup).unwrap();
        running
    }
}

impl Running {
    /// Stops an instance of the test's own.
    pub(crate) fn stop(mut self) -> Result<(), ShieldError> {
        match &mut self {
            Self::Own(shield) => shield.take().unwrap().stop(),
            Self::Shared(..) => panic!("a test that stops Shield does not share it"),
        }
    }
}

impl Deref for Running {
    type Target = Shield;

    fn deref(&self) -> &Shield {
        match self {
            Self::Own(shield) => shield.as_ref().unwrap(),
            Self::Shared(paused, _) => &paused.as_ref().unwrap().shield,
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let Self::Shared(paused, cgroup) = self else { return };
        let Some(paused) = paused.take() else { return };
        let shield = &paused.shield;
        let given_back = shield.unprotect_cgroup(cgroup).and_then(|()| shield.apply(&nothing()));
        let slot = &PAUSED[usize::from(paused.follows_paths)];
        match given_back {
            Ok(()) => *lock(slot) = Some(paused),
            Err(error) => *lock(&WRONG) = Some(error.to_string()),
        }
    }
}

impl Paused {
    fn start(follows_paths: bool) -> Self {
        let cgroup = Cgroup::new("shared").unwrap();
        let builder = Shield::builder(if follows_paths { "follows" } else { "sockets" });
        let builder = builder.cgroup(cgroup.dir()).follow_paths(follows_paths);
        Self { shield: builder.start(&nothing()).unwrap(), cgroup, follows_paths }
    }

    /// Whether it is as it was when it started.
    fn check(&self) -> Result<(), String> {
        let status = self.shield.status().map_err(|error| error.to_string())?;
        let cgroups: Vec<_> = status.cgroups.iter().map(|it| it.path.as_path()).collect();
        if cgroups != [self.cgroup.dir()] || !status.interfaces.is_empty() {
            return Err(format!("it protects more: {status:?}"));
        }
        if self.shield.policy().is_none_or(|policy| policy.id() != nothing().id()) {
            return Err(format!("it has another policy: {status:?}"));
        }
        Ok(())
    }
}

fn check() -> Result<(), String> {
    let wrong = lock(&WRONG).take();
    let mut checked = wrong.map_or(Ok(()), Err);
    for paused in &PAUSED {
        let mut paused = lock(paused);
        let found = paused.as_ref().map_or(Ok(()), Paused::check);
        if found.is_err() {
            // The next test starts another.
            *paused = None;
        }
        checked = checked.and(found);
    }
    checked
}

fn stop() {
    PAUSED.iter().for_each(|paused| *lock(paused) = None);
}

fn nothing() -> CompiledPolicy {
    Policy::builder().compile().unwrap()
}

/// Removes events that an earlier test did not read, and sets counters and event budgets back: a rule keeps them by
/// its id in every policy.
fn forget_earlier_tests() {
    for events in maps("ic_events") {
        let mut reader = RingBufferBuilder::new();
        reader.add(&events, |_| 0).unwrap();
        reader.build().unwrap().consume().unwrap();
    }
    let maps = maps("ic_sock_slots").zip(maps("ic_sock_stats")).zip(maps("ic_sock_sample"));
    for ((slots, stats), budgets) in maps {
        let slot = |id: Vec<u8>| slots.lookup(&id, MapFlags::ANY).unwrap().unwrap();
        for slot in slots.keys().map(slot).chain([DEFAULT_SLOT.to_ne_bytes().to_vec()]) {
            let values = stats.lookup_percpu(&slot, MapFlags::ANY).unwrap().unwrap();
            let zero: Vec<_> = values.iter().map(|value| vec![0; value.len()]).collect();
            stats.update_percpu(&slot, &zero, MapFlags::ANY).unwrap();
            let budget = vec![0; budgets.value_size() as usize];
            budgets.update(&slot, &budget, MapFlags::ANY).unwrap();
        }
    }
}

/// Of decisions without a rule.
const DEFAULT_SLOT: u32 = 0;

/// All maps of a name.
pub(crate) fn maps(name: &str) -> impl Iterator<Item = MapHandle> {
    let found = MapInfoIter::default().filter(move |map| map.name.to_string_lossy() == name);
    // Maps of instances that have ended come and go.
    found.filter_map(|map| MapHandle::from_map_id(map.id).ok())
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
