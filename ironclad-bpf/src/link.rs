use std::ffi::OsStr;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use crate::error::{BpfError, Failure};
use crate::interface::{Interface, LinkName, XdpMode};
use crate::inventory::{self, Holder};
use crate::pin;
use crate::program::{Program, program_info};
use crate::sys;
use ironclad_core::ErrorChain;

/// A program at the XDP hook of an interface. Dropping it detaches, unless it is pinned.
#[must_use = "dropping the link detaches the program"]
#[derive(Debug)]
pub struct XdpLink {
    fd: OwnedFd,
    /// As it was called when the link was made.
    name: LinkName,
    /// As it is called now, or was before it was moved away.
    interface: Interface,
    is_away: bool,
    pin: Option<PathBuf>,
}

/// What became of a link's interface: the link stays attached to it.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Displaced {
    /// It has another name.
    Renamed {
        /// The name before.
        former: String,
    },
    /// It is in another network namespace.
    Away,
    /// It was in another network namespace.
    Returned,
}

impl XdpLink {
    /// Attaches a program: in the driver, or where that cannot, after it.
    ///
    /// Needs Linux 5.9, `CAP_BPF` and `CAP_NET_ADMIN`.
    ///
    /// # Errors
    /// `BpfErrorKind::Attach`, naming the other program where the hook is taken. Also where the driver of a veth device
    /// cannot: see [`attach_mode`](Self::attach_mode).
    pub fn attach(program: &Program, interface: &Interface) -> Result<Self, BpfError> {
        match Self::attach_mode(program, interface, XdpMode::Native) {
            // Drivers without XDP say EOPNOTSUPP; those that cannot with this MTU, ring or
            // offload setting say EINVAL, E2BIG, ENOMEM or ERANGE. A taken hook says EBUSY.
            Err(error)
                if !matches!(
                    error.errno(),
                    Some(libc::EBUSY | libc::EEXIST | libc::EPERM | libc::ENODEV)
                ) =>
            {
                if interface.is_veth()? {
                    return Err(error.with_hint(NATIVE_VETH));
                }
                tracing::info!(
                    interface = interface.name,
                    error = %ErrorChain::new(&error),
                    "no native XDP, falling back to generic"
                );
                Self::attach_mode(program, interface, XdpMode::Generic)
            }
            other => other,
        }
    }

    /// Attaches a program in one mode, or not at all.
    ///
    /// In generic mode a veth device gives the program no packet that tc(8) redirected to its peer: a process that
    /// configures the peer's network namespace sends past the program (`skb_is_redirected()` in `netif_receive_generic_xdp()` of
    /// net/core/dev.c).
    ///
    /// # Errors
    /// `BpfErrorKind::Attach`, naming the other program where the hook is taken.
    pub fn attach_mode(
        program: &Program,
        interface: &Interface,
        mode: XdpMode,
    ) -> Result<Self, BpfError> {
        if mode == XdpMode::Generic && interface.is_veth()? {
            tracing::warn!(
                interface = interface.name,
                "packets that tc(8) redirects to the peer pass by generic XDP"
            );
        }
        let fd = sys::xdp_link_create(program.as_fd(), interface.index, mode.flags())
            .map_err(|source| attach_error(program, interface, mode, source))?;
        let Interface { name, namespace, .. } = interface.clone();
        let name = LinkName { namespace, mode, interface: name, number: None };
        Ok(Self { fd, name, interface: interface.clone(), is_away: false, pin: None })
    }

    /// Opens what an earlier agent has pinned.
    pub(crate) fn open(path: &Path) -> Result<Self, BpfError> {
        let pin = |source| BpfError::pin(path.to_owned(), "opening", source);
        let fd = sys::obj_get(path).map_err(pin)?;
        let index = ifindex(fd.as_fd()).map_err(pin)?;
        let name = path.file_name().and_then(OsStr::to_str).and_then(LinkName::parse);
        let foreign = || io::Error::new(io::ErrorKind::InvalidData, "not the name of an XDP link");
        let name = name.ok_or_else(|| pin(foreign()))?;
        let interface =
            Interface { name: name.interface.clone(), namespace: name.namespace, index };
        Ok(Self { fd, name, interface, is_away: false, pin: Some(path.to_owned()) })
    }

    /// The name of its pin, where no other link has it.
    pub(crate) fn pin_name(&self) -> LinkName {
        self.name.clone()
    }

    /// Replaces the program; no packet finds the hook empty.
    ///
    /// # Errors
    /// `BpfErrorKind::Link` where the kernel refuses.
    pub fn replace(&self, program: &Program) -> Result<(), BpfError> {
        sys::link_update(self.fd.as_fd(), program.as_fd()).map_err(self.error("replacement"))
    }

    /// Whether the interface that it was attached to still exists.
    ///
    /// # Errors
    /// `BpfErrorKind::Link` where the kernel refuses.
    pub fn is_alive(&self) -> Result<bool, BpfError> {
        // The kernel clears the index when the interface is unregistered.
        Ok(self.index()? != 0)
    }

    /// Id of the program that the hook runs.
    ///
    /// # Errors
    /// `BpfErrorKind::Link` where the kernel refuses.
    pub fn program_id(&self) -> Result<u32, BpfError> {
        sys::info(self.fd.as_fd(), sys::zeroed::<libbpf_sys::bpf_link_info>())
            .map(|info| info.prog_id)
            .map_err(self.error("reading its info"))
    }

    /// Finds the interface among those of the calling thread's network namespace, where it is or may have
    /// returned to, and says what became of it since the last call. `taken` are numbers of interfaces that other
    /// links are known to be attached to.
    ///
    /// # Errors
    /// `BpfErrorKind::Link` where the kernel refuses.
    pub fn follow(
        &mut self,
        namespace: u64,
        found: &[Interface],
        taken: &[u32],
    ) -> Result<Option<Displaced>, BpfError> {
        if self.interface.namespace != namespace && !self.is_away {
            return Ok(None);
        }
        // The kernel reports the number that it has now, and not in which namespace.
        let index = self.index()?;
        let program = self.program_id()?;
        let is_it =
            |it: &&Interface| it.index == index && !taken.contains(&index) && runs(it, program);
        if let Some(now) = found.iter().find(is_it) {
            let former = std::mem::replace(&mut self.interface, now.clone()).name;
            let was_away = std::mem::replace(&mut self.is_away, false);
            return Ok(match was_away {
                true => Some(Displaced::Returned),
                false => (former != now.name).then_some(Displaced::Renamed { former }),
            });
        }
        // It may have been removed since.
        let index = self.index()?;
        if index == 0 {
            self.is_away = false;
            self.interface.name.clone_from(&self.name.interface);
            self.interface.namespace = self.name.namespace;
            return Ok(None);
        }
        self.interface.index = index;
        let was_away = std::mem::replace(&mut self.is_away, true);
        Ok((!was_away).then_some(Displaced::Away))
    }

    /// Whether it is attached to this interface, as far as [`follow`](Self::follow) knows.
    ///
    /// # Errors
    /// `BpfErrorKind::Link` where the kernel refuses.
    pub fn is_at(&self, interface: &Interface) -> Result<bool, BpfError> {
        Ok(!self.is_away && self.interface == *interface && self.index()? == interface.index)
    }

    /// Whether the interface was called so when the link was made.
    pub fn was_made_for(&self, name: &str, namespace: u64) -> bool {
        self.name.interface == name && self.name.namespace == namespace
    }

    /// Whether the interface is in another network namespace than [`interface`](Self::interface) says.
    pub fn is_away(&self) -> bool {
        self.is_away
    }

    fn index(&self) -> Result<u32, BpfError> {
        ifindex(self.fd.as_fd()).map_err(self.error("reading its info"))
    }

    /// Native or generic.
    pub fn mode(&self) -> XdpMode {
        self.name.mode
    }

    /// Whether the attachment outlives the process.
    pub fn is_pinned(&self) -> bool {
        self.pin.is_some()
    }

    /// Where it is attached, as far as [`follow`](Self::follow) knows.
    pub fn interface(&self) -> &Interface {
        &self.interface
    }

    /// Makes the attachment outlive the process.
    ///
    /// # Errors
    /// `BpfErrorKind::Pin` where bpffs refuses.
    pub(crate) fn pin(&mut self, path: &Path) -> Result<(), BpfError> {
        pin::pin(self.fd.as_fd(), path)?;
        self.pinned_at(path);
        Ok(())
    }

    pub(crate) fn pinned_at(&mut self, path: &Path) {
        self.pin = Some(path.to_owned());
    }

    /// Detaches at once, even where other processes hold the link, and removes the pin.
    ///
    /// # Errors
    /// `BpfErrorKind::Link` or `BpfErrorKind::Pin`; where the interface is gone there is nothing to do.
    pub fn detach(self) -> Result<(), BpfError> {
        if let Some(path) = &self.pin {
            match std::fs::remove_file(path) {
                Err(e) if e.kind() != io::ErrorKind::NotFound => {
                    return Err(BpfError::pin(path, "removing", e));
                }
                _ => {}
            }
        }
        match sys::link_detach(self.fd.as_fd()) {
            Err(e) if e.raw_os_error() != Some(libc::ENOLINK) => Err(self.error("detaching")(e)),
            _ => Ok(()),
        }
    }

    fn error(&self, step: &'static str) -> impl FnOnce(io::Error) -> BpfError {
        let interface = self.interface.name.clone();
        move |source| Failure::Link { interface, step, source }.into()
    }
}

impl AsFd for XdpLink {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

fn ifindex(link: BorrowedFd<'_>) -> io::Result<u32> {
    let info = sys::info(link, sys::zeroed::<libbpf_sys::bpf_link_info>())?;
    if info.type_ != libbpf_sys::BPF_LINK_TYPE_XDP {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "not a link of XDP"));
    }
    // SAFETY: the kernel fills this member of the union for links of XDP.
    Ok(unsafe { info.__bindgen_anon_1.xdp.ifindex })
}

/// The XDP programs that an interface runs; 0 where a mode has none.
fn programs(interface: &Interface) -> io::Result<[u32; 4]> {
    let query = sys::xdp_query(interface.index)?;
    Ok([query.prog_id, query.drv_prog_id, query.skb_prog_id, query.hw_prog_id])
}

/// False also where the interface was removed.
fn runs(interface: &Interface, program: u32) -> bool {
    programs(interface).is_ok_and(|programs| programs.contains(&program))
}

/// The XDP program that an interface runs, and its name.
fn occupant(interface: &Interface) -> Option<(u32, String)> {
    let id = programs(interface).ok()?.into_iter().find(|&id| id != 0)?;
    let name = sys::prog_by_id(id).and_then(|fd| program_info(fd.as_fd()));
    Some((id, name.map_or_else(|_| "a program".to_owned(), |info| format!("`{}`", info.name))))
}

/// What holds a hook that is taken, and the next step for a person.
fn taken(interface: &Interface) -> String {
    let Some((id, name)) = occupant(interface) else {
        return "the hook is taken by another mode or program: see `ip link show`".to_owned();
    };
    let holders = inventory::holders_of(id, Path::new(pin::BPFFS));
    let instance = holders.iter().find_map(|holder| match holder {
        Holder::Pin(path) => pin::instance_of(path),
        Holder::Process { .. } => None,
    });
    let processes = holders.iter().filter(|it| matches!(it, Holder::Process { .. }));
    let processes: Vec<String> = processes.map(ToString::to_string).collect();
    let by = match processes.join(", ") {
        none if none.is_empty() => String::new(),
        processes => format!(", which {processes} holds"),
    };
    match instance {
        Some(instance) => format!(
            "the hook already runs {name} (id {id}) of Ironclad's instance `{instance}`{by}: end that instance with `stop` or `purge`"
        ),
        None if by.is_empty() => format!(
            "the hook already runs {name} (id {id}), which no process holds: detach it with `ip link set dev {} xdp off`, or remove its pin",
            interface.name
        ),
        None => format!("the hook already runs {name} (id {id}){by}: end that process"),
    }
}

/// The next step where a veth device refuses native mode.
const NATIVE_VETH: &str = "in generic mode packets that tc(8) redirects to the peer would pass: lower the MTU of the peer to 3,498 or less, and give it no more transmit queues than this device has receive queues";

fn attach_error(
    program: &Program,
    interface: &Interface,
    mode: XdpMode,
    source: io::Error,
) -> BpfError {
    let hint = match source.raw_os_error() {
        Some(libc::EBUSY | libc::EEXIST) => Some(taken(interface)),
        Some(libc::EOPNOTSUPP) => {
            Some("the driver has no native XDP: attach in generic mode".to_owned())
        }
        Some(libc::ENODEV) => Some("the interface is gone: see `ip link`".to_owned()),
        // The missing capability.
        Some(libc::EPERM | libc::EACCES) => None,
        _ => Some(format!(
            "see the kernel's log (`dmesg`) for what the driver of {} says",
            interface.name
        )),
    };
    let program = program.info().name.clone();
    let hook = format!("XDP of interface `{}` ({mode})", interface.name);
    let error = BpfError::from(Failure::Attach { program, hook, source });
    match hint {
        Some(hint) => error.with_hint(hint),
        None => error,
    }
}
