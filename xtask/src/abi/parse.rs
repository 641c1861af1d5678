//! The part of C that the ABI headers are written in. The parser refuses anything else, with its place.

use crate::failure::{Failure, Result};

/// The contents of one header.
#[derive(Debug, Default)]
pub(super) struct Header {
    /// File name, such as `flat.h`.
    pub(super) name: String,
    /// The comment at the top of the file.
    pub(super) doc: String,
    pub(super) items: Vec<Item>,
}

#[derive(Debug)]
pub(super) enum Item {
    Enum(Enum),
    Struct(Struct),
}

#[derive(Debug)]
pub(super) struct Enum {
    pub(super) name: String,
    pub(super) doc: Option<String>,
    pub(super) constants: Vec<Constant>,
    /// Where it begins: `file:line`.
    pub(super) place: String,
}

#[derive(Debug)]
pub(super) struct Constant {
    pub(super) name: String,
    pub(super) doc: String,
    pub(super) value: Value,
}

#[derive(Debug, PartialEq, Eq)]
pub(super) enum Value {
    /// One more than the constant before it.
    Next,
    /// The product of numbers and names, as written.
    Product(Vec<String>),
}

/// A struct; unions are checked and have no members here, since Rust reads a cell as one of its members.
#[derive(Debug)]
pub(super) struct Struct {
    pub(super) name: String,
    pub(super) doc: String,
    pub(super) is_union: bool,
    pub(super) fields: Vec<Field>,
    /// The size that the header asserts: a number or the name of a constant.
    pub(super) size: String,
    pub(super) place: String,
}

#[derive(Debug)]
pub(super) struct Field {
    pub(super) name: String,
    pub(super) doc: String,
    /// `__u32`, or `struct ic_file_id`.
    pub(super) kind: String,
    /// Lengths of the array's dimensions, the outermost first.
    pub(super) lengths: Vec<String>,
    pub(super) place: String,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Token {
    Comment {
        text: String,
        ends_line: bool,
    },
    /// An identifier or a number.
    Word(String),
    Text(String),
    Mark(char),
}

struct Parser<'a> {
    header: &'a str,
    tokens: Vec<(Token, usize)>,
    next: usize,
}

/// Parses the text of a header.
pub(super) fn header(name: &str, text: &str) -> Result<Header> {
    let tokens = tokens(name, text)?;
    Parser { header: name, tokens, next: 0 }.header()
}

/// The tokens, each with its line. Preprocessor lines are checked and left out.
fn tokens(name: &str, text: &str) -> Result<Vec<(Token, usize)>> {
    let mut tokens: Vec<(Token, usize)> = Vec::new();
    let (mut rest, mut line) = (text, 1);
    while let Some(first) = rest.chars().next() {
        let fail = |what: &str| Err(Failure::new(format!("{name}:{line}: {what}")));
        let length = if let Some(body) = rest.strip_prefix("/*") {
            let Some(end) = body.find("*/") else { return fail("the comment does not end") };
            // A comment behind `,`, `;` or `{` on the same line is about what stands before it.
            let ends_line = tokens.last().is_some_and(|(_, last)| *last == line);
            tokens.push((Token::Comment { text: body[..end].to_owned(), ends_line }, line));
            end + 4
        } else if rest.starts_with("//") {
            return fail("a comment in C++ style");
        } else if first == '#' {
            let end = rest.find('\n').unwrap_or(rest.len());
            if let Err(what) = directive(&rest[..end]) {
                return fail(&what);
            }
            end
        } else if let Some(body) = rest.strip_prefix('"') {
            let Some(end) = body.find('"') else { return fail("the string does not end") };
            tokens.push((Token::Text(body[..end].to_owned()), line));
            end + 2
        } else if first.is_ascii_alphanumeric() || first == '_' {
            let is_part = |c: char| c.is_ascii_alphanumeric() || c == '_';
            let end = rest.find(|c| !is_part(c)).unwrap_or(rest.len());
            tokens.push((Token::Word(rest[..end].to_owned()), line));
            end
        } else if "{}()[],;=*".contains(first) {
            tokens.push((Token::Mark(first), line));
            1
        } else if first.is_whitespace() {
            first.len_utf8()
        } else {
            return fail(&format!("'{first}' has no meaning here"));
        };
        line += rest[..length].matches('\n').count();
        rest = &rest[length..];
    }
    Ok(tokens)
}

/// Include guards and includes of other headers of the ABI.
fn directive(line: &str) -> std::result::Result<(), String> {
    let words: Vec<_> = line.split_whitespace().collect();
    match words[..] {
        ["#ifndef" | "#define", guard] if guard.starts_with("IRONCLAD_ABI_") => Ok(()),
        ["#include", file] if file.starts_with('"') => Ok(()),
        ["#endif"] => Ok(()),
        _ => Err(format!("'{line}' is neither an include guard nor an include of the ABI")),
    }
}

/// The text of a comment: paragraphs of words, without stars.
fn prose(comment: &str) -> String {
    let lines = comment.lines().map(|line| {
        let line = line.trim_start();
        line.strip_prefix("* ").or(line.strip_prefix('*')).unwrap_or(line).trim_end()
    });
    lines.collect::<Vec<_>>().join("\n").trim().to_owned()
}

impl Parser<'_> {
    fn place(&self) -> String {
        let at = self.next.min(self.tokens.len().saturating_sub(1));
        format!("{}:{}", self.header, self.tokens.get(at).map_or(1, |(_, line)| *line))
    }

    fn fail<T>(&self, what: &str) -> Result<T> {
        Err(Failure::new(format!("{}: {what}", self.place())))
    }

    fn peek(&self) -> Option<&Token> {
        self.tokens.get(self.next).map(|(token, _)| token)
    }

    fn word(&mut self, what: &str) -> Result<String> {
        match self.peek() {
            Some(Token::Word(word)) => {
                let word = word.clone();
                self.next += 1;
                Ok(word)
            }
            _ => self.fail(&format!("expected {what}")),
        }
    }

    fn accepts(&mut self, mark: char) -> bool {
        let found = self.peek() == Some(&Token::Mark(mark));
        self.next += usize::from(found);
        found
    }

    fn mark(&mut self, mark: char) -> Result<()> {
        if self.accepts(mark) { Ok(()) } else { self.fail(&format!("expected '{mark}'")) }
    }

    /// The comment on lines of its own.
    fn leading(&mut self) -> Option<String> {
        let Some(Token::Comment { text, ends_line: false }) = self.peek() else { return None };
        let text = prose(text);
        self.next += 1;
        Some(text)
    }

    /// The comment behind a member on its line.
    fn trailing(&mut self) -> Option<String> {
        let Some(Token::Comment { text, ends_line: true }) = self.peek() else { return None };
        let text = prose(text);
        self.next += 1;
        Some(text)
    }

    /// The one comment of a member, in front of it or behind it.
    fn member_doc(&self, leading: Option<String>, trailing: Option<String>) -> Result<String> {
        match (leading, trailing) {
            (Some(doc), None) | (None, Some(doc)) => Ok(doc),
            (Some(_), Some(_)) => self.fail("two comments on one member"),
            (None, None) => self.fail("the member before this place has no comment"),
        }
    }

    fn header(mut self) -> Result<Header> {
        let licence = self.leading().unwrap_or_default();
        if !licence.starts_with("SPDX-License-Identifier:") {
            return self.fail("the header does not begin with its licence");
        }
        let Some(doc) = self.leading() else {
            return self.fail("the header has no comment on its contents");
        };
        let mut header = Header { name: self.header.to_owned(), doc, items: Vec::new() };
        while self.peek().is_some() {
            let doc = self.leading();
            let place = self.place();
            let item = match self.word("`enum`, `struct` or `union`")?.as_str() {
                "enum" => Item::Enum(self.enumeration(doc, place)?),
                kind @ ("struct" | "union") => {
                    let Some(doc) = doc else { return self.fail("the struct has no comment") };
                    Item::Struct(self.structure(doc, kind, place)?)
                }
                other => return self.fail(&format!("'{other}' does not begin an item")),
            };
            header.items.push(item);
        }
        Ok(header)
    }

    fn name(&mut self) -> Result<String> {
        let name = self.word("a name")?;
        if name.starts_with("ic_") {
            return Ok(name);
        }
        self.fail(&format!("the name '{name}' does not begin with ic_"))
    }

    fn enumeration(&mut self, doc: Option<String>, place: String) -> Result<Enum> {
        let name = self.name()?;
        self.mark('{')?;
        let mut constants = Vec::new();
        while !self.accepts('}') {
            let leading = self.leading();
            let name = self.word("a constant")?;
            if !name.starts_with("IC_") {
                return self.fail(&format!("the name '{name}' does not begin with IC_"));
            }
            let value = if self.accepts('=') { self.product()? } else { Value::Next };
            self.mark(',')?;
            let trailing = self.trailing();
            let doc = self.member_doc(leading, trailing)?;
            constants.push(Constant { name, doc, value });
        }
        self.mark(';')?;
        Ok(Enum { name, doc, constants, place })
    }

    fn product(&mut self) -> Result<Value> {
        let mut factors = vec![self.word("a value")?];
        while self.accepts('*') {
            factors.push(self.word("a factor")?);
        }
        Ok(Value::Product(factors))
    }

    fn structure(&mut self, doc: String, kind: &str, place: String) -> Result<Struct> {
        let is_union = kind == "union";
        let name = self.name()?;
        self.mark('{')?;
        let mut fields = Vec::new();
        while !self.accepts('}') {
            fields.push(self.field(is_union)?);
        }
        self.mark(';')?;
        let size = self.size(kind, &name)?;
        Ok(Struct { name, doc, is_union, fields, size, place })
    }

    fn field(&mut self, is_union: bool) -> Result<Field> {
        let leading = self.leading();
        let place = self.place();
        let mut kind = self.word("a type")?;
        if kind == "struct" {
            kind = format!("struct {}", self.word("the name of a struct")?);
        }
        let name = self.word("the name of a field")?;
        let mut lengths = Vec::new();
        while self.accepts('[') {
            lengths.push(self.word("the length of an array")?);
            self.mark(']')?;
        }
        self.mark(';')?;
        let trailing = self.trailing();
        let doc = match (leading, trailing) {
            (None, None) if name.starts_with('_') => "zero".to_owned(),
            (None, None) if is_union => String::new(),
            (leading, trailing) => self.member_doc(leading, trailing)?,
        };
        Ok(Field { name, doc, kind, lengths, place })
    }

    /// The assertion that follows every struct.
    fn size(&mut self, kind: &str, name: &str) -> Result<String> {
        for (index, expected) in ["_Static_assert", "(", "sizeof", "(", kind, name, ")", "=", "="]
            .into_iter()
            .enumerate()
        {
            let is_found = match self.peek() {
                Some(Token::Word(word)) => word == expected,
                Some(Token::Mark(mark)) => expected.chars().eq([*mark]),
                _ => false,
            };
            if !is_found {
                let what = if index == 0 { "the assertion of its size" } else { expected };
                return self.fail(&format!("expected {what} behind {kind} {name}"));
            }
            self.next += 1;
        }
        let size = self.word("the size")?;
        self.mark(',')?;
        let Some(Token::Text(_)) = self.peek() else { return self.fail("expected a string") };
        self.next += 1;
        self.mark(')')?;
        self.mark(';')?;
        Ok(size)
    }
}
