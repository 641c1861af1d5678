//! Signed policies: a policy file behind a header, and signatures of the tool minisign over both.
//!
//! ```text
//! ironclad-bundle: 1
//! serial: 7
//! made: 1764547200
//! expires: 1796083200
//! hosts: web-*, db-1
//! key: 6B2E1A0F9C3D4E5F
//!
//! default: allow
//! ```
//!
//! Behind the empty line follows a policy file as [`document`](crate::document) reads it. The bundle's
//! bytes are what is signed, with `minisign -S -m FILE`: nothing is left out, and there is one way to
//! write a header. See `docs/signed-policy.md`.

mod header;
mod minisign;
mod store;
mod token;

pub use header::{Header, HostPattern};
pub use minisign::{KeyId, PublicKey};
pub use store::{Accepted, TrustStore, now};
pub use token::{Permit, Token};

use ironclad_core::audit::AuditError;

use crate::document::DocumentError;

/// Most bytes of a bundle: what a policy file may have, and a header.
pub const MAX_BUNDLE: usize = (4 << 20) + (64 << 10);

/// Which signed bundle a policy is from.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Signed {
    /// Counts up with each bundle.
    pub serial: u64,
    /// Seconds since 1970 UTC.
    pub expires: u64,
    /// Whose signatures it has.
    pub signers: Vec<KeyId>,
}

/// Why a bundle or a token is refused. The policy in force and the trusted keys stay as they were.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum BundleError {
    /// A public key is none of minisign's.
    #[error("public key: {0}")]
    Key(&'static str),
    /// A signature is none of minisign's.
    #[error("signature: {0}")]
    Signature(&'static str),
    /// A signature was made by a key that is not trusted.
    #[error("key {key} is not trusted here: trusted are {}", list(trusted))]
    UnknownKey {
        /// The key that the signature names.
        key: KeyId,
        /// Those that are.
        trusted: Vec<KeyId>,
    },
    /// A signature is of other bytes, or was changed.
    #[error(
        "the signature by key {0} does not fit: what it signs was changed, or the signature was"
    )]
    Forged(KeyId),
    /// There are fewer good signatures than needed.
    #[error("{found} of {needed} signatures: sign it with another key as well")]
    TooFew {
        /// By different keys.
        found: usize,
        /// As many as there have to be.
        needed: usize,
    },
    /// The text is not in its form.
    #[error("line {line}: {what}")]
    Form {
        /// From 1.
        line: usize,
        /// What is wrong.
        what: String,
    },
    /// It is for other hosts.
    #[error("it is for {}, and this host is `{host}`", hosts.join(", "))]
    Host {
        /// This host.
        host: String,
        /// For whom it is.
        hosts: Vec<String>,
    },
    /// It is older than the last one accepted, or another of the same number.
    #[error("it has serial {found}, and {last} was accepted before: a later one is needed")]
    Replayed {
        /// Its own.
        found: u64,
        /// That of the last one.
        last: u64,
    },
    /// Its time is over.
    #[error("it expired at {expired}, and {} (seconds since 1970 UTC)", by(*clock, *signed))]
    Expired {
        /// When.
        expired: u64,
        /// What this host's clock says.
        clock: u64,
        /// When the latest of those accepted before was made: where the clock says less, it is behind.
        signed: u64,
    },
    /// It was made in the future, or this host's clock is behind.
    #[error(
        "it was made at {made}, and {} (seconds since 1970 UTC): set the clock if it is behind; otherwise sign it anew with the right time",
        by(*clock, *signed)
    )]
    Ahead {
        /// When it says that it was made.
        made: u64,
        /// What this host's clock says.
        clock: u64,
        /// When the latest of those accepted before was made.
        signed: u64,
    },
    /// Its policy cannot be read.
    #[error(transparent)]
    Policy(#[from] DocumentError),
    /// It was accepted, but its audit record was refused.
    #[error(transparent)]
    Audit(#[from] AuditError),
    /// What is trusted could not be read or kept.
    #[error("{}: {step} failed", path.display())]
    State {
        /// The file.
        path: std::path::PathBuf,
        /// What was tried.
        step: &'static str,
        /// What the system said.
        source: std::io::Error,
    },
}

/// The time, and where it is from.
fn by(clock: u64, signed: u64) -> String {
    match clock < signed {
        true => format!(
            "it is no earlier than {signed} by what was accepted before: the clock, which says {clock}, is behind"
        ),
        false => format!("the clock says {clock}"),
    }
}

fn list(keys: &[KeyId]) -> String {
    keys.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
}
