//! What was seen, is allowed by the policy that was learned from it; and nothing else.

use std::collections::BTreeSet;
use std::convert::Infallible;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::{Path, PathBuf};

use ironclad_core::SocketVerdict;
use ironclad_core::abi::{FileId, Process, SocketOp};
use ironclad_policy::document::Document;
use ironclad_policy::learn::{LearnOptions, Learner, Observation};
use ironclad_policy::socket::{
    Bound, CompiledSockets, Direction, ProcessContext, SocketAction, SocketImage, SocketQuery,
    SocketRule, explain,
};
use ironclad_policy::{CompiledPolicy, Policy, Protocol};
use proptest::prelude::*;

/// Files that have paths, some of them awkward; one more has none.
const PATHS: [&str; 5] =
    ["/usr/bin/curl", "/opt/a b: #c", "/x/\"\\'\n- y\u{2028}", "/ü/{[&*!", "/usr/bin/curl2"];
const EPHEMERAL: std::ops::RangeInclusive<u16> = 32768..=60999;

fn file(number: usize) -> FileId {
    FileId { ino: 100 + number as u64, dev: 5, generation: 1 }
}

fn loaded(text: &str) -> CompiledPolicy {
    let document = Document::parse("learned.yaml", text).unwrap_or_else(|e| panic!("{e}\n{text}"));
    document.policy(Path::new("/")).unwrap().compile().unwrap_or_else(|e| panic!("{e}\n{text}"))
}

/// Decides by a policy, as the kernel would.
struct Decided<'a> {
    compiled: Option<&'a CompiledSockets>,
    image: Option<SocketImage>,
}

impl<'a> Decided<'a> {
    fn by(policy: &'a CompiledPolicy) -> Self {
        let compiled = policy.sockets();
        let files = PATHS.iter().enumerate().map(|(n, path)| (PathBuf::from(path), file(n)));
        let files = files.map(|(path, id)| (path, id.into()));
        let bound = Bound { files: files.collect(), ..Bound::default() };
        let image = compiled.map(|compiled| {
            let mut image = compiled.image(&bound).unwrap();
            image.policy.generation = 1;
            image
        });
        Self { compiled, image }
    }

    fn verdict(&self, call: &Observation) -> SocketVerdict {
        let (Some(compiled), Some(image)) = (self.compiled, &self.image) else {
            return SocketVerdict::Allow;
        };
        let process = call.exe.map(|exe| Process { exe, ..Process::default() });
        let process_context =
            ProcessContext { process, uid: Some(call.uid), ..ProcessContext::unidentified() };
        let Observation { op, protocol, addr, .. } = *call;
        let why: Result<_, Infallible> =
            explain(&image.tables(compiled), &SocketQuery { op, protocol, addr, process_context });
        match why {
            Ok(why) => why.verdict,
            Err(never) => match never {},
        }
    }
}

fn observation() -> impl Strategy<Value = Observation> {
    let exe = prop_oneof![9 => (0..PATHS.len() + 1).prop_map(|n| Some(file(n))), 1 => Just(None)];
    let uid = prop::sample::select(vec![0, 33, 1000, u32::MAX]);
    let addr = prop_oneof![
        (0..6u32).prop_map(|bits| IpAddr::V4(Ipv4Addr::from(0xc000_0200 | bits))),
        (0..6u128).prop_map(|bits| IpAddr::V6(Ipv6Addr::from(0x2001_0db8 << 96 | bits))),
        prop::sample::select(vec!["0.0.0.0", "::", "::ffff:192.0.2.1", "::1"])
            .prop_map(|addr| addr.parse().unwrap()),
    ];
    let port =
        prop::sample::select(vec![0, 22, 23, 24, 80, 443, 32767, 32768, 40000, 60999, 61000]);
    let op = prop::sample::select(SocketOp::ALL.to_vec());
    (exe, uid, addr, port, op, 0..8usize).prop_map(|(exe, uid, addr, port, op, protocol)| {
        let protocol = match op {
            SocketOp::Create => [1, 58, 132, 255, 41, 254][protocol % 6],
            // What has hooks, but for one that rules cannot name.
            _ => [6, 6, 6, 17, 17, 17, 17, 136][protocol],
        };
        let addr = (op != SocketOp::Create).then(|| SocketAddr::new(addr, port));
        Observation { exe, uid, op, protocol: Protocol(protocol).into(), addr }
    })
}

fn direction(op: SocketOp) -> Direction {
    match op {
        SocketOp::Connect | SocketOp::Send => Direction::Out,
        SocketOp::Bind => Direction::In,
        SocketOp::Create => Direction::Create,
    }
}

/// The address that the kernel uses.
fn used(what: &Observation) -> Option<IpAddr> {
    let ip = what.addr?.ip().to_canonical();
    Some(match ip {
        _ if what.op == SocketOp::Bind => ip,
        IpAddr::V4(v4) if v4.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(v6) if v6.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
        _ => ip,
    })
}

#[derive(Clone, Debug)]
struct Options {
    any_user: bool,
    anywhere: Option<usize>,
    ephemeral: bool,
}

impl Options {
    fn options(&self) -> LearnOptions {
        let mut options = LearnOptions::default();
        if self.any_user {
            options = options.any_user();
        }
        if let Some(most) = self.anywhere {
            options = options.anywhere_after(most);
        }
        if self.ephemeral {
            options = options.ephemeral_ports(EPHEMERAL);
        }
        options
    }

    /// Whether what was seen lets a rule speak of this port, and by which name.
    fn port(&self, seen: &Observation) -> (u16, u16) {
        let port = seen.addr.map_or(0, |addr| addr.port());
        let chosen = matches!(seen.op, SocketOp::Bind | SocketOp::Send);
        match self.ephemeral && chosen && EPHEMERAL.contains(&port) {
            true => (*EPHEMERAL.start(), *EPHEMERAL.end()),
            false => (port, port),
        }
    }

    /// Whether the policy that is learned has to allow it, one observation after the other.
    fn allow(&self, all: &[Observation], call: &Observation) -> bool {
        let is_known = |seen: &Observation| {
            let has_hooks = [6, 17].contains(&seen.protocol.abi());
            seen.uid != u32::MAX
                && seen.exe.is_some_and(|exe| exe != file(PATHS.len()))
                && has_hooks != (seen.op == SocketOp::Create)
        };
        let is_like = |seen: &&Observation| {
            let subject = |o: &Observation| (o.exe, direction(o.op), o.protocol.abi());
            is_known(seen) && subject(seen) == subject(call)
        };
        all.iter().filter(is_like).any(|seen| {
            let ports = self.port(seen);
            let of_port = all.iter().filter(is_like).filter(|other| self.port(other) == ports);
            let addrs: BTreeSet<_> = of_port.map(used).collect();
            let anywhere = self.anywhere.is_some_and(|most| addrs.len() > most);
            (self.any_user || seen.uid == call.uid)
                && (anywhere || used(seen) == used(call))
                && call.addr.is_none_or(|addr| (ports.0..=ports.1).contains(&addr.port()))
        })
    }
}

fn options() -> impl Strategy<Value = Options> {
    let anywhere = prop::option::of(1..6usize);
    (any::<bool>(), anywhere, any::<bool>()).prop_map(|(any_user, anywhere, ephemeral)| Options {
        any_user,
        anywhere,
        ephemeral,
    })
}

fn learned(options: &Options, all: &[Observation]) -> String {
    let mut learner = Learner::new(options.options());
    for what in all {
        if learner.saw(what) {
            let exe = what.exe.unwrap();
            match PATHS.get((exe.ino - 100) as usize) {
                Some(path) => learner.name(exe, PathBuf::from(path)),
                None => learner.unnamed(exe, Some("/a\n- b".into()), "it is\ngone"),
            }
        }
    }
    learner.document()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn what_was_seen_is_allowed_and_nothing_else(
        options in options(),
        seen in prop::collection::vec(observation(), 0..60),
        unseen in prop::collection::vec(observation(), 60),
    ) {
        let text = learned(&options, &seen);
        let policy = loaded(&text);
        let decided = Decided::by(&policy);
        let directions: BTreeSet<_> = seen.iter().map(|o| direction(o.op)).collect();
        for call in seen.iter().chain(&unseen) {
            let allow = !directions.contains(&direction(call.op)) || options.allow(&seen, call);
            let expected = if allow { SocketVerdict::Allow } else { SocketVerdict::Deny };
            prop_assert_eq!(decided.verdict(call), expected, "{:?}\n{}", call, text);
        }
        // The order in which it was seen does not matter, but for the count of requests.
        let backwards: Vec<_> = seen.iter().rev().copied().collect();
        prop_assert_eq!(learned(&options, &backwards), text);
    }
}

fn tcp(exe: usize, uid: u32, addr: &str) -> Observation {
    let addr = Some(addr.parse().unwrap());
    Observation {
        exe: Some(file(exe)),
        uid,
        op: SocketOp::Connect,
        protocol: Protocol::TCP.into(),
        addr,
    }
}

#[test]
fn a_document_is_short_and_says_what_it_lacks() {
    let mut learner = Learner::new(LearnOptions::default());
    assert_eq!(loaded(&learner.document()).sockets().map(|sockets| sockets.rules().len()), None);
    for addr in ["192.0.2.2:443", "192.0.2.3:443", "192.0.2.2:80", "192.0.2.3:80", "[::1]:81"] {
        assert!(learner.saw(&tcp(0, 0, addr)));
        assert!(learner.saw(&tcp(0, 33, addr)));
    }
    learner.name(file(0), "/usr/bin/curl".into());
    assert!(!learner.saw(&tcp(0, 0, "192.0.2.2:443")), "it has a name by now");
    learner.saw(&tcp(1, 0, "192.0.2.9:25"));
    learner.unnamed(file(1), Some("/tmp/x\ny".into()), "the path leads to another file");
    learner.saw(&Observation { exe: None, ..tcp(0, 0, "192.0.2.9:26") });
    learner.lost(7);
    learner.denied();
    assert_eq!(
        learner.document(),
        r##"# Learned from 13 requests, 12 of them distinct.
# It allows what was seen. Whether that was right, it does not know: read it.
# Up to 7 events were lost: it is not complete.
# 1 requests were denied, or would have been: it does not allow them.
default: allow
socket-defaults: { out: deny }
# Not allowed, because nothing is known of the process: out tcp to 192.0.2.9 ports 26 by uid 0
# Not allowed, because of "/tmp/x\u000ay": the path leads to another file: out tcp to 192.0.2.9 ports 25 by uid 0
rules:
  - id: 10
    name: "curl out tcp"
    subject: { exe: /usr/bin/curl, uid: [0, 33] }
    protocol: tcp
    to: [192.0.2.2/31]
    ports: [80, 443]
    action: allow
  - id: 20
    name: "curl out tcp"
    subject: { exe: /usr/bin/curl, uid: [0, 33] }
    protocol: tcp
    to: ["::1"]
    ports: [81]
    action: allow
"##
    );
}

#[test]
fn what_is_too_much_is_counted() {
    let mut learner = Learner::new(LearnOptions::default().most(2));
    for last in 1..=5 {
        learner.saw(&tcp(0, 0, &format!("192.0.2.{last}:443")));
    }
    // Known: not lost.
    learner.saw(&tcp(0, 0, "192.0.2.1:443"));
    learner.name(file(0), PATHS[0].into());
    let text = learner.document();
    assert!(text.contains("from 6 requests, 2 of them distinct"), "{text}");
    assert!(text.contains("Up to 3 events were lost"), "{text}");
    assert_eq!(
        Decided::by(&loaded(&text)).verdict(&tcp(0, 0, "192.0.2.3:443")),
        SocketVerdict::Deny
    );
}

#[test]
fn paths_that_no_file_can_name_are_comments() {
    use std::os::unix::ffi::OsStrExt;
    let not_text = Path::new(std::ffi::OsStr::from_bytes(b"/bin/\xff"));
    for (path, why) in [(Path::new("./x"), "relative"), (not_text, "no text")] {
        let mut learner = Learner::new(LearnOptions::default());
        learner.saw(&tcp(0, 0, "192.0.2.1:443"));
        learner.name(file(0), path.to_owned());
        let text = learner.document();
        assert!(text.contains(why), "{text}");
        assert_eq!(loaded(&text).sockets().unwrap().rules().len(), 0);
    }
}

/// Packet sockets that were not seen are reported, and a rule for them is written only where it can be.
#[test]
fn packet_sockets_stay_unseen_where_they_were() {
    let create = Observation {
        op: SocketOp::Create,
        protocol: Protocol::ICMP.into(),
        ..tcp(0, 0, "192.0.2.1:80")
    };
    let create = Observation { addr: None, ..create };
    let document = |unseen: bool, what: &Observation| {
        let mut learner = Learner::new(LearnOptions::default());
        learner.saw(what);
        learner.name(file(0), PathBuf::from(PATHS[0]));
        if unseen {
            learner.packets_unseen();
        }
        learner.document()
    };
    let asks = |text: &str| loaded(text).sockets().unwrap().packet_sockets().is_some();
    assert!(asks(&document(false, &create)));
    let text = document(true, &create);
    assert!(!asks(&text) && text.contains("# Packet sockets were not seen"), "{text}");
    // A policy that says nothing of what is made says nothing of these.
    let text = document(true, &tcp(0, 0, "192.0.2.1:80"));
    assert!(!asks(&text) && !text.contains("unseen"), "{text}");
}

/// The same decisions, and all of what is allowed is reported.
#[test]
fn a_learning_policy_decides_as_before() {
    let rule = |id, action| SocketRule::new(ironclad_core::RuleId(id), "rule", action);
    let policy = Policy::builder()
        .socket_rule(rule(1, SocketAction::Deny).port(25))
        .socket_rule(rule(u32::MAX - 1, SocketAction::Allow).port(80))
        .socket_rule(rule(2, SocketAction::Log))
        .socket_default(Direction::In, SocketVerdict::Deny);
    let (before, after) = (policy.clone().compile().unwrap(), policy.learning().compile().unwrap());
    let (before, after) = (Decided::by(&before), Decided::by(&after));
    for port in [25, 80, 443] {
        for op in [SocketOp::Connect, SocketOp::Bind] {
            let call = Observation { op, ..tcp(0, 0, &format!("192.0.2.1:{port}")) };
            assert_eq!(before.verdict(&call), after.verdict(&call), "{op} {port}");
        }
    }
    let rules = after.compiled.unwrap().rules();
    let rules: Vec<_> =
        rules.iter().map(|r| (r.id.0, r.direction, r.report, r.events_per_second)).collect();
    assert_eq!(
        rules[..2],
        [(1, Direction::Out, true, u32::MAX), (u32::MAX - 1, Direction::Out, true, u32::MAX)]
    );
    assert_eq!(rules[2], (2, Direction::Out, false, 10));
    let added: Vec<_> = rules[3..].iter().map(|rule| (rule.0, rule.1)).collect();
    assert_eq!(added, [(u32::MAX - 2, Direction::Out), (u32::MAX - 3, Direction::Create)]);
}
