use std::mem::{MaybeUninit, offset_of};
use std::os::fd::AsFd;
use std::sync::atomic::Ordering;

use libbpf_rs::skel::{OpenSkel, SkelBuilder};

use super::{PROBES, failed, fill_mapped};
use crate::audit::Allowlist;
use crate::error::BpfError;
use crate::interface::Interface;
use crate::loader::Loader;
use crate::map::clone_fd;
use crate::mapping::Mapping;
use crate::program::Program;
use crate::skel::bench_send::BenchSendSkelBuilder;
use crate::skel::bench_send::types::bss;
use crate::sys;
use crate::uapi::{Helper, ProgramType};

/// Sends frames from an interface as fast as one CPU can, each from another source, and has the
/// program that drops everything for comparison.
///
/// The frames never were packet buffers: those of one call come from a pool of the kernel's and
/// return to it. The interface's driver has to take frames of XDP; a veth pair does where the other
/// end has an XDP program or GRO. Linux 5.18.
#[derive(Debug)]
pub struct Generator {
    send: Program,
    drop: Program,
    bss: Mapping,
    frame: Vec<u8>,
}

impl Generator {
    /// Sends `frame` from `interface`, with its source replaced by each of `sources` in turn: the
    /// first [`PROBES`], in network byte order, IPv4 in the first four bytes.
    ///
    /// # Errors
    /// [`BpfError`] where the kernel refuses.
    ///
    /// # Panics
    /// Without sources.
    pub fn new(
        interface: &Interface,
        frame: &[u8],
        sources: &[[u8; 16]],
    ) -> Result<Self, BpfError> {
        let mut storage = MaybeUninit::uninit();
        let mut open =
            BenchSendSkelBuilder::default().open(&mut storage).map_err(failed("opening"))?;
        let is_v6 = frame.get(12) == Some(&0x86);
        let sources = &sources[..sources.len().min(PROBES)];
        assert!(!sources.is_empty(), "no sources to send from");
        if let Some(rodata) = open.maps.rodata_data.as_mut() {
            rodata.ic_cfg_bench_v6 = u8::from(is_v6);
            rodata.ic_cfg_bench_sources = sources.len() as u32;
            rodata.ic_cfg_bench_ifindex = interface.index;
        }
        let allowlist = Allowlist::shield()
            .allow(ProgramType::XDP, [Helper::REDIRECT])
            .unwrap_or_else(|e| panic!("{e}"));
        Loader::new("bench_send", allowlist).load(open.open_object_mut())?;
        let width = if is_v6 { 16 } else { 4 };
        let words: Vec<u8> = sources.iter().flat_map(|source| &source[..width]).copied().collect();
        fill_mapped(&open.maps.data_ic_sources, "ic_sources", &words)?;
        let program = |program| Program::new(crate::program::clone_fd(program)?);
        Ok(Self {
            send: program(&open.progs.ic_bench_send)?,
            drop: program(&open.progs.ic_bench_drop)?,
            bss: Mapping::new(clone_fd(&open.maps.bss)?.as_fd(), size_of::<bss>(), true)
                .map_err(|e| BpfError::map("bss", "mapping", e))?,
            frame: frame.to_vec(),
        })
    }

    /// Sends, and says how many nanoseconds each packet took: not counted are setting up and the time
    /// in which the CPU did something else. What receives by interrupting the sender is counted.
    ///
    /// The calling thread has to be in the interface's network namespace.
    ///
    /// # Errors
    /// `BpfErrorKind::System` where the kernel refuses.
    pub fn send(&self, packets: u32) -> Result<u32, BpfError> {
        sys::run_live(self.send.as_fd(), &self.frame, packets)
            .map_err(|source| BpfError::system("BPF_PROG_TEST_RUN of live frames", source))
    }

    /// A program that counts and drops every packet.
    pub fn drop_all(&self) -> &Program {
        &self.drop
    }

    /// Packets that [`drop_all`](Self::drop_all) has dropped.
    pub fn dropped(&self) -> u64 {
        self.bss.u64_at(offset_of!(bss, ic_bench_dropped)).load(Ordering::Acquire)
    }
}
