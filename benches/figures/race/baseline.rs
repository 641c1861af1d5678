//! The ceiling: an XDP program that drops everything unseen.

use std::cell::RefCell;
use std::rc::Rc;
use std::time::Duration;

use ironclad_bpf::bench::Generator;
use ironclad_bpf::{Interface, XdpLink, XdpMode};

use super::contender::{Contender, Firewall, Loaded};
use super::list::List;
use super::track::Track;
use crate::common::Result;

pub(super) struct Baseline(pub(super) Rc<Generator>);

struct Empty {
    generator: Rc<Generator>,
    interface: Interface,
    link: RefCell<Option<XdpLink>>,
}

impl Contender for Baseline {
    fn name(&self) -> &'static str {
        "empty XDP program"
    }

    fn how(&self, _: &List) -> &'static str {
        "XDP, native; drops and counts, reads nothing"
    }

    fn load(&self, track: &Track<'_>, _: &List) -> Result<Loaded> {
        let firewall = Box::new(Empty {
            generator: self.0.clone(),
            interface: Interface::by_name(track.interface)?,
            link: RefCell::default(),
        });
        firewall.raise()?;
        Ok(Loaded { took: Duration::ZERO, firewall })
    }
}

impl Firewall for Empty {
    fn dropped(&self) -> Result<u64> {
        Ok(self.generator.dropped())
    }

    fn raise(&self) -> Result<()> {
        let program = self.generator.drop_all();
        let link = XdpLink::attach_mode(program, &self.interface, XdpMode::Native)?;
        self.link.replace(Some(link));
        Ok(())
    }

    fn lower(&self) -> Result<()> {
        self.link.take().map_or(Ok(()), |link| Ok(link.detach()?))
    }

    fn remove(self: Box<Self>) -> Result<()> {
        Ok(())
    }
}
