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
                return Some(Canary { hook, inactive: went, not_tested: None });
            }
            let before = calls.provoke(hook)?;
            guard.set_canary(sys::thread_id(), hook as u32);
            let with = calls.provoke(hook);
            guard.set_canary(0, 0);
            let unreachable = before.as_ref().err().and_then(|e| Provoked::unreachable(hook, e));
            let inactive = verdict(before, with);
            match unreachable.filter(|_| inactive.is_some()) {
                Some(why) => Some(Canary { hook, inactive: None, not_tested: Some(why) }),
                None => Some(Canary { hook, inactive, not_tested: None }),
            }
        })
        .collect()
}

fn verdict(before: io::Result<()>, with: Option<io::Result<()>>) -> Option<String> {
    // Some callers of hooks put a number of their own in place of the answer.
    let is_refusal = |e: &io::Error| {
        matches!(e.raw_os_error(), Some(abi::SENTINEL_ECANARY | libc::EPERM | libc::EACCES))
    };
    match (before, with) {
        (_, Some(Err(e))) if e.raw_os_error() == Some(abi::SENTINEL_ECANARY) => None,
        (Err(e), _) if is_refusal(&e) => Some(format!("refused without it: {e}")),
        (_, Some(Err(e))) if is_refusal(&e) => None,
        (_, Some(Err(e))) => Some(format!("it was to be refused, and failed otherwise: {e}")),
        (_, Some(Ok(()))) => Some("it was to be refused, and went through".to_owned()),
        (_, None) => Some("could not be tried twice".to_owned()),
    }
}
