//! The reference of policy files, from docs/policy.schema.json.

use std::fmt::Write as _;

use serde_json::{Map, Value};

use super::cell;
use crate::command::read_text;
use crate::failure::{Context, Result};

const FILE: &str = "docs/policy.schema.json";
/// What the names of most definitions begin with.
const PREFIX: &str = "Document";

type Definitions = Map<String, Value>;

pub(super) fn reference() -> Result<String> {
    let schema: Value = serde_json::from_str(&read_text(FILE.as_ref())?).context(FILE)?;
    let definitions = schema["$defs"].as_object().context("no $defs")?;
    let mut text = "## The whole file\n\n".to_owned();
    text += &keys(&schema, definitions)?;
    for (name, definition) in definitions.iter().filter(|(_, it)| it["properties"].is_object()) {
        write!(text, "\n## {}\n\n{}\n\n", title(name), description(definition)).context(name)?;
        text += &keys(definition, definitions)?;
    }
    for (name, definition) in definitions {
        let Some(values) = definition["oneOf"].as_array() else { continue };
        write!(text, "\n## {}\n\n{}\n\n", title(name), description(definition)).context(name)?;
        text += "| value | meaning |\n|---|---|\n";
        for value in values {
            writeln!(text, "| {} | {} |", code(&value["const"]), description(value))
                .context(name)?;
        }
    }
    Ok(text)
}

/// A table of the keys of an object.
fn keys(object: &Value, definitions: &Definitions) -> Result<String> {
    let properties = object["properties"].as_object().context("an object without properties")?;
    let required = object["required"].as_array().map_or(&[][..], Vec::as_slice);
    let mut text = "| key | values | default | meaning |\n|---|---|---|---|\n".to_owned();
    for (key, property) in properties {
        let is_required = required.iter().any(|it| it == key);
        let default = match &property["default"] {
            _ if is_required => "*required*".to_owned(),
            Value::Null => String::new(),
            default => code(default),
        };
        let values = cell(&values(property, definitions));
        let description = description(property);
        writeln!(text, "| `{key}` | {values} | {default} | {description} |").context(key)?;
    }
    Ok(text)
}

/// What may stand there, in words.
fn values(schema: &Value, definitions: &Definitions) -> String {
    if let Some(name) = schema["$ref"].as_str().and_then(|path| path.rsplit('/').next()) {
        return reference_to(name, definitions);
    }
    if let Some(choices) = schema["anyOf"].as_array() {
        return choice(choices, definitions);
    }
    if let Some(values) = schema["enum"].as_array() {
        return values.iter().map(code).collect::<Vec<_>>().join(", ");
    }
    if schema["additionalProperties"].is_object() {
        return format!(
            "names, each with {}",
            values(&schema["additionalProperties"], definitions)
        );
    }
    let types: Vec<_> = match &schema["type"] {
        Value::Array(types) => types.iter().filter_map(Value::as_str).collect(),
        one => one.as_str().into_iter().collect(),
    };
    let words = types.into_iter().filter_map(|name| match name {
        "integer" => Some(range(schema)),
        "string" => Some("text".to_owned()),
        "boolean" => Some("`true`, `false`".to_owned()),
        "array" => Some(format!("a list of: {}", values(&schema["items"], definitions))),
        _ => None,
    });
    words.collect::<Vec<_>>().join(" or ")
}

/// One of several. Where a list of a thing may stand for it, the thing is said once.
fn choice(choices: &[Value], definitions: &Definitions) -> String {
    let is_null = |choice: &&Value| choice["type"] == "null";
    let choices: Vec<_> = choices.iter().filter(|it| !is_null(it)).collect();
    if let [one, list] = choices.as_slice() {
        let one = values(one, definitions);
        if list["type"] == "array" && values(&list["items"], definitions) == one {
            return format!("{one}; or a list");
        }
    }
    choices.iter().map(|it| values(it, definitions)).collect::<Vec<_>>().join(" or ")
}

fn reference_to(name: &str, definitions: &Definitions) -> String {
    let definition = &definitions.get(name).unwrap_or(&Value::Null);
    if let Some(choices) = definition["anyOf"].as_array() {
        return choice(choices, definitions);
    }
    let title = title(name);
    format!("[{title}](#{})", title.replace(' ', "-"))
}

fn range(schema: &Value) -> String {
    match (schema["minimum"].as_u64(), schema["maximum"].as_u64()) {
        (Some(0), Some(most)) if most == u64::from(u32::MAX) => "number".to_owned(),
        (Some(least), Some(most)) => format!("{least} to {most}"),
        (Some(least), None) => format!("number from {least}"),
        _ => "number".to_owned(),
    }
}

/// `DocumentFileRule` → `file rule`.
fn title(name: &str) -> String {
    let mut title = String::new();
    for c in name.strip_prefix(PREFIX).unwrap_or(name).chars() {
        if c.is_ascii_uppercase() && !title.is_empty() {
            title.push(' ');
        }
        title.push(c.to_ascii_lowercase());
    }
    title
}

fn description(schema: &Value) -> String {
    cell(schema["description"].as_str().unwrap_or_default())
}

fn code(value: &Value) -> String {
    format!("`{}`", value.as_str().map_or_else(|| value.to_string(), str::to_owned))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_in_words() {
        let definitions = serde_json::json!({
            "DocumentFeedFormat": { "oneOf": [{ "const": "csv" }] },
            "DocumentWho": { "anyOf": [{ "type": "string" }, { "$ref": "#/$defs/DocumentSubject" }] },
            "DocumentSubject": { "properties": {} },
        });
        let definitions = definitions.as_object().unwrap();
        for (schema, expected) in [
            (r#"{"type":["integer","null"],"minimum":0,"maximum":65535}"#, "0 to 65535"),
            (
                r#"{"anyOf":[{"type":"string"},{"type":"array","items":{"type":"string"}}]}"#,
                "text; or a list",
            ),
            (r##"{"$ref":"#/$defs/DocumentFeedFormat"}"##, "[feed format](#feed-format)"),
            (r##"{"$ref":"#/$defs/DocumentWho"}"##, "text or [subject](#subject)"),
            (r#"{"enum":["pass","drop"]}"#, "`pass`, `drop`"),
            (r#"{"type":"boolean"}"#, "`true`, `false`"),
            (
                r##"{"additionalProperties":{"$ref":"#/$defs/DocumentSubject"}}"##,
                "names, each with [subject](#subject)",
            ),
        ] {
            let schema: Value = serde_json::from_str(schema).unwrap();
            assert_eq!(values(&schema, definitions), expected);
        }
        assert_eq!(title("DocumentFileRule"), "file rule");
    }
}
