//! Interfaces, how XDP programs are attached to them, and the names of the pins of their links.

use std::fmt;

use serde::Serialize;

use crate::error::{BpfError, Failure};
use crate::persistent::LINK_PREFIX;
use crate::pseudo_fs::namespace;
use crate::rtnetlink;

/// How an XDP program is attached.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
#[non_exhaustive]
pub enum XdpMode {
    /// In the driver, before the kernel makes a packet buffer.
    Native,
    /// After the driver, on any interface: works everywhere, saves less.
    Generic,
}

impl XdpMode {
    pub(crate) const fn flags(self) -> u32 {
        match self {
            XdpMode::Native => libbpf_sys::XDP_FLAGS_DRV_MODE,
            XdpMode::Generic => libbpf_sys::XDP_FLAGS_SKB_MODE,
        }
    }

    /// `native` or `generic`.
    pub const fn name(self) -> &'static str {
        match self {
            XdpMode::Native => "native",
            XdpMode::Generic => "generic",
        }
    }
}

impl fmt::Display for XdpMode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// An interface of a network namespace.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[non_exhaustive]
pub struct Interface {
    /// The name, e.g. `eth0`.
    pub name: String,
    /// Its network namespace: the inode number of `/proc/<pid>/ns/net`, as `lsns` shows it.
    pub namespace: u64,
    /// The kernel's number, which a re-created interface of the same name does not keep.
    pub index: u32,
}

impl Interface {
    /// Finds an interface of the calling thread's network namespace by name.
    ///
    /// # Errors
    /// `BpfErrorKind::NoInterface` where there is none.
    pub fn by_name(name: &str) -> Result<Self, BpfError> {
        let missing = || BpfError::from(Failure::NoInterface(name.to_owned()));
        let c_name = std::ffi::CString::new(name).map_err(|_| missing())?;
        // SAFETY: a NUL-terminated name that outlives the call.
        match unsafe { libc::if_nametoindex(c_name.as_ptr()) } {
            0 => Err(missing()),
            index => Ok(Self { name: name.to_owned(), namespace: network_namespace()?, index }),
        }
    }

    /// All interfaces of the calling thread's network namespace.
    ///
    /// # Errors
    /// `BpfErrorKind::System` where the kernel does not answer.
    pub fn all() -> Result<Vec<Self>, BpfError> {
        let namespace = network_namespace()?;
        let names = rtnetlink::names().map_err(|e| BpfError::system("listing interfaces", e))?;
        Ok(names.into_iter().map(|(index, name)| Self { name, namespace, index }).collect())
    }

    /// Whether it has this name in this namespace, whatever its number.
    pub fn is(&self, name: &str, namespace: u64) -> bool {
        self.name == name && self.namespace == namespace
    }
}

/// The calling thread's network namespace, by the number that [`Interface::namespace`] has.
///
/// # Errors
/// `BpfErrorKind::System` where `/proc` is not there.
pub fn network_namespace() -> Result<u64, BpfError> {
    namespace("thread-self", "net")
        .map_err(|source| BpfError::system("reading /proc/thread-self/ns/net", source))
}

/// The name of a link's pin, with what the kernel does not report of a link:
/// `link_<namespace>_<mode>_<interface>`, where the interface is as it was called when the link was made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct LinkName {
    pub(crate) namespace: u64,
    pub(crate) mode: XdpMode,
    pub(crate) interface: String,
    /// Of a further link under the same name: another interface was renamed or moved away. `%_<number>`
    /// at the end, which agents that do not know it take for a part of the interface's name.
    pub(crate) number: Option<u32>,
}

impl LinkName {
    /// The first of its names that is not taken.
    pub(crate) fn unless(mut self, is_taken: impl Fn(&Self) -> bool) -> Self {
        while is_taken(&self) {
            self.number = Some(self.number.unwrap_or(0) + 1);
        }
        self
    }

    pub(crate) fn parse(name: &str) -> Option<Self> {
        let mut parts = name.strip_prefix(LINK_PREFIX)?.splitn(3, '_');
        let namespace = parts.next()?.parse().ok()?;
        let mode = parts.next()?;
        let mode = [XdpMode::Native, XdpMode::Generic].into_iter().find(|m| m.name() == mode)?;
        let rest = parts.next()?;
        let (interface, number) = match rest.rsplit_once(NUMBER) {
            Some((interface, number)) => (interface, Some(number.parse().ok()?)),
            None => (rest, None),
        };
        Some(Self { namespace, mode, interface: unescape(interface)?, number })
    }
}

impl fmt::Display for LinkName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { namespace, mode, interface, number } = self;
        write!(f, "{LINK_PREFIX}{namespace}_{mode}_{}", escape(interface))?;
        number.map_or(Ok(()), |number| write!(f, "{NUMBER}{number}"))
    }
}

/// Before the number of a [`LinkName`]: no escaped name has it.
const NUMBER: &str = "%_";

/// bpffs reserves dots; interface names may have them.
fn escape(name: &str) -> String {
    name.replace('%', "%25").replace('.', "%2e")
}

fn unescape(name: &str) -> Option<String> {
    let name = name.replace("%2e", ".").replace("%25", "%");
    (!name.is_empty()).then_some(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn interface_names_survive_bpffs() {
        for name in ["eth0", "eth0.100", "a%2eb", "50%.1", "%25"] {
            assert!(!escape(name).contains('.'));
            assert_eq!(unescape(&escape(name)).as_deref(), Some(name), "{name}");
        }
    }

    #[test]
    fn names_of_link_pins_are_parsed() {
        for (mode, interface) in [(XdpMode::Native, "eth0.100"), (XdpMode::Generic, "a_b_")] {
            let interface = interface.to_owned();
            let link = LinkName { namespace: 4_026_531_840, mode, interface, number: None };
            assert_eq!(LinkName::parse(&link.to_string()), Some(link.clone()));
            let first = [link.clone()];
            let second = link.unless(|name| first.contains(name));
            assert_eq!(second.number, Some(1));
            assert_eq!(LinkName::parse(&second.to_string()), Some(second));
        }
        for foreign in [
            "link_eth0",
            "link_1_eth0",
            "link_1_native_",
            "link_x_native_eth0",
            "link_1_native_eth0%_x",
            "ic_xdp",
        ] {
            assert_eq!(LinkName::parse(foreign), None, "{foreign}");
        }
    }
}
