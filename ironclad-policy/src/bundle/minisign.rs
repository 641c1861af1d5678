//! Keys and signatures as minisign writes them: <https://jedisct1.github.io/minisign/>.

use std::fmt;
use std::str::FromStr;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use blake2::{Blake2b512, Digest as _};
use ed25519_dalek::{Signature as Ed25519, VerifyingKey};

use super::BundleError;

const ALGORITHM: [u8; 2] = *b"Ed";
/// Over the BLAKE2b-512 of the file; `Ed` here is the legacy format, over the file itself.
const PREHASHED: [u8; 2] = *b"ED";
const UNTRUSTED: &str = "untrusted comment: ";
const TRUSTED: &str = "trusted comment: ";

/// The number by which minisign tells keys apart. It proves nothing.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct KeyId(pub(super) [u8; 8]);

impl KeyId {
    /// Of what [`Display`](fmt::Display) writes.
    pub(super) fn parse(text: &str) -> Option<Self> {
        u64::from_str_radix(text, 16).ok().map(|number| Self(number.to_le_bytes()))
    }
}

impl fmt::Display for KeyId {
    /// As minisign does.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016X}", u64::from_le_bytes(self.0))
    }
}

impl fmt::Debug for KeyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// A public key of minisign's. Weak keys, under which a signature says nothing, are refused.
#[derive(Clone, PartialEq, Eq)]
pub struct PublicKey {
    id: KeyId,
    key: VerifyingKey,
}

impl PublicKey {
    /// Its number.
    pub fn id(&self) -> KeyId {
        self.id
    }
}

impl FromStr for PublicKey {
    type Err = BundleError;

    /// Reads a key file of minisign's, or its second line alone.
    fn from_str(text: &str) -> Result<Self, BundleError> {
        let refused = BundleError::Key;
        let mut lines = text.trim_end().lines();
        let mut line = lines.next().ok_or(refused("it is empty"))?;
        if line.starts_with(UNTRUSTED) {
            line = lines.next().ok_or(refused("it ends behind its comment"))?;
        }
        if lines.next().is_some() {
            return Err(refused("there is something behind it"));
        }
        let bytes = STANDARD.decode(line).map_err(|_| refused("it is no base64"))?;
        let bytes: [u8; 42] = bytes.try_into().map_err(|_| refused("it has not 42 bytes"))?;
        let (algorithm, rest) = bytes.split_at(2);
        let (id, key) = rest.split_at(8);
        if algorithm != ALGORITHM {
            return Err(refused("it is of another algorithm than Ed25519"));
        }
        let (id, key): ([u8; 8], [u8; 32]) = match (id.try_into(), key.try_into()) {
            (Ok(id), Ok(key)) => (id, key),
            _ => return Err(refused("it has not 42 bytes")),
        };
        let key = VerifyingKey::from_bytes(&key).map_err(|_| refused("it is no point"))?;
        if key.is_weak() {
            return Err(refused("it is weak: it would take any signature"));
        }
        Ok(Self { id: KeyId(id), key })
    }
}

impl fmt::Display for PublicKey {
    /// As [`FromStr`] reads it.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let bytes = [&ALGORITHM[..], &self.id.0, self.key.as_bytes()].concat();
        f.write_str(&STANDARD.encode(bytes))
    }
}

impl fmt::Debug for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// A signature of minisign's.
pub(super) struct Signature<'a> {
    pub(super) key: KeyId,
    signature: [u8; 64],
    comment: &'a str,
    global: [u8; 64],
}

impl<'a> Signature<'a> {
    pub(super) fn parse(text: &'a str) -> Result<Self, BundleError> {
        let refused = BundleError::Signature;
        let lines: Vec<&str> = text.trim_end_matches('\n').split('\n').collect();
        let [untrusted, signature, trusted, global] = lines[..] else {
            return Err(refused("it has not four lines"));
        };
        if !untrusted.starts_with(UNTRUSTED) {
            return Err(refused("it does not begin with `untrusted comment: `"));
        }
        if signature.ends_with('\r') {
            return Err(refused("its lines end in CR LF, and are to end in LF"));
        }
        let comment = trusted.strip_prefix(TRUSTED);
        let comment = comment.ok_or(refused("its third line is no trusted comment"))?;
        let bytes = STANDARD.decode(signature).map_err(|_| refused("it is no base64"))?;
        let bytes: [u8; 74] = bytes.try_into().map_err(|_| refused("it has not 74 bytes"))?;
        let (algorithm, rest) = bytes.split_at(2);
        let (key, signature) = rest.split_at(8);
        if algorithm == ALGORITHM {
            return Err(refused("it is of the legacy format: sign without `-l`"));
        }
        if algorithm != PREHASHED {
            return Err(refused("it is of another algorithm than Ed25519"));
        }
        let global = STANDARD.decode(global).map_err(|_| refused("its end is no base64"))?;
        match (key.try_into(), signature.try_into(), global.try_into()) {
            (Ok(key), Ok(signature), Ok(global)) => {
                Ok(Self { key: KeyId(key), signature, comment, global })
            }
            _ => Err(refused("its end has not 64 bytes")),
        }
    }

    /// Whether it is this key's over these bytes, and its comment, too.
    pub(super) fn verify(&self, key: &PublicKey, bytes: &[u8]) -> bool {
        let hash = Blake2b512::digest(bytes);
        let global = [&self.signature[..], self.comment.as_bytes()].concat();
        let is = |message: &[u8], signature: &[u8; 64]| {
            key.key.verify_strict(message, &Ed25519::from_bytes(signature)).is_ok()
        };
        key.id == self.key && is(&hash, &self.signature) && is(&global, &self.global)
    }
}
