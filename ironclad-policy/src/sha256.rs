use std::fmt;
use std::io::{self, Read};
use std::str::FromStr;
use std::sync::atomic::{AtomicBool, Ordering};

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use sha2::{Digest as _, Sha256};

/// A SHA-256 checksum; as text, and in JSON, 64 hexadecimal digits.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Sha256Sum(pub [u8; 32]);

/// A text is no checksum.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("expected a SHA-256 checksum of 64 hexadecimal digits")]
pub struct ChecksumError;

impl Sha256Sum {
    /// The checksum of these bytes.
    pub fn of(bytes: &[u8]) -> Self {
        Self(Sha256::digest(bytes).into())
    }

    /// The checksum of what is read, none where that is more than `most` bytes, and how many were read:
    /// at most one more than that.
    ///
    /// # Errors
    /// Those of reading, and one where `stop` was set.
    pub fn of_reader(
        reader: impl Read,
        most: u64,
        stop: &AtomicBool,
    ) -> io::Result<(Option<Self>, u64)> {
        let (mut hash, mut buffer, mut read) = (Sha256::new(), vec![0; 1 << 17], 0);
        let mut reader = reader.take(most.saturating_add(1));
        loop {
            if stop.load(Ordering::Acquire) {
                return Err(io::Error::other("the caller no longer waits"));
            }
            match reader.read(&mut buffer) {
                Ok(0) => {
                    let sum = Self(hash.finalize().into());
                    return Ok(((read <= most).then_some(sum), read));
                }
                Ok(some) => {
                    hash.update(&buffer[..some]);
                    read += some as u64;
                }
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) => return Err(e),
            }
        }
    }
}

impl FromStr for Sha256Sum {
    type Err = ChecksumError;

    fn from_str(text: &str) -> Result<Self, ChecksumError> {
        let digit = |byte: u8| char::from(byte).to_digit(16).map(|digit| digit as u8);
        let digits: &[u8; 64] = text.as_bytes().try_into().map_err(|_| ChecksumError)?;
        let mut bytes = [0; 32];
        for (byte, pair) in bytes.iter_mut().zip(digits.chunks_exact(2)) {
            let (high, low) = digit(pair[0]).zip(digit(pair[1])).ok_or(ChecksumError)?;
            *byte = high << 4 | low;
        }
        Ok(Self(bytes))
    }
}

impl fmt::Display for Sha256Sum {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for Sha256Sum {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl Serialize for Sha256Sum {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Sha256Sum {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Of nothing, as `sha256sum` says.
    const NOTHING: &str = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

    #[test]
    fn text_and_back() {
        assert_eq!(Sha256Sum::of(b"").to_string(), NOTHING);
        assert_eq!(NOTHING.to_uppercase().parse(), Ok(Sha256Sum::of(b"")));
        for text in ["", &NOTHING[1..], &format!("{NOTHING}0"), &NOTHING.replace('e', "g")] {
            assert_eq!(text.parse::<Sha256Sum>(), Err(ChecksumError), "{text}");
        }
    }

    #[test]
    fn no_more_is_read_than_the_most_that_is_admitted() {
        let (go_on, stop) = (AtomicBool::new(false), AtomicBool::new(true));
        let content = [7; 300_000];
        for most in [300_000, 300_001, u64::MAX - 1] {
            let sum = Some(Sha256Sum::of(&content));
            assert_eq!(Sha256Sum::of_reader(&content[..], most, &go_on).unwrap(), (sum, 300_000));
        }
        for most in [0, 1, 299_999] {
            assert_eq!(Sha256Sum::of_reader(&content[..], most, &go_on).unwrap(), (None, most + 1));
            // What grows for ever ends all the same.
            assert_eq!(
                Sha256Sum::of_reader(io::repeat(7), most, &go_on).unwrap(),
                (None, most + 1)
            );
        }
        Sha256Sum::of_reader(io::repeat(7), 1 << 30, &stop).unwrap_err();
    }
}
