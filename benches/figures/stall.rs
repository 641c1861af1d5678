//! How long a packet waits at most while a policy of a million prefixes is replaced and freed.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use ironclad::policy::{Backend, CompiledPolicy, Policy};
use ironclad::shield::Shield;
use ironclad_lab::packet::{Frame, UDP, udp};
use ironclad_lab::{Lab, PacketSocket, run_before_others};

use crate::Figures;
use crate::common::Result;
use crate::common::lists::{compile_with, random_v4};
use crate::stats::Runs;

/// Between two packets.
const PACE: Duration = Duration::from_micros(100);

/// The longest time from when a packet was due until it had gone through XDP on the other side,
/// in milliseconds: sending over a veth pair runs the receiver's program before it returns.
fn longest_wait(socket: &PacketSocket, frame: &[u8], stop: &AtomicBool) -> Result<f64> {
    let mut worst = Duration::ZERO;
    let mut due = Instant::now();
    while !stop.load(Ordering::Relaxed) {
        let now = Instant::now();
        if now < due {
            std::thread::sleep(due - now);
        }
        socket.send(frame)?;
        let done = Instant::now();
        worst = worst.max(done - due);
        due = (due + PACE).max(done);
    }
    Ok(worst.as_secs_f64() * 1e3)
}

pub(crate) fn measure(figures: &mut Figures) -> Result<()> {
    let name = "swap_1m_stall_ms";
    if !figures.wants(name) {
        return Ok(());
    }
    let lab = Lab::new()?;
    let (host, peer) = (lab.namespace("host")?, lab.namespace("peer")?);
    lab.veth((&host, "fw0"), (&peer, "net0"))?;
    let cidrs = random_v4(1_000_000, 16, 1_000_000);
    let flat = compile_with(&cidrs, Backend::Flat)?;
    let trie = compile_with(&cidrs, Backend::LpmTrie)?;
    let empty = Policy::builder().compile()?;
    let shield = host.run(|| {
        Shield::builder("figures").interface("fw0").start(&empty).map_err(|e| e.to_string())
    })??;
    let socket = peer.run(|| PacketSocket::open("net0"))??;
    let frame = Frame::v4("192.0.2.1", "198.51.100.1").payload(UDP, udp(1, 53, &[0; 18])).build();
    let during = |work: &dyn Fn() -> Result<()>| -> Result<f64> {
        let stop = AtomicBool::new(false);
        std::thread::scope(|scope| {
            let sender = scope.spawn(|| {
                run_before_others().map_err(|e| e.to_string())?;
                longest_wait(&socket, &frame, &stop).map_err(|e| e.to_string())
            });
            let done = work();
            stop.store(true, Ordering::Relaxed);
            let worst = sender.join().map_err(|_| "the sender panicked")?;
            done?;
            Ok(worst?)
        })
    };
    let swap = |policy: &CompiledPolicy| -> Result<()> {
        shield.apply(policy)?;
        // Frees the million again; the kernel does it behind our back, so wait a while longer.
        shield.apply(&empty)?;
        std::thread::sleep(Duration::from_secs(2));
        Ok(())
    };
    let (mut idle, mut flats, mut tries) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..figures.runs().min(5) {
        idle.push(during(&|| {
            std::thread::sleep(Duration::from_secs(2));
            Ok(())
        })?);
        flats.push(during(&|| swap(&flat))?);
        tries.push(during(&|| swap(&trie))?);
    }
    let (idle, flat, trie) = (Runs::of(idle), Runs::of(flats), Runs::of(tries));
    figures.set(
        name,
        flat.median,
        &format!("longest wait of a packet: flat {flat} ms, LPM_TRIE {trie} ms, no swap {idle} ms"),
    );
    Ok(())
}
