//! The whole program, dispatcher included, over an empty one, each packet from another source.

use ironclad::core::Family;
use ironclad::shield::Shield;
use ironclad_bpf::bench::ProgramBench;
use ironclad_lab::packet::{Frame, UDP, udp};

use crate::Figures;
use crate::common::Result;
use crate::common::lists::{compile, random_v4};
use crate::common::probes::misses;
use crate::stats::Runs;

const PACKETS: u32 = 1 << 20;

pub(crate) fn measure(figures: &mut Figures) -> Result<()> {
    let name = "xdp_added_ns_300k";
    if !figures.wants(name) {
        return Ok(());
    }
    let policy = compile(&random_v4(300_000, 16, 300_000))?;
    let shield = Shield::builder("figures").start_unattached(&policy)?;
    // What passes: a drop costs more, for its counters, but there nothing comes after it.
    let probes = misses(&policy, Family::V4, &[], 1);
    let frame = Frame::v4("192.0.2.1", "198.51.100.1").payload(UDP, udp(1, 53, &[0; 18])).build();
    let empty = ProgramBench::new(None, &frame, &probes)?;
    let whole = ProgramBench::new(Some(shield.dispatcher()), &frame, &probes)?;
    let (mut without, mut with) = (Vec::new(), Vec::new());
    for _ in 0..figures.runs() {
        without.push(f64::from(empty.run(PACKETS)?));
        with.push(f64::from(whole.run(PACKETS)?));
    }
    let (without, with) = (Runs::of(without), Runs::of(with));
    figures.set(
        name,
        with.median - without.median,
        &format!("empty program {without} ns, Shield {with} ns"),
    );
    Ok(())
}
