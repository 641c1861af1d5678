//! STIX 2.1: which objects of a bundle are indicators in force, and what their patterns name.

use std::borrow::Cow;
use std::time::SystemTime;

use serde::Deserialize;
use serde_json::value::RawValue;

use super::drop_json::Text;
use super::error::Problem;
use super::pattern::{self, Named};
use crate::time::rfc3339;

#[derive(Deserialize)]
struct Document<'a> {
    #[serde(borrow, rename = "type")]
    kind: Option<Text<'a>>,
    #[serde(borrow)]
    objects: Option<Vec<&'a RawValue>>,
}

/// The members of an object that are read.
#[derive(Deserialize)]
struct Object<'a> {
    #[serde(borrow, rename = "type")]
    kind: Option<Text<'a>>,
    #[serde(borrow)]
    pattern: Option<&'a RawValue>,
    #[serde(borrow)]
    pattern_type: Option<Text<'a>>,
    #[serde(borrow)]
    valid_from: Option<&'a RawValue>,
    #[serde(borrow)]
    valid_until: Option<&'a RawValue>,
    revoked: Option<bool>,
}

/// What an object is to the list.
pub(super) enum Item<'a> {
    /// An indicator whose pattern names addresses, at the place of the text that comes with it.
    Addresses(&'a [u8], Named),
    /// An indicator whose pattern names none.
    OtherPattern,
    /// An indicator that is revoked or outside its time.
    Inactive,
    /// No indicator.
    Other,
}

/// The objects of `text`, which is a bundle, an envelope or an indicator.
pub(super) fn objects(text: &[u8]) -> Result<Vec<&[u8]>, Problem<'_>> {
    let document: Document<'_> =
        object(text, "a STIX 2.1 bundle, an object with `objects`, or an indicator, as JSON")?;
    match (document.objects, document.kind) {
        (Some(objects), _) => Ok(objects.iter().map(|object| object.get().as_bytes()).collect()),
        (None, Some(Text(kind))) if kind == "bundle" => Ok(Vec::new()),
        (None, Some(Text(kind))) if kind == "indicator" => Ok(vec![text.trim_ascii()]),
        _ => Err(Problem::new(
            first_line(text.trim_ascii_start()),
            "a STIX 2.1 bundle, an object with `objects`, or an indicator",
        )),
    }
}

/// Reads an object as of the time `at`.
pub(super) fn item(text: &[u8], at: SystemTime) -> Result<Item<'_>, Problem<'_>> {
    let read: Object<'_> = object(text, "a STIX object")?;
    if read.kind.is_none_or(|Text(kind)| kind != "indicator") {
        return Ok(Item::Other);
    }
    let from = read.valid_from.map(time).transpose()?;
    let until = read.valid_until.map(time).transpose()?;
    if read.revoked == Some(true)
        || from.is_some_and(|from| at < from)
        || until.is_some_and(|until| at >= until)
    {
        return Ok(Item::Inactive);
    }
    if read.pattern_type.is_some_and(|Text(kind)| kind != "stix") {
        return Ok(Item::OtherPattern);
    }
    let Some(written) = read.pattern else {
        return Err(Problem::new(first_line(text), "an indicator with a member `pattern`"));
    };
    let place = written.get().as_bytes();
    let Ok(Text(pattern)) = serde_json::from_str(written.get()) else {
        return Err(Problem::new(place, "a pattern, which is a string"));
    };
    let named = match &pattern {
        Cow::Borrowed(pattern) => pattern::addresses(pattern.as_bytes())?,
        // Unescaped, the text is not a part of the list any more.
        Cow::Owned(pattern) => pattern::addresses(pattern.as_bytes())
            .map_err(|problem| Problem::new(place, problem.expected))?,
    };
    Ok(match named.entries.is_empty() {
        true => Item::OtherPattern,
        false => Item::Addresses(place, named),
    })
}

fn time(written: &RawValue) -> Result<SystemTime, Problem<'_>> {
    serde_json::from_str(written.get()).ok().and_then(|Text(text)| rfc3339(&text)).ok_or_else(
        || {
            let expected = "a time in UTC from 1970 on, such as 2026-01-31T12:00:00Z";
            Problem::new(written.get().as_bytes(), expected)
        },
    )
}

/// Reads a JSON object; a struct could be an array as well.
fn object<'a, T: Deserialize<'a>>(text: &'a [u8], what: &str) -> Result<T, Problem<'a>> {
    let start = text.trim_ascii_start();
    match start.first() {
        Some(b'{') => serde_json::from_slice(text).map_err(|error| syntax(text, &error, what)),
        _ => Err(Problem::new(first_line(start), what.to_owned())),
    }
}

/// What the JSON parser says, at the place where it says so.
fn syntax<'a>(text: &'a [u8], error: &serde_json::Error, what: &str) -> Problem<'a> {
    let start = match error.line() {
        0 | 1 => 0,
        line => {
            let mut ends = text.iter().enumerate().filter(|(_, b)| **b == b'\n');
            ends.nth(line - 2).map_or(text.len(), |(at, _)| at + 1)
        }
    };
    let at = (start + error.column().saturating_sub(1)).min(text.len());
    let message = error.to_string();
    let cause = message.split(" at line ").next().unwrap_or_default();
    Problem::new(first_line(&text[at..]), format!("{what} ({cause})"))
}

fn first_line(text: &[u8]) -> &[u8] {
    let end = text.iter().position(|b| b"\r\n".contains(b)).unwrap_or(text.len());
    &text[..end]
}
