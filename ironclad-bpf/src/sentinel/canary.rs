use std::io;
use std::path::Path;

use ironclad_core::abi::{self, SentinelHook};

use super::Guard;
use super::provoke::Provoked;
use crate::sys;

/// What became of the call that a hook was to refuse.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Canary {
    /// The hook.
    pub hook: SentinelHook,
    /// None where it refused, or was not tested; else why it is not known to.
    pub inactive: Option<String>,
    /// Why it was not tested: the kernel's settings refuse the call before it calls the hook. They refuse the call
    /// of every process.
    pub not_tested: Option<String>,
    /// The error where the call is refused before it reaches the hook, and it is not known by what: another
    /// security module, or a setting.
    pub refused_elsewhere: Option<String>,
}

/// Provokes each hook once: this thread makes a call that goes through without Sentinel, and that the
/// hook is set to refuse. A link that is listed is no evidence that its program runs: see
/// `docs/threat-model.md`.
///
/// Files are made in `dir`, and removed again. Hooks of which there is no harmless call are not
/// among the answers, nor are those of `missing`.
pub fn canaries(guard: &Guard, dir: &Path) -> Vec<Canary> {
    let missing: Vec<_> = guard.missing().iter().map(|it| it.hook.as_str()).collect();
    let calls = Provoked::new(dir);
    SentinelHook::ALL
        .iter()
        .copied()
        .filter(|hook| !missing.contains(&hook.name()))
        .filter_map(|hook| {
            // While Sentinel is armed, no process may write them, this one included: that is no alarm.
            if hook == SentinelHook::Sysctl && guard.is_armed() {
                guard.set_canary(sys::thread_id(), hook as u32);
                let with = calls.provoke(hook);
                guard.set_canary(0, 0);
                let went =
                    with?.is_ok().then(|| "it was to be refused, and went through".to_owned());
                return Some(Canary::new(hook, went));
            }
            let before = calls.provoke(hook)?;
            guard.set_canary(sys::thread_id(), hook as u32);
            let with = calls.provoke(hook);
            guard.set_canary(0, 0);
            let unreachable = before.as_ref().err().and_then(|e| Provoked::unreachable(hook, e));
            let elsewhere = refused_elsewhere(&before, with.as_ref());
            let inactive = verdict(before, with);
            let found = Canary::new(hook, inactive);
            Some(match (unreachable, elsewhere) {
                _ if found.inactive.is_none() => found,
                (Some(why), _) => Canary { not_tested: Some(why), ..Canary::new(hook, None) },
                (None, Some(why)) => {
                    Canary { refused_elsewhere: Some(why), ..Canary::new(hook, None) }
                }
                (None, None) => found,
            })
        })
        .collect()
}

impl Canary {
    fn new(hook: SentinelHook, inactive: Option<String>) -> Self {
        Self { hook, inactive, not_tested: None, refused_elsewhere: None }
    }
}

/// Some callers of hooks put a number of their own in place of the answer.
fn is_refusal(e: &io::Error) -> bool {
    matches!(e.raw_os_error(), Some(abi::SENTINEL_ECANARY | libc::EPERM | libc::EACCES))
}

/// The error of both calls, where neither reached the hook.
fn refused_elsewhere(before: &io::Result<()>, with: Option<&io::Result<()>>) -> Option<String> {
    match (before, with) {
        (Err(e), Some(Err(with))) if is_refusal(e) && is_refusal(with) => Some(e.to_string()),
        _ => None,
    }
}

fn verdict(before: io::Result<()>, with: Option<io::Result<()>>) -> Option<String> {
    match (before, with) {
        (_, Some(Err(e))) if e.raw_os_error() == Some(abi::SENTINEL_ECANARY) => None,
        (Err(e), _) if is_refusal(&e) => Some(format!("refused without it: {e}")),
        (_, Some(Err(e))) if is_refusal(&e) => None,
        (_, Some(Err(e))) => Some(format!("it was to be refused, and failed otherwise: {e}")),
        (_, Some(Ok(()))) => Some("it was to be refused, and went through".to_owned()),
        (_, None) => Some("could not be tried twice".to_owned()),
    }
}
