use std::collections::BTreeSet;
use std::mem::offset_of;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::PathBuf;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use ironclad_core::ErrorChain;
use ironclad_core::abi::{self, Exemption, FileId, Mark, SecretKey, SecretVal, Sentinel};

use super::hooks::MissingHook;
use super::labels::FileTables;
use super::pins::links_name;
use super::preopened::{Census, Preopened};
use super::secret::Secret;
use crate::clock::boottime_ns;
use crate::error::BpfError;
use crate::hook::HookLink;
use crate::map::{Map, map_info};
use crate::mapping::Mapping;
use crate::persistent::{LOSSES, PersistentMaps};
use crate::pin::PinDirectory;
use crate::program::Program;
use crate::socket::Processes;
use crate::sys;

/// The programs, attached, and their tables. Dropping it detaches them and ends the protection, unless
/// they are pinned.
#[derive(Debug)]
pub struct Guard {
    pub(super) state: Mapping,
    pub(super) persistent: PersistentMaps,
    pub(super) marks: Map<u32, Mark>,
    pub(super) objects: Map<u64, u32>,
    pub(super) secrets: Map<SecretKey, SecretVal>,
    pub(super) exemptions: Map<FileId, Exemption>,
    pub(super) protected_links: Map<u32, u32>,
    pub(super) alarms: OwnedFd,
    pub(super) wakes: OwnedFd,
    pub(super) files: FileTables,
    pub(super) preopened: Preopened,
    /// One thread at a time.
    pub(super) adopting: Mutex<()>,
    /// Where links are pinned.
    pub(super) links_at: Option<PathBuf>,
    pub(super) programs: Vec<Program>,
    pub(super) links: Vec<HookLink>,
    pub(super) missing: Vec<MissingHook>,
}

impl Drop for Guard {
    fn drop(&mut self) {
        if self.links_at.is_some() {
            return;
        }
        if let Err(error) = self.retire() {
            tracing::warn!(error = %ErrorChain::new(&error), "protected programs and maps stay protected until the kernel releases the programs");
        }
    }
}

impl Guard {
    /// Removes the links that have ended.
    pub(super) fn forget_links(&self, processes: &Processes) -> Result<(), BpfError> {
        let preopened = self.preopened.links();
        let links = self.links.iter().chain(processes.links()).chain(preopened.iter());
        let ids = links.map(|link| link_id(link.as_fd())).collect::<Result<BTreeSet<_>, _>>()?;
        for id in self.protected_links.keys()?.iter().filter(|id| !ids.contains(id)) {
            self.protected_links.delete(id)?;
        }
        Ok(())
    }

    /// Counts what has protected files of these devices open for writing, and block devices open, now that the rules
    /// in force refuse to open more.
    ///
    /// # Errors
    /// `BpfErrorKind::System`, `BpfErrorKind::Map` where the kernel refuses.
    pub fn census(&self, devices: &[u32]) -> Result<Census, BpfError> {
        self.preopened.census(devices)
    }

    /// From now on writes are checked, and no process sets up a loop device: for files that were opened before the
    /// rules covered them. It costs every read and write of all processes a little. `false`: no longer. Before Linux
    /// 5.13 the programs stay attached and return at once.
    ///
    /// # Errors
    /// `BpfErrorKind::Attach`, `BpfErrorKind::Map`, `BpfErrorKind::Pin` where the kernel refuses.
    pub fn check_writes(&self, checks: bool) -> Result<(), BpfError> {
        self.preopened.check_writes(checks)?;
        let mut links = self.preopened.links();
        if checks && links.is_empty() {
            let attached = self.preopened.attach(self.links_at.as_deref())?;
            self.protect_links(&attached)?;
            *links = attached;
        } else if !checks && can_attach_again() {
            for link in links.drain(..) {
                self.protected_links.delete(&link_id(link.as_fd())?)?;
                link.detach()?;
            }
        }
        Ok(())
    }

    /// Pins everything, so that it outlives this process: all of it, or nothing.
    ///
    /// # Errors
    /// `BpfErrorKind::Pin` where bpffs refuses.
    pub fn persist(
        &mut self,
        processes: &mut Processes,
        directory: &PinDirectory,
    ) -> Result<(), BpfError> {
        let dir = links_name();
        let mut preopened = self.preopened.links();
        let links = self.links.iter().chain(processes.links()).chain(preopened.iter());
        let links = links.map(|link| (format!("{dir}/{}", link.pin_name()), link.as_fd()));
        let losses = (LOSSES.to_owned(), processes.losses.as_fd());
        let maps = self.persistent.pins().chain(processes.persistent.pins()).chain([losses]);
        let pins: Vec<_> = maps.chain(links).collect();
        directory.persist(&pins)?;
        let dir = directory.path().join(dir);
        self.links_at = Some(dir.clone());
        let links = self.links.iter_mut().chain(processes.links_mut()).chain(preopened.iter_mut());
        for link in links {
            link.pinned_at(&dir.join(link.pin_name()));
        }
        Ok(())
    }

    /// Detaches, and removes what is pinned.
    ///
    /// # Errors
    /// `BpfErrorKind::Pin` where bpffs refuses.
    pub fn unpin(mut self, processes: Processes, directory: &PinDirectory) -> Result<(), BpfError> {
        self.links_at = None;
        drop((self, processes));
        directory.unpin()
    }

    /// The kernel releases programs some time after their links. Until then they refuse nothing, and
    /// protect nothing new.
    fn retire(&self) -> Result<(), BpfError> {
        self.arm(false);
        for pid in self.marks.keys()? {
            self.marks.delete(&pid)?;
        }
        for address in self.objects.keys()? {
            self.objects.delete(&address)?;
        }
        Ok(())
    }

    /// Accepts one more secret from agents that are restarted.
    ///
    /// # Errors
    /// `BpfErrorKind::Map` where there is no room.
    pub fn add_restart_secret(&self, secret: &Secret) -> Result<(), BpfError> {
        let flags = abi::SECRET_RESTART;
        let val = SecretVal { exe: FileId::NONE, mark: abi::MARK_TRUSTED, flags };
        self.secrets.update(secret.key(), &val)
    }

    /// Accepts the secret no longer.
    ///
    /// # Errors
    /// `BpfErrorKind::Map` where the kernel refuses.
    pub fn remove_secret(&self, secret: &Secret) -> Result<(), BpfError> {
        self.secrets.delete(secret.key()).map(drop)
    }

    /// Accepts no other secret from restarted agents.
    ///
    /// # Errors
    /// `BpfErrorKind::Map` where the kernel refuses.
    pub fn only_restart_secret(&self, secret: &Secret) -> Result<(), BpfError> {
        for key in self.secrets.keys()? {
            let val = self.secrets.lookup(&key)?.unwrap_or_default();
            if key != *secret.key() && val.flags & abi::SECRET_RESTART != 0 {
                self.secrets.delete(&key)?;
            }
        }
        Ok(())
    }

    /// Which process starts agents: [`abi::LAUNCH_INIT`] and its like, and in which cgroup, by id.
    pub fn launch(&self, by: u32, group: u64) {
        self.state.u64_at(offset_of!(Sentinel, group)).store(group, Ordering::SeqCst);
        self.state.u32_at(offset_of!(Sentinel, launch)).store(by, Ordering::SeqCst);
    }

    /// Protects maps that were made before this process was trusted.
    ///
    /// # Errors
    /// `BpfErrorKind::Map` where the kernel refuses.
    pub fn protect_maps<'a>(
        &self,
        maps: impl IntoIterator<Item = BorrowedFd<'a>>,
    ) -> Result<(), BpfError> {
        let id = |fd| map_info(fd).map_err(|e| BpfError::map("", "protecting it", e));
        let ids =
            maps.into_iter().map(|fd| Ok(id(fd)?.id)).collect::<Result<Vec<_>, BpfError>>()?;
        self.protect_map_ids(ids)
    }

    pub(super) fn protect_map_ids(
        &self,
        ids: impl IntoIterator<Item = u32>,
    ) -> Result<(), BpfError> {
        self.adopting(|| {
            for id in ids {
                sys::map_by_id(id).map_err(|e| BpfError::map("", "protecting it", e))?;
            }
            Ok(())
        })
    }

    /// Protects programs that were loaded before this process was trusted.
    ///
    /// # Errors
    /// `BpfErrorKind::System` where the kernel refuses.
    pub fn protect_programs<'a>(
        &self,
        programs: impl IntoIterator<Item = &'a Program>,
    ) -> Result<(), BpfError> {
        self.adopting(|| {
            for program in programs {
                sys::prog_by_id(program.info().id)
                    .map_err(|source| BpfError::system("protecting a program", source))?;
            }
            Ok(())
        })
    }

    /// Protects links.
    ///
    /// # Errors
    /// `BpfErrorKind::System` or `BpfErrorKind::Map` where the kernel refuses.
    pub fn protect_links(
        &self,
        links: impl IntoIterator<Item = impl AsFd>,
    ) -> Result<(), BpfError> {
        for link in links {
            self.protected_links.update(&link_id(link.as_fd())?, &1)?;
        }
        Ok(())
    }

    /// Protects maps and programs of which this thread gets descriptors while `act` runs.
    pub fn adopting<T>(&self, act: impl FnOnce() -> T) -> T {
        /// Also where `act` panics.
        struct Adopting<'a>(&'a AtomicU32);
        impl Drop for Adopting<'_> {
            fn drop(&mut self) {
                self.0.store(0, Ordering::SeqCst);
            }
        }
        let word = self.state.u32_at(offset_of!(Sentinel, adopting));
        let _alone = self.adopting.lock().unwrap_or_else(PoisonError::into_inner);
        let _adopting = Adopting(word);
        word.store(sys::thread_id(), Ordering::SeqCst);
        act()
    }

    /// From now on, access to what is protected is denied to other processes; `false`: no longer.
    pub fn arm(&self, armed: bool) {
        let word = self.state.u32_at(offset_of!(Sentinel, is_armed));
        word.store(u32::from(armed), Ordering::SeqCst);
    }

    /// Whether access is denied to other processes.
    pub fn is_armed(&self) -> bool {
        self.state.u32_at(offset_of!(Sentinel, is_armed)).load(Ordering::SeqCst) != 0
    }

    /// Allows signals to trusted processes for so long from now on. Replaces the former time.
    pub fn open_for(&self, time: Duration) {
        let time = u64::try_from(time.as_nanos()).unwrap_or(u64::MAX);
        let until = boottime_ns().saturating_add(time);
        self.state.u64_at(offset_of!(Sentinel, open_until_ns)).store(until, Ordering::SeqCst);
    }

    /// For how long they are allowed still.
    pub fn is_open_for(&self) -> Option<Duration> {
        let until = self.state.u64_at(offset_of!(Sentinel, open_until_ns)).load(Ordering::SeqCst);
        let left = until.saturating_sub(boottime_ns());
        (left != 0).then(|| Duration::from_nanos(left))
    }

    /// Alarms that found no room.
    pub fn alarms_lost(&self) -> u64 {
        self.state.u64_at(offset_of!(Sentinel, lost)).load(Ordering::SeqCst)
    }

    /// The key of the hashes of names in directories: of SipHash-1-3.
    pub fn name_key(&self) -> [u64; 2] {
        let at = offset_of!(Sentinel, name_key);
        [at, at + 8].map(|at| self.state.u64_at(at).load(Ordering::Relaxed))
    }

    /// The word of [`Sentinel::word`].
    pub fn word(&self) -> u64 {
        self.word_at().load(Ordering::SeqCst)
    }

    /// The epoch of what the tables mean, which never goes back.
    pub fn epoch(&self) -> u64 {
        (self.word() & ((1 << abi::RENAME_SHIFT) - 1)) >> 1
    }

    pub(super) fn word_at(&self) -> &std::sync::atomic::AtomicU64 {
        self.state.u64_at(offset_of!(Sentinel, word))
    }

    /// The other half comes into force, with the present content of its tables. When this returns, no
    /// program reads the former one.
    ///
    /// # Errors
    /// `BpfErrorKind::System` where the kernel cannot say when that is.
    pub fn flip(&self) -> Result<(), BpfError> {
        let word = self.word_at();
        // The kernel adds to it when a directory moves.
        let flipped = |word| Some((word + 2) ^ 1);
        let _ = word.fetch_update(Ordering::SeqCst, Ordering::SeqCst, flipped);
        sys::grace_period()
            .map_err(|source| BpfError::system("waiting for programs that run", source))
    }

    pub(super) fn set_canary(&self, thread: u32, hook: u32) {
        self.state.u32_at(offset_of!(Sentinel, canary_hook)).store(hook, Ordering::SeqCst);
        self.state.u32_at(offset_of!(Sentinel, canary)).store(thread, Ordering::SeqCst);
    }

    /// A secret for another process that executes `exe`.
    ///
    /// # Errors
    /// `BpfErrorKind::System`, `BpfErrorKind::Map`.
    pub fn admit(&self, exe: FileId) -> Result<Secret, BpfError> {
        let secret = Secret::new()?;
        let val = SecretVal { exe, mark: abi::MARK_TRUSTED, flags: 0 };
        self.secrets.update(secret.key(), &val)?;
        Ok(secret)
    }

    /// What executables may do in spite of rules.
    pub fn exemptions(&self) -> &Map<FileId, Exemption> {
        &self.exemptions
    }

    /// The tables of file rules.
    pub fn files(&self) -> &FileTables {
        &self.files
    }

    /// The ring buffer of alarms.
    pub fn alarms(&self) -> BorrowedFd<'_> {
        self.alarms.as_fd()
    }

    /// The ring buffer whose records wake the agent: a file that is open for writing gets a name that rules deny to
    /// write, or a directory does. [`check_writes`](Self::check_writes) then covers it.
    pub fn wakes(&self) -> BorrowedFd<'_> {
        self.wakes.as_fd()
    }

    /// All programs.
    pub fn programs(&self) -> &[Program] {
        &self.programs
    }

    /// Where they are attached.
    pub fn links(&self) -> &[HookLink] {
        &self.links
    }

    /// Hooks that this kernel does not have.
    pub fn missing(&self) -> &[MissingHook] {
        &self.missing
    }
}

/// Whether the kernel attaches a program of BPF LSM again after it was detached: since Linux 5.13, of which nothing in
/// its types tells.
fn can_attach_again() -> bool {
    let release = rustix::system::uname().release().to_string_lossy().into_owned();
    let mut numbers = release.split(|c: char| !c.is_ascii_digit()).map_while(|it| it.parse().ok());
    let version: (u32, u32) = (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0));
    version >= (5, 13)
}

fn link_id(link: BorrowedFd<'_>) -> Result<u32, BpfError> {
    let info = sys::info(link, sys::zeroed::<libbpf_sys::bpf_link_info>());
    let info = info.map_err(|source| BpfError::system("protecting a link", source))?;
    Ok(info.id)
}
