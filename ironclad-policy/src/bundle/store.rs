use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use ironclad_core::ErrorChain;
use ironclad_core::audit::{AuditAction, AuditSink};
use serde::{Deserialize, Serialize};

use super::minisign::Signature;
use super::{BundleError, Header, HostPattern, KeyId, MAX_BUNDLE, PublicKey, Signed, Token};
use crate::compile::CompiledPolicy;
use crate::document::{Document, DocumentError, Sources};
use crate::sha256::Sha256Sum;

/// How far the clocks of the signer and of this host may differ, in seconds: a day.
const SKEW: u64 = 86_400;

/// Which keys are trusted, and what was accepted already: in a file, so that a restart forgets nothing.
///
/// A process that may write that file decides what is trusted: keep it where no other process may, for instance in
/// the state directory that Sentinel protects.
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
    /// It was no earlier than this, seconds since 1970 UTC: when the latest of what was accepted was made,
    /// or the clock where that said less. Who sets the clock alone does not raise it.
    seen: u64,
    /// Of the last bundle: it may come again when it has named other keys itself.
    #[serde(default)]
    signers: Vec<String>,
    /// The serial of the last token.
    #[serde(default)]
    token: u64,
}

/// A bundle that was verified, and whose serial is kept.
#[derive(Clone, Debug)]
pub struct Accepted {
    header: Header,
    signed: Signed,
    policy: String,
    is_expired: bool,
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
                let (digest, signers) = (String::new(), Vec::new());
                State { keys, threshold, serial: 0, digest, seen: 0, signers, token: 0 }
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

    /// The files that it writes: a process that may write them decides what is trusted.
    pub fn files(&self) -> [PathBuf; 2] {
        [self.path.clone(), self.next()]
    }

    /// The serial of the last bundle; 0: none.
    pub fn serial(&self) -> u64 {
        self.state.serial
    }

    /// Verifies a bundle, keeps its serial, and hands its policy out: in this order, so that no crash
    /// lets an older one come again. The last bundle may come again, for it may not have been applied, or
    /// the agent starts anew: also when its time is over ([`Accepted::is_expired`]) or the clock is behind,
    /// for a host without a policy has less protection than one with an old one.
    ///
    /// `now` is what this host's clock says, in seconds since 1970 UTC; where that is before the latest of
    /// what was accepted was made, then counts in its place.
    ///
    /// # Errors
    /// [`BundleError`] with what is wrong with it; then nothing has changed.
    pub fn accept(
        &mut self,
        bundle: &[u8],
        signatures: &[&str],
        now: u64,
    ) -> Result<Accepted, BundleError> {
        let digest = Sha256Sum::of(bundle).to_string();
        // It was verified then, and may have named other keys since.
        let is_again = self.state.serial != 0 && digest == self.state.digest;
        let signers = match is_again {
            true => self.state.signers.iter().filter_map(|id| KeyId::parse(id)).collect(),
            false => self.signers(bundle, signatures)?,
        };
        let (header, policy) = Header::split(utf8(bundle)?)?;
        self.check(&signers, header.key, &header.hosts)?;
        if header.serial <= self.state.serial && !is_again {
            let (found, last) = (header.serial, self.state.serial);
            return Err(BundleError::Replayed { found, last });
        }
        let in_time = self.in_time(now, header.made, header.expires);
        let is_expired = match in_time {
            Err(BundleError::Expired { .. }) if is_again => true,
            Err(BundleError::Ahead { .. }) if is_again => false,
            other => other.map(|()| false)?,
        };
        Document::parse_behind("bundle", policy, header.lines())?;
        let seen = self.seen(now, header.made);
        let ids = signers.iter().map(ToString::to_string).collect();
        let mut state =
            State { serial: header.serial, digest, seen, signers: ids, ..self.state.clone() };
        if !header.next_keys.is_empty() {
            state.keys = header.next_keys.iter().map(ToString::to_string).collect();
            state.threshold = header.threshold.unwrap_or(1);
        }
        self.keep(state)?;
        let signed = Signed { serial: header.serial, expires: header.expires, signers };
        Ok(Accepted { header, signed, policy: policy.to_owned(), is_expired })
    }

    /// Verifies a token, and keeps its serial: it is good no more, nor is one before it.
    ///
    /// # Errors
    /// As of [`accept`](Self::accept).
    pub fn take_token(
        &mut self,
        token: &[u8],
        signatures: &[&str],
        now: u64,
    ) -> Result<Token, BundleError> {
        let signers = self.signers(token, signatures)?;
        let token: Token = utf8(token)?.parse()?;
        self.check(&signers, token.key, &token.hosts)?;
        if token.serial <= self.state.token {
            let (found, last) = (token.serial, self.state.token);
            return Err(BundleError::Replayed { found, last });
        }
        self.in_time(now, token.made, token.expires)?;
        let seen = self.seen(now, token.made);
        self.keep(State { token: token.serial, seen, ..self.state.clone() })?;
        Ok(token)
    }

    /// Like [`accept`](Self::accept), by this host's clock, with an audit record of what came of it: what
    /// products do.
    ///
    /// # Errors
    /// As of [`accept`](Self::accept), and [`BundleError::Audit`]: then its serial is kept all the same.
    pub fn accept_audited(
        &mut self,
        bundle: &[u8],
        signatures: &[&str],
        (instance, audit): (&str, &dyn AuditSink),
    ) -> Result<Accepted, BundleError> {
        let accepted = self.accept(bundle, signatures, now()).inspect_err(|error| {
            // The first error is the one to report.
            let _ = audit.record(
                instance,
                &AuditAction::BundleRefuse { reason: ErrorChain::new(error).to_string() },
            );
        })?;
        let Signed { serial, expires, signers } = accepted.signed();
        let signers = signers.iter().map(ToString::to_string).collect();
        let (serial, expires) = (*serial, *expires);
        audit.record(instance, &AuditAction::BundleAccept { serial, expires, signers })?;
        if accepted.is_expired {
            audit.record(instance, &AuditAction::BundleExpired { serial, expires })?;
        }
        Ok(accepted)
    }

    /// Like [`take_token`](Self::take_token), by this host's clock, with an audit record of what came of
    /// it.
    ///
    /// # Errors
    /// As of [`take_token`](Self::take_token), and [`BundleError::Audit`]: then it is good no more all
    /// the same.
    pub fn take_token_audited(
        &mut self,
        token: &[u8],
        signatures: &[&str],
        (instance, audit): (&str, &dyn AuditSink),
    ) -> Result<Token, BundleError> {
        let token = self.take_token(token, signatures, now()).inspect_err(|error| {
            let _ = audit.record(
                instance,
                &AuditAction::TokenRefuse { reason: ErrorChain::new(error).to_string() },
            );
        })?;
        let Token { serial, key, permits, .. } = &token;
        let (permits, key) = (permits.to_string(), key.to_string());
        audit.record(instance, &AuditAction::TokenAccept { serial: *serial, permits, key })?;
        Ok(token)
    }

    /// The different keys whose signatures fit.
    fn signers(&self, bytes: &[u8], signatures: &[&str]) -> Result<Vec<KeyId>, BundleError> {
        if bytes.len() > MAX_BUNDLE {
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
            if !signature.verify(key, bytes) {
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
        Ok(signers)
    }

    /// Whether the key that it names has signed it, and it is for this host.
    fn check(
        &self,
        signers: &[KeyId],
        key: KeyId,
        hosts: &[HostPattern],
    ) -> Result<(), BundleError> {
        if !signers.contains(&key) {
            return Err(BundleError::Form {
                line: 6,
                what: format!("key {key} has not signed it"),
            });
        }
        if !hosts.iter().any(|pattern| pattern.is(&self.host)) {
            let hosts = hosts.iter().map(ToString::to_string).collect();
            return Err(BundleError::Host { host: self.host.clone(), hosts });
        }
        Ok(())
    }

    /// Whether its time has come, and is not over.
    fn in_time(&self, clock: u64, made: u64, expires: u64) -> Result<(), BundleError> {
        let signed = self.state.seen;
        let now = clock.max(signed);
        // What is accepted raises the least time that counts from then on: one that is made in the future,
        // or in milliseconds, would have everything that comes after it pass for expired.
        if made > now.saturating_add(SKEW) {
            return Err(BundleError::Ahead { made, clock, signed });
        }
        match now < expires {
            true => Ok(()),
            false => Err(BundleError::Expired { expired: expires, clock, signed }),
        }
    }

    /// What it is no earlier than, once it was accepted. Neither the clock alone raises it, which root sets,
    /// nor a signature of a host whose clock is ahead.
    fn seen(&self, clock: u64, made: u64) -> u64 {
        self.state.seen.max(made.min(clock))
    }

    /// Whole, and on the disk, before it has an effect.
    fn keep(&mut self, state: State) -> Result<(), BundleError> {
        let keys = keys_of(&state)?;
        let next = self.next();
        let write = || {
            let bytes = serde_json::to_vec_pretty(&state)?;
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
        })?;
        (self.state, self.keys) = (state, keys);
        Ok(())
    }

    /// What is written first, and then takes the file's place.
    fn next(&self) -> PathBuf {
        self.path.with_extension("next")
    }
}

/// Seconds since 1970 UTC, by this host's clock.
pub fn now() -> u64 {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    since.map_or(0, |since| since.as_secs())
}

fn utf8(bytes: &[u8]) -> Result<&str, BundleError> {
    std::str::from_utf8(bytes).map_err(|e| BundleError::Form {
        line: 1 + bytes[..e.valid_up_to()].iter().filter(|&&byte| byte == b'\n').count(),
        what: "it is no UTF-8".to_owned(),
    })
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

    /// What a policy that it becomes says of its signatures.
    pub fn signed(&self) -> &Signed {
        &self.signed
    }

    /// Whether its time is over: it is the last bundle, which may come again all the same.
    pub fn is_expired(&self) -> bool {
        self.is_expired
    }

    /// The policy file that it carries.
    ///
    /// # Errors
    /// Those of [`Document::parse`].
    pub fn document(&self) -> Result<Document, DocumentError> {
        Document::parse_behind("bundle", &self.policy, self.header.lines())
    }

    /// Compiles its policy, which says that it was signed.
    ///
    /// # Errors
    /// Those of [`Document::compile`].
    pub fn compile(&self, sources: &mut Sources<'_>) -> Result<CompiledPolicy, DocumentError> {
        Ok(self.document()?.compile(sources)?.with_signature(self.signed.clone()))
    }
}
