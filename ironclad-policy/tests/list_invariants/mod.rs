//! What holds for every input, whatever bytes it has. Shared with the fuzz target `list`.

use std::collections::BTreeSet;
use std::time::{Duration, UNIX_EPOCH};

use ironclad_policy::list::{
    AddressList, BadLines, LineError, ListError, ListFormat, ListOptions, Refusal,
};

/// Reads `bytes` in every format, strictly and leniently, and panics where the two, or the places
/// that they name, contradict each other or the text.
pub(crate) fn check(bytes: &[u8]) {
    for format in
        [ListFormat::Lines, ListFormat::csv(), ListFormat::csv_column("ip"), ListFormat::Stix]
    {
        check_format(bytes, format);
    }
}

fn check_format(bytes: &[u8], format: ListFormat) {
    // An object of STIX has no line of its own.
    let by_line = format != ListFormat::Stix;
    let at = UNIX_EPOCH + Duration::from_secs(1_800_000_000);
    let options =
        ListOptions::new().format(format).at(at).max_errors(usize::MAX).max_skipped(u64::MAX);
    let strict = AddressList::parse("list", bytes, &options);
    let lenient = AddressList::parse("list", bytes, &options.bad_lines(BadLines::Lenient));
    let lines = lines(bytes);

    let (list, errors) = match (strict, lenient) {
        (Ok(strict), Ok(lenient)) => {
            assert_eq!(strict.entries(), lenient.entries());
            assert_eq!(strict.report(), lenient.report());
            assert_eq!(lenient.report().skipped, 0);
            (Some(lenient), Vec::new())
        }
        (Err(ListError::Bad { errors, total, refusal: Refusal::Strict, .. }), Ok(lenient)) => {
            assert!(!lenient.entries().is_empty());
            assert_eq!((lenient.report().skipped, &lenient.report().errors), (total, &errors));
            (Some(lenient), errors)
        }
        (
            Err(ListError::Bad { errors, total, refusal: Refusal::Strict, .. }),
            Err(ListError::Bad {
                errors: again, total: same, refusal: Refusal::NothingGood, ..
            }),
        ) => {
            assert_eq!((total, &errors), (same, &again));
            (None, errors)
        }
        (Err(ListError::Encoded { .. }), Err(ListError::Encoded { .. })) => return,
        (strict, lenient) => panic!("{strict:?}\n{lenient:?}"),
    };

    for error in &errors {
        place_is_right(error, &lines);
    }
    let mut used: BTreeSet<u32> = errors.iter().map(|error| error.line).collect();
    assert!(!by_line || used.len() == errors.len(), "one error a line");
    if let Some(list) = list {
        let report = list.report();
        assert_eq!(report.lines as usize, lines.len());
        assert_eq!(report.entries, list.entries().len());
        assert!(list.entries().is_sorted_by_key(|entry| entry.line));
        for entry in list.entries() {
            assert!((1..=report.lines).contains(&entry.line));
            let is_bad = errors.binary_search_by_key(&entry.line, |error| error.line).is_ok();
            assert!(!(by_line && is_bad), "line {} is bad and has an entry", entry.line);
            used.insert(entry.line);
        }
        let without = report.blank + report.comments + report.directives;
        assert!(!by_line || used.len() as u64 + without == u64::from(report.lines));
        entries_read_again(&list);
    }
}

/// The lines of a file as editors count them.
fn lines(bytes: &[u8]) -> Vec<&[u8]> {
    let mut rest = bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(bytes);
    let mut lines = Vec::new();
    while !rest.is_empty() {
        let end = rest.iter().position(|b| b"\r\n".contains(b)).unwrap_or(rest.len());
        lines.push(&rest[..end]);
        rest = &rest[end..];
        rest = rest.strip_prefix(b"\r\n").or(rest.get(1..)).unwrap_or_default();
    }
    lines
}

fn place_is_right(error: &LineError, lines: &[&[u8]]) {
    // Where there is no text, something is still missing from its first line.
    let line = lines.get(error.line as usize - 1).copied().unwrap_or_default();
    assert!(error.text.len() <= 60 * "\\u{10ffff}".len() + "…".len());
    assert!(!error.text.contains(char::is_control));
    assert!((1..300).contains(&error.expected.len()), "{error}");
    assert!(!error.expected.contains(char::is_control), "{error}");
    // Of ASCII every byte is a column, and the text is that of the column.
    if line.is_ascii() && !error.text.contains('\\') {
        let found = std::str::from_utf8(&line[error.column as usize - 1..]).unwrap();
        let text = error.text.strip_suffix('…').unwrap_or(&error.text);
        assert!(found.starts_with(text), "{error}");
        if text.is_empty() {
            assert!(
                found.is_empty() || found.starts_with([' ', '\t', '\u{c}', '#', ';', ',', '"']),
                "{error}"
            );
        }
    }
    assert!(error.column as usize <= String::from_utf8_lossy(line).chars().count() + 1, "{error}");
}

fn entries_read_again(list: &AddressList) {
    let text: String = list.entries().iter().map(|entry| format!("{}\n", entry.cidr)).collect();
    let again = AddressList::parse("again", text.as_bytes(), &ListOptions::new()).unwrap();
    assert!(again.entries().iter().map(|e| e.cidr).eq(list.entries().iter().map(|e| e.cidr)));
    assert_eq!(again.report().normalised, 0);
}
