//! Shield, as an agent embeds it.

use std::time::Instant;

use ironclad::core::{Action, RuleId};
use ironclad::policy::list::ListOptions;
use ironclad::policy::{AddressList, AddressSet, Policy};
use ironclad_bpf::XdpMode;

use super::contender::{Contender, Firewall, Loaded};
use super::list::List;
use super::track::Track;
use crate::common::Result;

pub(super) struct Shield;

impl Contender for Shield {
    fn name(&self) -> &'static str {
        "Shield"
    }

    fn how(&self, _: &List) -> &'static str {
        "XDP, native; load: reads, compiles, verifies and attaches, from nothing"
    }

    fn load(&self, track: &Track<'_>, list: &List) -> Result<Loaded> {
        let file = track.dir.join("list.txt");
        list.write(&file)?;
        let begin = Instant::now();
        let listed = AddressList::read(&file, &ListOptions::new())?;
        let set = AddressSet::new(RuleId(1), "race", Action::Drop).list(listed);
        let policy = Policy::builder().set(set).compile()?;
        let shield = ironclad::shield::Shield::builder("race")
            .interface(track.interface)
            .mode(XdpMode::Native)
            .start(&policy)?;
        let took = begin.elapsed();
        Ok(Loaded { took, firewall: Box::new(Running { shield, interface: track.interface }) })
    }
}

struct Running {
    shield: ironclad::shield::Shield,
    interface: &'static str,
}

impl Firewall for Running {
    fn dropped(&self) -> Result<u64> {
        Ok(self.shield.counters()?.dropped().packets)
    }

    fn raise(&self) -> Result<()> {
        Ok(self.shield.protect(self.interface)?)
    }

    fn lower(&self) -> Result<()> {
        Ok(self.shield.unprotect(self.interface)?)
    }

    fn remove(self: Box<Self>) -> Result<()> {
        Ok(())
    }
}
