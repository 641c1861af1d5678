use std::fmt;
use std::str::FromStr;

use super::header::{Begin, HostPattern, Lines, ends_in_lf, number, written_so, wrong};
use super::{BundleError, KeyId};

const KIND: &str = "ironclad-break-glass";
/// A day.
const MOST_SECONDS: u64 = 86_400;

/// What the holder of a key permits once: see `docs/signed-policy.md`.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Token {
    /// Counts up with each token, from 1; bundles count by themselves.
    pub serial: u64,
    /// When it was made, seconds since 1970 UTC.
    pub made: u64,
    /// When it ends unless it was used, seconds since 1970 UTC.
    pub expires: u64,
    /// For whom it is.
    pub hosts: Vec<HostPattern>,
    /// The key that signs it, or one of them.
    pub key: KeyId,
    /// What it permits.
    pub permits: Permit,
}

/// What a [`Token`] permits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Permit {
    /// Sentinel allows signals to the agent; the kernel's own checks remain.
    Stop {
        /// For how long from when the token is used, at most a day.
        seconds: u64,
    },
    /// The agent may undo what it has put into the kernel for good.
    Uninstall,
}

impl Token {
    /// One that stands for all hosts.
    pub fn new(serial: u64, made: u64, expires: u64, key: KeyId, permits: Permit) -> Self {
        Self { serial, made, expires, hosts: vec![HostPattern::all()], key, permits }
    }
}

impl FromStr for Token {
    type Err = BundleError;

    /// Reads a token. Nothing is verified by that: only what
    /// [`TrustStore::take_token`](super::TrustStore::take_token) accepts is a permission of a trusted key.
    fn from_str(text: &str) -> Result<Self, BundleError> {
        ends_in_lf(text)?;
        let mut lines = Lines::new(text);
        let Begin { serial, made, expires, hosts, key } = lines.begin(KIND)?;
        let permits = match lines.wanted("permits")? {
            (_, "uninstall") => Permit::Uninstall,
            (_, "stop") => {
                let found = lines.wanted("seconds")?;
                let seconds = number(found)?;
                if !(1..=MOST_SECONDS).contains(&seconds) {
                    let what = format!("it is not between 1 and {MOST_SECONDS}");
                    return Err(wrong(found.0, &what));
                }
                Permit::Stop { seconds }
            }
            (at, _) => return Err(wrong(at, "expected `stop` or `uninstall`")),
        };
        lines.end("expected nothing more")?;
        let token = Self { serial, made, expires, hosts, key, permits };
        written_so(text, &token.to_string())?;
        Ok(token)
    }
}

impl fmt::Display for Token {
    /// As it is signed.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { serial, made, expires, key, .. } = *self;
        Begin { serial, made, expires, hosts: self.hosts.clone(), key }.write(f, KIND)?;
        match self.permits {
            Permit::Stop { seconds } => writeln!(f, "permits: stop\nseconds: {seconds}"),
            Permit::Uninstall => writeln!(f, "permits: uninstall"),
        }
    }
}

impl fmt::Display for Permit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Stop { seconds } => write!(f, "stop for {seconds} s"),
            Self::Uninstall => f.write_str("uninstall"),
        }
    }
}
