use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::fmt;
use std::net::{Ipv4Addr, Ipv6Addr};
use std::path::{Path, PathBuf};

use ironclad_core::abi::{self, SocketOp};
use ironclad_core::{Cidr, Protocol, RuleId, SocketProtocol, SocketVerdict};
use sha2::{Digest, Sha256};

use super::addresses::Classes;
use super::bits::{Place, RuleSet};
use super::packets::PacketSockets;
use super::pin::{Exe, Pin, SHA256_MISMATCH, mismatches};
use super::{Direction, Group, LimitScope, RateLimit, SocketAction, SocketRule, Sockets};
use crate::error::{Failure, PolicyError, check_rule};
use crate::limits::check;
use crate::sha256::Sha256Sum;

/// A rule of compiled socket rules.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct SocketRuleInfo {
    /// The id.
    pub id: RuleId,
    /// The name.
    pub name: String,
    /// What it does.
    pub action: SocketAction,
    /// Which way it looks.
    pub direction: Direction,
    /// Events a second at most.
    pub events_per_second: u32,
    /// Whether what it allows is reported.
    pub report: bool,
    /// Whether it denies nothing.
    pub dry_run: bool,
    /// Its token bucket.
    pub limit: Option<RateLimit>,
    /// Tells its bucket from others; equal for rules that share one.
    pub bucket: u64,
    /// Where a policy file says it: `rules.yaml:12:5`.
    pub described_at: Option<String>,
    /// The place of an earlier rule that decides of everything in this direction: this one never
    /// matches.
    pub shadowed_by: Option<usize>,
}

/// ``rule 20 (`updates`, rules.yaml:12:5)``.
impl fmt::Display for SocketRuleInfo {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&shown(self.id, &self.name, self.described_at.as_deref()))
    }
}

pub(super) fn shown(id: RuleId, name: &str, described_at: Option<&str>) -> String {
    let RuleId(id) = id;
    match described_at {
        Some(at) => format!("rule {id} (`{name}`, {at})"),
        None => format!("rule {id} (`{name}`)"),
    }
}

/// Rules and where each has its number.
type Placed<'a> = [(Place, &'a SocketRule)];

/// A dimension whose values are looked up in a hash.
#[derive(Clone, Debug)]
pub(crate) struct Named<K> {
    /// Rules that do not ask of it.
    pub(crate) free: RuleSet,
    /// The rules that name each value.
    pub(crate) by_value: BTreeMap<K, Vec<Place>>,
}

impl<K: Ord + Clone> Named<K> {
    fn build<'a>(placed: &Placed<'a>, values: impl Fn(&'a SocketRule) -> &'a [K]) -> Self
    where
        K: 'a,
    {
        let mut free = RuleSet::default();
        let mut by_value: BTreeMap<K, Vec<Place>> = BTreeMap::new();
        for &(place, rule) in placed {
            let named = values(rule);
            if named.is_empty() {
                free.insert(place);
            }
            for value in named {
                by_value.entry(value.clone()).or_default().push(place);
            }
        }
        Self { free, by_value }
    }

    /// What each value satisfies.
    pub(crate) fn rows(&self) -> impl Iterator<Item = (&K, RuleSet)> {
        self.by_value.iter().map(|(value, rules)| (value, self.free.with(rules.iter().copied())))
    }

    /// How many different sets of rules there are.
    pub(crate) fn distinct(&self) -> usize {
        self.by_value.values().collect::<HashSet<_>>().len()
    }

    pub(crate) fn is_asked(&self) -> bool {
        !self.by_value.is_empty()
    }
}

/// A dimension whose values are numbers that index a table of classes.
#[derive(Clone, Debug)]
pub(crate) struct Table {
    /// What each class satisfies. Class 0 is that of values that no rule names.
    pub(crate) rows: Vec<RuleSet>,
    /// The class of each value.
    pub(crate) class: Vec<u16>,
    numbers: HashMap<RuleSet, u16>,
}

impl Table {
    fn new(free: RuleSet, values: usize) -> Self {
        let numbers = HashMap::from([(free.clone(), 0)]);
        Self { rows: vec![free], class: vec![0; values], numbers }
    }

    fn class_of(&mut self, set: &RuleSet) -> Result<u16, PolicyError> {
        if let Some(&class) = self.numbers.get(set) {
            return Ok(class);
        }
        let next = self.rows.len();
        check("distinct sets of ports", next as u64 + 1, 1 << 16, "let rules share their ports")?;
        self.rows.push(set.clone());
        self.numbers.insert(set.clone(), next as u16);
        Ok(next as u16)
    }
}

/// Socket rules, compiled as far as they can be without a kernel: files and cgroups are
/// still paths. [`image`](Self::image) makes of them what the kernel reads.
#[derive(Clone, Debug)]
pub struct CompiledSockets {
    /// Those of the policy, then those of [`SHA256_MISMATCH`].
    pub(crate) rules: Vec<SocketRuleInfo>,
    /// How many of the policy there are.
    pub(crate) own: usize,
    /// Where each has its number.
    pub(crate) places: Vec<Place>,
    pub(crate) defaults: [SocketVerdict; 3],
    pub(crate) addresses: Classes,
    /// By class of address.
    pub(crate) wheres: Vec<RuleSet>,
    pub(crate) is_where_asked: bool,
    pub(crate) ports: Option<Table>,
    pub(crate) kinds: Table,
    pub(crate) exes: Named<Exe>,
    pub(crate) parents: Named<PathBuf>,
    pub(crate) uids: Named<u32>,
    pub(crate) gids: Named<u32>,
    pub(crate) groups: Named<Group>,
    pub(crate) comms: Named<String>,
    /// Distinct lists of files that ancestries begin with, and the rules that name each.
    pub(crate) ancestries: BTreeMap<Vec<PathBuf>, Vec<Place>>,
    pub(crate) not_ancestry: RuleSet,
    packets: Option<PacketSockets>,
}

impl CompiledSockets {
    pub(crate) fn compile(sockets: &Sockets) -> Result<Self, PolicyError> {
        let Sockets { groups, rules, defaults, .. } = sockets;
        let written = rules.len();
        let mismatches = mismatches(rules);
        let logs =
            rules.iter().chain(&mismatches).filter(|r| r.action == SocketAction::Log).count();
        let decide = written + mismatches.len() - logs;
        check("socket rules", decide as u64, abi::SOCK_RULES_MAX as u64, "")?;
        check(
            "socket rules that only log",
            logs as u64,
            abi::SOCK_LOGS_MAX as u64,
            "let rules that decide report instead",
        )?;
        let mut ids = HashSet::new();
        for rule in rules {
            fits(rule)?;
            if rule.rule == SHA256_MISMATCH {
                let what = "its id is that of what executes a file of another SHA-256 than the one pinned: give it another";
                return Err(unfit(rule, what));
            }
            if !ids.insert(rule.rule) {
                return Err(unfit(rule, "another socket rule has its id"));
            }
        }
        let numbers: HashMap<&str, u32> =
            groups.iter().enumerate().map(|(i, group)| (group.name.as_str(), i as u32)).collect();
        if numbers.len() < groups.len() {
            let mut seen = HashSet::new();
            let twice = groups.iter().find(|group| !seen.insert(&group.name));
            let name = twice.map(|group| group.name.clone()).unwrap_or_default();
            return Err(Failure::GroupTwice { name }.into());
        }
        let (mut decided, mut logged) = (0.., 0..);
        let mut place = |rule: &SocketRule| match rule.action {
            SocketAction::Log => Place::Logs(logged.next().unwrap_or_default()),
            _ => Place::Decides(decided.next().unwrap_or_default()),
        };
        // Those on mismatches match before all others, and do not change what others are called.
        let first: Vec<Place> = mismatches.iter().map(&mut place).collect();
        let places: Vec<Place> = rules.iter().map(&mut place).chain(first).collect();
        let rules: Vec<&SocketRule> = rules.iter().chain(&mismatches).collect();
        let placed: Vec<(Place, &SocketRule)> =
            places.iter().copied().zip(rules.iter().copied()).collect();
        // What each rule means by where: groups with a name, or one of its own.
        let mut asked: Vec<Vec<u32>> = Vec::with_capacity(rules.len());
        let mut used = HashSet::new();
        let mut own = groups.len() as u32;
        for rule in &rules {
            let mut named = Vec::new();
            for name in &rule.to {
                let number = numbers
                    .get(name.as_str())
                    .ok_or_else(|| Failure::UnknownGroup { rule: rule.rule, name: name.clone() })?;
                used.insert(*number);
                named.push(*number);
            }
            if !rule.cidrs.is_empty() {
                named.push(own);
                own += 1;
            }
            asked.push(named);
        }
        let entries = |group: u32| {
            let lists = &groups[group as usize].lists;
            lists.iter().flat_map(|list| list.entries()).map(|entry| entry.cidr)
        };
        // Whoever binds the unspecified address is reached at each of its own, by `::` at those of IPv4 too.
        // Only bind(2) asks with such an address.
        let nobody = [Ipv4Addr::UNSPECIFIED.into(), Ipv6Addr::UNSPECIFIED.into()].map(Cidr::host);
        let may_be_nobody = |cidr: Cidr| nobody.map(|nobody| cidr.family() <= nobody.family());
        let either = |a: [bool; 2], b: [bool; 2]| [a[0] || b[0], a[1] || b[1]];
        let of_group = |group| entries(group).map(may_be_nobody).fold([false; 2], either);
        let of_groups: HashMap<u32, [bool; 2]> =
            used.iter().map(|&group| (group, of_group(group))).collect();
        let mut is_nobody_asked = [false; 2];
        for (rule, named) in rules.iter().zip(&mut asked) {
            if rule.direction != Direction::In || rule.action == SocketAction::Allow {
                continue;
            }
            let of_own = rule.cidrs.iter().map(|&cidr| may_be_nobody(cidr));
            let of_named = named.iter().filter_map(|group| of_groups.get(group)).copied();
            let is_nobody = of_own.chain(of_named).fold([false; 2], either);
            named.extend((own..).zip(is_nobody).filter_map(|(group, is)| is.then_some(group)));
            is_nobody_asked = either(is_nobody_asked, is_nobody);
        }
        let of_nobody = (own..).zip(nobody).zip(is_nobody_asked);
        let of_nobody = of_nobody.filter_map(|(nobody, is_asked)| is_asked.then_some(nobody));
        let of_groups = (0..groups.len() as u32).filter(|number| used.contains(number));
        let of_groups =
            of_groups.flat_map(|number| entries(number).map(move |cidr| (number, cidr)));
        let with_own = rules.iter().filter(|rule| !rule.cidrs.is_empty());
        let of_rules = with_own
            .zip(groups.len() as u32..)
            .flat_map(|(rule, number)| rule.cidrs.iter().map(move |&cidr| (number, cidr)));
        let addresses = Classes::build(of_groups.chain(of_rules).chain(of_nobody));

        let mut anywhere = RuleSet::default();
        let mut by_group: HashMap<u32, Vec<Place>> = HashMap::new();
        for (&place, named) in places.iter().zip(&asked) {
            if named.is_empty() {
                anywhere.insert(place);
            }
            for &group in named {
                by_group.entry(group).or_default().push(place);
            }
        }
        let satisfied = |groups: &Vec<u32>| {
            let rules = groups.iter().filter_map(|group| by_group.get(group)).flatten().copied();
            anywhere.with(rules)
        };
        let wheres = addresses.groups.iter().map(satisfied).collect();

        Ok(Self {
            rules: infos(&rules),
            own: written,
            defaults: *defaults,
            addresses,
            wheres,
            is_where_asked: !by_group.is_empty(),
            ports: ports(&placed)?,
            kinds: kinds(&placed)?,
            exes: Named::build(&placed, |rule| &rule.subject.exes),
            parents: Named::build(&placed, |rule| &rule.subject.parents),
            uids: Named::build(&placed, |rule| &rule.subject.uids),
            gids: Named::build(&placed, |rule| &rule.subject.gids),
            groups: Named::build(&placed, |rule| &rule.subject.groups),
            comms: Named::build(&placed, |rule| &rule.subject.comms),
            ancestries: ancestries(&placed)?,
            packets: PacketSockets::of(sockets)?,
            not_ancestry: {
                let free = placed.iter().filter(|(_, rule)| rule.subject.ancestors.is_empty());
                RuleSet::default().with(free.map(|(place, _)| *place))
            },
            places,
        })
    }

    /// No rules: everything is allowed.
    pub fn silent() -> Self {
        fn unnamed<K>() -> Named<K> {
            Named { free: RuleSet::default(), by_value: BTreeMap::new() }
        }
        Self {
            rules: Vec::new(),
            own: 0,
            places: Vec::new(),
            defaults: [SocketVerdict::Allow; 3],
            addresses: Classes::build(std::iter::empty()),
            wheres: vec![RuleSet::default()],
            is_where_asked: false,
            ports: None,
            kinds: Table::new(RuleSet::default(), 4 * abi::SOCK_PROTOCOLS),
            exes: unnamed(),
            parents: unnamed(),
            uids: unnamed(),
            gids: unnamed(),
            groups: unnamed(),
            comms: unnamed(),
            ancestries: BTreeMap::new(),
            not_ancestry: RuleSet::default(),
            packets: None,
        }
    }

    /// The rules in their order. Behind them come those of the id [`SHA256_MISMATCH`], which match
    /// before all of them.
    pub fn rules(&self) -> &[SocketRuleInfo] {
        &self.rules
    }

    /// The rules in the order in which they match, with their places among [`rules`](Self::rules).
    pub fn in_order(&self) -> impl Iterator<Item = (usize, &SocketRuleInfo)> {
        (self.own..self.rules.len()).chain(0..self.own).map(|place| (place, &self.rules[place]))
    }

    /// What becomes of what no rule matches.
    pub fn default_of(&self, op: SocketOp) -> SocketVerdict {
        match op {
            SocketOp::Connect | SocketOp::Send => self.defaults[0],
            SocketOp::Bind => self.defaults[1],
            SocketOp::Create => self.defaults[2],
        }
    }

    /// What decides of packet sockets, which only BPF LSM sees; `None` where nothing does.
    pub fn packet_sockets(&self) -> Option<&PacketSockets> {
        self.packets.as_ref()
    }

    /// Every file that a rule names.
    pub fn files(&self) -> impl Iterator<Item = &PathBuf> {
        let ancestries = self.ancestries.keys().flatten();
        let exes = self.exes.by_value.keys().map(|exe| &exe.path);
        let files: BTreeSet<_> =
            exes.chain(self.parents.by_value.keys()).chain(ancestries).collect();
        files.into_iter()
    }

    /// Rules that never match, each with the one before that decides of everything in its direction.
    pub fn shadowed(&self) -> impl Iterator<Item = (&SocketRuleInfo, &SocketRuleInfo)> {
        self.rules.iter().filter_map(|rule| Some((rule, &self.rules[rule.shadowed_by?])))
    }

    /// The first rule that names a file.
    pub fn naming_file(&self, file: &Path) -> Option<&SocketRuleInfo> {
        let exes = self.exes.by_value.iter().filter(|(exe, _)| exe.path == file);
        let parents = self.parents.by_value.iter().filter(|(path, _)| *path == file);
        let ancestries =
            self.ancestries.iter().filter(|(files, _)| files.iter().any(|f| f == file));
        let places = exes.map(|(_, places)| places);
        self.first(places.chain(parents.map(|it| it.1)).chain(ancestries.map(|it| it.1)).flatten())
    }

    /// The first rule that names a container, by what it writes of its id.
    pub fn naming_container(&self, id: &str) -> Option<&SocketRuleInfo> {
        let named = self.groups.by_value.get(&Group::Container(id.to_owned()));
        self.first(named.into_iter().flatten())
    }

    fn first<'a>(&self, places: impl Iterator<Item = &'a Place>) -> Option<&SocketRuleInfo> {
        let places: HashSet<_> = places.collect();
        let mut rules = self.places.iter().zip(&self.rules);
        rules.find(|(place, _)| places.contains(place)).map(|(_, rule)| rule)
    }

    /// Those of them whose content a rule has pinned.
    pub fn pinned(&self) -> BTreeSet<&Path> {
        let pinned = self.exes.by_value.keys().filter(|exe| exe.pin != Pin::Any);
        pinned.map(|exe| exe.path.as_path()).collect()
    }

    /// Whether a pinned file may have this content; one that cannot be told, none may have.
    pub fn admits(&self, path: &Path, content: Option<Sha256Sum>) -> bool {
        let is_mismatch = |exe: &&Exe| matches!(exe.pin, Pin::NoneOf(_)) && exe.pin.holds(content);
        !self.exes.by_value.keys().filter(|exe| exe.path == path).any(|exe| is_mismatch(&exe))
    }

    /// Every cgroup that a rule names by its path.
    pub fn cgroups(&self) -> impl Iterator<Item = &String> {
        self.groups.by_value.keys().filter_map(|group| match group {
            Group::Path(path) => Some(path),
            Group::Container(_) => None,
        })
    }

    /// Every container that a rule names, by its id or the beginning of it.
    pub fn containers(&self) -> impl Iterator<Item = &String> {
        self.groups.by_value.keys().filter_map(|group| match group {
            Group::Path(_) => None,
            Group::Container(id) => Some(id),
        })
    }

    /// What tells each of [`ancestries`](Self::ancestries) from others, whatever the policy.
    pub fn ancestry_digests(&self) -> Vec<u64> {
        let digest = |files: &Vec<PathBuf>| {
            let mut hash = Sha256::new();
            for file in files {
                let path = file.as_os_str().as_encoded_bytes();
                hash.update((path.len() as u64).to_le_bytes());
                hash.update(path);
            }
            first_bytes(hash)
        };
        self.ancestries.keys().map(digest).collect()
    }

    /// The lists of files that ancestries begin with, in the order of [`Bound::ancestries`](super::Bound).
    pub fn ancestries(&self) -> impl ExactSizeIterator<Item = &Vec<PathBuf>> {
        self.ancestries.keys()
    }
}

pub(super) fn unfit(rule: &SocketRule, what: impl Into<String>) -> PolicyError {
    Failure::SocketRule { rule: rule.rule, name: rule.name.clone(), what: what.into() }.into()
}

/// What a rule may say at all. One that could never match is an error of whoever wrote it.
fn fits(rule: &SocketRule) -> Result<(), PolicyError> {
    check_rule(rule.rule, &rule.name)?;
    let subject = &rule.subject;
    for path in
        subject.exes.iter().map(|exe| &exe.path).chain(&subject.parents).chain(&subject.ancestors)
    {
        if !path.is_absolute() {
            let path = path.display();
            return Err(unfit(rule, format!("`{path}` is relative: write the whole path")));
        }
    }
    subject.groups.iter().try_for_each(|group| group_fits(rule, group))?;
    let is_path = |group: &Group| matches!(group, Group::Path(_));
    if subject.groups.iter().any(is_path) && !subject.groups.iter().all(is_path) {
        let what = "a container is a cgroup: name it by `container` or by `cgroup`, not by both";
        return Err(unfit(rule, what));
    }
    for comm in &subject.comms {
        if comm.is_empty() || comm.len() > 15 || comm.contains('\0') {
            return Err(unfit(rule, format!("`{comm}` is no name of a thread: 1 to 15 bytes")));
        }
    }
    let is_create = rule.direction == Direction::Create;
    if is_create && !(rule.to.is_empty() && rule.cidrs.is_empty() && rule.ports.is_empty()) {
        return Err(unfit(rule, "socket(2) has neither address nor port"));
    }
    for ports in &rule.ports {
        if ports.is_empty() {
            let (first, last) = (ports.start(), ports.end());
            return Err(unfit(rule, format!("the ports {first}-{last} are none")));
        }
    }
    for &protocol in &rule.protocols {
        let has_hooks =
            [Protocol::TCP, Protocol::UDP].map(SocketProtocol::from).contains(&protocol);
        let (has, direction) = match is_create {
            true => (!has_hooks, "is decided where it names an address: direction `out` or `in`"),
            false => (has_hooks, "has no hook but socket(2): direction `create`"),
        };
        if !has {
            return Err(unfit(rule, format!("{protocol} {direction}")));
        }
    }
    if let Some(limit) = &rule.limit {
        if rule.action != SocketAction::Allow {
            return Err(unfit(rule, "a limit is for rules that allow"));
        }
        let fits = |number: u32| (1..=1_000_000).contains(&number);
        if !fits(limit.per_second) || !fits(limit.burst) {
            return Err(unfit(rule, "rate and burst of a limit are 1 to 1,000,000"));
        }
        if limit.scope != LimitScope::Rule && limit.name.is_empty() {
            return Err(unfit(rule, "a limit that rules share needs a name"));
        }
    }
    Ok(())
}

fn group_fits(rule: &SocketRule, group: &Group) -> Result<(), PolicyError> {
    let refuse = |name: &str, what: &str| Err(unfit(rule, format!("`{name}` is no {what}")));
    match group {
        Group::Path(path) => {
            if !path.starts_with('/') || path.split('/').any(|part| matches!(part, "." | "..")) {
                let what =
                    "cgroup: write its path from the root of the hierarchy, like `/system.slice`";
                return refuse(path, what);
            }
        }
        Group::Container(id) => {
            let is_digit = |digit| matches!(digit, b'0'..=b'9' | b'a'..=b'f');
            if !(12..=64).contains(&id.len()) || !id.bytes().all(is_digit) {
                let what =
                    "container: write its id, or 12 or more of its first digits, 0-9 and a-f";
                return refuse(id, what);
            }
        }
    }
    Ok(())
}

fn infos(rules: &[&SocketRule]) -> Vec<SocketRuleInfo> {
    // By direction, the first that leaves nothing to others.
    let mut catch_all = [None; 3];
    let with_place = rules.iter().enumerate();
    with_place
        .map(|(place, rule)| {
            let first = &mut catch_all[rule.direction as usize];
            // Those on mismatches come last here, and match first.
            let shadowed_by = first.filter(|_| rule.rule != SHA256_MISMATCH);
            if first.is_none() && rule.matches_all() {
                *first = Some(place);
            }
            info(rule, shadowed_by)
        })
        .collect()
}

fn info(rule: &SocketRule, shadowed_by: Option<usize>) -> SocketRuleInfo {
    SocketRuleInfo {
        id: rule.rule,
        name: rule.name.clone(),
        action: rule.action,
        direction: rule.direction,
        events_per_second: rule.events_per_second,
        report: rule.report,
        dry_run: rule.dry_run,
        limit: rule.limit.clone(),
        bucket: rule.limit.as_ref().map_or(0, |limit| bucket(rule, limit)),
        described_at: rule.described_at.clone(),
        shadowed_by,
    }
}

/// What outlives a policy: a rule that keeps its id and its scope keeps its bucket.
fn bucket(rule: &SocketRule, limit: &RateLimit) -> u64 {
    let mut hash = Sha256::new();
    hash.update([limit.scope as u8]);
    match limit.scope {
        LimitScope::Rule => hash.update(rule.rule.0.to_le_bytes()),
        LimitScope::Subject => {
            hash.update((limit.name.len() as u64).to_le_bytes());
            hash.update(&limit.name);
            hash.update(&rule.subject.name);
        }
        LimitScope::Host => hash.update(&limit.name),
    }
    first_bytes(hash)
}

fn first_bytes(hash: Sha256) -> u64 {
    let digest = hash.finalize();
    let mut first = [0; 8];
    first.copy_from_slice(&digest[..8]);
    u64::from_le_bytes(first)
}

fn ports(placed: &Placed<'_>) -> Result<Option<Table>, PolicyError> {
    if placed.iter().all(|(_, rule)| rule.ports.is_empty()) {
        return Ok(None);
    }
    let mut free = RuleSet::default();
    // Where a rule's ports begin and where they are over; between two such places nothing changes.
    let mut changes: BTreeMap<usize, Vec<(usize, i32)>> = BTreeMap::new();
    for (number, (place, rule)) in placed.iter().enumerate() {
        if rule.ports.is_empty() {
            free.insert(*place);
        }
        for ports in &rule.ports {
            let (first, after) = (usize::from(*ports.start()), usize::from(*ports.end()) + 1);
            changes.entry(first).or_default().push((number, 1));
            changes.entry(after).or_default().push((number, -1));
        }
    }
    let mut open: BTreeMap<usize, i32> = BTreeMap::new();
    let mut sets: Vec<(usize, RuleSet)> = vec![(0, free.clone())];
    for (port, changed) in changes {
        for (number, by) in changed {
            *open.entry(number).or_default() += by;
        }
        open.retain(|_, count| *count > 0);
        sets.push((port, free.with(open.keys().map(|&number| placed[number].0))));
    }
    // One set after the other, not one for each port: there may be thousands of rules.
    let mut table = Table::new(free, 1 << 16);
    for (i, (from, set)) in sets.iter().enumerate() {
        let to = sets.get(i + 1).map_or(1 << 16, |(next, _)| *next);
        if *from < to {
            let class = table.class_of(set)?;
            table.class[*from..to].fill(class);
        }
    }
    Ok(Some(table))
}

fn kinds(placed: &Placed<'_>) -> Result<Table, PolicyError> {
    let mut by_op: [RuleSet; 4] = Default::default();
    let mut by_kind: HashMap<(usize, usize), Vec<Place>> = HashMap::new();
    for (place, rule) in placed {
        for &op in rule.direction.ops() {
            if rule.protocols.is_empty() {
                by_op[op as usize].insert(*place);
            }
            for protocol in &rule.protocols {
                by_kind.entry((op as usize, usize::from(protocol.abi()))).or_default().push(*place);
            }
        }
    }
    let mut table = Table::new(RuleSet::default(), by_op.len() * abi::SOCK_PROTOCOLS);
    for (op, all) in by_op.iter().enumerate() {
        for protocol in 0..abi::SOCK_PROTOCOLS {
            let named = by_kind.get(&(op, protocol)).into_iter().flatten();
            let class = table.class_of(&all.with(named.copied()))?;
            table.class[op * abi::SOCK_PROTOCOLS + protocol] = class;
        }
    }
    Ok(table)
}

fn ancestries(placed: &Placed<'_>) -> Result<BTreeMap<Vec<PathBuf>, Vec<Place>>, PolicyError> {
    let mut ancestries: BTreeMap<Vec<PathBuf>, Vec<Place>> = BTreeMap::new();
    for (place, rule) in placed.iter().filter(|(_, rule)| !rule.subject.ancestors.is_empty()) {
        let mut files = rule.subject.ancestors.clone();
        files.sort();
        files.dedup();
        ancestries.entry(files).or_default().push(*place);
    }
    check(
        "distinct lists of executables to descend from",
        ancestries.len() as u64,
        abi::SOCK_ANCESTRIES as u64 * 8,
        "let rules share them",
    )?;
    Ok(ancestries)
}

/// Everything that decides what the kernel does.
pub(crate) fn digest(sockets: &Sockets, hash: &mut Sha256) {
    let mut text = |value: &[u8]| {
        hash.update((value.len() as u64).to_le_bytes());
        hash.update(value);
    };
    for group in &sockets.groups {
        text(group.name.as_bytes());
        for entry in group.lists.iter().flat_map(|list| list.entries()) {
            text(&entry.cidr.bits().to_le_bytes());
            text(&[entry.cidr.length(), entry.cidr.family() as u8]);
        }
    }
    for rule in &sockets.rules {
        // `Debug` names every field; names of files keep their bytes.
        text(format!("{rule:?}").as_bytes());
    }
    text(format!("{:?}", sockets.defaults).as_bytes());
    text(&[u8::from(sockets.packets_unseen)]);
}
