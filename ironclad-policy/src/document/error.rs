use std::fmt::{self, Write};

use super::fault::{Details, Fault};
use super::place::{KeyPath, Place};
use super::problem::Problem;
use super::text::alternatives;
use crate::error::{Failure, PolicyError};

/// Why a policy file cannot be used: where, what is wrong, and what may have been meant.
///
/// Shown as `rules.yaml:12:11: rules[3].subject: no subject is called `atp`: did you mean `apt`?`, the
/// form that editors jump to. Texts of the file are shown without control characters.
#[derive(Debug)]
pub struct DocumentError {
    file: String,
    fault: Fault,
}

impl PolicyError {
    /// The error with its place, where a file describes the policy.
    pub fn document(&self) -> Option<&DocumentError> {
        match self.failure() {
            Failure::Located { error, .. } => error.downcast_ref(),
            _ => None,
        }
    }
}

impl DocumentError {
    pub(super) fn new(file: &str, fault: Fault) -> Self {
        Self { file: file.to_owned(), fault }
    }

    /// The file, or the name that the text was read under.
    pub fn file(&self) -> &str {
        &self.file
    }

    /// Where in the file; none if it is about the whole of it.
    pub fn place(&self) -> Option<Place> {
        self.fault.details().place
    }

    /// The keys that lead to the place.
    pub fn path(&self) -> &KeyPath {
        &self.fault.details().path
    }

    /// What is wrong.
    pub fn problem(&self) -> &Problem {
        &self.fault.details().problem
    }

    /// What may have been meant.
    pub fn suggestion(&self) -> Option<&str> {
        self.fault.details().suggestion.as_deref()
    }
}

impl fmt::Display for DocumentError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Details { place, path, problem, suggestion } = self.fault.details();
        write!(f, "{}", self.file)?;
        if let Some(Place { line, column }) = place {
            write!(f, ":{line}:{column}")?;
        }
        f.write_str(": ")?;
        if !path.is_root() {
            write!(f, "{path}: ")?;
        }
        for c in problem.to_string().chars() {
            // Names of files may have any; lists have their errors on lines of their own.
            match c.is_control() && c != '\n' {
                true => write!(f, "{}", c.escape_default())?,
                false => f.write_char(c)?,
            }
        }
        match (suggestion, problem) {
            (Some(meant), _) => write!(f, ": did you mean `{meant}`?"),
            (
                None,
                Problem::UnknownKey { expected, .. } | Problem::UnknownValue { expected, .. },
            ) => write!(f, ": expected {}", alternatives(expected)),
            _ => Ok(()),
        }
    }
}

impl std::error::Error for DocumentError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        std::error::Error::source(&self.fault.details().problem)
    }
}
