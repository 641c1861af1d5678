use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::minisign::Signature;
use super::{BundleError, Header, KeyId, MAX_BUNDLE, PublicKey, Signed};
use crate::compile::CompiledPolicy;
use crate::document::{Document, DocumentError, Sources};
use crate::sha256::Sha256Sum;

/// Which keys are trusted, and what was taken already: in a file, so that a restart forgets nothing.
///
/// Whoever may write that file decides what is trusted: keep it where nobody else may, for instance in
/// the state directory that Sentinel guards.
#[derive(Debug)]
pub struct TrustStore {
    path: PathBuf,
    host: String,
    keys: BTreeMap<KeyId, PublicKey>,
    state: State,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct State {
    keys: Vec<String>,
    threshold: usize,
    serial: u64,
    digest: String,
    /// The latest time that was seen, seconds since 1970 UTC: a clock that is set back does not count.
    seen: u64,
}

/// A bundle that was verified, and whose serial is kept.
#[derive(Clone, Debug)]
pub struct Accepted {
    header: Header,
    signed: Signed,
    policy: String,
}

impl TrustStore {
    /// Opens the file, or begins with these keys where there is none yet: later, keys are those that
    /// bundles have named. `threshold` of them have to sign each bundle.
    ///
    /// # Errors
    /// [`BundleError::State`] where the file cannot be read, [`BundleError::Key`] where it, or the
    /// call, names no key, or fewer than have to sign.
    pub fn open(
        path: &Path,
        host: &str,
        keys: impl IntoIterator<Item = PublicKey>,
        threshold: usize,
    ) -> Result<Self, BundleError> {
        let failed = |step| {
            let path = path.to_owned();
            move |source| BundleError::State { path, step, source }
        };
        let state = match fs::read(path) {
            Ok(bytes) => serde_json::from_slice(&bytes)
                .map_err(|e| failed("reading what is trusted")(io::Error::other(e)))?,
            Err(e) if e.kind() == io::ErrorKind::NotFound => {
                let keys = keys.into_iter().map(|key| key.to_string()).collect();
                State { keys, threshold, serial: 0, digest: String::new(), seen: 0 }
            }
            Err(e) => return Err(failed("reading what is trusted")(e)),
        };
        let keys = keys_of(&state)?;
        Ok(Self { path: path.to_owned(), host: host.to_owned(), keys, state })
    }

    /// The keys that are trusted now.
    pub fn keys(&self) -> impl Iterator<Item = &PublicKey> {
        self.keys.values()
    }

    /// The serial of the last bundle; 0: none.
    pub fn serial(&self) -> u64 {
        self.state.serial
    }

    /// Verifies a bundle, keeps its serial, and hands its policy out: in this order, so that no crash
    /// lets an older one come again. The same bundle may come again, for it may not have been applied.
    ///
    /// `now` is the time in seconds since 1970 UTC; a clock that was set back counts as the latest time
    /// that was seen.
    ///
    /// # Errors
    /// [`BundleError`] with what is wrong with it; then nothing has changed.
    pub fn accept(
        &mut self,
        bundle: &[u8],
        signatures: &[&str],
        now: u64,
    ) -> Result<Accepted, BundleError> {
        if bundle.len() > MAX_BUNDLE {
            let what = format!("it has more than {MAX_BUNDLE} bytes");
            return Err(BundleError::Form { line: 1, what });
        }
        let mut signers: Vec<KeyId> = Vec::new();
        for text in signatures {
            let signature = Signature::parse(text)?;
            let Some(key) = self.keys.get(&signature.key) else {
                let trusted = self.keys.keys().copied().collect();
                return Err(BundleError::UnknownKey { key: signature.key, trusted });
            };
            if !signature.verify(key, bundle) {
                return Err(BundleError::Forged(signature.key));
            }
            if !signers.contains(&signature.key) {
                signers.push(signature.key);
            }
        }
        if signers.len() < self.state.threshold {
            let (found, needed) = (signers.len(), self.state.threshold);
            return Err(BundleError::TooFew { found, needed });
        }
        let text = std::str::from_utf8(bundle).map_err(|e| BundleError::Form {
            line: 1 + bundle[..e.valid_up_to()].iter().filter(|&&byte| byte == b'\n').count(),
            what: "it is no UTF-8".to_owned(),
        })?;
        let (header, policy) = Header::split(text)?;
        if !signers.contains(&header.key) {
            let what = format!("key {} has not signed it", header.key);
            return Err(BundleError::Form { line: 6, what });
        }
        if !header.hosts.iter().any(|pattern| pattern.is(&self.host)) {
            let hosts = header.hosts.iter().map(ToString::to_string).collect();
            return Err(BundleError::Host { host: self.host.clone(), hosts });
        }
        let digest = Sha256Sum::of(bundle).to_string();
        let is_again = header.serial == self.state.serial && digest == self.state.digest;
        if header.serial <= self.state.serial && !is_again {
            let (found, last) = (header.serial, self.state.serial);
            return Err(BundleError::Replayed { found, last });
        }
        let seen = now.max(self.state.seen).max(header.made);
        if seen >= header.expires {
            return Err(BundleError::Expired { expired: header.expires, now: seen });
        }
        Document::parse("bundle", policy)?;
        let mut state = State { serial: header.serial, digest, seen, ..self.state.clone() };
        if !header.next_keys.is_empty() {
            state.keys = header.next_keys.iter().map(ToString::to_string).collect();
            state.threshold = header.threshold.unwrap_or(1);
        }
        let keys = keys_of(&state)?;
        self.keep(&state)?;
        (self.state, self.keys) = (state, keys);
        let signed = Signed { serial: header.serial, expires: header.expires, signers };
        Ok(Accepted { header, signed, policy: policy.to_owned() })
    }

    /// Whole, and on the disk, before anybody acts by it.
    fn keep(&self, state: &State) -> Result<(), BundleError> {
        let next = self.path.with_extension("next");
        let write = || {
            let bytes = serde_json::to_vec_pretty(state)?;
            let mut file =
                OpenOptions::new().write(true).create(true).truncate(true).open(&next)?;
            file.write_all(&bytes)?;
            file.sync_all()?;
            fs::rename(&next, &self.path)?;
            let dir = self.path.parent().filter(|dir| !dir.as_os_str().is_empty());
            File::open(dir.unwrap_or(Path::new(".")))?.sync_all()
        };
        write().map_err(|source| BundleError::State {
            path: self.path.clone(),
            step: "keeping what is trusted",
            source,
        })
    }
}

fn keys_of(state: &State) -> Result<BTreeMap<KeyId, PublicKey>, BundleError> {
    let mut keys = BTreeMap::new();
    for text in &state.keys {
        let key: PublicKey = text.parse()?;
        keys.insert(key.id(), key);
    }
    if state.threshold == 0 || keys.len() < state.threshold {
        return Err(BundleError::Key("fewer are trusted than have to sign"));
    }
    Ok(keys)
}

impl Accepted {
    /// What it says of itself.
    pub fn header(&self) -> &Header {
        &self.header
    }

    /// The policy file that it carries.
    ///
    /// # Errors
    /// Those of [`Document::parse`].
    pub fn document(&self) -> Result<Document, DocumentError> {
        Document::parse("bundle", &self.policy)
    }

    /// Compiles its policy, which says that it was signed.
    ///
    /// # Errors
    /// Those of [`Document::compile`].
    pub fn compile(&self, sources: &mut Sources<'_>) -> Result<CompiledPolicy, DocumentError> {
        Ok(self.document()?.compile(sources)?.with_signature(self.signed.clone()))
    }
}
