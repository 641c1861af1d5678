//! An event from the ring buffer: borrowed where it is, and as a record that may be stored.

use std::hint::black_box;
use std::time::{Duration, Instant};

use criterion::{Criterion, Throughput};
use ironclad::core::{Action, RuleId};
use ironclad::events::{Event, ShieldRecord, decode};
use ironclad::policy::{AddressSet, Policy};
use ironclad::shield::{EventRing, Shield};
use ironclad_core::abi::{self, ShieldEvent};
use ironclad_lab::packet::{Frame, UDP, udp};
use zerocopy::IntoBytes;

use crate::Size;
use crate::common::Result;

/// As many as a ring buffer of 1 MiB holds, and some room.
const EVENTS: u32 = 8192;

fn borrow(bytes: &[u8]) {
    let decoded = decode(bytes);
    assert!(decoded.is_ok());
    black_box(decoded).ok();
}

fn keep(bytes: &[u8]) {
    let Ok(Event::Shield(event)) = decode(bytes) else { panic!("no event of Shield's") };
    black_box(ShieldRecord::from(&event));
}

/// What is done with the bytes of an event.
type How = fn(&[u8]);

const HOWS: [(&str, How); 2] = [("borrowed", borrow), ("record", keep)];

/// The same event again and again, in memory.
pub(crate) fn bytes(criterion: &mut Criterion, _: &[Size]) -> Result<()> {
    let mut event = ShieldEvent::default();
    event.hdr.kind = abi::EV_SHIELD;
    event.hdr.len = size_of::<ShieldEvent>() as u16;
    event.family = abi::TUPLE_V6;
    let mut group = criterion.benchmark_group("decode");
    group.throughput(Throughput::Elements(1));
    for (name, how) in HOWS {
        group.bench_function(name, |bencher| bencher.iter(|| how(black_box(event.as_bytes()))));
    }
    group.finish();
    Ok(())
}

/// Drains a ring buffer that the firewall has filled; only the draining counts.
fn drain(
    shield: &Shield,
    ring: &mut EventRing,
    frame: &[u8],
    count: u64,
    how: How,
) -> Result<Duration> {
    let mut took = Duration::ZERO;
    let mut left = count;
    while left > 0 {
        let events = left.min(EVENTS.into());
        shield.test_run(frame, events as u32)?;
        let mut seen = 0;
        let begin = Instant::now();
        ring.consume(|bytes| {
            how(bytes);
            seen += 1;
        })?;
        took += begin.elapsed();
        if seen != events {
            return Err(format!("{seen} events of {events}").into());
        }
        left -= events;
    }
    Ok(took)
}

/// Events of dropped packets.
pub(crate) fn ring(criterion: &mut Criterion, _: &[Size]) -> Result<()> {
    let all = AddressSet::new(RuleId(1), "bench", Action::Drop)
        .cidrs(["192.0.2.0/24".parse()?])
        .events_per_second(u32::MAX);
    let shield =
        Shield::builder("bench").start_unattached(&Policy::builder().set(all).compile()?)?;
    let frame = Frame::v4("192.0.2.1", "198.51.100.1").payload(UDP, udp(1, 53, &[0; 18])).build();
    let mut ring = shield.event_ring()?;
    let mut group = criterion.benchmark_group("ring");
    group.throughput(Throughput::Elements(1));
    for (name, how) in HOWS {
        group.bench_function(name, |bencher| {
            bencher.iter_custom(|count| drain(&shield, &mut ring, &frame, count, how).unwrap());
        });
    }
    group.finish();
    Ok(())
}
