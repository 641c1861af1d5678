//! Socket rules against an oracle that reads them one after the other: a million random decisions.

mod socket_explained;

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ironclad_core::abi::{self, FileId, SockIdVal, SockPolicy, SockRow, SocketOp};
use ironclad_core::{Cidr, Family, RuleId};
use ironclad_policy::socket::{
    AddressGroup, Bound, BoundFile, CompiledSockets, Direction, SHA256_MISMATCH, SocketAction,
    SocketImage, SocketRule, Subject,
};
use ironclad_policy::{Policy, Protocol, Sha256Sum};

/// A small generator whose numbers are the same everywhere (xorshift64*).
struct Random(u64);

impl Random {
    fn below(&mut self, bound: usize) -> usize {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 33) as usize % bound
    }

    fn some<T: Clone>(&mut self, from: &[T], one_in: usize) -> Vec<T> {
        if self.below(one_in) > 0 {
            return Vec::new();
        }
        (0..1 + self.below(2)).map(|_| from[self.below(from.len())].clone()).collect()
    }
}

const FILES: [&str; 5] = ["/bin/a", "/bin/b", "/bin/c", "/bin/link-to-a", "/bin/absent"];
const CONTENTS: [Sha256Sum; 3] = [Sha256Sum([1; 32]), Sha256Sum([2; 32]), Sha256Sum([3; 32])];
/// Groups within each other, and one whose name begins like another's.
const CGROUPS: [&str; 4] = ["/a", "/a/b", "/a/b/c", "/ab"];
const COMMS: [&str; 3] = ["curl", "exactly-15-byte", "sh"];
const PORTS: [u16; 8] = [0, 1, 22, 80, 81, 443, 65_534, 65_535];

/// What the oracle knows of a rule.
#[derive(Clone)]
struct Spec {
    action: SocketAction,
    direction: Direction,
    groups: Vec<usize>,
    cidrs: Vec<Cidr>,
    ports: Vec<(u16, u16)>,
    protocols: Vec<u8>,
    /// And what their contents have to be.
    exes: Vec<(usize, Option<Sha256Sum>)>,
    dry_run: bool,
    parents: Vec<usize>,
    ancestors: Vec<usize>,
    uids: Vec<u32>,
    gids: Vec<u32>,
    cgroups: Vec<usize>,
    comms: Vec<usize>,
}

/// What a process asks.
struct Ask {
    op: SocketOp,
    addr: Option<IpAddr>,
    port: u16,
    protocol: u8,
    exe: FileId,
    /// When that file had been changed by the time that it was executed.
    exe_changed_ns: u64,
    parent: FileId,
    /// Files that it or a ancestor was before.
    ancestors: Vec<FileId>,
    uid: u32,
    gid: u32,
    /// Path of its cgroup.
    cgroup: &'static str,
    comm: &'static str,
}

/// `/bin/link-to-a` is `/bin/a`; `/bin/absent` is none.
fn file(number: usize) -> Option<FileId> {
    let ino = match number {
        0 | 3 => 100,
        4 => return None,
        other => 100 + other as u64,
    };
    Some(FileId { ino, dev: 5, generation: 1 })
}

fn cidr(random: &mut Random) -> Cidr {
    let addr = address(random);
    let most = if addr.is_ipv4() { 33 } else { 129 };
    Cidr::new(addr, random.below(most) as u8).unwrap()
}

/// Few bits vary, so that prefixes meet.
fn address(random: &mut Random) -> IpAddr {
    let bits = 1u128 << random.below(128) | 1 << random.below(128);
    match random.below(2) {
        0 => IpAddr::V4(((bits >> 96) as u32 | (random.below(4) as u32)).into()),
        _ => IpAddr::V6((bits | random.below(4) as u128).into()),
    }
}

/// One in `pinned` executables has a checksum; of 0, none.
fn spec(random: &mut Random, pinned: usize) -> Spec {
    let direction = [Direction::Out, Direction::In, Direction::Create][random.below(5).min(2)];
    let create = direction == Direction::Create;
    let all: Vec<usize> = (0..FILES.len()).collect();
    let port = |random: &mut Random| PORTS[random.below(PORTS.len())];
    let ports: Vec<(u16, u16)> = (0..random.below(3))
        .map(|_| (port(random), port(random)))
        .map(|(a, b)| (a.min(b), a.max(b)))
        .collect();
    Spec {
        action: [SocketAction::Allow, SocketAction::Deny, SocketAction::Log]
            [random.below(20).min(2)],
        direction,
        groups: if create { Vec::new() } else { random.some(&[0, 1, 2], 3) },
        cidrs: match random.below(4) {
            0 if !create => vec![cidr(random)],
            _ => Vec::new(),
        },
        ports: if create { Vec::new() } else { ports },
        protocols: random.some(if create { &[1, 132, 255] } else { &[6, 17] }, 2),
        exes: (random.some(&all, 2).into_iter())
            .map(|file| {
                (file, (pinned > 0 && random.below(pinned) == 0).then(|| CONTENTS[random.below(3)]))
            })
            .collect(),
        dry_run: random.below(4) == 0,
        parents: random.some(&all, 6),
        ancestors: random.some(&all, 6),
        uids: random.some(&[0, 1000, u32::MAX], 4),
        gids: random.some(&[0, 1000], 8),
        cgroups: random.some(&[0, 1, 2, 3], 6),
        comms: random.some(&[0, 1, 2], 8),
    }
}

fn rule(number: usize, spec: &Spec) -> SocketRule {
    let mut who = Subject::new("");
    who = spec.exes.iter().fold(who, |who, &(file, sum)| match sum {
        None => who.exe(FILES[file]),
        Some(sum) => who.exe_sha256(FILES[file], sum),
    });
    who = spec.parents.iter().fold(who, |who, &file| who.parent(FILES[file]));
    who = spec.ancestors.iter().fold(who, |who, &file| who.descendant_of(FILES[file]));
    who = spec.uids.iter().fold(who, |who, &uid| who.uid(uid));
    who = spec.gids.iter().fold(who, |who, &gid| who.gid(gid));
    who = spec.cgroups.iter().fold(who, |who, &group| who.cgroup(CGROUPS[group]));
    who = spec.comms.iter().fold(who, |who, &comm| who.spoofable_comm(COMMS[comm]));
    let mut rule = SocketRule::new(RuleId(number as u32 + 1), "rule", spec.action)
        .subject(who)
        .dry_run(spec.dry_run)
        .direction(spec.direction);
    rule = spec.groups.iter().fold(rule, |rule, group| rule.to(format!("group {group}")));
    rule = spec.cidrs.iter().fold(rule, |rule, &cidr| rule.to_cidr(cidr));
    rule = spec.ports.iter().fold(rule, |rule, &(first, last)| rule.ports(first..=last));
    spec.protocols.iter().fold(rule, |rule, &protocol| rule.protocol(Protocol(protocol)))
}

fn holds(spec: &Spec, groups: &[Vec<Cidr>], ask: &Ask, contents: &Contents) -> bool {
    fn any<T>(named: &[T], holds: impl Fn(&T) -> bool) -> bool {
        named.is_empty() || named.iter().any(holds)
    }
    // The unspecified address, bound, is each of one's own: who may not be at one may not be at all.
    let is_here = |cidr: &Cidr, addr: IpAddr| {
        let has_family = addr.is_ipv6() || cidr.family() == Family::V4;
        ask.op == SocketOp::Bind
            && addr.is_unspecified()
            && has_family
            && spec.action != SocketAction::Allow
    };
    let is_there = |cidrs: &[Cidr]| {
        ask.addr.is_some_and(|a| cidrs.iter().any(|c| c.contains(a) || is_here(c, a)))
    };
    let anywhere = spec.groups.is_empty() && spec.cidrs.is_empty();
    let below = |outer: &str| {
        ask.cgroup == outer
            || ask.cgroup.strip_prefix(outer).is_some_and(|rest| rest.starts_with('/'))
    };
    spec.direction.ops().contains(&ask.op)
        && (anywhere
            || is_there(&spec.cidrs)
            || spec.groups.iter().any(|&group| is_there(&groups[group])))
        && any(&spec.ports, |&(first, last)| {
            ask.addr.is_some() && (first..=last).contains(&ask.port)
        })
        && any(&spec.protocols, |&protocol| protocol == ask.protocol)
        && any(&spec.exes, |&(number, sum)| {
            file(number) == Some(ask.exe)
                && sum.is_none_or(|sum| executed(ask, contents) == Some(sum))
        })
        && any(&spec.parents, |&number| file(number) == Some(ask.parent))
        && any(&spec.ancestors, |&n| file(n).is_some_and(|id| ask.ancestors.contains(&id)))
        && any(&spec.uids, |&uid| uid == ask.uid)
        && any(&spec.gids, |&gid| gid == ask.gid)
        && any(&spec.cgroups, |&number| below(CGROUPS[number]))
        && any(&spec.comms, |&number| COMMS[number] == ask.comm)
}

/// What each file holds, and since when; none where that is not known.
type Contents = BTreeMap<FileId, ([u64; 4], Option<Sha256Sum>)>;

/// What the process executes, where that is known.
fn executed(ask: &Ask, contents: &Contents) -> Option<Sha256Sum> {
    let (changed_ns, content) = contents.get(&ask.exe)?;
    content.filter(|_| changed_ns.contains(&ask.exe_changed_ns))
}

/// Whether rules that bind, or any, pin another content of the file that the process executes than
/// it has: under one name at least.
fn mismatch(specs: &[Spec], ask: &Ask, contents: &Contents, only_binding: bool) -> bool {
    (0..FILES.len()).filter(|&number| file(number) == Some(ask.exe)).any(|number| {
        let is_binding = |spec: &&Spec| spec.action != SocketAction::Log && !spec.dry_run;
        let pins = |binding: bool| {
            let specs = specs.iter().filter(move |spec| !binding || is_binding(spec));
            let pins = specs.flat_map(|spec| &spec.exes).filter(|(named, _)| *named == number);
            pins.filter_map(|(_, sum)| *sum).collect::<Vec<_>>()
        };
        let is_tried = specs
            .iter()
            .filter(|spec| !is_binding(spec))
            .any(|spec| spec.exes.iter().any(|(named, sum)| *named == number && sum.is_some()));
        let pins = pins(only_binding);
        let concerns = if only_binding { !pins.is_empty() } else { is_tried };
        concerns && !executed(ask, contents).is_some_and(|content| pins.contains(&content))
    })
}

/// What `bpf-src/lib/socket/socket.h` does with the image, step by step.
struct Kernel<'a> {
    compiled: &'a CompiledSockets,
    image: &'a SocketImage,
    ids: BTreeMap<(u32, [u64; 2]), SockIdVal>,
}

impl Kernel<'_> {
    fn row(&self, dim: usize, ask: &Ask) -> &SockRow {
        let SockPolicy { dims, none, level, levels, .. } = &*self.image.policy;
        let first = none[dim];
        let id = |value: [u64; 2]| self.ids.get(&(dim as u32, value));
        let named = |value: [u64; 2]| id(value).map_or(first, |id| id.row);
        let number = match dim {
            abi::DIM_KIND => {
                u32::from(self.image.policy.kind[(ask.op as usize) << 8 | ask.protocol as usize])
            }
            _ if dims >> dim & 1 == 0 => first,
            abi::DIM_WHERE => {
                first + ask.addr.map_or(0, |addr| self.compiled.addresses().lookup(addr))
            }
            abi::DIM_PORT => match ask.addr {
                Some(_) => first + u32::from(self.image.ports[usize::from(ask.port)]),
                None => first,
            },
            abi::DIM_EXE => id(ask.exe.words()).map_or(first, |id| match id.changed_ns {
                [0, ..] => id.row,
                known if known.contains(&ask.exe_changed_ns) => id.row,
                _ => id.changed_row,
            }),
            abi::DIM_PARENT => named(ask.parent.words()),
            abi::DIM_UID => named([u64::from(ask.uid), 0]),
            abi::DIM_GID => named([u64::from(ask.gid), 0]),
            abi::DIM_COMM => {
                let mut name = [0; 16];
                name[..ask.comm.len()].copy_from_slice(ask.comm.as_bytes());
                named(zerocopy::transmute!(name))
            }
            abi::DIM_CGROUP => {
                let depth = ask.cgroup.split('/').count() - 1;
                let at = |level: usize| {
                    let parts: Vec<&str> = ask.cgroup.split('/').collect();
                    cgroup(&parts[..=level].join("/"))
                };
                let levels = level[..*levels as usize].iter().map(|&level| usize::from(level));
                let found = levels
                    .filter(|&level| level <= depth)
                    .find_map(|level| Some(id([at(level)?.0, 0])?.row));
                found.unwrap_or(first)
            }
            _ => {
                let begins = |id: &FileId| {
                    self.image.ancestries.iter().find(|(file, _)| file == id).map_or(0, |f| f.1)
                };
                let ancestry = ask.ancestors.iter().map(begins).fold(0, |all, bits| all | bits);
                first + (ancestry >> (8 * (dim - abi::DIM_ANCESTRY)) & 0xff) as u32
            }
        };
        &self.image.rows[number as usize]
    }

    /// The number of the rule that decides, and those of the rules that only report.
    fn decide(&self, ask: &Ask) -> (Option<usize>, u64) {
        let rows: Vec<&SockRow> = (0..abi::DIM_MAX).map(|dim| self.row(dim, ask)).collect();
        let all = |of: &dyn Fn(&SockRow) -> u64| rows.iter().fold(u64::MAX, |bits, r| bits & of(r));
        let mut first = None;
        for summary in 0..self.image.policy.summary as usize {
            let words = all(&|row| row.summary[summary]);
            for word in (0..64).filter(|word| words >> word & 1 == 1) {
                let word = summary * 64 + word;
                let bits = all(&|row| row.word[word]);
                if bits != 0 && first.is_none() {
                    first = Some(word * 64 + bits.trailing_zeros() as usize);
                }
            }
        }
        (first, all(&|row| row.logs))
    }
}

fn cgroup(path: &str) -> Option<(u64, u32)> {
    let number = CGROUPS.iter().position(|known| *known == path)?;
    Some((7000 + number as u64, path.matches('/').count() as u32))
}

#[test]
fn first_match_is_what_reading_from_the_top_finds() {
    let mut random = Random(0x1c);
    let mut decisions = 0u32;
    let (mut by_rule, mut by_default, mut logged) = (0u32, 0u32, 0u32);
    let (mut mismatched, mut tried) = (0u32, 0u32);
    for round in 0..260 {
        // Now and then more than one summary word tells of.
        let count = if round % 20 == 0 { 4500 + random.below(500) } else { random.below(300) };
        let specs: Vec<Spec> = {
            // Where many are pinned, nearly all are denied.
            let pinned = [0, 20, 200][random.below(3)];
            let mut logs = 0;
            std::iter::repeat_with(|| spec(&mut random, pinned))
                .filter(|spec| {
                    logs += usize::from(spec.action == SocketAction::Log);
                    spec.action != SocketAction::Log || logs <= abi::SOCK_LOGS_MAX - 3
                })
                .take(count)
                .collect()
        };
        let groups: Vec<Vec<Cidr>> =
            (0..3).map(|_| (0..random.below(20)).map(|_| cidr(&mut random)).collect()).collect();
        let mut policy = Policy::builder();
        for (number, cidrs) in groups.iter().enumerate() {
            let name = format!("group {number}");
            policy = policy.addresses(AddressGroup::new(name).cidrs(cidrs.iter().copied()));
        }
        for (number, spec) in specs.iter().enumerate() {
            policy = policy.socket_rule(rule(number, spec));
        }
        let compiled = policy.compile().unwrap();
        let Some(compiled) = compiled.sockets() else { continue };
        let contents: Contents = (0..FILES.len())
            .filter_map(file)
            .map(|id| {
                let changed_ns = [[1, 0, 0, 0], [2, 0, 0, 0], [1, 5, 6, 2]][random.below(3)];
                (id, (changed_ns, random.some(&CONTENTS, 2).pop()))
            })
            .collect();
        let bound = Bound {
            files: (0..FILES.len())
                .filter_map(|number| {
                    let id = file(number)?;
                    let ([changed_ns, formerly_ns @ ..], sha256) = contents[&id];
                    let file = BoundFile { id, changed_ns, formerly_ns, sha256 };
                    Some((FILES[number].into(), file))
                })
                .collect(),
            cgroups: CGROUPS.iter().map(|&path| (path.to_owned(), cgroup(path).unwrap())).collect(),
            ancestries: (0..compiled.ancestries().len() as u8).collect(),
            ..Bound::default()
        };
        let image = compiled.image(&bound).unwrap();
        let ids = image.ids.iter().map(|(key, val)| ((key.dim, key.value), *val)).collect();
        let kernel = Kernel { compiled, image: &image, ids };
        let places: Vec<(bool, usize)> =
            (0..specs.len()).map(|rule| compiled.place(rule)).collect();
        let mismatches: Vec<usize> = (specs.len()..compiled.rules().len()).collect();
        assert!(mismatches.iter().all(|&rule| compiled.rules()[rule].id == SHA256_MISMATCH));
        let rounds = if count > 300 { 800 } else { 4200 };
        for _ in 0..rounds {
            let op = SocketOp::ALL[random.below(4)];
            let create = op == SocketOp::Create;
            let any_file = |random: &mut Random| {
                let unidentified = FileId { ino: 999, dev: 5, generation: 1 };
                file(random.below(FILES.len())).unwrap_or(unidentified)
            };
            let ask = Ask {
                op,
                addr: (!create).then(|| match op == SocketOp::Bind && random.below(4) == 0 {
                    true => [Ipv4Addr::UNSPECIFIED.into(), Ipv6Addr::UNSPECIFIED.into()]
                        [random.below(2)],
                    false => address(&mut random),
                }),
                port: PORTS[random.below(PORTS.len())],
                protocol: if create { [1, 132, 255] } else { [6, 17, 17] }[random.below(3)],
                exe: any_file(&mut random),
                exe_changed_ns: 1 + random.below(3) as u64,
                parent: any_file(&mut random),
                ancestors: (0..random.below(3)).map(|_| any_file(&mut random)).collect(),
                uid: [0, 1000, u32::MAX, 7][random.below(4)],
                gid: [0, 1000, 7][random.below(3)],
                cgroup: ["/", "/a", "/a/b", "/a/b/c/d", "/ab", "/b"][random.below(6)],
                comm: ["curl", "exactly-15-byte", "sh", "other"][random.below(4)],
            };
            let found = kernel.decide(&ask);
            let mut expected = (None, 0u64);
            // What does not have the content that it should comes first.
            let of_mismatches = |action| {
                let is_it = |rule: &&usize| {
                    let rule = &compiled.rules()[**rule];
                    rule.action == action && rule.direction.ops().contains(&op)
                };
                compiled.place(*mismatches.iter().find(is_it).unwrap()).1
            };
            if mismatch(&specs, &ask, &contents, true) {
                expected.0 = Some(of_mismatches(SocketAction::Deny));
                mismatched += 1;
            }
            if mismatch(&specs, &ask, &contents, false) {
                expected.1 |= 1 << of_mismatches(SocketAction::Log);
                tried += 1;
            }
            for (spec, &(decides, number)) in specs.iter().zip(&places) {
                if !holds(spec, &groups, &ask, &contents) {
                    continue;
                }
                if decides {
                    expected.0 = expected.0.or(Some(number));
                } else {
                    expected.1 |= 1 << number;
                }
            }
            assert_eq!(found, expected, "policy {round}");
            // An explanation looks at every rule.
            if decisions % 16 == 0 {
                let mismatches: Vec<(usize, bool)> = (mismatches.iter())
                    .map(|&rule| (rule, compiled.rules()[rule].action == SocketAction::Deny))
                    .map(|(rule, denies)| (rule, mismatch(&specs, &ask, &contents, denies)))
                    .collect();
                socket_explained::agrees(&kernel, &specs, &mismatches, &groups, &ask, &contents);
            }
            decisions += 1;
            by_rule += u32::from(found.0.is_some());
            by_default += u32::from(found.0.is_none());
            logged += u32::from(found.1 != 0);
        }
    }
    assert!(decisions >= 1_000_000, "{decisions}");
    // All kinds of answers, or the oracle has nothing to say.
    let seldom = decisions / 50;
    assert!(mismatched > seldom / 2 && tried > seldom / 2, "{mismatched} {tried}");
    assert!(by_rule > seldom && by_default > seldom && logged > seldom / 10);
}
