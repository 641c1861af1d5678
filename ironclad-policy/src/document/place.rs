//! Where something stands in a document.

use std::fmt;

use serde::de;

use super::error::{Problem, shown};
use super::suggest::nearest;

/// A place in a text.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Place {
    /// The line, from 1.
    pub line: u32,
    /// The column in characters, from 1.
    pub column: u32,
}

impl Place {
    /// As many lines further down.
    pub(super) fn down(self, lines: u32) -> Self {
        Self { line: self.line.saturating_add(lines), ..self }
    }
}

/// A step from a mapping or a sequence to what is in it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// By a key.
    Key(String),
    /// By a position, from 0.
    Index(usize),
}

impl From<&str> for Step {
    fn from(key: &str) -> Self {
        Self::Key(key.to_owned())
    }
}

impl From<usize> for Step {
    fn from(index: usize) -> Self {
        Self::Index(index)
    }
}

/// The keys that lead to a place: `rules[3].subject`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct KeyPath(pub(super) Vec<Step>);

impl KeyPath {
    /// The steps from the outermost mapping.
    pub fn steps(&self) -> &[Step] {
        &self.0
    }

    /// Whether it leads to no file.
    pub fn is_root(&self) -> bool {
        self.0.is_empty()
    }
}

impl fmt::Display for KeyPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (number, step) in self.0.iter().enumerate() {
            match step {
                Step::Key(key) if number == 0 => f.write_str(&shown(key))?,
                Step::Key(key) => write!(f, ".{}", shown(key))?,
                Step::Index(index) => write!(f, "[{index}]")?,
            }
        }
        Ok(())
    }
}

/// Keys, and the words that earlier versions had for them, which are read still.
const FORMER: [(&str, &str); 2] = [("subject", "who"), ("id", "rule")];

/// The word that earlier versions had for a key.
pub(super) fn former(key: &str) -> Option<&'static str> {
    FORMER.iter().find(|(present, _)| *present == key).map(|(_, former)| *former)
}

/// The keys from the root to where a reader is, without an allocation.
#[derive(Clone, Copy)]
pub(super) enum Trail<'a> {
    Root,
    Key(&'a Trail<'a>, &'a str),
    Index(&'a Trail<'a>, usize),
}

impl Trail<'_> {
    pub(super) fn path(&self) -> KeyPath {
        let mut steps = Vec::new();
        let mut trail = self;
        loop {
            trail = match trail {
                Trail::Root => break,
                Trail::Key(before, key) => {
                    steps.push(Step::from(*key));
                    before
                }
                Trail::Index(before, index) => {
                    steps.push(Step::Index(*index));
                    before
                }
            };
        }
        steps.reverse();
        KeyPath(steps)
    }
}

/// A [`DocumentError`](super::DocumentError) that does not know its file yet.
#[derive(Debug)]
pub(super) struct Fault(Box<Told>);

/// What a fault tells.
#[derive(Debug)]
pub(super) struct Told {
    pub(super) place: Option<Place>,
    pub(super) path: KeyPath,
    pub(super) problem: Problem,
    pub(super) suggestion: Option<String>,
}

impl Fault {
    pub(super) fn new(problem: Problem) -> Self {
        let path = KeyPath::default();
        Self(Box::new(Told { place: None, path, problem, suggestion: None }))
    }

    pub(super) fn value(what: impl fmt::Display) -> Self {
        Self::new(Problem::Value(what.to_string()))
    }

    /// Whoever is nearest to what is wrong says where it is.
    pub(super) fn at(mut self, place: Place, path: impl FnOnce() -> KeyPath) -> Self {
        if self.0.place.is_none() {
            self.0.place = Some(place);
            self.0.path = path();
        }
        self
    }

    /// As many lines further down, where it has a place.
    pub(super) fn down(mut self, lines: u32) -> Self {
        self.0.place = self.0.place.map(|place| place.down(lines));
        self
    }

    pub(super) fn suggest(mut self, meant: Option<&str>) -> Self {
        self.0.suggestion = meant.map(shown);
        self
    }

    pub(super) fn told(&self) -> &Told {
        &self.0
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.problem.fmt(f)
    }
}

impl std::error::Error for Fault {}

impl de::Error for Fault {
    fn custom<T: fmt::Display>(what: T) -> Self {
        Self::value(what)
    }

    fn invalid_type(found: de::Unexpected<'_>, expected: &dyn de::Expected) -> Self {
        let found = match found {
            de::Unexpected::Unit => "nothing".to_owned(),
            de::Unexpected::Map => "a mapping of keys".to_owned(),
            de::Unexpected::Seq => "a list".to_owned(),
            de::Unexpected::Str(text) => format!("`{}`", shown(text)),
            de::Unexpected::Unsigned(number) => format!("`{number}`"),
            de::Unexpected::Signed(number) => format!("`{number}`"),
            de::Unexpected::Bool(answer) => format!("`{answer}`"),
            other => other.to_string(),
        };
        Self::custom(format_args!("found {found}, expected {}", wanted(expected)))
    }

    fn invalid_value(found: de::Unexpected<'_>, expected: &dyn de::Expected) -> Self {
        Self::invalid_type(found, expected)
    }

    fn unknown_field(key: &str, expected: &'static [&'static str]) -> Self {
        // Serde lists aliases, too.
        let is_present = |word: &&str| !FORMER.iter().any(|(_, former)| former == word);
        let expected: Vec<_> = expected.iter().copied().filter(is_present).collect();
        let meant = nearest(key, expected.iter().copied());
        let problem = Problem::UnknownKey { key: shown(key), expected };
        Self::new(problem).suggest(meant)
    }

    fn unknown_variant(value: &str, expected: &'static [&'static str]) -> Self {
        let meant = nearest(value, expected.iter().copied());
        let problem = Problem::UnknownValue { value: shown(value), expected: expected.to_vec() };
        Self::new(problem).suggest(meant)
    }

    fn missing_field(key: &'static str) -> Self {
        Self::new(Problem::MissingKey { key })
    }
}

/// What a person would call it.
fn wanted(expected: &dyn de::Expected) -> String {
    let text = expected.to_string();
    match text.as_str() {
        "u8" => "a number from 0 to 255".to_owned(),
        "u16" => "a number from 0 to 65535".to_owned(),
        "u32" => "a number from 0 to 4294967295".to_owned(),
        "a boolean" => "true or false".to_owned(),
        "a map" => "a mapping of keys".to_owned(),
        "a sequence" => "a list".to_owned(),
        "a string" | "path string" => "a text".to_owned(),
        "field identifier" => "a key".to_owned(),
        _ if text.starts_with("struct ") => "a mapping of keys".to_owned(),
        _ => text,
    }
}
