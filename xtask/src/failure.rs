//! The one error type of this tool: a sentence for a person, with the places it passed through.

use std::fmt;

pub(crate) type Result<T> = std::result::Result<T, Failure>;

/// What went wrong and, where known, what to do next.
#[derive(Debug)]
pub(crate) struct Failure(String);

impl Failure {
    pub(crate) fn new(message: impl Into<String>) -> Self {
        Self(message.into())
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Failure {}

impl From<String> for Failure {
    fn from(message: String) -> Self {
        Self(message)
    }
}

impl From<&str> for Failure {
    fn from(message: &str) -> Self {
        Self(message.to_owned())
    }
}

/// Puts the place in front of the cause: `reading /a/b: permission denied`.
pub(crate) trait Context<T> {
    fn context(self, place: impl fmt::Display) -> Result<T>;
}

impl<T, E: fmt::Display> Context<T> for std::result::Result<T, E> {
    fn context(self, place: impl fmt::Display) -> Result<T> {
        self.map_err(|cause| Failure(format!("{place}: {cause}")))
    }
}

impl<T> Context<T> for Option<T> {
    fn context(self, place: impl fmt::Display) -> Result<T> {
        self.ok_or_else(|| Failure(place.to_string()))
    }
}
