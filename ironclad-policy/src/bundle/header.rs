use std::fmt;
use std::str::FromStr;

use super::{BundleError, KeyId, PublicKey};

/// The first line says what is signed: nothing of one kind passes for another.
const KIND: &str = "ironclad-bundle";
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
    pub(super) fn all() -> Self {
        Self("*".to_owned())
    }

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
        let (hosts, next_keys, threshold) = (vec![HostPattern::all()], Vec::new(), None);
        Self { serial, made, expires, hosts, key, next_keys, threshold }
    }

    /// Reads the header of a bundle; the rest is the policy. Nothing is verified by that: only what
    /// [`TrustStore::accept`](super::TrustStore::accept) accepts is signed by a trusted key.
    ///
    /// # Errors
    /// [`BundleError::Form`] with the line.
    pub fn split(bundle: &str) -> Result<(Self, &str), BundleError> {
        let whole = bundle.split_once("\n\n");
        let head = whole.map_or(bundle, |(head, _)| head);
        ends_in_lf(head)?;
        let (head, policy) = whole.ok_or_else(|| wrong(1, "no empty line ends the header"))?;
        let header = Self::parse(head)?;
        written_so(&format!("{head}\n"), &header.to_string())?;
        Ok((header, policy))
    }

    /// Lines of a bundle that stand before its policy: there is one way to write them.
    pub(super) fn lines(&self) -> u32 {
        // The last is the empty one.
        self.to_string().lines().count() as u32 + 1
    }

    fn parse(head: &str) -> Result<Self, BundleError> {
        let mut lines = Lines::new(head);
        let Begin { serial, made, expires, hosts, key } = lines.begin(KIND)?;
        let next_keys = match lines.next("next-keys") {
            Some((at, keys)) => {
                let keys: Result<Vec<PublicKey>, _> = keys.split(", ").map(str::parse).collect();
                keys.map_err(|e| wrong(at, &e.to_string()))?
            }
            None => Vec::new(),
        };
        let threshold = match lines.next("threshold") {
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
        lines.end("expected the empty line that ends the header")?;
        Ok(Self { serial, made, expires, hosts, key, next_keys, threshold })
    }
}

/// What everything that is signed begins with.
pub(super) struct Begin {
    pub(super) serial: u64,
    pub(super) made: u64,
    pub(super) expires: u64,
    pub(super) hosts: Vec<HostPattern>,
    pub(super) key: KeyId,
}

impl Begin {
    pub(super) fn write(&self, f: &mut fmt::Formatter<'_>, kind: &str) -> fmt::Result {
        let hosts: Vec<_> = self.hosts.iter().map(ToString::to_string).collect();
        writeln!(f, "{kind}: {FORMAT}")?;
        writeln!(f, "serial: {}", self.serial)?;
        writeln!(f, "made: {}", self.made)?;
        writeln!(f, "expires: {}", self.expires)?;
        writeln!(f, "hosts: {}", hosts.join(", "))?;
        writeln!(f, "key: {}", self.key)
    }
}

/// Lines of a key and a value, in the order in which they have to come.
pub(super) struct Lines<'a> {
    left: std::iter::Peekable<std::iter::Enumerate<std::str::Lines<'a>>>,
    line: usize,
}

impl<'a> Lines<'a> {
    pub(super) fn new(text: &'a str) -> Self {
        Self { left: text.lines().enumerate().peekable(), line: 0 }
    }

    /// The value of the next line, with its number, where it is of this key.
    fn next(&mut self, key: &str) -> Option<(usize, &'a str)> {
        let (before, line) = self.left.peek().copied()?;
        let value = line.strip_prefix(key)?.strip_prefix(": ")?;
        self.left.next();
        Some((before + 1, value))
    }

    pub(super) fn wanted(&mut self, key: &str) -> Result<(usize, &'a str), BundleError> {
        self.line += 1;
        let missing = wrong(self.line, &format!("expected `{key}: …`"));
        self.next(key).ok_or(missing)
    }

    pub(super) fn begin(&mut self, kind: &str) -> Result<Begin, BundleError> {
        let (at, format) = self.wanted(kind)?;
        if format != FORMAT {
            return Err(wrong(at, &format!("format {format} is not known to this version")));
        }
        let serial = number(self.wanted("serial")?)?;
        let made = number(self.wanted("made")?)?;
        let expires = number(self.wanted("expires")?)?;
        let (at, hosts) = self.wanted("hosts")?;
        let hosts = hosts.split(", ").map(str::parse).collect::<Result<_, _>>();
        let hosts = hosts.map_err(|what| wrong(at, what))?;
        let (at, key) = self.wanted("key")?;
        let key = KeyId::parse(key).ok_or_else(|| wrong(at, "expected 16 digits"))?;
        if serial == 0 || made >= expires {
            return Err(wrong(2, "a serial is at least 1, and it is made before it expires"));
        }
        Ok(Begin { serial, made, expires, hosts, key })
    }

    pub(super) fn end(&mut self, expected: &str) -> Result<(), BundleError> {
        match self.left.next() {
            Some((before, _)) => Err(wrong(before + 1, expected)),
            None => Ok(()),
        }
    }
}

pub(super) fn wrong(line: usize, what: &str) -> BundleError {
    BundleError::Form { line, what: what.to_owned() }
}

pub(super) fn number((line, text): (usize, &str)) -> Result<u64, BundleError> {
    text.parse().map_err(|_| wrong(line, "expected a number"))
}

/// No line ends in CR LF, which editors and checkouts of some systems write.
pub(super) fn ends_in_lf(text: &str) -> Result<(), BundleError> {
    match text.split('\n').position(|line| line.ends_with('\r')) {
        Some(before) => {
            let what = "it ends in CR LF, and lines are to end in LF: sign it anew as it is then";
            Err(wrong(before + 1, what))
        }
        None => Ok(()),
    }
}

/// One way to write it: what is read is written the same.
pub(super) fn written_so(found: &str, written: &str) -> Result<(), BundleError> {
    if written == found {
        return Ok(());
    }
    let lines = written.lines().zip(found.lines());
    let line = 1 + lines.take_while(|(one, other)| one == other).count();
    Err(wrong(line, "it is not written as it should be: blanks, zeros or order"))
}

impl fmt::Display for Header {
    /// As it stands in a bundle, without the empty line behind it.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { serial, made, expires, key, .. } = *self;
        Begin { serial, made, expires, hosts: self.hosts.clone(), key }.write(f, KIND)?;
        if !self.next_keys.is_empty() {
            let keys: Vec<_> = self.next_keys.iter().map(ToString::to_string).collect();
            writeln!(f, "next-keys: {}", keys.join(", "))?;
        }
        match self.threshold {
            Some(threshold) => writeln!(f, "threshold: {threshold}"),
            None => Ok(()),
        }
    }
}
