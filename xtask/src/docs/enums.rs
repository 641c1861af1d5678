//! Tables of the variants of public enums, from their documentation. Sources are as rustfmt leaves them, so that
//! lines are enough to read them by.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use super::cell;
use crate::check::tree;
use crate::command::read_text;
use crate::failure::{Context, Result};

#[derive(Debug, PartialEq)]
struct Variant {
    name: String,
    serialized: String,
    docs: String,
}

#[derive(Debug, PartialEq)]
struct Enum {
    name: String,
    docs: String,
    variants: Vec<Variant>,
}

/// Variants by their serialized names, of the enum of this name in any published crate.
pub(super) fn table(name: &str) -> Result<String> {
    let enums = enums()?;
    let found = enums.iter().flat_map(|(_, enums)| enums).find(|it| it.name == name);
    let found = found.context(format_args!("no public enum {name}"))?;
    let mut text = "| name | meaning |\n|---|---|\n".to_owned();
    for Variant { serialized, docs, .. } in &found.variants {
        writeln!(text, "| `{serialized}` | {} |", cell(docs)).context("a table")?;
    }
    Ok(text)
}

/// Kinds of errors by crate: enums called `…ErrorKind`, and `…Error` where there is no such kind.
pub(super) fn errors() -> Result<String> {
    let enums = enums()?;
    let mut by_crate: BTreeMap<&str, Vec<&Enum>> = BTreeMap::new();
    let names: BTreeSet<_> =
        enums.iter().flat_map(|(_, it)| it).map(|it| it.name.as_str()).collect();
    for (path, found) in &enums {
        let package = path.iter().next().and_then(|part| part.to_str()).unwrap_or_default();
        let is_kind = |it: &&Enum| {
            let name = it.name.as_str();
            let has_kind = names.contains(format!("{name}Kind").as_str());
            name.ends_with("ErrorKind") || name.ends_with("Error") && !has_kind
        };
        by_crate.entry(package).or_default().extend(found.iter().filter(is_kind));
    }
    let mut text = String::new();
    for (package, enums) in by_crate.into_iter().filter(|(_, enums)| !enums.is_empty()) {
        writeln!(text, "## {package}\n").context("a table")?;
        for Enum { name, docs, variants } in enums {
            writeln!(text, "### {name}\n\n{}\n\n| kind | meaning |\n|---|---|", one_line(docs))
                .context("a table")?;
            for Variant { name, docs, .. } in variants {
                writeln!(text, "| `{name}` | {} |", cell(docs)).context("a table")?;
            }
            text.push('\n');
        }
    }
    text.pop();
    Ok(text)
}

/// Public enums of the published crates, by file.
fn enums() -> Result<Vec<(PathBuf, Vec<Enum>)>> {
    let mut all = Vec::new();
    for path in tree::files()? {
        let mut parts = path.iter().filter_map(|part| part.to_str());
        let is_published = parts.next().is_some_and(|part| part.starts_with("ironclad-"));
        let is_rust = path.extension().is_some_and(|extension| extension == "rs");
        if is_published && is_rust && parts.next() == Some("src") && !is_test(&path) {
            let found = parse(&read_text(&path)?);
            all.push((path, found));
        }
    }
    Ok(all)
}

fn is_test(path: &Path) -> bool {
    path.file_stem().is_some_and(|stem| stem.to_string_lossy().ends_with("tests"))
}

/// Begins enums whose variants are `Variant = 1, "name";`.
const MACRO: &str = "numbered! {";

/// Enums at the outermost level of a file, and those that `MACRO` makes.
fn parse(text: &str) -> Vec<Enum> {
    let mut enums: Vec<Enum> = Vec::new();
    let mut docs = Vec::new();
    // Where an enum begins, and where its variants do.
    let (mut outer, mut inner) = (0, None);
    for line in text.lines() {
        let indent = line.len() - line.trim_start().len();
        let trimmed = line.trim();
        if inner == Some(indent) && trimmed.starts_with(|c: char| c.is_ascii_uppercase()) {
            if let Some(found) = enums.last_mut() {
                found.variants.push(variant(trimmed, summary(&docs)));
            }
            docs.clear();
        } else if let Some(doc) = trimmed.strip_prefix("///") {
            if indent == inner.unwrap_or(outer) {
                docs.push(doc.trim().to_owned());
            }
        } else if indent == outer && line[indent..].starts_with('}') {
            (outer, inner) = (if inner.is_some() { outer } else { 0 }, None);
            docs.clear();
        } else if indent == 0 && trimmed == "}" {
            (outer, inner) = (0, None);
            docs.clear();
        } else if line == MACRO {
            outer = 4;
            docs.clear();
        } else if inner.is_none() && indent == outer {
            match enum_name(trimmed, outer > 0) {
                Some(name) => {
                    enums.push(Enum { name, docs: summary(&docs), variants: Vec::new() });
                    inner = (!trimmed.ends_with("{}")).then_some(outer + 4);
                    docs.clear();
                }
                None if !trimmed.starts_with(['#', ')', ']']) => docs.clear(),
                None => {}
            }
        }
    }
    enums
}

/// Of a line that begins an enum, in a macro or not.
fn enum_name(line: &str, is_macro: bool) -> Option<String> {
    let rest = match is_macro {
        true => line.strip_suffix(" {").filter(|name| name.chars().all(char::is_alphanumeric))?,
        false => line.strip_prefix("pub enum ")?,
    };
    Some(word(rest))
}

/// With the name that it has in serialized forms, as far as the line says it.
fn variant(line: &str, docs: String) -> Variant {
    let name = word(line);
    let text = line.split('"').nth(1).filter(|_| line.contains(" = "));
    let serialized = text.map_or_else(|| kebab(&name), str::to_owned);
    Variant { name, serialized, docs }
}

fn word(text: &str) -> String {
    text.split(|c: char| !c.is_alphanumeric()).next().unwrap_or_default().to_owned()
}

/// The first paragraph, with names of Rust as code and not as links.
fn summary(docs: &[String]) -> String {
    let paragraph: Vec<_> = docs.iter().take_while(|line| !line.is_empty()).cloned().collect();
    paragraph.join(" ").replace("[`", "`").replace("`]", "`")
}

fn one_line(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

fn kebab(name: &str) -> String {
    let mut kebab = String::new();
    for c in name.chars() {
        if c.is_ascii_uppercase() && !kebab.is_empty() {
            kebab.push('-');
        }
        kebab.push(c.to_ascii_lowercase());
    }
    kebab
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn variants_have_their_first_paragraph() {
        let text = "/// Why [`it`]\n/// failed.\n///\n/// More.\n#[derive(Debug)]\npub enum ItError {\n    \
                    /// One | thing.\n    #[error(\"{x}\")]\n    OneThing {\n        /// A field.\n        x: u8,\n    \
                    },\n    /// Two.\n    Two(u8),\n}\n/// Lost.\npub struct Other;\n\npub enum Bare {\n    Three,\n}\n";
        let variant = |name: &str, serialized: &str, docs: &str| Variant {
            name: name.into(),
            serialized: serialized.into(),
            docs: docs.into(),
        };
        let found = parse(text);
        assert_eq!(
            found[0],
            Enum {
                name: "ItError".into(),
                docs: "Why `it` failed.".into(),
                variants: vec![
                    variant("OneThing", "one-thing", "One | thing."),
                    variant("Two", "two", "Two.")
                ],
            }
        );
        assert_eq!(found[1].docs, "");
        assert_eq!(found[1].variants, [variant("Three", "three", "")]);
        let text = "numbered! {\n    /// Why.\n    #[non_exhaustive]\n    Reason {\n        /// [`One`].\n        \
                    OneThing = 0, \"one\";\n    }\n}\n\n/// Lost.\npub struct Other {\n    Field: u8,\n}\n";
        let found = parse(text);
        assert_eq!(found.len(), 1);
        assert_eq!((found[0].name.as_str(), found[0].docs.as_str()), ("Reason", "Why."));
        assert_eq!(found[0].variants, [variant("OneThing", "one", "`One`.")]);
        assert_eq!(kebab("Ip4Short"), "ip4-short");
    }
}
