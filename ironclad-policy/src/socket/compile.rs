use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::fmt;
use std::path::{Path, PathBuf};

use ironclad_core::abi::{self, SocketOp};
use ironclad_core::{RuleId, SocketVerdict};
use sha2::{Digest, Sha256};

use super::addresses::Classes;
use super::bits::{Place, RuleSet};
use super::check::{fits, unfit};
use super::dimensions::{Named, Table, ancestries, kinds, ports, without_ancestry};
use super::packets::PacketSockets;
use super::pin::{SHA256_MISMATCH, mismatches};
use super::rule::{
    Direction, Exe, Group, LimitScope, Pin, RateLimit, SocketAction, SocketRule, Sockets, shown,
};
use super::wheres::Wheres;
use crate::error::PolicyError;
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
    /// The direction.
    pub direction: Direction,
    /// Events a second at most.
    pub events_per_second: u32,
    /// Whether what it allows is reported.
    pub report: bool,
    /// Whether it denies nothing.
    pub dry_run: bool,
    /// Its token bucket.
    pub limit: Option<RateLimit>,
    /// Identifies its bucket; equal for rules that share one.
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
    pub(crate) uses_addresses: bool,
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
        let (mut decided, mut logged) = (0.., 0..);
        let mut place = |rule: &SocketRule| match rule.action {
            SocketAction::Log => Place::Logs(logged.next().unwrap_or_default()),
            _ => Place::Decides(decided.next().unwrap_or_default()),
        };
        // Rules on mismatches match before all other rules, and do not change the numbers of those.
        let first: Vec<Place> = mismatches.iter().map(&mut place).collect();
        let places: Vec<Place> = rules.iter().map(&mut place).chain(first).collect();
        let rules: Vec<&SocketRule> = rules.iter().chain(&mismatches).collect();
        let placed: Vec<(Place, &SocketRule)> =
            places.iter().copied().zip(rules.iter().copied()).collect();
        let wheres = Wheres::build(groups, &placed)?;
        Ok(Self {
            rules: infos(&rules),
            own: written,
            defaults: *defaults,
            addresses: wheres.addresses,
            wheres: wheres.rows,
            uses_addresses: wheres.is_used,
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
            not_ancestry: without_ancestry(&placed),
            places,
        })
    }

    /// No rules: everything is allowed.
    pub fn empty() -> Self {
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
            uses_addresses: false,
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

    /// Whether a pinned file may have this content; no file may have a content that is not known.
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

    /// A digest of each of [`ancestries`](Self::ancestries), the same in every policy.
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

fn infos(rules: &[&SocketRule]) -> Vec<SocketRuleInfo> {
    // By direction, the first that leaves nothing to later rules.
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
