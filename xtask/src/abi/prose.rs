//! Comments of C as documentation of Rust.

use super::emit::Names;

/// Columns of a line.
const WIDTH: usize = 100;

/// A documentation comment, indented by so many spaces.
pub(super) fn doc(comment: &str, indent: usize, names: &Names) -> String {
    let paragraphs: Vec<_> = comment.split("\n\n").map(one_line).collect();
    let margin = " ".repeat(indent);
    let mut text = String::new();
    for (index, paragraph) in paragraphs.iter().enumerate() {
        if index > 0 {
            text += &format!("{margin}///\n");
        }
        let sentence = sentence(&links(paragraph, names));
        for line in wrap(&sentence, WIDTH - indent - 4) {
            text += &format!("{margin}/// {line}\n");
        }
    }
    text
}

/// A comment that is not documentation.
pub(super) fn comment(text: &str) -> String {
    wrap(&one_line(text), WIDTH - 3).iter().map(|line| format!("// {line}\n")).collect()
}

fn one_line(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

/// Lines of at most so many columns; a word that is longer has a line of its own.
pub(super) fn wrap(text: &str, width: usize) -> Vec<String> {
    let mut lines: Vec<String> = Vec::new();
    for word in text.split(' ') {
        match lines.last_mut() {
            Some(line) if line.chars().count() + 1 + word.chars().count() <= width => {
                line.push(' ');
                line.push_str(word);
            }
            _ => lines.push(word.to_owned()),
        }
    }
    lines
}

/// With a capital and a full stop. A function's name keeps its first letter.
fn sentence(text: &str) -> String {
    let word = text.find(|c: char| !c.is_ascii_alphanumeric()).unwrap_or(text.len());
    let is_name = text[word..].starts_with(['(', '_']);
    let mut out = String::with_capacity(text.len() + 1);
    let mut chars = text.chars();
    if let Some(first) = chars.next() {
        out.push(if is_name { first } else { first.to_ascii_uppercase() });
    }
    out.push_str(chars.as_str());
    if !out.ends_with('.') {
        out.push('.');
    }
    out
}

/// With links to what has a name in Rust, and other names of C as code.
fn links(text: &str, names: &Names) -> String {
    let mut out = String::new();
    let mut rest = text;
    let mut is_code = false;
    while let Some(first) = rest.chars().next() {
        let is_part = |c: char| c.is_ascii_alphanumeric() || c == '_';
        let length = if is_part(first) && !is_code {
            let (length, link) = name(rest, names);
            match link {
                Some(link) => out += &link,
                None => out += &rest[..length],
            }
            length
        } else {
            is_code ^= first == '`';
            out.push(first);
            first.len_utf8()
        };
        rest = &rest[length..];
    }
    out
}

/// The length of the name or word that a text begins with, and the link in its place.
fn name(text: &str, names: &Names) -> (usize, Option<String>) {
    let word_end = |text: &str| {
        text.find(|c: char| !c.is_ascii_alphanumeric() && c != '_').unwrap_or(text.len())
    };
    let length = word_end(text);
    let word = &text[..length];
    if let "enum" | "struct" | "union" = word {
        if let Some(rest) = text[length..].strip_prefix(" ic_") {
            let end = length + " ic_".len() + word_end(rest);
            let name = &text[length + 1..end];
            let link = match word {
                "enum" => names.enums.get(name).cloned(),
                _ => names.structs.get(name).map(|(rust, _)| format!("[`{rust}`]")),
            };
            return (end, Some(link.unwrap_or_else(|| format!("`{}`", &text[..end]))));
        }
    }
    if let Some((rust, _)) = names.constants.get(word) {
        return (length, Some(format!("[`{rust}`]")));
    }
    if word.starts_with("ic_") {
        if let Some(rest) = text[length..].strip_prefix('.') {
            let field = &rest[..word_end(rest)];
            let found = names.structs.get(word);
            if let Some((rust, _)) = found.filter(|(_, fields)| fields.iter().any(|it| it == field))
            {
                return (length + 1 + field.len(), Some(format!("[`{rust}::{field}`]")));
            }
        }
        let length = if text[length..].starts_with("()") { length + 2 } else { length };
        return (length, Some(format!("`{}`", &text[..length])));
    }
    let is_constant = word.contains('_') && word.chars().all(|c| !c.is_ascii_lowercase());
    (length, is_constant.then(|| format!("`{word}`")))
}
