use std::io;

/// Why a lab could not be built.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LabError {
    /// A command failed.
    #[error("`{command}` failed: {message}")]
    Command {
        /// The command line.
        command: String,
        /// Its standard error.
        message: String,
    },
    /// The kernel refused.
    #[error("{step} failed: {source}{}", hint_of(source))]
    System {
        /// The step, a gerund.
        step: &'static str,
        /// The kernel's error.
        source: io::Error,
    },
}

fn hint_of(source: &io::Error) -> &'static str {
    if source.kind() == io::ErrorKind::PermissionDenied { " (needs root)" } else { "" }
}
