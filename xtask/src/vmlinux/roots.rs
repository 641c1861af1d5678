//! The list of wanted types, as a person writes it.

use std::collections::BTreeMap;
use std::path::Path;

use crate::failure::{Context, Failure, Result};

/// What a line asks for.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Root {
    Composite(String),
    Enum(String),
    Typedef(String),
    /// The enum, mostly without a name, that defines this constant.
    Constant(String),
}

impl std::fmt::Display for Root {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Composite(name) => write!(f, "struct {name}"),
            Self::Enum(name) => write!(f, "enum {name}"),
            Self::Typedef(name) => write!(f, "typedef {name}"),
            Self::Constant(name) => write!(f, "const {name}"),
        }
    }
}

/// Wanted types of one architecture.
#[derive(Debug, Default, PartialEq)]
pub(crate) struct Roots {
    /// Fixed by the kernel's promise to user space or by a protocol: used as they are.
    pub(crate) fixed: Vec<Root>,
    /// The kernel's own: relocated at load.
    pub(crate) relocated: Vec<Root>,
    /// Fields wanted of a struct of which the rest is left out.
    pub(crate) fields: BTreeMap<String, Vec<String>>,
}

impl Roots {
    pub(crate) fn read(path: &Path, arch: &str) -> Result<Self> {
        let text = std::fs::read_to_string(path).context(path.display())?;
        Self::parse(&text, arch).context(path.display())
    }

    fn parse(text: &str, arch: &str) -> Result<Self> {
        let mut roots = Self::default();
        let mut section = None;
        for (number, line) in (1..).zip(text.lines()) {
            let line = line.split('#').next().unwrap_or_default().trim();
            if line.is_empty() {
                continue;
            }
            if let Some(name) = line.strip_prefix('[').and_then(|line| line.strip_suffix(']')) {
                let mut words = name.split_whitespace();
                let kind = words.next().unwrap_or_default();
                if !matches!(kind, "fixed" | "relocated") {
                    return Err(expected(number, line, "[fixed] or [relocated], and an arch"));
                }
                section = Some((kind, words.next().is_none_or(|only| only == arch)));
                continue;
            }
            let Some((kind, applies)) = section else {
                return Err(expected(number, line, "a section like [fixed] first"));
            };
            let (root, fields) = root(line)
                .ok_or_else(|| expected(number, line, "struct, enum, typedef or const, a name"))?;
            if !applies {
                continue;
            }
            if let (Root::Composite(name), Some(fields)) = (&root, fields) {
                if kind == "fixed" {
                    return Err(expected(number, line, "a whole struct, since this one is fixed"));
                }
                roots.fields.insert(name.clone(), fields);
            }
            match kind {
                "fixed" => roots.fixed.push(root),
                _ => roots.relocated.push(root),
            }
        }
        Ok(roots)
    }
}

fn expected(number: usize, line: &str, what: &str) -> Failure {
    Failure::new(format!("line {number}: '{line}': expected {what}"))
}

fn root(line: &str) -> Option<(Root, Option<Vec<String>>)> {
    let (head, fields) = match line.split_once(':') {
        Some((head, fields)) => (head, Some(fields)),
        None => (line, None),
    };
    let (kind, name) = head.trim().split_once(char::is_whitespace)?;
    let name = name.trim().to_owned();
    let is_identifier =
        |text: &str| !text.is_empty() && text.chars().all(|c| c.is_alphanumeric() || c == '_');
    if !is_identifier(&name) {
        return None;
    }
    let root = match kind {
        "struct" | "union" => Root::Composite(name),
        "enum" => Root::Enum(name),
        "typedef" => Root::Typedef(name),
        "const" => Root::Constant(name),
        _ => return None,
    };
    let fields = match fields {
        Some(list) => {
            let fields: Vec<_> = list.split(',').map(|field| field.trim().to_owned()).collect();
            let valid = fields.iter().all(|field| is_identifier(field));
            (valid && matches!(root, Root::Composite(_))).then_some(Some(fields))?
        }
        None => None,
    };
    Some((root, fields))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sections_fields_and_architectures() {
        let text = "# x\n[fixed]\nstruct a\nconst B # why\n[relocated arm64]\nstruct c: d, e\n";
        let arm = Roots::parse(text, "arm64").unwrap();
        assert_eq!(arm.fixed, [Root::Composite("a".into()), Root::Constant("B".into())]);
        assert_eq!(arm.relocated, [Root::Composite("c".into())]);
        assert_eq!(arm.fields["c"], ["d", "e"]);
        assert!(Roots::parse(text, "x86").unwrap().relocated.is_empty());
    }

    #[test]
    fn errors_name_the_line() {
        for text in
            ["struct a", "[fixed]\nstruct a: b", "[fixed]\nfoo a", "[open]", "[fixed]\nstruct a b"]
        {
            let error = Roots::parse(text, "x86").unwrap_err().to_string();
            assert!(error.contains("line "), "{text}: {error}");
        }
    }
}
