//! What every contender can do.

use std::time::Duration;

use super::list::List;
use super::track::Track;
use crate::common::Result;

/// A firewall that drops what a list names.
pub(super) trait Contender {
    fn name(&self) -> &'static str;

    /// Where it stands and what its list is.
    fn how(&self, list: &List) -> &'static str;

    /// Loads the list from a file in the contender's own format, and raises the firewall at the
    /// track's receiving end.
    fn load(&self, track: &Track<'_>, list: &List) -> Result<Loaded>;
}

/// A list in the kernel, and in force.
pub(super) struct Loaded {
    /// From the file to the first packet dropped.
    pub(super) took: Duration,
    pub(super) firewall: Box<dyn Firewall>,
}

/// What drops by a loaded list.
pub(super) trait Firewall {
    /// Packets dropped since it was raised, or longer, by the firewall's own count.
    fn dropped(&self) -> Result<u64>;

    /// Attaches it to the path of the packets.
    fn raise(&self) -> Result<()>;

    /// Detaches it; the list stays.
    fn lower(&self) -> Result<()>;

    /// Removes the list of a firewall that is lowered.
    fn remove(self: Box<Self>) -> Result<()>;
}
