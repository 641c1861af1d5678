use std::fmt;
use std::net::SocketAddr;

use ironclad_core::abi::{self, SockIdVal, SockPolicy, SockRow, SockRule, SocketOp};
use ironclad_core::{RuleId, SocketProtocol, SocketVerdict};
use serde::Serialize;

use super::query::{Cgroups, SocketQuery, effective_address};
use super::{CompiledSockets, SocketRuleInfo};
use crate::flat;

/// The tables that the hooks decide by, wherever they are.
pub trait SocketTables {
    /// Why a table cannot be read.
    type Error;

    /// All that is no table.
    fn policy(&self) -> &SockPolicy;
    /// A row by its number.
    fn row(&self, number: u32) -> Option<SockRow>;
    /// The row of a port, behind the first of ports.
    fn port(&self, port: u16) -> u32;
    /// A word of the flat table of addresses; 0 where it has none.
    fn flat(&self, word: usize) -> u32;
    /// A rule that decides, by its number among those.
    fn rule(&self, number: usize) -> Option<SockRule>;
    /// A rule that reports and decides nothing, by its number among those.
    fn log(&self, number: usize) -> Option<SockRule>;
    /// What a value that a rule may name means: of which dimension, and which.
    ///
    /// # Errors
    /// Where the table cannot be read.
    fn id(&self, dim: usize, value: [u64; 2]) -> Result<Option<SockIdVal>, Self::Error>;
}

/// What a rule may compare, in the order of an explanation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum Dimension {
    /// Out, in or create.
    Direction,
    /// The protocol.
    Protocol,
    /// The address.
    Address,
    /// The port.
    Port,
    /// The executable.
    Exe,
    /// The executable of the process that forked it.
    Parent,
    /// The real user.
    Uid,
    /// The real group.
    Gid,
    /// The cgroup.
    Cgroup,
    /// The name of the thread.
    Comm,
    /// What it descends from.
    Ancestry,
}

impl Dimension {
    /// What a row of dimension `dim` that lacks a rule says of it.
    fn of(dim: usize) -> Self {
        match dim {
            abi::DIM_KIND => Self::Protocol,
            abi::DIM_WHERE => Self::Address,
            abi::DIM_PORT => Self::Port,
            abi::DIM_EXE => Self::Exe,
            abi::DIM_PARENT => Self::Parent,
            abi::DIM_UID => Self::Uid,
            abi::DIM_GID => Self::Gid,
            abi::DIM_CGROUP => Self::Cgroup,
            abi::DIM_COMM => Self::Comm,
            _ => Self::Ancestry,
        }
    }

    /// Its name, as in JSON.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Direction => "direction",
            Self::Protocol => "protocol",
            Self::Address => "address",
            Self::Port => "port",
            Self::Exe => "exe",
            Self::Parent => "parent",
            Self::Uid => "uid",
            Self::Gid => "gid",
            Self::Cgroup => "cgroup",
            Self::Comm => "comm",
            Self::Ancestry => "ancestry",
        }
    }
}

/// Whether a rule matches the query.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(tag = "standing", rename_all = "kebab-case")]
#[non_exhaustive]
pub enum Standing {
    /// It matches, and decides.
    Decides,
    /// It matches and only reports. Of several, all count and the first writes an event.
    Reports,
    /// It does not match.
    Fails {
        /// The first of the dimensions that it fails by.
        dimension: Dimension,
    },
    /// It matches but for what is not known any more.
    Open {
        /// Of which.
        dimension: Dimension,
    },
}

/// A rule, and whether it matches the query.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct ExplainedRule {
    /// Its place in the policy, from 0.
    pub place: usize,
    /// Its id, where the explainer was given the policy.
    pub id: Option<RuleId>,
    /// Its name, likewise; else empty.
    pub name: String,
    /// How it stands.
    #[serde(flatten)]
    pub standing: Standing,
}

/// What decides.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(tag = "kind", rename_all = "kebab-case")]
#[non_exhaustive]
pub enum Decider {
    /// A rule: the last of [`SocketExplanation::rules`].
    Rule {
        /// Its place in the policy, from 0.
        place: usize,
    },
    /// No rule matches.
    Default,
    /// No policy is loaded: everything is allowed, and counted as a loss.
    NoPolicy,
    /// Packet sockets, of which this policy decides nothing.
    Unseen,
    /// A row or a rule is missing, which none is: the default decides, and a loss is counted.
    Damage,
}

/// What is over it is denied, whatever the verdict says: the bucket decides at the time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct RuleLimit {
    /// Nanoseconds until one token comes back.
    pub interval_ns: u64,
    /// Tokens in a full bucket.
    pub at_once: u64,
}

/// Which socket rule decides, and why no earlier one does.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct SocketExplanation {
    /// Of the policy that was read.
    pub generation: u64,
    /// The system call.
    pub op: SocketOp,
    /// The protocol, or the kind of socket.
    pub protocol: SocketProtocol,
    /// The address that the kernel uses, which may be another than the one written.
    pub addr: Option<SocketAddr>,
    /// The address was written as IPv4-mapped IPv6.
    pub mapped: bool,
    /// What decides.
    pub decided_by: Decider,
    /// False where an earlier rule stays [open](Standing::Open): then that one may decide.
    pub certain: bool,
    /// The verdict; of a dry run what it would be.
    pub verdict: SocketVerdict,
    /// It would be denied, and is allowed.
    pub dry_run: bool,
    /// The token bucket of the rule that decides.
    pub limit: Option<RuleLimit>,
    /// Every rule up to the one that decides, in order.
    pub rules: Vec<ExplainedRule>,
}

/// What a dimension answers.
struct Answer {
    dimension: Dimension,
    /// The rules that it satisfies.
    row: SockRow,
    /// Rules beyond those may be satisfied too.
    open: bool,
}

/// Answers as the hooks do, from the same tables.
///
/// # Errors
/// Those of the tables.
pub fn explain<T: SocketTables>(
    tables: &T,
    query: &SocketQuery,
) -> Result<SocketExplanation, T::Error> {
    let policy = tables.policy();
    let (addr, mapped) = effective_address(query.op, query.addr);
    let mut this = SocketExplanation {
        generation: policy.generation,
        op: query.op,
        protocol: query.protocol,
        addr,
        mapped,
        decided_by: Decider::Default,
        certain: true,
        verdict: verdict_of(policy.verdict[query.op as usize]),
        dry_run: false,
        limit: None,
        rules: Vec::new(),
    };
    if policy.generation == 0 {
        (this.decided_by, this.verdict) = (Decider::NoPolicy, SocketVerdict::Allow);
        return Ok(this);
    }
    let is_packet = query.op == SocketOp::Create && query.protocol == SocketProtocol::Packet;
    if is_packet && policy.packets == 0 {
        (this.decided_by, this.verdict) = (Decider::Unseen, SocketVerdict::Allow);
        return Ok(this);
    }
    match answers(tables, query, addr)?.zip(tables.row(0)) {
        Some((answers, all)) => this.walk(tables, &answers, &all),
        None => this.decided_by = Decider::Damage,
    }
    this.dry_run = this.verdict == SocketVerdict::Deny && (this.dry_run || policy.dry_run != 0);
    Ok(this)
}

fn verdict_of(raw: u8) -> SocketVerdict {
    if raw == abi::VERDICT_DROP { SocketVerdict::Deny } else { SocketVerdict::Allow }
}

/// The order in which dimensions are compared: that of [`Dimension`], not that of the kernel's rows.
const ORDER: [usize; abi::DIM_MAX] = [
    abi::DIM_KIND,
    abi::DIM_WHERE,
    abi::DIM_PORT,
    abi::DIM_EXE,
    abi::DIM_PARENT,
    abi::DIM_UID,
    abi::DIM_GID,
    abi::DIM_CGROUP,
    abi::DIM_COMM,
    abi::DIM_ANCESTRY,
    abi::DIM_ANCESTRY + 1,
];

/// The answer of each dimension; none where a row is missing.
fn answers<T: SocketTables>(
    tables: &T,
    query: &SocketQuery,
    addr: Option<SocketAddr>,
) -> Result<Option<Vec<Answer>>, T::Error> {
    let policy = tables.policy();
    let process_context = &query.process_context;
    let mut all = Vec::with_capacity(1 + abi::DIM_MAX);
    let Some(row) = direction(tables, query.op) else { return Ok(None) };
    all.push(Answer { dimension: Dimension::Direction, row, open: false });
    for dim in ORDER {
        let first = policy.none[dim];
        let id = |value| tables.id(dim, value);
        let named = |value| Ok(id(value)?.map_or(first, |id| id.row));
        let number = |number: Option<u32>| match number {
            Some(number) => named([u64::from(number), 0]),
            None => Ok(first),
        };
        let mut open = false;
        // The other answer, where it is not known which of the two holds.
        let mut or = None;
        let row = match dim {
            abi::DIM_KIND => kind(policy, query.op, query.protocol.abi()),
            _ if policy.dims >> dim & 1 == 0 => first,
            abi::DIM_WHERE => first + addr.map_or(0, |addr| class(tables, addr)),
            abi::DIM_PORT => first + addr.map_or(0, |addr| tables.port(addr.port())),
            abi::DIM_EXE | abi::DIM_PARENT => match &process_context.process {
                Some(process) => {
                    let (file, since) = match dim {
                        abi::DIM_EXE => (process.exe, process.exec_ns),
                        _ => (process.parent, process.parent_exec_ns),
                    };
                    let known = id(file.words())?;
                    match known.filter(|id| id.until_ns == 0 || since < id.until_ns) {
                        None => first,
                        Some(id) if dim == abi::DIM_PARENT || id.changed_ns[0] == 0 => id.row,
                        Some(id) if process.exe_changed_ns == 0 => {
                            or = Some(id.row);
                            id.changed_row
                        }
                        Some(id) if id.changed_ns.contains(&process.exe_changed_ns) => id.row,
                        Some(id) => id.changed_row,
                    }
                }
                None => first,
            },
            abi::DIM_UID => number(process_context.uid)?,
            abi::DIM_GID => number(process_context.gid)?,
            abi::DIM_CGROUP => match &process_context.cgroups {
                Cgroups::Known(ids) => cgroup(tables, ids)?.unwrap_or(first),
                Cgroups::Unknown => {
                    open = true;
                    first
                }
            },
            abi::DIM_COMM => {
                let mut name = [0; 16];
                let length = process_context.comm.len().min(15);
                name[..length].copy_from_slice(&process_context.comm[..length]);
                named(zerocopy::transmute!(name))?
            }
            _ => {
                let ancestry = process_context.process.map_or(0, |process| process.ancestry);
                first + (ancestry >> (8 * (dim - abi::DIM_ANCESTRY)) & 0xff) as u32
            }
        };
        let Some(mut row) = tables.row(row) else { return Ok(None) };
        if let Some(or) = or {
            let Some(or) = tables.row(or) else { return Ok(None) };
            row.logs &= or.logs;
            row.word.iter_mut().zip(or.word).for_each(|(both, word)| *both &= word);
            open = true;
        }
        all.push(Answer { dimension: Dimension::of(dim), row, open });
    }
    Ok(Some(all))
}

fn kind(policy: &SockPolicy, op: SocketOp, protocol: u8) -> u32 {
    u32::from(policy.kind[(op as usize) << 8 | usize::from(protocol)])
}

/// Rules that some protocol satisfies: what else is no rule for this operation.
fn direction<T: SocketTables>(tables: &T, op: SocketOp) -> Option<SockRow> {
    let mut rows: Vec<u32> = (0..=u8::MAX).map(|p| kind(tables.policy(), op, p)).collect();
    rows.sort_unstable();
    rows.dedup();
    let mut any = SockRow::NONE;
    for number in rows {
        let row = tables.row(number)?;
        any.logs |= row.logs;
        any.word.iter_mut().zip(row.word).for_each(|(all, word)| *all |= word);
    }
    Some(any)
}

fn class<T: SocketTables>(tables: &T, addr: SocketAddr) -> u32 {
    let policy = tables.policy();
    let root = if addr.is_ipv4() { policy.root4 } else { policy.root6 };
    match root {
        u32::MAX => 0,
        root => flat::lookup(|word| tables.flat(word), root, addr.ip()),
    }
}

/// The cgroup that a rule names and the process is in, the deepest of them.
fn cgroup<T: SocketTables>(tables: &T, ids: &[u64]) -> Result<Option<u32>, T::Error> {
    let policy = tables.policy();
    for level in policy.level.iter().take(policy.levels as usize) {
        let Some(&group) = ids.get(usize::from(*level)) else { continue };
        if let Some(id) = tables.id(abi::DIM_CGROUP, [group, 0])? {
            return Ok(Some(id.row));
        }
    }
    Ok(None)
}

fn decides(row: &SockRow, number: usize) -> bool {
    row.word[number / 64] >> (number % 64) & 1 == 1
}

fn logs(row: &SockRow, number: usize) -> bool {
    row.logs >> number & 1 == 1
}

/// Why a rule does not match, by whether a row has its bit; none where it does.
fn standing(answers: &[Answer], has: impl Fn(&SockRow) -> bool) -> Option<Standing> {
    let first = |open| answers.iter().find(|answer| answer.open == open && !has(&answer.row));
    match (first(false), first(true)) {
        (Some(failed), _) => Some(Standing::Fails { dimension: failed.dimension }),
        (None, Some(open)) => Some(Standing::Open { dimension: open.dimension }),
        (None, None) => None,
    }
}

impl SocketExplanation {
    fn walk<T: SocketTables>(&mut self, tables: &T, answers: &[Answer], all: &SockRow) {
        let mut logs_before = abi::SOCK_LOGS_MAX;
        let mut order = Vec::new();
        let numbers = (0..abi::SOCK_RULES_MAX).filter(|&number| decides(all, number));
        for number in numbers {
            let Some(rule) = tables.rule(number) else {
                self.decided_by = Decider::Damage;
                return;
            };
            let place = (rule.number as usize).saturating_sub(1);
            let standing = standing(answers, |row| decides(row, number));
            self.certain &= !matches!(standing, Some(Standing::Open { .. }));
            // Those that report come before it where it says so.
            order.push((usize::from(rule.logs), 1, number));
            self.explained(place, standing.unwrap_or(Standing::Decides));
            if standing.is_none() {
                self.decided_by = Decider::Rule { place };
                self.verdict = if rule.action == abi::SOCK_DENY {
                    SocketVerdict::Deny
                } else {
                    SocketVerdict::Allow
                };
                self.dry_run = rule.flags & abi::SOCK_RULE_DRY != 0;
                let limited = rule.flags & abi::SOCK_RULE_LIMITED != 0;
                self.limit = limited.then(|| RuleLimit {
                    interval_ns: rule.interval_ns,
                    at_once: rule.burst_ns.checked_div(rule.interval_ns).unwrap_or(0),
                });
                logs_before = usize::from(rule.logs);
                break;
            }
        }
        for number in (0..logs_before.min(abi::SOCK_LOGS_MAX)).filter(|&number| logs(all, number)) {
            let Some(rule) = tables.log(number) else { continue };
            let standing = standing(answers, |row| logs(row, number));
            let place = (rule.number as usize).saturating_sub(1);
            order.push((number + 1, 0, 0));
            self.explained(place, standing.unwrap_or(Standing::Reports));
        }
        let mut rules: Vec<_> = order.into_iter().zip(std::mem::take(&mut self.rules)).collect();
        rules.sort_by_key(|(order, _)| *order);
        self.rules = rules.into_iter().map(|(_, rule)| rule).collect();
    }

    fn explained(&mut self, place: usize, standing: Standing) {
        self.rules.push(ExplainedRule { place, id: None, name: String::new(), standing });
    }

    /// With ids and names of the rules. The policy has to be the one that was explained.
    #[must_use]
    pub fn named(mut self, policy: &CompiledSockets) -> Self {
        for rule in &mut self.rules {
            if let Some(SocketRuleInfo { id, name, .. }) = policy.rules().get(rule.place) {
                (rule.id, rule.name) = (Some(*id), name.clone());
            }
        }
        self
    }

    /// The rule that decides.
    pub fn rule(&self) -> Option<&ExplainedRule> {
        self.rules.iter().find(|rule| rule.standing == Standing::Decides)
    }

    /// Rules that report and decide nothing; the first of them writes an event.
    pub fn reported_by(&self) -> impl Iterator<Item = &ExplainedRule> {
        self.rules.iter().filter(|rule| rule.standing == Standing::Reports)
    }
}

impl fmt::Display for Dimension {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl fmt::Display for RuleLimit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let every = std::time::Duration::from_nanos(self.interval_ns);
        write!(f, "{} at once and one every {every:?}, if its bucket has any left", self.at_once)
    }
}

/// `rule #3 (id 17, `updates`)`: places are counted from 1, as events show them.
impl fmt::Display for ExplainedRule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "rule #{}", self.place + 1)?;
        if let Some(id) = self.id {
            write!(f, " (id {id}, `{}`)", self.name)?;
        }
        match self.standing {
            Standing::Decides => f.write_str(" decides"),
            Standing::Reports => f.write_str(" reports"),
            Standing::Fails { dimension } => write!(f, " does not match: {dimension}"),
            Standing::Open { dimension } => write!(f, " may match: the {dimension} is not known"),
        }
    }
}

/// The answer, then a line for each rule up to the one that decides.
impl fmt::Display for SocketExplanation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let verdict = match self.verdict {
            SocketVerdict::Deny if self.dry_run => "would deny",
            SocketVerdict::Deny => "deny",
            SocketVerdict::Allow => "allow",
        };
        write!(f, "{verdict} {} {}", self.protocol, self.op)?;
        if let Some(addr) = self.addr {
            write!(f, " {addr}")?;
        }
        if self.mapped {
            f.write_str(" (written as IPv6)")?;
        }
        match self.decided_by {
            Decider::Rule { place } => write!(f, ": rule #{}", place + 1)?,
            Decider::Default => f.write_str(": default")?,
            Decider::NoPolicy => f.write_str(": no policy is loaded")?,
            Decider::Unseen => f.write_str(": the policy leaves packet sockets unseen")?,
            Decider::Damage => f.write_str(": default, because tables are damaged")?,
        }
        if let Some(limit) = self.limit {
            write!(f, ", {limit}")?;
        }
        if !self.certain {
            f.write_str("; an earlier rule may decide instead")?;
        }
        self.rules.iter().try_for_each(|rule| write!(f, "\n  {rule}"))
    }
}
