//! Feeds as policy files name them.

use std::time::SystemTime;

use ironclad_core::ErrorChain;
use ironclad_core::audit::AuditAction;

use super::{FeedSet, IfMissing};
use crate::document::{Feeds, NoFeed};
use crate::list::AddressList;

/// The last good version as of now, from the cache and without network. Of a feed that has none
/// [`IfMissing`] decides.
impl Feeds for &FeedSet {
    fn addresses(&mut self, name: &str) -> Result<AddressList, NoFeed> {
        let spec = self.specs().iter().find(|spec| spec.name() == name).ok_or(NoFeed::Unknown)?;
        let why = match self.cache().load(spec, SystemTime::now()) {
            Ok(Some(list)) => return Ok(list),
            Ok(None) => "it has no good version yet".to_owned(),
            Err(error) => ErrorChain::new(&error).to_string(),
        };
        if spec.if_missing == IfMissing::Refuse {
            return Err(NoFeed::Unavailable(format!("{why} (`if-missing: refuse`)")));
        }
        let (feed, reason) = (name.to_owned(), why.clone());
        match self.cache().record(&AuditAction::FeedMissing { feed, reason }) {
            Ok(()) => Ok(AddressList::missing(name, why)),
            Err(refused) => Err(NoFeed::Unavailable(format!("{why}; {refused}"))),
        }
    }

    fn names(&self) -> Vec<String> {
        self.specs().iter().map(|spec| spec.name().to_owned()).collect()
    }
}

/// As of `&FeedSet`, which shared ones are.
impl Feeds for FeedSet {
    fn addresses(&mut self, name: &str) -> Result<AddressList, NoFeed> {
        <&Self as Feeds>::addresses(&mut &*self, name)
    }

    fn names(&self) -> Vec<String> {
        <&Self as Feeds>::names(&self)
    }
}
