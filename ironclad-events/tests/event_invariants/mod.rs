//! What holds for every record, whatever bytes it has. Shared with the fuzz target `event`.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::time::Duration;

use ironclad_core::abi::Reason;
use ironclad_events::{
    DecodeError, Event, Overflow, Record, SentinelRecord, ShieldRecord, SocketRecord, Stats,
    channel, decode,
};

const SIZE: usize = 88;
const SOCKET_SIZE: usize = 144;
const SENTINEL_SIZE: usize = 664;

/// Decodes `bytes` where a ring buffer would have put them and panics where the answer is not the
/// one that the offsets of `struct ic_shield_ev` give.
pub(crate) fn check(bytes: &[u8]) {
    let mut buffer = vec![0; bytes.len() + 16];
    let aligned = buffer.as_ptr().align_offset(8);
    let record = place(&mut buffer, aligned, bytes);
    let decoded = decode(record);
    assert_eq!(decoded.err(), fault(bytes), "{bytes:?}");

    let (sender, receiver) = channel(1, Overflow::DropNewest).unwrap();
    sender.deliver(record);
    let received = receiver.recv_timeout(Duration::ZERO);
    let good = u64::from(decoded.is_ok());
    assert_eq!(sender.stats(), stats(good));
    match decoded {
        Ok(Event::Shield(event)) => {
            let owned = ShieldRecord::from(&event);
            fields(&owned, bytes);
            line(&owned);
            assert_eq!(Some(Record::Shield(owned)), received);
            assert!(std::ptr::eq(event.raw(), record.as_ptr().cast()), "borrowed, not copied");
            assert_eq!(decode(&record[..SIZE]), decoded, "what follows an event is ignored");
        }
        Ok(Event::Socket(event)) => {
            let owned = SocketRecord::from(&event);
            socket_fields(&owned, bytes);
            assert_eq!(Some(Record::Socket(owned)), received);
            assert!(std::ptr::eq(event.raw(), record.as_ptr().cast()), "borrowed, not copied");
            assert_eq!(decode(&record[..SOCKET_SIZE]), decoded, "what follows is ignored");
        }
        Ok(Event::Sentinel(event)) => {
            let owned = SentinelRecord::from(&event);
            sentinel_fields(&owned, bytes);
            assert_eq!(Some(Record::Sentinel(owned)), received);
            assert!(std::ptr::eq(event.raw(), record.as_ptr().cast()), "borrowed, not copied");
            assert_eq!(decode(&record[..SENTINEL_SIZE]), decoded, "what follows is ignored");
        }
        Ok(_) => panic!("an event of a kind that this does not know"),
        Err(_) => assert_eq!(received, None),
    }

    let record = place(&mut buffer, aligned + 1, bytes);
    let askew = decode(record).unwrap_err();
    match fault(bytes) {
        None => assert_eq!(askew, DecodeError::Unaligned),
        // Found in the event's own fields, which an unaligned one does not show.
        Some(DecodeError::Field { field, .. }) if field != "len" => {
            assert_eq!(askew, DecodeError::Unaligned);
        }
        Some(other) => assert_eq!(askew, other),
    }
}

fn place<'a>(buffer: &'a mut [u8], at: usize, bytes: &[u8]) -> &'a [u8] {
    let place = &mut buffer[at..at + bytes.len()];
    place.copy_from_slice(bytes);
    place
}

fn stats(good: u64) -> Stats {
    let mut stats = Stats::default();
    (stats.received, stats.undecodable) = (good, 1 - good);
    stats
}

fn u16_at(bytes: &[u8], at: usize) -> u16 {
    u16::from_ne_bytes(bytes[at..at + 2].try_into().unwrap())
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_ne_bytes(bytes[at..at + 4].try_into().unwrap())
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u64::from_ne_bytes(bytes[at..at + 8].try_into().unwrap())
}

/// What is wrong with an aligned record, by its offsets.
fn fault(bytes: &[u8]) -> Option<DecodeError> {
    let found = bytes.len();
    if found < 16 {
        return Some(DecodeError::Short { needed: 16, found });
    }
    let (kind, len) = (u16_at(bytes, 0), u16_at(bytes, 2));
    let needed = match kind {
        1 => SIZE,
        2 => SOCKET_SIZE,
        3 => SENTINEL_SIZE,
        _ => return Some(DecodeError::Kind(kind)),
    };
    let field = |field, value| Some(DecodeError::Field { field, value });
    if usize::from(len) != needed {
        return field("len", u64::from(len));
    }
    if found < needed {
        return Some(DecodeError::Short { needed, found });
    }
    if kind == 2 {
        return match (bytes[138], bytes[139], bytes[141], bytes[142]) {
            (_, _, verdict @ 2.., _) => field("verdict", verdict.into()),
            (_, _, _, reason @ 4..) => field("reason", reason.into()),
            (_, op @ 4.., _, _) => field("op", op.into()),
            (0 | 4 | 6, _, _, _) => None,
            (family, _, _, _) => field("family", family.into()),
        };
    }
    if kind == 3 {
        return match (bytes[124], bytes[125], bytes[126], u16_at(bytes, 144)) {
            // One number stands for no process.
            (hook @ (0 | 33 | 52..), _, _, _) => field("hook", hook.into()),
            (_, op @ 9.., _, _) => field("op", op.into()),
            (_, _, verdict @ (0 | 5..), _) => field("verdict", verdict.into()),
            (_, _, _, length @ 513..) => field("path_len", length.into()),
            _ => None,
        };
    }
    match (bytes[80], bytes[82], bytes[83]) {
        (_, verdict @ 2.., _) => field("verdict", verdict.into()),
        (_, _, reason @ 24..) => field("reason", reason.into()),
        (0 | 4 | 6, _, _) => None,
        (family, _, _) => field("family", family.into()),
    }
}

/// The same of `struct ic_sock_ev`.
fn socket_fields(record: &SocketRecord, bytes: &[u8]) {
    assert_eq!(record.time_ns, u64_at(bytes, 8));
    assert_eq!(record.generation, u64_at(bytes, 16));
    assert_eq!((record.cgroup, record.exec_ns), (u64_at(bytes, 24), u64_at(bytes, 32)));
    assert_eq!(record.ancestry, u64_at(bytes, 40));
    for (file, at) in [(record.exe, 48), (record.parent, 64)] {
        let words = (u64_at(bytes, at), u32_at(bytes, at + 8), u32_at(bytes, at + 12));
        assert_eq!((file.ino, file.dev, file.generation), words);
    }
    let ids = [record.pid, record.tid, record.ppid, record.uid, record.gid];
    assert_eq!(ids, [80, 84, 88, 92, 96].map(|at| u32_at(bytes, at)));
    assert_eq!(record.rule.map_or(0, |rule| rule as u32 + 1), u32_at(bytes, 100));
    let wide: [u8; 16] = bytes[104..120].try_into().unwrap();
    let ip: Option<IpAddr> = match bytes[138] {
        4 => Some(Ipv4Addr::new(wide[0], wide[1], wide[2], wide[3]).into()),
        6 => Some(Ipv6Addr::from(wide).into()),
        _ => None,
    };
    let port = u16::from_be_bytes([bytes[136], bytes[137]]);
    assert_eq!(record.addr.map(|addr| (addr.ip(), addr.port())), ip.map(|ip| (ip, port)));
    let comm = bytes[120..136].split(|&byte| byte == 0).next().unwrap();
    assert_eq!(record.comm, String::from_utf8_lossy(comm));
    assert_eq!((record.op as u8, record.protocol.abi()), (bytes[139], bytes[140]));
    assert_eq!((record.verdict.abi(), record.reason as u8), (bytes[141], bytes[142]));
    let flags = bytes[143];
    assert_eq!(
        (record.dry_run, record.log, record.unidentified),
        (flags & 1 != 0, flags & 2 != 0, flags & 4 != 0)
    );
    let line = record.to_string();
    assert!(!line.contains(char::is_control), "{line:?}");
}

/// The same of `struct ic_sentinel_ev`.
fn sentinel_fields(record: &SentinelRecord, bytes: &[u8]) {
    let words = [record.time_ns, record.lost, record.cgroup, record.exec_ns];
    assert_eq!(words, [8, 16, 24, 32].map(|at| u64_at(bytes, at)));
    let rules = record.rules.iter().fold(0u64, |rules, rule| rules | 1 << rule);
    assert_eq!(rules, u64_at(bytes, 40));
    for (file, at) in [(record.exe, 48), (record.parent, 64), (record.file, 80)] {
        let words = (u64_at(bytes, at), u32_at(bytes, at + 8), u32_at(bytes, at + 12));
        assert_eq!((file.ino, file.dev, file.generation), words);
    }
    let numbers = [record.pid, record.tid, record.ppid, record.uid, record.gid];
    assert_eq!(numbers, [96, 100, 104, 108, 112].map(|at| u32_at(bytes, at)));
    assert_eq!([record.target, record.detail], [116, 120].map(|at| u32_at(bytes, at)));
    assert_eq!((record.hook as u8, record.verdict as u8), (bytes[124], bytes[126]));
    let path = &bytes[152..152 + usize::from(u16_at(bytes, 144))];
    let is_file = !path.is_empty() || bytes[80..96] != [0; 16];
    assert_eq!(record.op.map(|op| op as u8), is_file.then_some(bytes[125]));
    assert_eq!(record.path.is_some(), is_file);
    let comm = bytes[128..144].split(|&byte| byte == 0).next().unwrap();
    assert_eq!(record.comm, String::from_utf8_lossy(comm));
    let line = record.to_string();
    assert!(!line.contains(char::is_control), "{line:?}");
}

/// Every field is the one at its offset.
fn fields(record: &ShieldRecord, bytes: &[u8]) {
    assert_eq!(record.cpu, u32_at(bytes, 4));
    assert_eq!(record.time_ns, u64_at(bytes, 8));
    assert_eq!(record.generation, u64_at(bytes, 16));
    assert_eq!(record.ifindex, u32_at(bytes, 24));
    assert_eq!(record.rule_slot, u32_at(bytes, 28));
    assert_eq!(record.entry, u32_at(bytes, 32));
    assert_eq!(record.packet_len, u32_at(bytes, 36));
    let addr = |at: usize| -> Option<IpAddr> {
        let wide: [u8; 16] = bytes[at..at + 16].try_into().unwrap();
        match bytes[80] {
            4 => Some(Ipv4Addr::new(wide[0], wide[1], wide[2], wide[3]).into()),
            6 => Some(Ipv6Addr::from(wide).into()),
            _ => None,
        }
    };
    assert_eq!((record.src, record.dst), (addr(40), addr(56)));
    assert_eq!(record.protocol, bytes[81]);
    assert_eq!(record.verdict.abi(), bytes[82]);
    assert_eq!(record.reason as u8, bytes[83]);
    let flags = bytes[84];
    assert_eq!(
        (record.dry_run, record.fragment, record.log),
        (flags & 1 != 0, flags & 2 != 0, flags & 8 != 0)
    );
    let vlans: Vec<u16> =
        [76, 78].map(|at| u16_at(bytes, at)).into_iter().filter(|&tag| tag != 0xffff).collect();
    assert_eq!(record.vlans, vlans);

    let transport_was_read = flags & 4 == 0 && (bytes[83] as usize) < Reason::EthShort as usize;
    let port = |at: usize| u16::from_be_bytes([bytes[at], bytes[at + 1]]);
    let has_ports = transport_was_read && [6, 17, 33, 132, 136].contains(&bytes[81]);
    assert_eq!(record.ports, has_ports.then(|| (port(72), port(74))));
    let is_icmp = [(4, 1), (6, 58)].contains(&(bytes[80], bytes[81]));
    let has_type = transport_was_read && is_icmp;
    assert_eq!(record.icmp, has_type.then(|| (bytes[74], bytes[75])));
}

/// A log can take it: one line, and it says what became of whom.
fn line(record: &ShieldRecord) {
    let line = record.to_string();
    assert!(!line.contains(char::is_control), "{line:?}");
    assert!(["drop ", "allow ", "would drop ", "log "].iter().any(|word| line.starts_with(word)));
    for addr in [record.src, record.dst].into_iter().flatten() {
        assert!(line.contains(&addr.to_string()), "{line}");
    }
}
