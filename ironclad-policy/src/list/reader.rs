use std::sync::Arc;
use std::time::SystemTime;

use ironclad_core::Cidr;

use super::csv::Table;
use super::error::{Problem, shown};
use super::ipset::{self, Sets};
use super::place::Place;
use super::spec::{self, Spec};
use super::stix::{self, Item};
use super::{AddressList, BadLines, ListEntry, ListError, ListFormat, ListOptions, ListReport};
use super::{Normalised, Refusal, drop_json, plain};

/// The first bytes of what is not text, what it is and what makes text of it.
///
/// UTF-32 comes before UTF-16, whose mark it begins with.
const ENCODED: [(&[u8], &str, &str); 9] = [
    (b"\xff\xfe\0\0", "UTF-32 text", "iconv -f UTF-32 -t UTF-8"),
    (b"\0\0\xfe\xff", "UTF-32 text", "iconv -f UTF-32 -t UTF-8"),
    (b"BZh", "a bzip2 file", "bunzip2"),
    (b"\x1f\x8b", "a gzip file", "gunzip"),
    (b"\xfd7zXZ\0", "an xz file", "unxz"),
    (b"\x28\xb5\x2f\xfd", "a Zstandard file", "unzstd"),
    (b"PK\x03\x04", "a zip file", "unzip"),
    (b"\xff\xfe", "UTF-16 text", "iconv -f UTF-16 -t UTF-8"),
    (b"\xfe\xff", "UTF-16 text", "iconv -f UTF-16 -t UTF-8"),
];
const BYTE_ORDER_MARK: &[u8] = "\u{feff}".as_bytes();

/// What a line is.
enum Line<'a> {
    Blank,
    Comment,
    Directive,
    Entry { spec: Spec, text: &'a [u8], lost: Option<Lost> },
}

/// What is said of an entry and not kept.
enum Lost {
    Timeout,
    Port,
}

/// What is known of the lines before.
enum Before<'a> {
    Sets(Sets<'a>),
    Table(Table<'a>),
}

struct Reader<'a> {
    options: &'a ListOptions,
    /// The number of the line that is being read.
    line: u32,
    before: Before<'a>,
    entries: Vec<ListEntry>,
    report: ListReport,
}

pub(super) fn read(
    name: &str,
    bytes: &[u8],
    options: &ListOptions,
) -> Result<AddressList, ListError> {
    if bytes.len() as u64 > options.max_bytes {
        return Err(ListError::TooLarge { name: name.to_owned(), limit: options.max_bytes });
    }
    if let Some((format, command)) = encoded(bytes) {
        return Err(ListError::Encoded { name: name.to_owned(), format, command });
    }
    let before = match &options.format {
        ListFormat::Csv { column } => Before::Table(Table::new(column.as_deref())),
        ListFormat::Lines | ListFormat::Stix => Before::Sets(Sets::default()),
    };
    let mut reader = Reader {
        options,
        line: 0,
        before,
        entries: Vec::new(),
        report: ListReport::new(name.into()),
    };
    let text = bytes.strip_prefix(BYTE_ORDER_MARK).unwrap_or(bytes);
    match options.format {
        ListFormat::Stix => reader.objects(text)?,
        ListFormat::Lines | ListFormat::Csv { .. } => reader.lines(text)?,
    }
    reader.finish()
}

/// What bytes are that are no text yet, and what makes text of them.
pub(crate) fn encoded(bytes: &[u8]) -> Option<(&'static str, &'static str)> {
    let found = ENCODED.iter().find(|(start, ..)| bytes.starts_with(start));
    found.map(|&(_, format, command)| (format, command))
}

impl<'a> Reader<'a> {
    fn lines(&mut self, mut rest: &'a [u8]) -> Result<(), ListError> {
        let is_plain = matches!(self.before, Before::Sets(_));
        while !rest.is_empty() {
            self.line = self.line.saturating_add(1);
            let end = match is_plain.then(|| plain::prefix4(rest)).flatten() {
                Some((addr, length, end)) => {
                    if let Ok(cidr) = Cidr::new(addr.into(), length) {
                        self.push(cidr)?;
                        if cidr.addr() != addr {
                            self.normalised(&rest[..end], cidr);
                        }
                    }
                    end
                }
                None => {
                    let ends = |&b: &u8| b == b'\n' || b == b'\r';
                    let end = rest.iter().position(ends).unwrap_or(rest.len());
                    self.line(&rest[..end])?;
                    end
                }
            };
            rest = match &rest[end..] {
                [b'\r', b'\n', next @ ..] | [_, next @ ..] => next,
                [] => &[],
            };
        }
        Ok(())
    }

    fn line(&mut self, line: &'a [u8]) -> Result<(), ListError> {
        match self.recognise(line.trim_ascii()) {
            Ok(Line::Blank) => self.report.blank += 1,
            Ok(Line::Comment) => self.report.comments += 1,
            Ok(Line::Directive) => self.report.directives += 1,
            Ok(Line::Entry { spec, text, lost }) => {
                match lost {
                    Some(Lost::Timeout) => self.report.timeouts += 1,
                    Some(Lost::Port) => self.report.ports += 1,
                    None => {}
                }
                self.entry(spec, text)?;
            }
            Err(problem) => self.skip(problem, || line),
        }
        Ok(())
    }

    /// Tells what `line`, which has no white space around it, is; each line speaks for itself, so
    /// that no file has to be of one format.
    fn recognise(&mut self, line: &'a [u8]) -> Result<Line<'a>, Problem<'a>> {
        match line {
            [] => return Ok(Line::Blank),
            [b'#' | b';', ..] => {
                if let Before::Table(table) = &mut self.before {
                    table.comment(line);
                }
                return Ok(Line::Comment);
            }
            _ => {}
        }
        let sets = match &mut self.before {
            Before::Table(table) => {
                return Ok(match table.row(line)? {
                    Some(cell) => {
                        let lost = cell.has_port.then_some(Lost::Port);
                        Line::Entry { spec: cell.spec, text: cell.text, lost }
                    }
                    None => Line::Directive,
                });
            }
            Before::Sets(sets) => sets,
        };
        if line.starts_with(b"{") {
            return Ok(match drop_json::parse(line)? {
                Some((spec, text)) => Line::Entry { spec, text, lost: None },
                None => Line::Directive,
            });
        }
        if ipset::is_command(spec::first_word(line)) {
            return Ok(match sets.command(line, self.line)? {
                Some(added) => {
                    let lost = added.expires.then_some(Lost::Timeout);
                    Line::Entry { spec: added.spec, text: added.text, lost }
                }
                None => Line::Directive,
            });
        }
        let end = line.iter().position(|b| matches!(b, b'#' | b';')).unwrap_or(line.len());
        let text = line[..end].trim_ascii_end();
        Ok(Line::Entry { spec: spec::parse(text)?, text, lost: None })
    }

    fn objects(&mut self, text: &'a [u8]) -> Result<(), ListError> {
        let at = self.options.at.unwrap_or_else(SystemTime::now);
        let mut place = Place::of(text);
        match stix::objects(text) {
            Ok(objects) => {
                for object in objects {
                    self.object(object, at, &mut place)?;
                }
            }
            Err(problem) => self.misplaced(problem, &mut place),
        }
        self.line = place.lines();
        Ok(())
    }

    fn object(
        &mut self,
        object: &'a [u8],
        at: SystemTime,
        place: &mut Place<'a>,
    ) -> Result<(), ListError> {
        match stix::item(object, at) {
            Ok(Item::Addresses(pattern, named)) => {
                place.seek(pattern);
                self.line = place.line;
                self.report.other_patterns += u64::from(named.has_others);
                for (spec, text) in named.entries {
                    self.entry(spec, &text)?;
                }
            }
            Ok(Item::OtherPattern) => self.report.other_patterns += 1,
            Ok(Item::Inactive) => self.report.inactive += 1,
            Ok(Item::Other) => self.report.directives += 1,
            Err(problem) => self.misplaced(problem, place),
        }
        Ok(())
    }

    /// A problem somewhere in a text that is more than lines.
    fn misplaced(&mut self, problem: Problem<'a>, place: &mut Place<'a>) {
        place.seek(problem.at);
        self.line = place.line;
        self.skip(problem, || place.text_of_line());
    }

    fn entry(&mut self, spec: Spec, text: &[u8]) -> Result<(), ListError> {
        match spec {
            Spec::One { cidr, host_bits } => {
                self.push(cidr)?;
                if host_bits {
                    self.normalised(text, cidr);
                }
                Ok(())
            }
            Spec::Range(cidrs) => {
                self.report.ranges += 1;
                cidrs.into_iter().try_for_each(|cidr| self.push(cidr))
            }
        }
    }

    fn push(&mut self, cidr: Cidr) -> Result<(), ListError> {
        if self.entries.len() >= self.options.max_entries {
            return Err(ListError::TooManyEntries {
                name: self.report.name.to_string(),
                line: self.line,
                limit: self.options.max_entries,
            });
        }
        self.entries.push(ListEntry { cidr, line: self.line });
        Ok(())
    }

    fn normalised(&mut self, text: &[u8], cidr: Cidr) {
        self.report.normalised += 1;
        if self.report.first_normalised.len() < self.options.max_errors {
            let text = shown(text);
            self.report.first_normalised.push(Normalised { line: self.line, text, cidr });
        }
    }

    fn skip<'b>(&mut self, problem: Problem<'_>, line: impl FnOnce() -> &'b [u8]) {
        self.report.skipped += 1;
        if self.report.errors.len() < self.options.max_errors {
            self.report.errors.push(problem.locate(&self.report.name, self.line, line()));
        }
    }

    fn finish(self) -> Result<AddressList, ListError> {
        let Self { options, line, entries, mut report, .. } = self;
        let refusal = match options.bad_lines {
            _ if report.skipped == 0 => None,
            BadLines::Strict => Some(Refusal::Strict),
            BadLines::Lenient if entries.is_empty() => Some(Refusal::NothingGood),
            BadLines::Lenient => (report.skipped > options.max_skipped)
                .then_some(Refusal::TooManySkipped { limit: options.max_skipped }),
        };
        if let Some(refusal) = refusal {
            return Err(ListError::Bad {
                name: report.name.to_string(),
                errors: report.errors,
                total: report.skipped,
                refusal,
            });
        }
        report.lines = line;
        report.entries = entries.len();
        Ok(AddressList { name: Arc::clone(&report.name), entries, report })
    }
}
