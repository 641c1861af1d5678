use std::fmt;
use std::str::FromStr;

use super::{BundleError, KeyId, PublicKey};

const FORMAT: &str = "1";

/// What a bundle says of itself.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Header {
    /// Counts up with each bundle, from 1.
    pub serial: u64,
    /// When it was made, seconds since 1970 UTC.
    pub made: u64,
    /// When it ends, seconds since 1970 UTC.
    pub expires: u64,
    /// For whom it is.
    pub hosts: Vec<HostPattern>,
    /// The key that signs it, or one of them.
    pub key: KeyId,
    /// Keys that are trusted from then on, in place of those that were; none: the same.
    pub next_keys: Vec<PublicKey>,
    /// How many of them have to sign from then on.
    pub threshold: Option<usize>,
}

/// A host's name, or the beginning of names before a `*`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HostPattern(String);

impl HostPattern {
    /// Whether a host is meant.
    pub fn is(&self, host: &str) -> bool {
        match self.0.strip_suffix('*') {
            Some(beginning) => host.starts_with(beginning),
            None => self.0 == host,
        }
    }
}

impl FromStr for HostPattern {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let name = text.strip_suffix('*').unwrap_or(text);
        let fits = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
        match !text.is_empty() && name.chars().all(fits) {
            true => Ok(Self(text.to_owned())),
            false => Err("a host is letters, digits, `-`, `_` and `.`, and may end with `*`"),
        }
    }
}

impl fmt::Display for HostPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl Header {
    /// Of a bundle that stands for all hosts.
    pub fn new(serial: u64, made: u64, expires: u64, key: KeyId) -> Self {
        let (hosts, next_keys, threshold) = (vec![HostPattern("*".into())], Vec::new(), None);
        Self { serial, made, expires, hosts, key, next_keys, threshold }
    }

    /// Reads the header of a bundle; the rest is the policy.
    pub(super) fn split(bundle: &str) -> Result<(Self, &str), BundleError> {
        let (head, policy) = bundle.split_once("\n\n").ok_or_else(|| BundleError::Form {
            line: 1,
            what: "no empty line ends the header".to_owned(),
        })?;
        let header = Self::parse(head)?;
        // One way to write it: what is read is written the same.
        let written = header.to_string();
        if written != format!("{head}\n") {
            let lines = written.lines().zip(head.lines());
            let line = 1 + lines.take_while(|(one, other)| one == other).count();
            let what = "it is not written as it should be: blanks, zeros or order".to_owned();
            return Err(BundleError::Form { line, what });
        }
        Ok((header, policy))
    }

    fn parse(head: &str) -> Result<Self, BundleError> {
        let mut lines =
            head.lines().enumerate().map(|(number, line)| (number + 1, line)).peekable();
        let mut next = |key: &str| -> Result<Option<(usize, &str)>, BundleError> {
            let Some((number, line)) = lines.peek().copied() else { return Ok(None) };
            let Some(value) = line.strip_prefix(key).and_then(|rest| rest.strip_prefix(": "))
            else {
                return Ok(None);
            };
            lines.next();
            Ok(Some((number, value)))
        };
        let wrong = |line, what: &str| BundleError::Form { line, what: what.to_owned() };
        let mut line = 0;
        let mut wanted = |key: &str| {
            line += 1;
            let missing = || wrong(line, &format!("expected `{key}: …`"));
            next(key)?.ok_or_else(missing)
        };
        let number = |(line, text): (usize, &str)| {
            text.parse::<u64>().map_err(|_| wrong(line, "expected a number"))
        };
        let (at, format) = wanted("ironclad-bundle")?;
        if format != FORMAT {
            return Err(wrong(at, &format!("format {format} is not known to this version")));
        }
        let serial = number(wanted("serial")?)?;
        let made = number(wanted("made")?)?;
        let expires = number(wanted("expires")?)?;
        let (at, hosts) = wanted("hosts")?;
        let hosts = hosts.split(", ").map(str::parse).collect::<Result<_, _>>();
        let hosts = hosts.map_err(|what| wrong(at, what))?;
        let (at, key) = wanted("key")?;
        let key = u64::from_str_radix(key, 16).map_err(|_| wrong(at, "expected 16 digits"))?;
        let next_keys = match next("next-keys")? {
            Some((at, keys)) => {
                let keys: Result<Vec<PublicKey>, _> = keys.split(", ").map(str::parse).collect();
                keys.map_err(|e| wrong(at, &e.to_string()))?
            }
            None => Vec::new(),
        };
        let threshold = match next("threshold")? {
            Some(found) => {
                let of = next_keys.len() as u64;
                let threshold = number(found)?;
                if !(1..=of).contains(&threshold) {
                    return Err(wrong(found.0, "it is beyond the number of `next-keys`"));
                }
                Some(threshold as usize)
            }
            None => None,
        };
        if let Some((at, _)) = lines.next() {
            return Err(wrong(at, "expected the empty line that ends the header"));
        }
        if serial == 0 || made >= expires {
            return Err(wrong(2, "a serial is at least 1, and a bundle is made before it expires"));
        }
        let key = KeyId(key.to_le_bytes());
        Ok(Self { serial, made, expires, hosts, key, next_keys, threshold })
    }
}

impl fmt::Display for Header {
    /// As it stands in a bundle, without the empty line behind it.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let joined = |items: Vec<String>| items.join(", ");
        writeln!(f, "ironclad-bundle: {FORMAT}")?;
        writeln!(f, "serial: {}", self.serial)?;
        writeln!(f, "made: {}", self.made)?;
        writeln!(f, "expires: {}", self.expires)?;
        writeln!(f, "hosts: {}", joined(self.hosts.iter().map(ToString::to_string).collect()))?;
        writeln!(f, "key: {}", self.key)?;
        if !self.next_keys.is_empty() {
            let keys = self.next_keys.iter().map(ToString::to_string).collect();
            writeln!(f, "next-keys: {}", joined(keys))?;
        }
        match self.threshold {
            Some(threshold) => writeln!(f, "threshold: {threshold}"),
            None => Ok(()),
        }
    }
}
