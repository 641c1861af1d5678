use std::borrow::Cow;

use serde::Deserialize;

use super::error::Problem;
use super::spec::{self, Spec};

/// A line of Spamhaus DROP as JSON; members that are not named here are not read.
#[derive(Deserialize)]
struct Record<'a> {
    #[serde(borrow)]
    cidr: Option<Text<'a>>,
    #[serde(borrow, rename = "type")]
    kind: Option<Text<'a>>,
}

/// A string, a part of the line where nothing in it is escaped.
#[derive(Deserialize)]
pub(super) struct Text<'a>(#[serde(borrow)] pub(super) Cow<'a, str>);

/// Reads a JSON object: the prefix of its member `cidr` and that text, none where the object is
/// the list's metadata.
pub(super) fn parse(line: &[u8]) -> Result<Option<(Spec, &[u8])>, Problem<'_>> {
    let record: Record<'_> = serde_json::from_slice(line).map_err(|error| {
        let at = &line[error.column().saturating_sub(1).min(line.len())..];
        let message = error.to_string();
        let cause = message.split(" at line ").next().unwrap_or_default();
        Problem::new(at, format!("a JSON object such as {{\"cidr\":\"192.0.2.0/24\"}} ({cause})"))
    })?;
    match (record.cidr, record.kind) {
        (Some(Text(Cow::Borrowed(text))), _) if !text.is_empty() => {
            spec::network(text.as_bytes()).map(|spec| Some((spec, text.as_bytes())))
        }
        // Unescaped, the text is not a part of the line any more.
        (Some(Text(Cow::Owned(text))), _) => spec::network(text.as_bytes())
            .map(|spec| Some((spec, line)))
            .map_err(|problem| Problem::new(line, problem.expected)),
        (None, Some(Text(kind))) if kind == "metadata" => Ok(None),
        _ => Err(Problem::new(line, "a member `cidr` with an address or a prefix")),
    }
}
