//! Explanations against the oracle: who decides, and by what each earlier rule fails first.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use ironclad_core::abi::{self, FileId, Process, SocketOp};
use ironclad_core::{Cidr, RuleId, SocketVerdict};
use ironclad_policy::socket::{
    Bound, BoundFile, Cgroups, Decider, Dimension, Direction, ImageTables, ProcessContext,
    RateLimit, SHA256_MISMATCH, SocketAction, SocketExplanation, SocketImage, SocketQuery,
    SocketRule, Standing, Subject, explain,
};
use ironclad_policy::{Policy, Protocol, Sha256Sum, SocketProtocol};

use crate::{Ask, CGROUPS, Contents, FILES, Kernel, Spec, cgroup, file, holds};

/// The dimensions that a rule fails by, the first first.
fn failing(spec: &Spec, groups: &[Vec<Cidr>], ask: &Ask, contents: &Contents) -> Vec<Dimension> {
    let whole = |only: &dyn Fn(&mut Spec)| {
        // A rule that asks of one thing alone.
        let mut narrow = Spec {
            action: spec.action,
            direction: match ask.op {
                SocketOp::Connect | SocketOp::Send => Direction::Out,
                SocketOp::Bind => Direction::In,
                SocketOp::Create => Direction::Create,
            },
            groups: Vec::new(),
            cidrs: Vec::new(),
            ports: Vec::new(),
            protocols: Vec::new(),
            exes: Vec::new(),
            dry_run: spec.dry_run,
            parents: Vec::new(),
            ancestors: Vec::new(),
            uids: Vec::new(),
            gids: Vec::new(),
            cgroups: Vec::new(),
            comms: Vec::new(),
        };
        only(&mut narrow);
        holds(&narrow, groups, ask, contents)
    };
    type Only<'a> = &'a dyn Fn(&mut Spec);
    let of: [(Dimension, Only<'_>); 11] = [
        (Dimension::Direction, &|narrow| narrow.direction = spec.direction),
        (Dimension::Protocol, &|narrow| narrow.protocols.clone_from(&spec.protocols)),
        (Dimension::Address, &|narrow| {
            narrow.groups.clone_from(&spec.groups);
            narrow.cidrs.clone_from(&spec.cidrs);
        }),
        (Dimension::Port, &|narrow| narrow.ports.clone_from(&spec.ports)),
        (Dimension::Exe, &|narrow| narrow.exes.clone_from(&spec.exes)),
        (Dimension::Parent, &|narrow| narrow.parents.clone_from(&spec.parents)),
        (Dimension::Uid, &|narrow| narrow.uids.clone_from(&spec.uids)),
        (Dimension::Gid, &|narrow| narrow.gids.clone_from(&spec.gids)),
        (Dimension::Cgroup, &|narrow| narrow.cgroups.clone_from(&spec.cgroups)),
        (Dimension::Comm, &|narrow| narrow.comms.clone_from(&spec.comms)),
        (Dimension::Ancestry, &|narrow| narrow.ancestors.clone_from(&spec.ancestors)),
    ];
    let failing: Vec<Dimension> =
        of.into_iter().filter(|(_, only)| !whole(only)).map(|(dimension, _)| dimension).collect();
    assert_eq!(failing.is_empty(), holds(spec, groups, ask, contents));
    failing
}

fn query(kernel: &Kernel<'_>, ask: &Ask) -> SocketQuery {
    let begins = |id: &FileId| {
        kernel.image.ancestries.iter().find(|(file, _)| file == id).map_or(0, |found| found.1)
    };
    let ancestry = ask.ancestors.iter().map(begins).fold(0, |all, bits| all | bits);
    let process = Process {
        exe: ask.exe,
        exe_changed_ns: ask.exe_changed_ns,
        parent: ask.parent,
        ancestry,
        ..Process::default()
    };
    let parts: Vec<&str> = ask.cgroup.trim_end_matches('/').split('/').collect();
    let id = |depth: usize| {
        let known = cgroup(&parts[..=depth].join("/"));
        known.map_or(1 + depth as u64, |(id, _)| id)
    };
    SocketQuery {
        op: ask.op,
        protocol: Protocol(ask.protocol).into(),
        addr: ask.addr.map(|addr| SocketAddr::new(addr, ask.port)),
        process_context: ProcessContext {
            process: Some(process),
            uid: Some(ask.uid),
            gid: Some(ask.gid),
            cgroups: Cgroups::Known((0..parts.len()).map(id).collect()),
            comm: ask.comm.as_bytes().to_vec(),
        },
    }
}

fn explained(tables: &ImageTables<'_>, query: &SocketQuery) -> SocketExplanation {
    match explain(tables, query) {
        Ok(why) => why,
        Err(never) => match never {},
    }
}

/// An explanation says of every rule up to the one that decides what the oracle says. `mismatches` are
/// the rules that come before all other rules, and whether the executable is one.
pub(crate) fn agrees(
    kernel: &Kernel<'_>,
    specs: &[Spec],
    mismatches: &[(usize, bool)],
    groups: &[Vec<Cidr>],
    ask: &Ask,
    contents: &Contents,
) {
    let means_another = match ask.addr {
        Some(IpAddr::V4(addr)) => addr == Ipv4Addr::UNSPECIFIED,
        Some(IpAddr::V6(addr)) => addr.is_unspecified() || addr.to_ipv4_mapped().is_some(),
        None => false,
    };
    if means_another {
        return;
    }
    let mut image = kernel.image.clone();
    image.policy.generation = 1;
    let tables = image.tables(kernel.compiled);
    let mut query = query(kernel, ask);
    for is_known in [true, false] {
        if !is_known {
            query.process_context.cgroups = Cgroups::Unknown;
        }
        let why = explained(&tables, &query);
        let mut expected = Vec::new();
        let (mut decided, mut certain) = (Decider::Default, true);
        let mut verdict = SocketVerdict::Allow;
        for &(place, is_mismatch) in mismatches {
            let rule = &kernel.compiled.rules()[place];
            let standing = match rule.action {
                _ if !rule.direction.ops().contains(&ask.op) => {
                    Standing::Fails { dimension: Dimension::Direction }
                }
                _ if !is_mismatch => Standing::Fails { dimension: Dimension::Exe },
                SocketAction::Log => Standing::Reports,
                _ => Standing::Decides,
            };
            expected.push((place, standing));
            if standing == Standing::Decides {
                (decided, verdict) = (Decider::Rule { place }, SocketVerdict::Deny);
                break;
            }
        }
        let own = if decided == Decider::Default { specs } else { &[] };
        for (place, spec) in own.iter().enumerate() {
            let failing = failing(spec, groups, ask, contents);
            let is_open = !is_known && !spec.cgroups.is_empty();
            let failed = failing.iter().find(|by| is_known || **by != Dimension::Cgroup);
            let standing = match failed {
                Some(&dimension) => Standing::Fails { dimension },
                None if is_open => Standing::Open { dimension: Dimension::Cgroup },
                None if spec.action == SocketAction::Log => Standing::Reports,
                None => Standing::Decides,
            };
            let may_decide = spec.action != SocketAction::Log;
            certain &= !(may_decide && matches!(standing, Standing::Open { .. }));
            expected.push((place, standing));
            if standing == Standing::Decides {
                decided = Decider::Rule { place };
                if spec.action == SocketAction::Deny {
                    verdict = SocketVerdict::Deny;
                }
                break;
            }
        }
        let found: Vec<_> = why.rules.iter().map(|rule| (rule.place, rule.standing)).collect();
        assert_eq!(found, expected);
        assert_eq!((why.decided_by, why.certain, why.verdict), (decided, certain, verdict));
    }
}

/// Tables of `rules`, and what is explained by them.
fn with(
    rules: Vec<SocketRule>,
    change: impl Fn(&mut SocketImage),
    query: &SocketQuery,
) -> SocketExplanation {
    let policy = rules.into_iter().fold(Policy::builder(), Policy::socket_rule).compile().unwrap();
    let compiled = policy.sockets().unwrap();
    let bound = Bound {
        files: FILES[..3]
            .iter()
            .enumerate()
            .map(|(n, path)| (path.into(), file(n).unwrap().into()))
            .collect(),
        cgroups: CGROUPS.iter().map(|&path| (path.to_owned(), cgroup(path).unwrap())).collect(),
        ancestries: (0..compiled.ancestries().len() as u8).collect(),
        ..Bound::default()
    };
    let mut image = compiled.image(&bound).unwrap();
    image.policy.generation = 1;
    change(&mut image);
    explained(&image.tables(compiled), query).named(compiled)
}

fn rules() -> Vec<SocketRule> {
    let rule = |id, name: &str, action| SocketRule::new(RuleId(id), name, action);
    vec![
        rule(10, "servers", SocketAction::Deny).direction(Direction::In),
        rule(20, "watch", SocketAction::Log).port(443),
        rule(30, "updates", SocketAction::Allow)
            .subject(Subject::new("").exe("/bin/a"))
            .limit(RateLimit::per_second(2).burst(5)),
        rule(40, "all", SocketAction::Deny).dry_run(true),
    ]
}

#[test]
fn an_explanation_is_a_line_for_each_rule() {
    let asks = SocketQuery::connect(Protocol::TCP, "[::ffff:192.0.2.1]:443".parse().unwrap());
    let why = with(rules(), |_| (), &asks);
    assert_eq!(
        why.to_string(),
        "would deny tcp connect 192.0.2.1:443 (written as IPv6): rule #4\n  \
         rule #1 (id 10, `servers`) does not match: direction\n  \
         rule #2 (id 20, `watch`) reports\n  \
         rule #3 (id 30, `updates`) does not match: exe\n  \
         rule #4 (id 40, `all`) decides"
    );
    assert_eq!(why.rule().unwrap().id, Some(RuleId(40)));
    let json = serde_json::to_value(&why).unwrap();
    assert_eq!(json["decided_by"], serde_json::json!({ "kind": "rule", "place": 3 }));
    let expected = serde_json::json!({
        "place": 2, "id": 30, "name": "updates", "standing": "fails", "dimension": "exe"
    });
    assert_eq!(json["rules"][2], expected);
}

/// The process executes what a rule names since `exec_ns`.
fn by(exec_ns: u64) -> SocketQuery {
    let mut process_context = ProcessContext::unidentified();
    process_context.process =
        Some(Process { exe: file(0).unwrap(), exec_ns, ..Process::default() });
    SocketQuery::connect(Protocol::TCP, "192.0.2.1:443".parse().unwrap()).by(process_context)
}

#[test]
fn a_limit_is_reported_and_a_file_means_its_rule_until_it_is_replaced() {
    let why = with(rules(), |_| (), &by(100));
    assert_eq!((why.decided_by, why.verdict), (Decider::Rule { place: 2 }, SocketVerdict::Allow));
    let limit = why.limit.unwrap();
    assert_eq!((limit.interval_ns, limit.at_once), (500_000_000, 5));
    assert!(why.to_string().contains("5 at once and one every 500ms, if its bucket has any left"));
    for (until_ns, place) in [(100, 3), (101, 2)] {
        let why = with(
            rules(),
            |image| {
                image.ids.iter_mut().for_each(|(_, val)| val.until_ns = until_ns);
            },
            &by(100),
        );
        assert_eq!(why.decided_by, Decider::Rule { place }, "{until_ns}");
    }
}

#[test]
fn what_is_not_loaded_is_reported() {
    let none = with(rules(), |image| image.policy.generation = 0, &by(1));
    assert_eq!((none.decided_by, none.verdict), (Decider::NoPolicy, SocketVerdict::Allow));
    // A row that is not there: the default decides.
    let damaged = with(rules(), |image| image.policy.none[abi::DIM_PORT] = 4000, &by(1));
    assert_eq!(damaged.decided_by, Decider::Damage);
    // Of packet sockets rules may say something that is not in force: none of these is enforced.
    let create = |direction| {
        vec![SocketRule::new(RuleId(1), "all", SocketAction::Deny).direction(direction)]
    };
    let packet = SocketQuery::create(SocketProtocol::Packet);
    let explained = with(create(Direction::Create), |_| (), &packet);
    assert_eq!(
        (explained.decided_by, explained.verdict),
        (Decider::Rule { place: 0 }, SocketVerdict::Deny)
    );
    let unseen = with(create(Direction::Create), |image| image.policy.packets = 0, &packet);
    assert_eq!((unseen.decided_by, unseen.verdict), (Decider::Unseen, SocketVerdict::Allow));
    assert!(unseen.to_string().starts_with("allow packet create: the policy leaves"), "{unseen}");
    let out = with(create(Direction::Out), |_| (), &packet);
    assert_eq!(out.decided_by, Decider::Unseen);
    // The whole policy is a dry run.
    let deny = || vec![SocketRule::new(RuleId(1), "all", SocketAction::Deny)];
    assert!(!with(deny(), |_| (), &by(1)).dry_run);
    let dry = with(deny(), |image| image.policy.dry_run = 1, &by(1));
    assert_eq!((dry.dry_run, dry.verdict), (true, SocketVerdict::Deny));
}

/// An event does not say what the file contained when it was executed.
#[test]
fn a_content_that_is_not_known_is_open() {
    let rules = || {
        let who = Subject::new("").exe_sha256("/bin/a", Sha256Sum([1; 32]));
        vec![SocketRule::new(RuleId(10), "pinned", SocketAction::Allow).subject(who)]
    };
    let asks = |exe_changed_ns| {
        let mut asks = by(1);
        asks.process_context.process.as_mut().unwrap().exe_changed_ns = exe_changed_ns;
        asks
    };
    let why = |exe_changed_ns, sha256| {
        let policy = rules().into_iter().fold(Policy::builder(), Policy::socket_rule);
        let policy = policy.compile().unwrap();
        let compiled = policy.sockets().unwrap();
        let (id, sha256) = (file(0).unwrap(), Some(sha256));
        let file = BoundFile { id, changed_ns: 7, formerly_ns: [6, 0, 0], sha256 };
        let files = [("/bin/a".into(), file)].into();
        let mut image = compiled.image(&Bound { files, ..Bound::default() }).unwrap();
        image.policy.generation = 1;
        explained(&image.tables(compiled), &asks(exe_changed_ns)).named(compiled)
    };
    let (right, wrong) = (Sha256Sum([1; 32]), Sha256Sum([2; 32]));
    let decides = |why: SocketExplanation| (why.certain, why.rule().and_then(|rule| rule.id));
    assert_eq!(decides(why(7, right)), (true, Some(RuleId(10))));
    assert_eq!(decides(why(6, right)), (true, Some(RuleId(10))));
    assert_eq!(decides(why(8, right)), (true, Some(SHA256_MISMATCH)));
    assert_eq!(decides(why(7, wrong)), (true, Some(SHA256_MISMATCH)));
    assert_eq!(decides(why(0, wrong)), (true, Some(SHA256_MISMATCH)));
    assert_eq!(decides(why(0, right)), (false, None));
    assert_eq!(
        why(7, right).to_string(),
        "allow tcp connect 192.0.2.1:443: rule #1\n  \
         rule #2 (id 4294967295, `sha256-mismatch`) does not match: exe\n  \
         rule #3 (id 4294967295, `sha256-mismatch`) does not match: direction\n  \
         rule #4 (id 4294967295, `sha256-mismatch`) does not match: direction\n  \
         rule #1 (id 10, `pinned`) decides"
    );
}
