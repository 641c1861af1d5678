use std::mem::{MaybeUninit, offset_of};
use std::net::IpAddr;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::sync::atomic::Ordering;

use ironclad_core::abi::{self, Gateways, Generation, State, Stats};
use libbpf_rs::skel::{OpenSkel, SkelBuilder};
use zerocopy::{FromZeros, IntoBytes};

use crate::audit::Allowlist;
use crate::clock::boottime_ns;
use crate::error::{BpfError, Failure};
use crate::interface::LinkName;
use crate::link::XdpLink;
use crate::link_layer::LinkLayer;
use crate::loader::{Loaded, Loader, failed};
use crate::map::Map;
use crate::mapping::Mapping;
use crate::persistent::{
    DISPATCHERS, DISPATCHERS_STAGED, LOSSES, PersistentMaps, PinnedMaps, SHIELD, STATE, pin_names,
};
use crate::pin::PinDirectory;
use crate::program::{Program, program_info};
use crate::ring::check_size;
use crate::shield::PolicyProgram;
use crate::skel::xdp_dispatch::XdpDispatchSkelBuilder;
use crate::sys;

const OBJECT: &str = "xdp_dispatch";

/// How the shared maps are made.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub struct SharedOptions {
    /// Bytes of the ring buffer: a power of two, at least a page. Default 1 MiB.
    pub ring_bytes: u32,
}

impl Default for SharedOptions {
    fn default() -> Self {
        Self { ring_bytes: 1 << 20 }
    }
}

/// The dispatchers and the maps that outlive a policy: counters, events, gateways, the selector.
#[derive(Debug)]
pub struct Shared {
    dispatchers: [Program; 2],
    state: Mapping,
    /// By [`LinkLayer`], as the dispatchers.
    slots: [Map<u32, u32>; 2],
    /// Counters by [`abi::Reason`] and verdict: number `2 * reason + verdict`.
    pub reasons: Map<u32, Stats>,
    /// Counters by rule slot.
    pub rules: Map<u32, Stats>,
    /// Counters by [`abi::Loss`].
    pub losses: Map<u32, u64>,
    /// Rule id to slot.
    pub rule_slots: Map<u32, u32>,
    persistent: PersistentMaps,
}

/// The one word that says which slot is in force, see [`State::selector`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Selector {
    /// The slot in force.
    pub active: u32,
    /// The slot to return to.
    pub fallback: u32,
    /// When to, nanoseconds of `CLOCK_BOOTTIME` in steps of 4; 0 for never.
    pub deadline_ns: u64,
}

impl Selector {
    fn from_word(word: u64) -> Self {
        Self {
            active: u32::from(word & abi::SELECTOR_ACTIVE != 0),
            fallback: u32::from(word & abi::SELECTOR_FALLBACK != 0),
            deadline_ns: word >> abi::SELECTOR_DEADLINE_SHIFT << 2,
        }
    }

    fn word(self) -> u64 {
        let bit = |slot: u32, bit| if slot == 1 { bit } else { 0 };
        bit(self.active, abi::SELECTOR_ACTIVE)
            | bit(self.fallback, abi::SELECTOR_FALLBACK)
            | (self.deadline_ns >> 2) << abi::SELECTOR_DEADLINE_SHIFT
    }

    /// Whether the deadline has passed: the kernel uses `fallback` by now.
    pub fn is_expired(self) -> bool {
        self.deadline_ns != 0 && boottime_ns() >= self.deadline_ns
    }

    /// The slot that decides packets now.
    pub fn in_force(self) -> u32 {
        if self.is_expired() { self.fallback } else { self.active }
    }
}

impl Shared {
    /// Loads the dispatchers with maps of their own. No policy is in force: everything passes.
    ///
    /// # Errors
    /// `BpfErrorKind::Load` with the verifier's log, `BpfErrorKind::Object` or `BpfErrorKind::Map`.
    pub fn load(options: SharedOptions) -> Result<Self, BpfError> {
        crate::log::to_tracing();
        check_size(options.ring_bytes)?;
        let mut storage = MaybeUninit::uninit();
        let mut open = XdpDispatchSkelBuilder::default()
            .open(&mut storage)
            .map_err(failed(OBJECT, "opening"))?;
        let mut object = Loader::new(OBJECT, Allowlist::shield())
            .persist(&SHIELD, None)
            .size("ic_events", options.ring_bytes)
            .load(open.open_object_mut())?;
        let this = Self::assemble(dispatchers(&mut object)?, object.persistent()?)?;
        this.state.u32_at(offset_of!(State, abi)).store(abi::VERSION, Ordering::Release);
        this.state.u32_at(offset_of!(State, magic)).store(abi::MAGIC, Ordering::Release);
        Ok(this)
    }

    fn assemble(dispatchers: [Program; 2], persistent: PersistentMaps) -> Result<Self, BpfError> {
        // Checks name and size.
        persistent.map::<u32, StateBytes>(STATE)?;
        Ok(Self {
            dispatchers,
            state: Mapping::new(persistent.fd(STATE), size_of::<State>(), true)
                .map_err(|e| BpfError::map(STATE, "mapping", e))?,
            slots: [persistent.map("ic_slots")?, persistent.map("ic_slots_ip")?],
            reasons: persistent.map("ic_reasons")?,
            rules: persistent.map("ic_rules")?,
            losses: persistent.map(LOSSES)?,
            rule_slots: persistent.map("ic_rule_slots")?,
            persistent,
        })
    }

    /// Adopts what an earlier agent has pinned; `None` where nothing is pinned.
    ///
    /// The links come with it. Their interfaces were protected all the time and remain so.
    ///
    /// # Errors
    /// `BpfErrorKind::PinDirectory` for a partial or foreign directory or another ABI's state.
    pub fn adopt(directory: &PinDirectory) -> Result<Option<(Self, Vec<XdpLink>)>, BpfError> {
        let path = directory.path();
        // An upgrade that was killed before its rename leaves these pins, which have no use.
        for staged in DISPATCHERS_STAGED {
            let _ = std::fs::remove_file(path.join(staged));
        }
        let Some(links) = directory.shield(&pin_names(&[&DISPATCHERS, &SHIELD]))? else {
            return Ok(None);
        };
        let pins = PinnedMaps::in_directory(path);
        let dispatcher = |name| Program::new(pins.open(name)?);
        let [ethernet, ip] = DISPATCHERS;
        let dispatchers = [dispatcher(ethernet)?, dispatcher(ip)?];
        let this = Self::assemble(dispatchers, PersistentMaps::open(&SHIELD, &pins)?)?;
        let word = |offset| this.state.u32_at(offset).load(Ordering::Acquire);
        if word(offset_of!(State, magic)) != abi::MAGIC
            || word(offset_of!(State, abi)) != abi::VERSION
        {
            return Err(BpfError::pin_directory(
                pins.path(),
                "its state was never initialised or is of another version",
                "remove the directory to drop its protection and start afresh: `purge`",
            ));
        }
        // A Sentinel protects the maps that this process opens, those without pins included.
        for &id in this.dispatchers.iter().flat_map(|program| &program.info().map_ids) {
            sys::map_by_id(id).map_err(|e| BpfError::map("", "opening a dispatcher's", e))?;
        }
        let links = links.iter().map(|pin| XdpLink::open(pin)).collect::<Result<_, _>>()?;
        Ok(Some((this, links)))
    }

    /// Pins all of it with `links` and what else there is, in one step: a crash leaves everything or
    /// nothing.
    ///
    /// # Errors
    /// `BpfErrorKind::Pin` where bpffs refuses; then nothing is pinned.
    pub fn persist(
        &self,
        directory: &PinDirectory,
        links: &mut [XdpLink],
        more: Vec<(String, BorrowedFd<'_>)>,
    ) -> Result<(), BpfError> {
        let dispatchers = DISPATCHERS.iter().zip(&self.dispatchers);
        let dispatchers = dispatchers.map(|(name, program)| ((*name).to_owned(), program.as_fd()));
        let mut pins: Vec<_> = dispatchers.chain(self.persistent.pins()).collect();
        let mut names: Vec<LinkName> = Vec::new();
        for link in links.iter() {
            let name = link.pin_name().unless(|name| names.contains(name));
            pins.push((name.to_string(), link.as_fd()));
            names.push(name);
        }
        pins.extend(more);
        directory.persist(&pins)?;
        for (link, name) in links.iter_mut().zip(&names) {
            link.pinned_at(&directory.link_path(name));
        }
        Ok(())
    }

    /// Pins one more link beside those that are pinned.
    ///
    /// # Errors
    /// `BpfErrorKind::Pin` where bpffs refuses.
    pub fn persist_link(
        &self,
        directory: &PinDirectory,
        link: &mut XdpLink,
    ) -> Result<(), BpfError> {
        // Another interface of that name may have been renamed or moved away, and is protected still.
        let name = link.pin_name().unless(|name| directory.link_path(name).exists());
        link.pin(&directory.link_path(&name))
    }

    /// Replaces the pinned dispatchers by this build's and gives them to every link; false where the
    /// pinned ones are the same.
    ///
    /// # Errors
    /// As of [`load`](Self::load); then the links keep what they have.
    pub fn upgrade_dispatcher(
        &mut self,
        directory: Option<&PinDirectory>,
        links: &[XdpLink],
    ) -> Result<bool, BpfError> {
        let fresh = self.load_dispatchers()?;
        let tags = |programs: &[Program; 2]| programs.each_ref().map(|it| it.info().tag.clone());
        if tags(&fresh) == tags(&self.dispatchers) {
            return Ok(false);
        }
        for link in links {
            match link.replace(&fresh[Self::layer_of(link)? as usize]) {
                // The interface was removed.
                Err(error) if error.errno() == Some(libc::ENOLINK) => {}
                replaced => replaced?,
            }
        }
        if let Some(directory) = directory {
            for ((name, staged), program) in DISPATCHERS.iter().zip(DISPATCHERS_STAGED).zip(&fresh)
            {
                // A rename over the old pin leaves no moment without one.
                let (path, staged) = (directory.path().join(name), directory.path().join(staged));
                let failed = |step| {
                    let path = path.clone();
                    move |source| BpfError::pin(path, step, source)
                };
                sys::obj_pin(program.as_fd(), &staged).map_err(failed("pinning"))?;
                std::fs::rename(&staged, &path).map_err(failed("renaming"))?;
            }
        }
        self.dispatchers = fresh;
        Ok(true)
    }

    /// What the program of a link takes the frames to begin with.
    ///
    /// # Errors
    /// `BpfErrorKind::Link` or `BpfErrorKind::System` where the kernel refuses.
    pub fn layer_of(link: &XdpLink) -> Result<LinkLayer, BpfError> {
        let failed = |source| BpfError::system("reading a link's program", source);
        let program = sys::prog_by_id(link.program_id()?).map_err(failed)?;
        match program_info(program.as_fd()).map_err(failed)?.name == DISPATCHERS[1] {
            true => Ok(LinkLayer::Ip),
            false => Ok(LinkLayer::Ethernet),
        }
    }

    /// This build's dispatchers on the maps that there are.
    fn load_dispatchers(&self) -> Result<[Program; 2], BpfError> {
        let mut storage = MaybeUninit::uninit();
        let mut open = XdpDispatchSkelBuilder::default()
            .open(&mut storage)
            .map_err(failed(OBJECT, "opening"))?;
        let loader = Loader::new(OBJECT, Allowlist::shield()).share(self.maps());
        dispatchers(&mut loader.load(open.open_object_mut())?)
    }

    /// The program to attach to interfaces with Ethernet headers.
    pub fn dispatcher(&self) -> &Program {
        self.dispatcher_for(LinkLayer::Ethernet)
    }

    /// The program to attach to interfaces whose frames begin like this.
    pub fn dispatcher_for(&self, layer: LinkLayer) -> &Program {
        &self.dispatchers[layer as usize]
    }

    /// The ring buffer, for [`EventRing::new`](crate::EventRing::new).
    pub fn events(&self) -> BorrowedFd<'_> {
        self.persistent.fd("ic_events")
    }

    /// All maps, as objects call them.
    pub(crate) fn maps(&self) -> impl Iterator<Item = (&str, BorrowedFd<'_>)> {
        self.persistent.maps()
    }

    /// Which slot is in force.
    pub fn selector(&self) -> Selector {
        Selector::from_word(self.state.u64_at(offset_of!(State, selector)).load(Ordering::Acquire))
    }

    /// Changes which slot is in force, for every packet that comes after.
    pub fn select(&self, selector: Selector) {
        self.state.u64_at(offset_of!(State, selector)).store(selector.word(), Ordering::Release);
    }

    /// Changes the selector only if it is still `old`, so that a deadline is not lost; true on success.
    pub fn select_if(&self, old: Selector, new: Selector) -> bool {
        self.state
            .u64_at(offset_of!(State, selector))
            .compare_exchange(old.word(), new.word(), Ordering::AcqRel, Ordering::Acquire)
            .is_ok()
    }

    /// Fills a slot, which must not be in force, with a policy, and with its programs where it has any.
    ///
    /// # Errors
    /// `BpfErrorKind::Map` where the kernel refuses.
    pub fn fill_slot(
        &self,
        slot: u32,
        policy: Option<&PolicyProgram>,
        generation: &Generation,
    ) -> Result<(), BpfError> {
        self.write_generation(slot, generation);
        policy.map_or(Ok(()), |policy| self.fill_programs(slot, policy))
    }

    /// Fills the programs of the policy that a slot holds into it. The slot may be in force.
    ///
    /// # Errors
    /// `BpfErrorKind::Map` where the kernel refuses.
    pub fn fill_programs(&self, slot: u32, policy: &PolicyProgram) -> Result<(), BpfError> {
        for layer in [LinkLayer::Ethernet, LinkLayer::Ip] {
            policy.program_for(layer).map_or(Ok(()), |it| self.fill(slot, layer, it))?;
        }
        Ok(())
    }

    pub(super) fn fill(
        &self,
        slot: u32,
        layer: LinkLayer,
        program: &Program,
    ) -> Result<(), BpfError> {
        self.slots[layer as usize].update(&slot, &(program.as_fd().as_raw_fd() as u32))
    }

    /// Empties a slot, which must not be in force.
    ///
    /// # Errors
    /// `BpfErrorKind::Map` where the kernel refuses.
    pub fn clear_slot(&self, slot: u32) -> Result<(), BpfError> {
        for slots in &self.slots {
            slots.delete(&slot)?;
        }
        self.write_generation(slot, &Generation::default());
        Ok(())
    }

    /// The program in a slot for frames that begin like this, `None` where there is none.
    ///
    /// # Errors
    /// `BpfErrorKind::Map` or `BpfErrorKind::System` where the kernel refuses.
    pub fn slot_program(&self, slot: u32, layer: LinkLayer) -> Result<Option<Program>, BpfError> {
        // The kernel returns the program's id.
        let Some(id) = self.slots[layer as usize].lookup(&slot)? else { return Ok(None) };
        let fd = sys::prog_by_id(id)
            .map_err(|source| BpfError::system("opening a policy's program", source))?;
        Program::new(fd).map(Some)
    }

    /// What a slot holds.
    pub fn generation(&self, slot: u32) -> Generation {
        let mut words = [0u32; size_of::<Generation>() / 4];
        self.state.read(generation_offset(slot), &mut words);
        let mut generation = Generation::new_zeroed();
        generation.as_mut_bytes().copy_from_slice(words.as_bytes());
        generation
    }

    fn write_generation(&self, slot: u32, generation: &Generation) {
        let mut words = [0u32; size_of::<Generation>() / 4];
        words.as_mut_bytes().copy_from_slice(generation.as_bytes());
        self.state.write(generation_offset(slot), &words);
    }

    /// Waits until no packet is still decided by what was in force before the call.
    ///
    /// # Errors
    /// `BpfErrorKind::System` where the kernel refuses.
    pub fn wait_for_packets(&self) -> Result<(), BpfError> {
        sys::grace_period()
            .map_err(|source| BpfError::system("waiting for packets in flight", source))
    }

    /// The addresses that bypass every policy beside the policy's own, for packets that come after.
    ///
    /// # Errors
    /// `BpfErrorKind::Limit` where one family has more than [`abi::GATEWAYS_MAX`],
    /// `BpfErrorKind::Gateway` for an address that no host has.
    pub fn set_gateways(&self, addresses: &[IpAddr]) -> Result<(), BpfError> {
        let set = Gateways::new(addresses).map_err(Failure::Gateway)?;
        let active = self.state.u32_at(offset_of!(State, gateways_active));
        let next = (active.load(Ordering::Acquire) + 1) & 1;
        // Packets that still read the set that was in force before the last change.
        self.wait_for_packets()?;
        let mut words = [0u32; size_of::<Gateways>() / 4];
        words.as_mut_bytes().copy_from_slice(set.as_bytes());
        self.state
            .write(offset_of!(State, gateways) + next as usize * size_of::<Gateways>(), &words);
        active.store(next, Ordering::Release);
        Ok(())
    }

    /// The addresses that bypass every policy.
    pub fn gateways(&self) -> Vec<IpAddr> {
        let active = self.state.u32_at(offset_of!(State, gateways_active)).load(Ordering::Acquire);
        let mut words = [0u32; size_of::<Gateways>() / 4];
        let offset = offset_of!(State, gateways) + (active & 1) as usize * size_of::<Gateways>();
        self.state.read(offset, &mut words);
        let mut set = Gateways::new_zeroed();
        set.as_mut_bytes().copy_from_slice(words.as_bytes());
        set.addresses().collect()
    }
}

/// The dispatchers of a loaded object, by [`LinkLayer`].
fn dispatchers(object: &mut Loaded) -> Result<[Program; 2], BpfError> {
    let [ethernet, ip] = DISPATCHERS;
    Ok([object.program(ethernet)?, object.program(ip)?])
}

type StateBytes = [u8; size_of::<State>()];

fn generation_offset(slot: u32) -> usize {
    assert!(slot < 2, "there are two slots");
    offset_of!(State, generation) + slot as usize * size_of::<Generation>()
}
