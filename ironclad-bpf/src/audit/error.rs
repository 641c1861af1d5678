use std::io;

use super::report::Refusal;

/// Why an audit did not end well.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum AuditError {
    /// The bytes are no object that the audit can read.
    #[error("the object {what}")]
    Object {
        /// What is wrong and what to do.
        what: String,
    },
    /// Programs may not be loaded.
    #[error("refused by the audit: {0}")]
    Refused(Refusal),
    /// libbpf could not open or prepare the object.
    #[error("libbpf could not {step} the object: {source}{}{}", next_of(source), said(log))]
    Prepare {
        /// `open` or `prepare`.
        step: &'static str,
        /// What libbpf or the kernel said.
        source: io::Error,
        /// libbpf's own words, one message a line.
        log: String,
    },
    /// What the kernel runs is not what was audited.
    #[error(
        "program `{program}` in the kernel is not the one that was audited: {what}; unload it, and find out what changes programs in this process, such as a section handler registered with libbpf"
    )]
    Changed {
        /// The program.
        program: String,
        /// What differs.
        what: String,
    },
    /// The kernel could not be asked about a loaded program.
    #[error("{step} failed: {source}{}", next_of(source))]
    System {
        /// What was tried.
        step: &'static str,
        /// What the kernel said.
        source: io::Error,
    },
}

fn next_of(source: &io::Error) -> &'static str {
    match source.raw_os_error() {
        Some(libc::EPERM | libc::EACCES) => {
            " (needs CAP_BPF and CAP_NET_ADMIN: run as root or grant them)"
        }
        Some(libc::ESRCH) => " (this kernel lacks something that the object refers to)",
        _ => "",
    }
}

fn said(log: &str) -> String {
    if log.is_empty() { String::new() } else { format!("\n{}", log.trim_end()) }
}
