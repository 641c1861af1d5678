//! The thread that watches paths and refreshes the rules that name them.
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{Builder, JoinHandle};

use ironclad_core::ErrorChain;
use rustix::event::{EventfdFlags, PollFd, PollFlags, Timespec, eventfd, poll};

use super::watch::PathWatch;
use crate::error::{Failure, ShieldError};

/// Time between two refreshes without a notification: mount changes produce none.
const ROUND: Timespec = Timespec { tv_sec: 30, tv_nsec: 0 };

/// Follows paths until it is dropped.
#[derive(Debug)]
pub(crate) struct Follower {
    wake: Arc<OwnedFd>,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

/// What a follower watches and refreshes.
pub(crate) trait Follow: Send + 'static {
    /// The paths to watch.
    fn paths(&mut self) -> Result<Vec<std::path::PathBuf>, ShieldError>;
    /// Resolves them again; ends early, with any error, once `stop` is set.
    fn refresh(&mut self, stop: &AtomicBool) -> Result<(), ShieldError>;
}

impl Follower {
    pub(crate) fn start(mut work: impl Follow) -> Result<Self, ShieldError> {
        let failed = |e: std::io::Error| ShieldError::from(Failure::Thread(e));
        let wake = eventfd(0, EventfdFlags::NONBLOCK | EventfdFlags::CLOEXEC);
        let wake = Arc::new(wake.map_err(|e| failed(e.into()))?);
        let stop = Arc::new(AtomicBool::new(false));
        let mut watch = PathWatch::new().map_err(failed)?;
        let (woken, stopped) = (Arc::clone(&wake), Arc::clone(&stop));
        let follow = move || {
            while !stopped.load(Ordering::Acquire) {
                // Watched first, then resolved: a change in between is reported.
                let refreshed = work.paths().and_then(|paths| {
                    watch.set(&paths).map_err(Failure::Watch)?;
                    work.refresh(&stopped)
                });
                if stopped.load(Ordering::Acquire) {
                    return;
                }
                if let Err(error) = refreshed {
                    let error = ErrorChain::new(&error);
                    tracing::error!(%error, "paths that rules name are not followed");
                }
                if !wait(&watch, &woken) {
                    return;
                }
            }
        };
        let thread =
            Builder::new().name("ironclad-paths".to_owned()).spawn(follow).map_err(failed)?;
        Ok(Self { wake, stop, thread: Some(thread) })
    }

    /// The paths to watch have changed.
    pub(crate) fn wake(&self) {
        // A counter that is full wakes as well.
        let _ = rustix::io::write(&*self.wake, &1u64.to_ne_bytes());
    }
}

/// Waits for a change; false where none can be reported any more.
fn wait(watch: &PathWatch, wake: &OwnedFd) -> bool {
    loop {
        let mut fds = [
            PollFd::from_borrowed_fd(watch.as_fd(), PollFlags::IN),
            PollFd::from_borrowed_fd(wake.as_fd(), PollFlags::IN),
        ];
        let ready = match poll(&mut fds, Some(&ROUND)) {
            Ok(ready) => ready,
            Err(rustix::io::Errno::INTR) => continue,
            Err(error) => {
                tracing::error!(%error, "the thread that follows paths of rules ends");
                return false;
            }
        };
        let is_woken = !fds[1].revents().is_empty();
        if is_woken {
            let _ = rustix::io::read(wake, &mut [0; 8]);
        }
        if ready == 0 || is_woken || watch.changed().unwrap_or(true) {
            return true;
        }
    }
}

impl Drop for Follower {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Release);
        self.wake();
        if let Some(thread) = self.thread.take() {
            // A panic of the thread has been reported by the panic hook.
            let _ = thread.join();
        }
    }
}
