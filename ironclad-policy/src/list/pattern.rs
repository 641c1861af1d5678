//! Patterns of STIX 2.1, as far as they name addresses.

use ironclad_core::Family;

use super::error::Problem;
use super::spec::{self, Spec};

/// Operators by which a pattern is about more than one packet's address, or about all other addresses.
const BEYOND: [&[u8]; 8] =
    [b"AND", b"NOT", b"FOLLOWEDBY", b"EXISTS", b"START", b"STOP", b"WITHIN", b"REPEATS"];

/// What a pattern names.
#[derive(Default)]
pub(super) struct Named {
    /// Addresses and prefixes, and each as it is written.
    pub(super) entries: Vec<(Spec, Vec<u8>)>,
    /// Whether the pattern, joined by `OR`, says something else, too.
    pub(super) has_others: bool,
}

#[derive(Clone, Copy)]
enum Token<'a> {
    /// A path, an operator or a literal other than a string.
    Word(&'a [u8]),
    /// What is between quotation marks.
    Text(&'a [u8]),
    Symbol(&'a [u8]),
}

/// The addresses in `pattern`; none where it is about something else or about more.
pub(super) fn addresses(pattern: &[u8]) -> Result<Named, Problem<'_>> {
    let mut parser = Parser { rest: pattern, named: Named::default() };
    let mut words = Parser { rest: pattern, named: Named::default() };
    while let Some(token) = words.next()? {
        if matches!(token, Token::Word(word) if BEYOND.contains(&word)) {
            return Ok(Named { entries: Vec::new(), has_others: true });
        }
    }
    loop {
        parser.observation()?;
        match parser.next()? {
            None => return Ok(parser.named),
            Some(Token::Word(b"OR")) => {}
            Some(token) => return Err(unexpected(token, "`OR` or the end of the pattern")),
        }
    }
}

struct Parser<'a> {
    rest: &'a [u8],
    named: Named,
}

impl<'a> Parser<'a> {
    /// `[path = 'text' OR …]`, with any parentheses.
    fn observation(&mut self) -> Result<(), Problem<'a>> {
        self.symbol(b"[")?;
        let mut depth = 0;
        loop {
            let mut token = self.some("a comparison")?;
            while let Token::Symbol(b"(") = token {
                depth += 1;
                token = self.some("a comparison")?;
            }
            let Token::Word(path) = token else {
                return Err(unexpected(token, "a path such as ipv4-addr:value"));
            };
            self.comparison(path)?;
            let mut token = self.some("`]`")?;
            while let (Token::Symbol(b")"), 1..) = (token, depth) {
                depth -= 1;
                token = self.some("`]`")?;
            }
            match (token, depth) {
                (Token::Word(b"OR"), _) => {}
                (Token::Symbol(b"]"), 0) => return Ok(()),
                _ => return Err(unexpected(token, "`OR`, or `]` after all parentheses")),
            }
        }
    }

    fn comparison(&mut self, path: &'a [u8]) -> Result<(), Problem<'a>> {
        let family = match path {
            b"ipv4-addr:value" => Some(Family::V4),
            b"ipv6-addr:value" => Some(Family::V6),
            _ => None,
        };
        let operator = self.some("an operator such as `=`")?;
        let is_equal = matches!(operator, Token::Symbol(b"=") | Token::Word(b"ISSUBSET"));
        match operator {
            Token::Word(b"IN") => {
                self.symbol(b"(")?;
                loop {
                    self.literal(family)?;
                    match self.some("`)`")? {
                        Token::Symbol(b",") => {}
                        Token::Symbol(b")") => return Ok(()),
                        token => return Err(unexpected(token, "`,` or `)`")),
                    }
                }
            }
            Token::Symbol(b"=" | b"!=" | b"<>" | b"<" | b">" | b"<=" | b">=")
            | Token::Word(b"ISSUBSET" | b"ISSUPERSET" | b"LIKE" | b"MATCHES") => {
                self.literal(family.filter(|_| is_equal))
            }
            token => Err(unexpected(token, "an operator such as `=`")),
        }
    }

    /// A value, an address of `family` where that is given.
    fn literal(&mut self, family: Option<Family>) -> Result<(), Problem<'a>> {
        let token = self.some("a value")?;
        let (text, family) = match (token, family) {
            (Token::Text(text), Some(family)) => (text, family),
            (Token::Text(_) | Token::Word(_), None) => {
                self.named.has_others = true;
                return Ok(());
            }
            (token, _) => return Err(unexpected(token, "a value, text between ' and '")),
        };
        let spec = spec::network(text)?;
        match &spec {
            Spec::One { cidr, .. } if cidr.family() != family => {
                let expected = match family {
                    Family::V4 => "an IPv4 address, as the path says",
                    Family::V6 => "an IPv6 address, as the path says",
                };
                return Err(Problem::new(text, expected));
            }
            _ => self.named.entries.push((spec, text.to_owned())),
        }
        Ok(())
    }

    fn symbol(&mut self, symbol: &'static [u8]) -> Result<(), Problem<'a>> {
        let expected = if symbol == b"[" { "`[`" } else { "`(`" };
        match self.some(expected)? {
            Token::Symbol(found) if found == symbol => Ok(()),
            token => Err(unexpected(token, expected)),
        }
    }

    fn some(&mut self, expected: &'static str) -> Result<Token<'a>, Problem<'a>> {
        let end = &self.rest[self.rest.len()..];
        self.next()?.ok_or_else(|| Problem::new(end, expected))
    }

    fn next(&mut self) -> Result<Option<Token<'a>>, Problem<'a>> {
        let rest = self.rest.trim_ascii_start();
        let (token, length) = match rest {
            [] => return Ok(None),
            [b'\'', ..] => {
                let length = quoted(rest)?;
                (Token::Text(&rest[1..length - 1]), length)
            }
            [b'!' | b'<' | b'>', b'=', ..] | [b'<', b'>', ..] => (Token::Symbol(&rest[..2]), 2),
            [b'[' | b']' | b'(' | b')' | b',' | b'=' | b'<' | b'>' | b'!', ..] => {
                (Token::Symbol(&rest[..1]), 1)
            }
            _ => {
                let length = word(rest)?;
                (Token::Word(&rest[..length]), length)
            }
        };
        self.rest = &rest[length..];
        Ok(Some(token))
    }
}

/// The bytes of the quotation at the beginning of `text`, its marks included.
fn quoted(text: &[u8]) -> Result<usize, Problem<'_>> {
    let mut bytes = text.iter().enumerate().skip(1);
    while let Some((at, byte)) = bytes.next() {
        match byte {
            b'\\' => drop(bytes.next()),
            b'\'' => return Ok(at + 1),
            _ => {}
        }
    }
    Err(Problem::new(text, "a quotation mark ' at the end, too"))
}

/// The bytes of the word at the beginning of `text`. Quotations and indices are parts of a path
/// (`file:hashes.'SHA-256'`, `x:y[*].z`), and quotations of literals (`t'2026-01-01T00:00:00Z'`).
fn word(text: &[u8]) -> Result<usize, Problem<'_>> {
    let mut at = 0;
    while let Some(byte) = text.get(at) {
        match byte {
            b'\'' => at += quoted(&text[at..])?,
            b'[' => match text[at..].iter().position(|&b| b == b']') {
                Some(end) => at += end + 1,
                None => return Err(Problem::new(&text[at..], "`]`")),
            },
            b']' | b'(' | b')' | b',' | b'=' | b'<' | b'>' | b'!' => break,
            byte if byte.is_ascii_whitespace() => break,
            _ => at += 1,
        }
    }
    Ok(at)
}

fn unexpected<'a>(token: Token<'a>, expected: &'static str) -> Problem<'a> {
    let (Token::Word(at) | Token::Text(at) | Token::Symbol(at)) = token;
    Problem::new(at, expected)
}
