//! Where something stands in a document.

use std::fmt;

use super::text::shown;

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
pub(super) const FORMER: [(&str, &str); 2] = [("subject", "who"), ("id", "rule")];

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
