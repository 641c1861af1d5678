//! Times, sizes and lengths, with their units.

use std::time::Duration;

use serde::{Deserialize, Deserializer, de};

use super::text::shown;

/// The longest time.
const YEAR: u64 = 366 * 24 * 60 * 60;

/// A time: `90s`, `15m`, `6h` or `1d`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DocumentTime(pub Duration);

/// A size: bytes, or `64 KiB`, `32 MiB`, `1 GiB`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DocumentBytes(pub u64);

/// A number, and what stands behind it.
fn split(text: &str) -> Option<(u64, &str)> {
    let end = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (number, unit) = text.split_at(end);
    Some((number.parse().ok()?, unit))
}

impl<'de> Deserialize<'de> for DocumentTime {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        let text = String::deserialize(from)?;
        let seconds = split(&text).and_then(|(number, unit)| {
            let seconds = match unit {
                "s" => 1,
                "m" => 60,
                "h" => 60 * 60,
                "d" => 24 * 60 * 60,
                _ => return None,
            };
            Some(number.saturating_mul(seconds))
        });
        let shown = shown(&text);
        match seconds {
            Some(seconds @ 1..=YEAR) => Ok(Self(Duration::from_secs(seconds))),
            Some(_) => Err(de::Error::custom(format_args!("`{shown}` is not from 1s to 366d"))),
            None => Err(de::Error::custom(format_args!(
                "`{shown}` is no time: write a number and s, m, h or d, such as 90s or 15m"
            ))),
        }
    }
}

impl<'de> Deserialize<'de> for DocumentBytes {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        let text = String::deserialize(from)?;
        let bytes = split(&text).and_then(|(number, unit)| {
            let shift = match unit.strip_prefix(' ').unwrap_or(unit) {
                "" if unit.is_empty() => 0,
                "KiB" => 10,
                "MiB" => 20,
                "GiB" => 30,
                _ => return None,
            };
            number.checked_mul(1 << shift)
        });
        bytes.filter(|bytes| *bytes > 0).map(Self).ok_or_else(|| {
            let text = shown(&text);
            de::Error::custom(format_args!(
                "`{text}` is no size: write bytes, or a number and KiB, MiB or GiB, such as 32 MiB"
            ))
        })
    }
}

fn length(text: &str, most: u8) -> Result<u8, String> {
    let digits = text.strip_prefix('/').filter(|digits| digits.bytes().all(|b| b.is_ascii_digit()));
    let length = digits.and_then(|digits| digits.parse().ok()).filter(|length| *length <= most);
    length.ok_or_else(|| format!("`{}` is not a prefix length from /0 to /{most}", shown(text)))
}

pub(super) fn ipv4_length<'de, D: Deserializer<'de>>(from: D) -> Result<Option<u8>, D::Error> {
    length(&String::deserialize(from)?, 32).map(Some).map_err(de::Error::custom)
}

pub(super) fn ipv6_length<'de, D: Deserializer<'de>>(from: D) -> Result<Option<u8>, D::Error> {
    length(&String::deserialize(from)?, 128).map(Some).map_err(de::Error::custom)
}
