//! Words that the glossary discards: docs/discarded.toml has each with the term to use instead.

use std::collections::BTreeMap;
use std::path::Path;

use serde::Deserialize;

use crate::check::tree;
use crate::command::read_text;
use crate::failure::{Context, Result};

const FILE: &str = "docs/discarded.toml";
/// Files that name discarded words, and those that are written elsewhere.
const EXEMPT: [&str; 6] =
    [FILE, "docs/glossary.md", "LICENSE-MIT", "LICENSE-APACHE", "Cargo.lock", "fuzz/Cargo.lock"];

#[derive(Deserialize)]
struct Discarded {
    /// The term to use, by the discarded word.
    words: BTreeMap<String, String>,
}

pub(super) fn problems() -> Result<Vec<String>> {
    let discarded: Discarded = toml::from_str(&read_text(FILE.as_ref())?).context(FILE)?;
    let mut problems = Vec::new();
    for path in tree::files()? {
        if is_exempt(&path) {
            continue;
        }
        let Ok(text) = std::fs::read_to_string(&path) else { continue };
        let lowered = text.to_lowercase();
        let found: Vec<_> =
            discarded.words.iter().filter(|(word, _)| lowered.contains(word.as_str())).collect();
        for (number, line) in (1..).zip(text.lines()).filter(|_| !found.is_empty()) {
            for (word, term) in found.iter().filter(|(word, _)| has(line, word)) {
                let path = path.display();
                problems.push(format!("{path}:{number}: '{word}' is discarded: use '{term}'"));
            }
        }
    }
    Ok(problems)
}

fn is_exempt(path: &Path) -> bool {
    path.starts_with("bpf-src/vmlinux") || EXEMPT.iter().any(|exempt| path == Path::new(exempt))
}

/// Whether a line has the word as a whole, also in the plural and as a part of an identifier. Old names that
/// serialized forms still accept are no use of it.
fn has(line: &str, word: &str) -> bool {
    let is_alias = line.contains("alias = \"");
    !is_alias
        && line.char_indices().any(|(at, _)| {
            let rest = &line[at..];
            let begins = rest.get(..word.len()).is_some_and(|it| it.eq_ignore_ascii_case(word));
            begins && is_start(&line[..at], rest) && is_end(&rest[word.len()..])
        })
}

/// After no letter, or as a capital after a small one.
fn is_start(before: &str, rest: &str) -> bool {
    let is_capital = rest.starts_with(char::is_uppercase);
    match before.chars().next_back() {
        Some(last) if last.is_alphabetic() => is_capital && last.is_lowercase(),
        _ => true,
    }
}

fn is_end(after: &str) -> bool {
    let after = after.strip_prefix('s').unwrap_or(after);
    !after.starts_with(char::is_lowercase)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whole_words_and_parts_of_identifiers() {
        for line in ["a zebra came", "Zebras", "is_zebra()", "NotZebra {", "ZEBRA"] {
            assert!(has(line, "zebra"), "{line}");
        }
        for line in ["no azebra", "zebraic", "#[serde(alias = \"zebra\")]", "zebr"] {
            assert!(!has(line, "zebra"), "{line}");
        }
        assert!(has("a grey zebra.", "grey zebra"));
    }
}
