//! Values with commas between them, one row a line: the form of abuse.ch.

use super::error::Problem;
use super::spec::{self, Spec};

/// Headers of columns that have a port, in lower case and without what stands between words.
const PORTS: [&[u8]; 6] =
    [b"port", b"dstport", b"destport", b"destinationport", b"srcport", b"sourceport"];

/// A table, as far as its rows have been read.
pub(super) struct Table<'a> {
    /// The name of the column with the addresses, where it was given.
    wanted: Option<&'a str>,
    /// The place of the column with the addresses.
    column: Option<usize>,
    /// The place of the column with the port.
    port: Option<usize>,
    has_header: bool,
    has_rows: bool,
}

/// The address of a row.
pub(super) struct Cell<'a> {
    pub(super) spec: Spec,
    pub(super) text: &'a [u8],
    /// Whether the row has a port, too.
    pub(super) has_port: bool,
}

impl<'a> Table<'a> {
    pub(super) fn new(wanted: Option<&'a str>) -> Self {
        Self { wanted, column: None, port: None, has_header: false, has_rows: false }
    }

    /// Looks for the header in a comment before the first row.
    pub(super) fn comment(&mut self, line: &'a [u8]) {
        let is_mark = |b: &u8| matches!(b, b'#' | b';');
        let start = line.iter().position(|b| !is_mark(b)).unwrap_or(line.len());
        if !self.has_header && !self.has_rows {
            // A comment that is no header is nothing but a comment.
            let _ = self.header(line[start..].trim_ascii());
        }
    }

    /// Reads a row; a header has no address.
    pub(super) fn row(&mut self, line: &'a [u8]) -> Result<Option<Cell<'a>>, Problem<'a>> {
        if !self.has_header && !self.has_rows && self.header(line)? {
            self.has_header = true;
            return Ok(None);
        }
        self.has_rows = true;
        let column = match self.column {
            Some(column) => column,
            None => self.find(line)?,
        };
        self.column = Some(column);
        let mut cell = None;
        let mut has_port = false;
        for (place, field) in Fields::of(line).enumerate() {
            let field = field?;
            if place == column {
                cell = Some(field);
            } else if Some(place) == self.port {
                has_port = !field.is_empty();
            }
        }
        let text = cell.unwrap_or(&line[line.len()..]);
        if text.is_empty() {
            return Err(Problem::new(text, format!("an address in column {}", column + 1)));
        }
        let (text, behind) = without_port(text);
        Ok(Some(Cell { spec: spec::network(text)?, text, has_port: has_port || behind }))
    }

    /// Whether `line` is a header: nothing but names, that of the wanted column among them.
    fn header(&mut self, line: &'a [u8]) -> Result<bool, Problem<'a>> {
        let (mut column, mut port) = (None, None);
        for (place, field) in Fields::of(line).enumerate() {
            let field = field?;
            if !is_name(field) {
                return Ok(false);
            }
            if self.wanted.is_some_and(|name| field.eq_ignore_ascii_case(name.as_bytes())) {
                column = column.or(Some(place));
            } else if is_port(field) {
                port = port.or(Some(place));
            }
        }
        if self.wanted.is_some() && column.is_none() {
            return Ok(false);
        }
        (self.column, self.port) = (column, port);
        Ok(true)
    }

    /// The column of the first row's first address.
    fn find(&self, line: &'a [u8]) -> Result<usize, Problem<'a>> {
        if let Some(name) = self.wanted {
            return Err(Problem::new(line, format!("a header with the column `{name}`")));
        }
        for (place, field) in Fields::of(line).enumerate() {
            if spec::network(without_port(field?).0).is_ok() {
                return Ok(place);
            }
        }
        Err(Problem::new(line, "a row with an address, or a header before it"))
    }
}

fn is_name(field: &[u8]) -> bool {
    field.first().is_some_and(|b| b.is_ascii_alphabetic() || *b == b'_')
        && field.iter().all(|b| b.is_ascii_alphanumeric() || b"_- ".contains(b))
}

fn is_port(name: &[u8]) -> bool {
    let letters = name.iter().filter(|b| b.is_ascii_alphanumeric()).map(u8::to_ascii_lowercase);
    PORTS.iter().any(|port| letters.clone().eq(port.iter().copied()))
}

/// Takes the port off `192.0.2.1:443` and `[2001:db8::1]:443`, and says whether there was one.
fn without_port(text: &[u8]) -> (&[u8], bool) {
    let is_port = |port: &[u8]| {
        std::str::from_utf8(port)
            .is_ok_and(|port| !port.starts_with('+') && port.parse::<u16>().is_ok())
    };
    let colon = text.iter().rposition(|&b| b == b':').filter(|&at| is_port(&text[at + 1..]));
    let (addr, has_port) = match colon {
        Some(at) if text[..at].ends_with(b"]") || !text[..at].contains(&b':') => {
            (&text[..at], true)
        }
        _ => (text, false),
    };
    match addr {
        [] => (text, false),
        [b'[', inside @ .., b']'] if !inside.is_empty() => (inside, has_port),
        addr => (addr, has_port),
    }
}

/// The fields of a row, without the white space and the quotation marks around them.
struct Fields<'a>(Option<&'a [u8]>);

impl<'a> Fields<'a> {
    fn of(line: &'a [u8]) -> Self {
        Self(Some(line))
    }
}

impl<'a> Iterator for Fields<'a> {
    type Item = Result<&'a [u8], Problem<'a>>;

    fn next(&mut self) -> Option<Self::Item> {
        let rest = self.0.take()?.trim_ascii_start();
        let Some(quoted) = rest.strip_prefix(b"\"") else {
            let end = rest.iter().position(|&b| b == b',').unwrap_or(rest.len());
            self.0 = rest.get(end + 1..);
            return Some(Ok(rest[..end].trim_ascii_end()));
        };
        // Of two marks in a row the second is the field's, and no address has any.
        let mut end = 0;
        loop {
            match quoted[end..].iter().position(|&b| b == b'"') {
                Some(mark) if quoted.get(end + mark + 1) == Some(&b'"') => end += mark + 2,
                Some(mark) => break end += mark,
                None => return Some(Err(Problem::new(rest, "a quotation mark at the end, too"))),
            }
        }
        let behind = quoted[end + 1..].trim_ascii_start();
        match behind {
            [] => {}
            [b',', next @ ..] => self.0 = Some(next),
            _ => return Some(Err(Problem::new(behind, "a comma after the quotation mark"))),
        }
        Some(Ok(&quoted[..end]))
    }
}
