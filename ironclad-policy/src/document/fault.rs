//! What is wrong with a document, while it is being read.

use std::fmt;

use serde::de;

use super::place::{FORMER, KeyPath, Place};
use super::problem::Problem;
use super::text::{nearest, shown};

/// A [`DocumentError`](super::DocumentError) that does not know its file yet.
#[derive(Debug)]
pub(super) struct Fault(Box<Details>);

/// The particulars of a fault.
#[derive(Debug)]
pub(super) struct Details {
    pub(super) place: Option<Place>,
    pub(super) path: KeyPath,
    pub(super) problem: Problem,
    pub(super) suggestion: Option<String>,
}

impl Fault {
    pub(super) fn new(problem: Problem) -> Self {
        let path = KeyPath::default();
        Self(Box::new(Details { place: None, path, problem, suggestion: None }))
    }

    pub(super) fn value(what: impl fmt::Display) -> Self {
        Self::new(Problem::Value(what.to_string()))
    }

    /// The place is that of the innermost value; later calls change nothing.
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

    pub(super) fn details(&self) -> &Details {
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
        "a nonzero u32" => "a number from 1 to 4294967295".to_owned(),
        "u64" => "a number from 0 on".to_owned(),
        "a boolean" => "true or false".to_owned(),
        "a map" => "a mapping of keys".to_owned(),
        "a sequence" => "a list".to_owned(),
        "a string" | "path string" => "a text".to_owned(),
        "field identifier" => "a key".to_owned(),
        _ if text.starts_with("struct ") => "a mapping of keys".to_owned(),
        _ => text,
    }
}
