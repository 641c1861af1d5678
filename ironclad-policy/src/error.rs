use std::error::Error;
use std::fmt;

use ironclad_core::{GatewayError, RuleId};

/// Why a policy cannot be compiled.
///
/// Display names the rule or the limit, and what to do.
#[derive(Debug)]
pub struct PolicyError(Box<Failure>);

/// What is wrong with a policy: [`PolicyError::kind`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum PolicyErrorKind {
    /// One rule id has two names.
    RuleName,
    /// A rule has the id 0, which events and counters have where no rule decided.
    NoId,
    /// A set has neither addresses nor lists.
    EmptySet,
    /// A rule's name is empty, or would disturb a terminal or fill it.
    UnfitName,
    /// A tuple has a port, but not a protocol that has ports.
    PortWithoutProtocol,
    /// A tuple's addresses are of different families.
    MixedFamilies,
    /// A socket rule could never match, or contradicts itself.
    SocketRule,
    /// A file rule covers nothing, or names what is no path.
    FileRule,
    /// A socket rule names a group of addresses that does not exist.
    UnknownGroup,
    /// Two groups of addresses have one name.
    GroupTwice,
    /// A gateway is not the address of a host.
    Gateway,
    /// Something is over its limit.
    Limit,
}

impl PolicyError {
    /// What is wrong.
    pub fn kind(&self) -> PolicyErrorKind {
        self.0.kind()
    }

    /// The rule that is wrong; none where the error is about the whole policy.
    pub fn rule(&self) -> Option<RuleId> {
        match &*self.0 {
            Failure::RuleName { rule, .. }
            | Failure::EmptySet { rule, .. }
            | Failure::UnfitName { rule, .. }
            | Failure::PortWithoutProtocol { rule, .. }
            | Failure::MixedFamilies { rule, .. }
            | Failure::SocketRule { rule, .. }
            | Failure::FileRule { rule, .. }
            | Failure::UnknownGroup { rule, .. } => Some(*rule),
            Failure::NoId { .. } => Some(RuleId(0)),
            Failure::Located { rule, .. } => *rule,
            Failure::GroupTwice { .. } | Failure::Gateway(_) | Failure::Limit { .. } => None,
        }
    }

    /// The same with the place at which a file describes what is wrong.
    #[cfg(feature = "document")]
    pub(crate) fn located(self, locate: impl FnOnce(Self) -> Box<dyn Error + Send + Sync>) -> Self {
        let (kind, rule) = (self.kind(), self.rule());
        Self(Box::new(Failure::Located { kind, rule, error: locate(self) }))
    }

    #[cfg(any(test, feature = "document"))]
    pub(crate) fn failure(&self) -> &Failure {
        &self.0
    }

    #[cfg(feature = "document")]
    pub(crate) fn into_failure(self) -> Failure {
        *self.0
    }
}

impl From<Failure> for PolicyError {
    fn from(failure: Failure) -> Self {
        Self(Box::new(failure))
    }
}

impl fmt::Display for PolicyError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl Error for PolicyError {}

/// What is wrong, with its particulars.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Failure {
    #[error("rule {rule} is called `{first}` and `{second}`: give one of them another id")]
    RuleName { rule: RuleId, first: String, second: String },
    #[error("rule `{name}` has the id 0, which stands for no rule: use an id from 1 on")]
    NoId { name: String },
    #[error("rule {rule} (`{name}`): the set is empty: add an address or a list, or remove it")]
    EmptySet { rule: RuleId, name: String },
    #[error(
        "rule {rule}: `{}` is no name: use 1 to 128 characters, none of them a control character",
        name.chars().take(40).flat_map(char::escape_default).collect::<String>()
    )]
    UnfitName { rule: RuleId, name: String },
    #[error(
        "rule {rule} (`{name}`): a destination port needs a protocol with ports (tcp, udp, sctp, dccp or udplite)"
    )]
    PortWithoutProtocol { rule: RuleId, name: String },
    #[error(
        "rule {rule} (`{name}`): source and destination are of different IP versions, no packet matches"
    )]
    MixedFamilies { rule: RuleId, name: String },
    #[error("rule {rule} (`{name}`): {what}")]
    SocketRule { rule: RuleId, name: String, what: String },
    #[error("rule {rule} (`{name}`): {what}")]
    FileRule { rule: RuleId, name: String, what: String },
    #[error("rule {rule}: no group of addresses is called `{name}`")]
    UnknownGroup { rule: RuleId, name: String },
    #[error("two groups of addresses are called `{name}`: give one of them another name")]
    GroupTwice { name: String },
    /// Another failure, of a policy that a file describes.
    #[cfg_attr(not(feature = "document"), allow(dead_code))]
    #[error("{error}")]
    Located { kind: PolicyErrorKind, rule: Option<RuleId>, error: Box<dyn Error + Send + Sync> },
    #[error(transparent)]
    Gateway(GatewayError),
    #[error("the policy has {value} {what}, the limit is {limit}{}", next_of(next))]
    Limit { what: &'static str, value: u64, limit: u64, next: &'static str },
}

impl Failure {
    fn kind(&self) -> PolicyErrorKind {
        match self {
            Self::RuleName { .. } => PolicyErrorKind::RuleName,
            Self::NoId { .. } => PolicyErrorKind::NoId,
            Self::EmptySet { .. } => PolicyErrorKind::EmptySet,
            Self::UnfitName { .. } => PolicyErrorKind::UnfitName,
            Self::PortWithoutProtocol { .. } => PolicyErrorKind::PortWithoutProtocol,
            Self::MixedFamilies { .. } => PolicyErrorKind::MixedFamilies,
            Self::SocketRule { .. } => PolicyErrorKind::SocketRule,
            Self::FileRule { .. } => PolicyErrorKind::FileRule,
            Self::UnknownGroup { .. } => PolicyErrorKind::UnknownGroup,
            Self::GroupTwice { .. } => PolicyErrorKind::GroupTwice,
            Self::Gateway(GatewayError::NoHost(_)) => PolicyErrorKind::Gateway,
            Self::Gateway(_) | Self::Limit { .. } => PolicyErrorKind::Limit,
            Self::Located { kind, .. } => *kind,
        }
    }
}

/// Whether a rule has an id and a name.
pub(crate) fn check_rule(rule: RuleId, name: &str) -> Result<(), PolicyError> {
    if rule == RuleId(0) {
        return Err(Failure::NoId { name: name.to_owned() }.into());
    }
    let length = name.chars().count();
    if length == 0 || length > 128 || name.chars().any(char::is_control) {
        return Err(Failure::UnfitName { rule, name: name.to_owned() }.into());
    }
    Ok(())
}

fn next_of(next: &str) -> String {
    if next.is_empty() { String::new() } else { format!(": {next}") }
}
