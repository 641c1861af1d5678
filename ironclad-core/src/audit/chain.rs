//! One line of an audit file, and what ties it to the line before.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use sha2::{Digest as _, Sha256};

use super::AuditAction;

/// Most bytes of a line, its end included. Longer records are refused.
pub const MAX_LINE: usize = 1 << 20;

const SEAL: &[u8] = b",\"hash\":\"";
const END: &[u8] = b"\"}";
const HEX: usize = 64;

/// A SHA-256 digest; as text, and in JSON, 64 lower-case hexadecimal digits.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Digest(pub [u8; 32]);

impl Digest {
    /// What the first record names as the one before.
    pub const GENESIS: Self = Self([0; 32]);

    pub(super) fn of(bytes: &[u8]) -> Self {
        Self(Sha256::digest(bytes).into())
    }

    fn from_hex(hex: &[u8]) -> Option<Self> {
        let nibble = |byte: u8| match byte {
            b'0'..=b'9' => Some(byte - b'0'),
            b'a'..=b'f' => Some(byte - b'a' + 10),
            _ => None,
        };
        let hex: &[u8; HEX] = hex.try_into().ok()?;
        let mut bytes = [0; 32];
        for (byte, pair) in bytes.iter_mut().zip(hex.chunks_exact(2)) {
            *byte = nibble(pair[0])? << 4 | nibble(pair[1])?;
        }
        Some(Self(bytes))
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl Serialize for Digest {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Digest {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let hex = String::deserialize(deserializer)?;
        Self::from_hex(hex.as_bytes())
            .ok_or_else(|| serde::de::Error::custom("expected 64 lower-case hexadecimal digits"))
    }
}

/// A record's place in the chain: its number and its hash. Kept elsewhere, it shows later that the
/// file still holds this record and every one before it, unchanged.
///
/// As text `SEQ:HASH`. Of an empty file: number 0 and [`Digest::GENESIS`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Anchor {
    /// The record's number.
    pub seq: u64,
    /// Its hash.
    pub hash: Digest,
}

impl Anchor {
    pub(super) const GENESIS: Self = Self { seq: 0, hash: Digest::GENESIS };
}

impl fmt::Display for Anchor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.seq, self.hash)
    }
}

/// A text is no anchor.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "`{0}` is no anchor: expected a record's number, a colon and its hash of 64 hexadecimal digits"
)]
pub struct AnchorError(String);

impl FromStr for Anchor {
    type Err = AnchorError;

    fn from_str(text: &str) -> Result<Self, AnchorError> {
        text.split_once(':')
            .and_then(|(seq, hash)| {
                Some(Self { seq: seq.parse().ok()?, hash: Digest::from_hex(hash.as_bytes())? })
            })
            .ok_or_else(|| AnchorError(text.chars().take(100).collect()))
    }
}

/// A line of an audit file, read. Reading a record checks nothing; `verify` does.
///
/// ```
/// use ironclad_core::audit::{AuditAction, AuditRecord};
///
/// let line = format!(
///     r#"{{"seq":1,"time":0,"instance":"edge","action":"confirm","generation":7,"prev":"{0}","hash":"{0}"}}"#,
///     "0".repeat(64)
/// );
/// let record: AuditRecord = serde_json::from_str(&line)?;
/// assert_eq!(record.action, AuditAction::Confirm { generation: 7 });
/// # Ok::<(), serde_json::Error>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AuditRecord {
    /// 1 for the first record, then one more each.
    pub seq: u64,
    /// Wall clock, nanoseconds since 1970 UTC.
    pub time: u64,
    /// Who acted.
    pub instance: String,
    /// What was done.
    #[serde(flatten)]
    pub action: AuditAction,
    /// Hash of the record before.
    pub prev: Digest,
    /// Hash of this one.
    pub hash: Digest,
}

#[derive(Serialize)]
struct Body<'a> {
    seq: u64,
    time: u64,
    instance: &'a str,
    #[serde(flatten)]
    action: &'a AuditAction,
    prev: Digest,
}

/// The line that follows `last`, with its end, and its own anchor.
pub(super) fn seal(
    last: Anchor,
    time: u64,
    instance: &str,
    action: &AuditAction,
) -> Result<(Vec<u8>, Anchor), serde_json::Error> {
    let seq = last.seq + 1;
    let mut line = serde_json::to_vec(&Body { seq, time, instance, action, prev: last.hash })?;
    line.pop();
    let hash = Digest::of(&line);
    line.extend_from_slice(SEAL);
    line.extend_from_slice(hash.to_string().as_bytes());
    line.extend_from_slice(END);
    line.push(b'\n');
    Ok((line, Anchor { seq, hash }))
}

/// What a line says about the chain. Fields that this version does not know are left alone.
#[derive(Deserialize)]
struct Head {
    seq: u64,
    prev: Digest,
}

/// A line whose own hash is right.
pub(super) struct Link {
    pub(super) anchor: Anchor,
    pub(super) prev: Digest,
}

/// What is wrong with a line by itself.
pub(super) enum LineFault {
    Form(String),
    Hash { written: Digest, computed: Digest },
}

impl Link {
    /// Looks at a line without its end.
    pub(super) fn read(line: &[u8]) -> Result<Self, LineFault> {
        let form = |what: &str| LineFault::Form(what.to_owned());
        let (body, hex) = line
            .strip_suffix(END)
            .and_then(|line| line.split_at_checked(line.len().checked_sub(HEX)?))
            .ok_or_else(|| form("it does not end in a hash"))?;
        let body = body.strip_suffix(SEAL).ok_or_else(|| form("it does not end in a hash"))?;
        let written = Digest::from_hex(hex).ok_or_else(|| form("its hash is malformed"))?;
        let computed = Digest::of(body);
        if written != computed {
            return Err(LineFault::Hash { written, computed });
        }
        let head: Head =
            serde_json::from_slice(line).map_err(|error| LineFault::Form(error.to_string()))?;
        Ok(Self { anchor: Anchor { seq: head.seq, hash: written }, prev: head.prev })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn actions() -> Vec<AuditAction> {
        let text = || "quote \" line\n end \u{2028} ∑ \0".to_owned();
        vec![
            AuditAction::Load { program: text(), tag: text(), instructions: u32::MAX },
            AuditAction::Refuse { program: text(), reason: text() },
            AuditAction::Attach { program: text(), hook: text(), interface: text(), mode: text() },
            AuditAction::Detach { hook: text(), interface: text() },
            AuditAction::Replace { program: text(), hook: text(), interface: text() },
            AuditAction::Gap {
                hook: text(),
                interface: text(),
                unchecked_ms: u64::MAX,
                processes: 0,
            },
            AuditAction::Displaced { hook: text(), interface: text(), change: text() },
            AuditAction::Pin { object: text(), path: text() },
            AuditAction::Unpin { path: text() },
            AuditAction::Adopt { path: text(), policy: text() },
            AuditAction::MapWrite { map: text(), elements: u64::MAX, purpose: text() },
            AuditAction::Swap { generation: 1, policy: text(), provisional_ms: None },
            AuditAction::Swap { generation: 1, policy: text(), provisional_ms: Some(2) },
            AuditAction::Confirm { generation: u64::MAX },
            AuditAction::Revert { generation: 0, reason: text() },
            AuditAction::FeedUpdate {
                feed: text(),
                source: text(),
                sha256: text(),
                entries: u64::MAX,
                added: 1,
                removed: 0,
            },
            AuditAction::FeedKeep { feed: text(), reason: text() },
            AuditAction::FeedDamage { feed: text(), reason: text() },
            AuditAction::FeedMissing { feed: text(), reason: text() },
            AuditAction::FeedForget { feed: text() },
            AuditAction::PolicyUnsigned { policy: text() },
            AuditAction::BundleAccept { serial: 1, expires: 2, signers: vec![text()] },
            AuditAction::BundleRefuse { reason: text() },
            AuditAction::TokenAccept { serial: 1, permits: text(), key: text() },
            AuditAction::TokenRefuse { reason: text() },
            AuditAction::Recover { kept: text(), bytes: 3, sha256: text() },
        ]
    }

    #[test]
    fn every_action_comes_back_from_its_line() {
        let mut last = Anchor::GENESIS;
        for action in actions() {
            let (line, anchor) = seal(last, u64::MAX, "ed\"ge", &action).unwrap();
            assert_eq!(line.iter().filter(|&&byte| byte == b'\n').count(), 1);
            let line = line.strip_suffix(b"\n").unwrap();
            let record: AuditRecord = serde_json::from_slice(line).unwrap();
            assert_eq!((record.seq, record.time), (anchor.seq, u64::MAX));
            assert_eq!((record.instance.as_str(), &record.action), ("ed\"ge", &action));
            assert_eq!((record.prev, record.hash), (last.hash, anchor.hash));
            // A record writes itself as the line that it was read from.
            assert_eq!(serde_json::to_vec(&record).unwrap(), line);
            last = anchor;
        }
    }

    /// Computed apart from this code, with `printf … | sha256sum`.
    #[test]
    fn the_format_stays() {
        let (line, _) =
            seal(Anchor::GENESIS, 5, "edge", &AuditAction::Confirm { generation: 7 }).unwrap();
        let body = format!(
            r#"{{"seq":1,"time":5,"instance":"edge","action":"confirm","generation":7,"prev":"{}""#,
            "0".repeat(64)
        );
        let hash = "fff752a51cbd6bbf80166fb381e6054da33c5b99caa3d52203594465c350bfd3";
        assert_eq!(String::from_utf8(line).unwrap(), format!("{body},\"hash\":\"{hash}\"}}\n"));
    }

    #[test]
    fn anchors_as_text() {
        let anchor = Anchor { seq: 12, hash: Digest::of(b"x") };
        assert_eq!(anchor.to_string().parse(), Ok(anchor));
        let hash = Digest::GENESIS.to_string();
        for bad in ["", "1", "1:", ":", &format!("-1:{hash}"), &format!("1:{hash}0"), "1:é"] {
            assert!(bad.parse::<Anchor>().is_err(), "{bad}");
        }
        let upper = anchor.to_string().to_uppercase();
        assert_eq!(upper.parse::<Anchor>(), Err(AnchorError(upper)));
    }
}
