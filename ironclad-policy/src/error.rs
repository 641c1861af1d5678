use ironclad_core::RuleId;

use crate::document::DocumentError;

/// Why a policy cannot be compiled.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PolicyError {
    /// One rule id has two names.
    #[error("rule {rule} is called `{first}` and `{second}`: give one of them another id")]
    RuleName {
        /// The id.
        rule: RuleId,
        /// The name that came first.
        first: String,
        /// The other.
        second: String,
    },
    /// A rule has the id 0, which events and counters have where no rule decided.
    #[error("rule `{name}` has the id 0, which stands for no rule: use an id from 1 on")]
    NoId {
        /// The rule's name.
        name: String,
    },
    /// A set has neither addresses nor lists.
    #[error("rule {rule} (`{name}`): the set is empty: add an address or a list, or remove it")]
    EmptySet {
        /// The id.
        rule: RuleId,
        /// Its name.
        name: String,
    },
    /// A rule's name is empty, or would disturb a terminal or fill it.
    #[error(
        "rule {rule}: `{}` is no name: use 1 to 128 characters, none of them a control character",
        name.chars().take(40).flat_map(char::escape_default).collect::<String>()
    )]
    UnfitName {
        /// The id.
        rule: RuleId,
        /// The name.
        name: String,
    },
    /// A tuple has a port, but not a protocol that has ports.
    #[error(
        "rule {rule} (`{name}`): a destination port needs a protocol with ports (tcp, udp, sctp, dccp or udplite)"
    )]
    PortWithoutProtocol {
        /// The id.
        rule: RuleId,
        /// Its name.
        name: String,
    },
    /// A tuple's addresses are of different families.
    #[error(
        "rule {rule} (`{name}`): source and destination are of different IP versions, no packet matches"
    )]
    MixedFamilies {
        /// The id.
        rule: RuleId,
        /// Its name.
        name: String,
    },
    /// A socket rule could never match, or contradicts itself.
    #[error("rule {rule} (`{name}`): {what}")]
    SocketRule {
        /// The id.
        rule: RuleId,
        /// Its name.
        name: String,
        /// What is wrong, and what to write.
        what: String,
    },
    /// A file rule covers nothing, or names what is no path.
    #[error("rule {rule} (`{name}`): {what}")]
    FileRule {
        /// The id.
        rule: RuleId,
        /// Its name.
        name: String,
        /// What is wrong, and what to write.
        what: String,
    },
    /// A socket rule names a group of addresses that there is not.
    #[error("rule {rule}: no group of addresses is called `{name}`")]
    UnknownGroup {
        /// The id.
        rule: RuleId,
        /// The name.
        name: String,
    },
    /// Two groups of addresses have one name.
    #[error("two groups of addresses are called `{name}`: give one of them another name")]
    GroupTwice {
        /// The name.
        name: String,
    },
    /// One of the others, of a policy that a file describes.
    #[error(transparent)]
    Document(Box<DocumentError>),
    /// Something is over its limit.
    #[error("the policy has {value} {what}, the limit is {limit}{}", next_of(next))]
    Limit {
        /// What there is too much of.
        what: &'static str,
        /// How much of it.
        value: u64,
        /// The most there may be.
        limit: u64,
        /// What to do.
        next: &'static str,
    },
}

/// Whether a rule can be told from others by its id and name.
pub(crate) fn check_rule(rule: RuleId, name: &str) -> Result<(), PolicyError> {
    if rule == RuleId(0) {
        return Err(PolicyError::NoId { name: name.to_owned() });
    }
    let length = name.chars().count();
    if length == 0 || length > 128 || name.chars().any(char::is_control) {
        return Err(PolicyError::UnfitName { rule, name: name.to_owned() });
    }
    Ok(())
}

fn next_of(next: &str) -> String {
    if next.is_empty() { String::new() } else { format!(": {next}") }
}
