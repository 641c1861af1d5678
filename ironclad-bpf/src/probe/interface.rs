//! What an interface's driver can do with XDP, by query: nothing is attached.
use std::fs;
use std::path::Path;

use rustix::net::{AddressFamily, SocketType, netdevice::name_to_index, socket};
use serde::Serialize;

use super::feature::{Feature, State};
use super::netdev;
use crate::error::{BpfError, Failure};
use crate::sys;

/// What can be had of XDP at an interface. Displays as a table.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct InterfaceProbe {
    /// The interface.
    pub name: String,
    /// Its number in this network namespace.
    pub index: u32,
    /// Its driver, where it has one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub driver: Option<String>,
    /// The XDP programs that it carries: mode and the program's id.
    pub programs: Vec<(&'static str, u32)>,
    /// `native` and `generic` modes; `redirect`, `redirect_target`, `af_xdp_zero_copy`, `offload`,
    /// `fragments`, `redirect_target_fragments` of the native one.
    pub features: Vec<Feature>,
}

impl InterfaceProbe {
    /// A mode or ability.
    pub fn feature(&self, name: &str) -> Option<&Feature> {
        self.features.iter().find(|feature| feature.name == name)
    }
}

/// The bits of `enum netdev_xdp_act`, and what each is called here.
const ABILITIES: [(&str, u64); 7] = [
    ("native", 1),
    ("redirect", 1 << 1),
    ("redirect_target", 1 << 2),
    ("af_xdp_zero_copy", 1 << 3),
    ("offload", 1 << 4),
    ("fragments", 1 << 5),
    ("redirect_target_fragments", 1 << 6),
];

/// Queries what an interface of this network namespace can do with XDP.
///
/// # Errors
/// `BpfErrorKind::NoInterface` where there is none of this name; `BpfErrorKind::System` where the kernel
/// does not answer.
pub fn probe_interface(name: &str) -> Result<InterfaceProbe, BpfError> {
    let failed = |step| move |source| BpfError::system(step, source);
    let any = socket(AddressFamily::INET, SocketType::DGRAM, None)
        .map_err(|e| failed("opening a socket")(e.into()))?;
    let index = name_to_index(any, name).map_err(|e| match e {
        rustix::io::Errno::NODEV => Failure::NoInterface(name.to_owned()).into(),
        e => failed("looking an interface up")(e.into()),
    })?;
    let query = sys::xdp_query(index).map_err(failed("querying an interface's XDP"))?;
    let programs = [
        ("native", query.drv_prog_id),
        ("generic", query.skb_prog_id),
        ("offload", query.hw_prog_id),
    ];
    let is_known = netdev::is_known();
    let mut features: Vec<_> = ABILITIES
        .into_iter()
        .map(|(ability, bit)| match &is_known {
            Ok(true) if query.feature_flags & bit != 0 => Feature::available(ability),
            Ok(true) => Feature::new(
                ability,
                State::Unavailable,
                "the driver does not offer it, or not with the interface's present settings",
            ),
            Ok(false) => Feature::new(
                ability,
                State::Unknown,
                "this kernel does not report it (since Linux 6.3): only attaching shows",
            ),
            Err(e) => Feature::new(ability, State::Unknown, format!("the query failed: {e}")),
        })
        .collect();
    features.insert(
        1,
        Feature::new("generic", State::Available, "slower: after the kernel made its packet"),
    );
    Ok(InterfaceProbe {
        name: name.to_owned(),
        index,
        driver: driver(name),
        programs: programs.into_iter().filter(|&(_, id)| id != 0).collect(),
        features,
    })
}

fn driver(interface: &str) -> Option<String> {
    let link = Path::new("/sys/class/net").join(interface).join("device/driver");
    Some(fs::read_link(link).ok()?.file_name()?.to_string_lossy().into_owned())
}
