//! The thread that watches paths and interfaces, and refreshes the rules and attachments that name them.
use std::os::fd::{AsFd, OwnedFd};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;

use ironclad_bpf::LinkWatch;
use ironclad_core::ErrorChain;
use rustix::event::{EventfdFlags, PollFd, PollFlags, Timespec, eventfd, poll};

use super::watch::PathWatch;
use crate::error::{Failure, ShieldError};

/// Time between two refreshes without a notification: mount changes produce none.
const ROUND: Timespec = Timespec { tv_sec: 30, tv_nsec: 0 };

/// The same where paths cannot be watched: other processes may have used up the inotify(7) instances or watches
/// of the user.
const UNWATCHED_ROUND: Timespec = Timespec { tv_sec: 1, tv_nsec: 0 };

/// Follows paths and interfaces until it is dropped.
#[derive(Debug)]
pub(crate) struct Follower {
    wake: Arc<OwnedFd>,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

/// What a follower watches and refreshes.
pub(crate) trait Follow: Send + 'static {
    /// The paths to watch.
    fn paths(&mut self) -> Result<Vec<PathBuf>, ShieldError>;
    /// Resolves them again; ends early, with any error, once `stop` is set.
    fn refresh(&mut self, stop: &AtomicBool) -> Result<(), ShieldError>;
    /// Protects interfaces that appeared; with `retry`, also those that could not be protected before.
    fn refresh_interfaces(&mut self, retry: bool) -> Result<(), ShieldError>;
}

/// What is watched.
#[derive(Debug)]
struct Watches {
    follows_paths: bool,
    /// None also where the user has no inotify(7) instance left.
    paths: Option<PathWatch>,
    /// Whether all paths are watched.
    is_watched: bool,
    interfaces: Option<LinkWatch>,
    wake: Arc<OwnedFd>,
}

/// What may have changed.
#[derive(Clone, Copy, Debug)]
struct Changed {
    paths: bool,
    interfaces: bool,
    /// No notification came for a while.
    is_round: bool,
}

impl Follower {
    /// Watches the interfaces of the calling thread's network namespace.
    pub(crate) fn start(
        work: impl Follow,
        paths: bool,
        interfaces: bool,
    ) -> Result<Self, ShieldError> {
        let failed = |e: std::io::Error| ShieldError::from(Failure::Thread(e));
        let wake = eventfd(0, EventfdFlags::NONBLOCK | EventfdFlags::CLOEXEC);
        let wake = Arc::new(wake.map_err(|e| failed(e.into()))?);
        let stop = Arc::new(AtomicBool::new(false));
        let watches = Watches {
            follows_paths: paths,
            paths: None,
            is_watched: true,
            interfaces: interfaces.then(LinkWatch::new).transpose()?,
            wake: Arc::clone(&wake),
        };
        let stopped = Arc::clone(&stop);
        // It is in the network namespace of the thread that starts it.
        let thread = ironclad_core::thread("ironclad-follow")
            .spawn(move || watches.follow(work, &stopped))
            .map_err(failed)?;
        Ok(Self { wake, stop, thread: Some(thread) })
    }

    /// What is to be watched has changed.
    pub(crate) fn wake(&self) {
        // A counter that is full wakes as well.
        let _ = rustix::io::write(&*self.wake, &1u64.to_ne_bytes());
    }
}

impl Watches {
    fn follow(mut self, mut work: impl Follow, stop: &AtomicBool) {
        let mut changed = Changed { paths: true, interfaces: true, is_round: false };
        while !stop.load(Ordering::Acquire) {
            if self.follows_paths && changed.paths {
                // Watched first, then resolved: a change in between is reported.
                let watched = work.paths().and_then(|paths| self.watch(&paths));
                let was_watched = std::mem::replace(&mut self.is_watched, watched.is_ok());
                if was_watched {
                    report(watched, stop, "paths that rules name are looked up each second");
                }
                report(work.refresh(stop), stop, "paths that rules name are not followed");
            }
            if self.interfaces.is_some() && changed.interfaces {
                let refreshed = work.refresh_interfaces(changed.is_round);
                report(refreshed, stop, "interfaces are not followed");
            }
            match self.wait() {
                Some(next) => changed = next,
                None => return,
            }
        }
    }

    fn watch(&mut self, paths: &[PathBuf]) -> Result<(), ShieldError> {
        let watch = match &mut self.paths {
            Some(watch) => watch,
            none => none.insert(PathWatch::new().map_err(Failure::Watch)?),
        };
        Ok(watch.set(paths).map_err(Failure::Watch)?)
    }

    /// Waits for a change; none where no change can be reported any more.
    fn wait(&self) -> Option<Changed> {
        loop {
            let watched = self.paths.as_ref().map(AsFd::as_fd);
            let watched = watched.into_iter().chain(self.interfaces.as_ref().map(AsFd::as_fd));
            let mut fds: Vec<PollFd<'_>> = std::iter::once(self.wake.as_fd())
                .chain(watched)
                .map(|fd| PollFd::from_borrowed_fd(fd, PollFlags::IN))
                .collect();
            let round = if self.is_watched { ROUND } else { UNWATCHED_ROUND };
            let ready = match poll(&mut fds, Some(&round)) {
                Ok(ready) => ready,
                Err(rustix::io::Errno::INTR) => continue,
                Err(error) => {
                    tracing::error!(%error, "the thread that follows paths and interfaces ends");
                    return None;
                }
            };
            if ready == 0 {
                return Some(Changed { paths: true, interfaces: true, is_round: true });
            }
            let is_woken = !fds[0].revents().is_empty();
            if is_woken {
                let _ = rustix::io::read(&*self.wake, &mut [0; 8]);
            }
            let paths = self.paths.as_ref().is_some_and(|it| it.changed().unwrap_or(true));
            let links = self.interfaces.as_ref().is_some_and(|it| it.changed().unwrap_or(true));
            if is_woken || paths || links {
                let (paths, interfaces) = (is_woken || paths, is_woken || links);
                return Some(Changed { paths, interfaces, is_round: false });
            }
        }
    }
}

fn report(refreshed: Result<(), ShieldError>, stop: &AtomicBool, what: &str) {
    if let Err(error) = refreshed {
        if !stop.load(Ordering::Acquire) {
            tracing::error!(error = %ErrorChain::new(&error), "{what}");
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
