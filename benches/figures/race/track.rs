//! The road: one veth pair, a sender at one end, and the contender at the other.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use ironclad::core::Family;
use ironclad_bpf::Interface;
use ironclad_bpf::bench::Generator;
use ironclad_lab::packet::{Frame, UDP, udp};
use ironclad_lab::{Lab, Namespace};
use rustix::process::setpriority_process;
use rustix::thread::{CpuSet, gettid, sched_getaffinity, sched_setaffinity};

use super::list::List;
use super::tool;
use crate::common::Result;

/// The pair as seen from its receiving end.
pub(super) struct Track<'a> {
    sender: &'a Namespace,
    /// The receiving interface.
    pub(super) interface: &'static str,
    /// A directory for lists.
    pub(super) dir: PathBuf,
}

impl Track<'_> {
    /// Makes a pair and runs `race` in the namespace of its receiving end, with mounts of its own.
    pub(super) fn with<T: Send>(race: impl FnOnce(&Track<'_>) -> Result<T> + Send) -> Result<T> {
        let lab = Lab::new()?;
        let (host, peer) = (lab.namespace("host")?, lab.namespace("peer")?);
        lab.veth((&host, "fw0"), (&peer, "net0"))?;
        // The sender's kernel has nothing of its own to say.
        peer.sysctl("net/ipv6/conf/net0/disable_ipv6", "1")?;
        host.address("fw0", "198.51.100.1/32")?;
        host.address("fw0", "2001:db8::1/128")?;
        let dir = tempfile::tempdir()?;
        let track = Track { sender: &peer, interface: "fw0", dir: dir.path().to_owned() };
        let done = host.run_apart(|| {
            // As the driver of a network card: polled; frames in, packet buffers out.
            tool::run("ethtool", &["-K", track.interface, "gro", "on"])
                .and_then(|_| race(&track))
                .map_err(|e| e.to_string())
        })?;
        Ok(done?)
    }

    /// What sends frames from the list's sources to the receiving end.
    pub(super) fn generator(&self, list: &List) -> Result<Generator> {
        let (frame, header) = match list.family {
            Family::V4 => (Frame::v4("192.0.2.1", "198.51.100.1"), 20),
            Family::V6 => (Frame::v6("2001:db8:1::1", "2001:db8::1"), 40),
        };
        let mut frame = frame.payload(UDP, udp(40_000, 9, &[0; 18])).build();
        // No UDP checksum: the kernel would compute it over, which network cards do for it.
        let at = 14 + header + 6;
        frame[at..at + 2].fill(0);
        let made = self
            .sender
            .run(|| Generator::new(&Interface::by_name("net0")?, &frame, &list.sources))?;
        Ok(made?)
    }

    /// Sends, on one CPU, and waits until all has arrived. Nanoseconds of CPU time that each packet
    /// took there, from its making to its end; an error if not all arrive.
    pub(super) fn burst(&self, generator: &Generator, packets: u32) -> Result<f64> {
        let before = self.arrived()?;
        let ns = self.sender.run(|| send(generator, packets).map_err(|e| e.to_string()))??;
        let patience = Instant::now() + Duration::from_secs(1);
        while self.arrived()? < before + u64::from(packets) && Instant::now() < patience {
            std::thread::sleep(Duration::from_millis(1));
        }
        match self.arrived()? - before {
            arrived if arrived == u64::from(packets) => Ok(ns.into()),
            arrived => Err(format!("of {packets} packets {arrived} arrived").into()),
        }
    }

    fn arrived(&self) -> Result<u64> {
        let path = format!("/sys/class/net/{}/statistics/rx_packets", self.interface);
        Ok(std::fs::read_to_string(path)?.trim().parse()?)
    }
}

/// A veth pair receives by interrupting the sender: all of it is on the sender's CPU.
fn send(generator: &Generator, packets: u32) -> Result<u32> {
    let allowed = sched_getaffinity(None)?;
    // The first CPU has most of the machine's interrupts.
    let last = (0..CpuSet::MAX_CPU).rfind(|&cpu| allowed.is_set(cpu)).ok_or("no CPU")?;
    let mut cpus = CpuSet::new();
    cpus.set(last);
    sched_setaffinity(None, &cpus)?;
    // This thread ends with the burst.
    setpriority_process(Some(gettid()), -20)?;
    Ok(generator.send(packets)?)
}
