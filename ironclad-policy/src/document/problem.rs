use std::fmt;
use std::io;

use crate::country::CountryError;
use crate::error::PolicyError;
use crate::list::ListError;

/// What is wrong with a policy file.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Problem {
    /// The file cannot be read.
    #[error(transparent)]
    Io(io::Error),
    /// The file is too long.
    #[error("it has more than {limit} bytes: keep prefixes in lists, which may be longer")]
    TooLarge {
        /// The most bytes that it may have.
        limit: usize,
    },
    /// The file has no key.
    #[error("it says nothing: a policy that allows everything is `default: allow`")]
    Empty,
    /// The text is not YAML, or is YAML that policies have no use for.
    #[error("{0}")]
    Syntax(String),
    /// Mappings and sequences within each other.
    #[error("nested deeper than any policy")]
    TooDeep,
    /// Items of sequences and mappings.
    #[error("more than {limit} items, aliases counted each time: keep prefixes in lists")]
    TooManyItems {
        /// The most items that there may be.
        limit: usize,
    },
    /// Text that aliases repeat.
    #[error("more than {limit} bytes of text, aliases counted each time")]
    TooMuchText {
        /// The most bytes that there may be.
        limit: usize,
    },
    /// A key that a mapping has already.
    #[error("duplicate key `{key}`: line {first} has it, too")]
    DuplicateKey {
        /// The key.
        key: String,
        /// The line of the first.
        first: u32,
    },
    /// A key that is not of the format.
    #[error("unknown key `{key}`")]
    UnknownKey {
        /// The key.
        key: String,
        /// The keys that there are.
        expected: Vec<&'static str>,
    },
    /// A key without which nothing can be done.
    #[error("the key `{key}` is missing")]
    MissingKey {
        /// The key.
        key: &'static str,
    },
    /// A word in place of one of a few.
    #[error("unknown value `{value}`")]
    UnknownValue {
        /// The word.
        value: String,
        /// The words that there are.
        expected: Vec<&'static str>,
    },
    /// A value that cannot be read, or that makes no sense.
    #[error("{0}")]
    Value(String),
    /// A name that nothing has.
    #[error("no {kind} is called `{name}`{}", hint(*kind, name))]
    UnknownName {
        /// What it should be the name of.
        kind: NameKind,
        /// The name.
        name: String,
    },
    /// Two rules have one id.
    #[error("line {first} has a rule {id}, too: give one of them another id")]
    IdTwice {
        /// The id.
        id: u32,
        /// The line of the first.
        first: u32,
    },
    /// A list cannot be read.
    #[error(transparent)]
    List(ListError),
    /// A country's addresses cannot be read.
    #[error(transparent)]
    Country(CountryError),
    /// A feed cannot be had.
    #[error("feed `{name}`: {why}")]
    Feed {
        /// Its name.
        name: String,
        /// Why.
        why: String,
    },
    /// The policy cannot be compiled.
    #[error(transparent)]
    Policy(PolicyError),
}

fn hint(kind: NameKind, name: &str) -> &'static str {
    match kind == NameKind::Addresses && name.contains('.') {
        true => ", and names of hosts are not looked up: write their addresses",
        false => "",
    }
}

/// What a policy file gives names to, or has from elsewhere by name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum NameKind {
    /// Under `addresses`.
    Addresses,
    /// Under `subjects`.
    Subject,
    /// Under `limits`.
    Limit,
    /// A feed of the file, or of the program that reads it.
    Feed,
    /// A country by its ISO code.
    Country,
    /// A user of this host.
    User,
    /// A group of this host.
    Group,
}

impl fmt::Display for NameKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Addresses => "set of addresses",
            Self::Subject => "subject",
            Self::Limit => "limit",
            Self::Feed => "feed",
            Self::Country => "country",
            Self::User => "user",
            Self::Group => "group",
        })
    }
}
