//! Whether an audit file is the one that was written.

use std::fs::File;
use std::io::{self, BufRead, BufReader, Read};
use std::path::Path;

use super::chain::{Anchor, Digest, LineFault, Link, MAX_LINE};

/// A sound chain.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Verified {
    /// How many records there are.
    pub records: u64,
    /// Hash of the last one; [`Digest::GENESIS`] where there is none.
    pub last_hash: Digest,
}

impl Verified {
    /// The last record's place, to be kept where the file's writer cannot write.
    pub fn anchor(&self) -> Anchor {
        Anchor { seq: self.records, hash: self.last_hash }
    }
}

/// Where a chain breaks.
#[derive(Debug, thiserror::Error)]
#[error("audit file, line {line}: {what}")]
pub struct VerifyError {
    /// The first line that is wrong, from 1; 0 where the file could not be opened. All lines before
    /// it are sound.
    pub line: u64,
    /// What is wrong with it.
    pub what: Fault,
}

/// What is wrong with a line.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Fault {
    /// The file could not be read.
    #[error("cannot be read: {0}")]
    Read(#[source] io::Error),
    /// The last line has no end.
    #[error(
        "it was torn: its end is missing. A crash while it was written does that; the sink sets \
         the line aside when it opens the file again"
    )]
    Torn,
    /// Longer than any record.
    #[error("it has more than {MAX_LINE} bytes, so no sink wrote it")]
    Long,
    /// Not a record.
    #[error("it is no audit record: {0}. Compare it with a copy of the file")]
    Form(String),
    /// Edited.
    #[error(
        "it was edited: it says hash {written}, its bytes have {computed}. Nothing from here on is \
         proven; compare it with a copy of the file"
    )]
    Hash {
        /// The hash that it says.
        written: Digest,
        /// The hash of its bytes.
        computed: Digest,
    },
    /// Lines were removed, inserted, repeated or moved.
    #[error(
        "it is record {found} where {expected} should be: lines were removed, inserted, repeated or \
         moved. Compare it with a copy of the file"
    )]
    Sequence {
        /// The number that should be here.
        expected: u64,
        /// The number that is.
        found: u64,
    },
    /// It follows another line than the one before it.
    #[error(
        "it follows a record with hash {found}, but the one before it has {expected}: one of the two \
         was replaced. Compare it with a copy of the file"
    )]
    Previous {
        /// Hash of the line before.
        expected: Digest,
        /// Hash that this line says.
        found: Digest,
    },
    /// The file ends before the anchor.
    #[error("the file ends after record {records}, but had record {}: its end was cut off", anchor.seq)]
    Cut {
        /// What should be there.
        anchor: Anchor,
        /// How many records there are.
        records: u64,
    },
    /// The record at the anchor is another one.
    #[error(
        "it is a sound record, but not the one of the anchor {anchor}: its hash is {found}. This or \
         an earlier record was replaced and the chain computed anew, or the anchor is of another file"
    )]
    Anchor {
        /// What should be there.
        anchor: Anchor,
        /// The hash that is.
        found: Digest,
    },
}

/// Checks an audit file from its first line to its last.
///
/// A chain alone cannot show that whole lines were cut off its end, nor that someone computed it
/// anew: an [`Anchor`] that was taken earlier and kept elsewhere does. The file may have grown since.
///
/// ```
/// let verified = ironclad_core::audit::verify(&b""[..], None)?;
/// assert_eq!(verified.records, 0);
/// # Ok::<(), ironclad_core::audit::VerifyError>(())
/// ```
///
/// # Errors
/// The first line that is wrong, and what is wrong with it.
pub fn verify(mut reader: impl BufRead, anchor: Option<Anchor>) -> Result<Verified, VerifyError> {
    let mut last = Anchor::GENESIS;
    let mut line = Vec::new();
    loop {
        let number = last.seq + 1;
        let fault = |what| VerifyError { line: number, what };
        if let Some(anchor) = anchor.filter(|anchor| anchor.seq == last.seq && *anchor != last) {
            let what = Fault::Anchor { anchor, found: last.hash };
            return Err(VerifyError { line: last.seq, what });
        }
        line.clear();
        let read = (&mut reader).take(MAX_LINE as u64).read_until(b'\n', &mut line);
        if read.map_err(|error| fault(Fault::Read(error)))? == 0 {
            break;
        }
        let bytes = line
            .strip_suffix(b"\n")
            .ok_or_else(|| fault(if line.len() == MAX_LINE { Fault::Long } else { Fault::Torn }))?;
        last = follow(last, bytes).map_err(fault)?;
    }
    match anchor {
        Some(anchor) if anchor.seq > last.seq => {
            Err(VerifyError { line: last.seq + 1, what: Fault::Cut { anchor, records: last.seq } })
        }
        _ => Ok(Verified { records: last.seq, last_hash: last.hash }),
    }
}

fn follow(last: Anchor, line: &[u8]) -> Result<Anchor, Fault> {
    let link = Link::read(line).map_err(Fault::from)?;
    let expected = last.seq + 1;
    if link.anchor.seq != expected {
        return Err(Fault::Sequence { expected, found: link.anchor.seq });
    }
    if link.prev != last.hash {
        return Err(Fault::Previous { expected: last.hash, found: link.prev });
    }
    Ok(link.anchor)
}

impl From<LineFault> for Fault {
    fn from(fault: LineFault) -> Self {
        match fault {
            LineFault::Form(what) => Self::Form(what),
            LineFault::Hash { written, computed } => Self::Hash { written, computed },
        }
    }
}

/// [`verify`] of a file. Reads only, and needs no lock: a record that is being written meanwhile may
/// show as [`Fault::Torn`].
///
/// # Errors
/// As [`verify`]; line 0 where the file cannot be opened.
pub fn verify_file(
    path: impl AsRef<Path>,
    anchor: Option<Anchor>,
) -> Result<Verified, VerifyError> {
    let file =
        File::open(path).map_err(|error| VerifyError { line: 0, what: Fault::Read(error) })?;
    verify(BufReader::with_capacity(1 << 16, file), anchor)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::audit::AuditAction;
    use crate::audit::chain::seal;
    use proptest::prelude::*;

    fn chain(records: u64, first: u64) -> Vec<Vec<u8>> {
        let mut last = Anchor::GENESIS;
        (0..records)
            .map(|n| {
                let action = AuditAction::Confirm { generation: first + n };
                let (line, anchor) = seal(last, 1000 + n, "edge", &action).unwrap();
                last = anchor;
                line
            })
            .collect()
    }

    fn check(bytes: &[u8], anchor: Option<Anchor>) -> Result<Verified, VerifyError> {
        verify(bytes, anchor)
    }

    fn anchor_of(lines: &[Vec<u8>]) -> Anchor {
        check(&lines.concat(), None).unwrap().anchor()
    }

    #[test]
    fn a_sound_chain_has_its_records() {
        for records in 0..4 {
            let lines = chain(records, 0);
            let verified = check(&lines.concat(), None).unwrap();
            assert_eq!(verified.records, records);
            for kept in 0..=lines.len() {
                let anchor = anchor_of(&lines[..kept]);
                assert_eq!(check(&lines.concat(), Some(anchor)).unwrap(), verified);
            }
        }
        assert_eq!(anchor_of(&[]), Anchor::GENESIS);
    }

    #[test]
    fn each_fault_is_named_with_its_line() {
        let lines = chain(4, 0);
        let line = |n: usize| &lines[n][..];
        let fault = |parts: &[&[u8]]| {
            let error = check(&parts.concat(), None).unwrap_err();
            (error.line, error.what)
        };
        let removed = fault(&[line(0), line(2), line(3)]);
        assert!(matches!(removed, (2, Fault::Sequence { expected: 2, found: 3 })), "{removed:?}");
        let repeated = fault(&[line(0), line(1), line(1)]);
        assert!(matches!(repeated, (3, Fault::Sequence { expected: 3, found: 2 })), "{repeated:?}");
        let first_gone = fault(&[line(1)]);
        assert!(matches!(first_gone, (1, Fault::Sequence { expected: 1, found: 2 })));
        let other = chain(4, 9);
        let spliced = fault(&[line(0), line(1), &other[2]]);
        assert!(matches!(spliced, (3, Fault::Previous { .. })), "{spliced:?}");
        let torn = fault(&[line(0), &line(1)[..50]]);
        assert!(matches!(torn, (2, Fault::Torn)), "{torn:?}");
        let no_end = fault(&[line(0), line(1).strip_suffix(b"\n").unwrap()]);
        assert!(matches!(no_end, (2, Fault::Torn)), "{no_end:?}");
        let blank = fault(&[line(0), b"\n", line(1)]);
        assert!(matches!(blank, (2, Fault::Form(_))), "{blank:?}");
        let long = fault(&[line(0), &vec![b'x'; MAX_LINE]]);
        assert!(matches!(long, (2, Fault::Long)), "{long:?}");
        let edited = String::from_utf8(lines.concat()).unwrap().replacen("1002", "1003", 1);
        let edited = fault(&[edited.as_bytes()]);
        assert!(matches!(edited, (3, Fault::Hash { .. })), "{edited:?}");
    }

    #[test]
    fn a_hash_over_what_is_no_record_is_no_record() {
        for body in [r#"{"seq":1"#, r#"{"seq":-1,"prev":"0""#, "[1", r#"{"prev":"00","seq":1"#] {
            let line = format!("{body},\"hash\":\"{}\"}}\n", Digest::of(body.as_bytes()));
            let error = check(line.as_bytes(), None).unwrap_err();
            assert!(matches!(error.what, Fault::Form(_)), "{body}: {error}");
        }
    }

    #[test]
    fn an_anchor_shows_a_cut_end_and_a_chain_computed_anew() {
        let lines = chain(5, 0);
        let anchor = anchor_of(&lines[..4]);
        let cut = check(&lines[..3].concat(), Some(anchor)).unwrap_err();
        assert!(matches!((cut.line, &cut.what), (4, Fault::Cut { records: 3, .. })), "{cut}");
        let anew = check(&chain(5, 1).concat(), Some(anchor)).unwrap_err();
        assert!(matches!((anew.line, &anew.what), (4, Fault::Anchor { .. })), "{anew}");
        // What neither shows without the anchor: the promise ends here.
        check(&lines[..3].concat(), None).unwrap();
        check(&chain(5, 1).concat(), None).unwrap();
        let of_nothing = Anchor { seq: 0, hash: anchor.hash };
        assert!(matches!(
            check(&lines.concat(), Some(of_nothing)).unwrap_err(),
            VerifyError { line: 0, what: Fault::Anchor { .. } }
        ));
    }

    /// All 255 wrong values of each byte of a small file.
    #[test]
    fn no_byte_can_be_another() {
        let mut bytes = chain(2, 7).concat();
        for at in 0..bytes.len() {
            let right = bytes[at];
            for wrong in (0..=255).filter(|&wrong| wrong != right) {
                bytes[at] = wrong;
                assert!(check(&bytes, None).is_err(), "byte {at}: {right} as {wrong}");
            }
            bytes[at] = right;
        }
    }

    proptest! {
        #[test]
        fn a_changed_byte_shows(records in 1u64..20, at: prop::sample::Index, flip in 1u8..) {
            let lines = chain(records, 0);
            let mut bytes = lines.concat();
            let at = at.index(bytes.len());
            let line = bytes[..at].iter().filter(|&&byte| byte == b'\n').count() as u64 + 1;
            bytes[at] ^= flip;
            prop_assert_eq!(check(&bytes, None).unwrap_err().line, line);
        }

        #[test]
        fn bytes_removed_or_inserted_show(
            records in 1u64..20,
            at: prop::sample::Index,
            removed in 0usize..400,
            inserted in prop::collection::vec(any::<u8>(), 0..20),
        ) {
            let lines = chain(records, 0);
            let whole = lines.concat();
            let at = at.index(whole.len());
            let mut bytes = whole.clone();
            let end = (at + removed).min(whole.len());
            bytes.splice(at..end, inserted);
            prop_assume!(bytes != whole);
            // Only an end cut off between two lines needs the anchor.
            prop_assert!(check(&bytes, Some(anchor_of(&lines))).is_err());
            prop_assert!(check(&bytes, None).is_err() || whole.starts_with(&bytes));
        }

        #[test]
        fn lines_in_another_order_show(
            records in 2u64..20,
            picks in prop::collection::vec(any::<prop::sample::Index>(), 1..25),
        ) {
            let lines = chain(records, 0);
            let order: Vec<usize> = picks.iter().map(|pick| pick.index(lines.len())).collect();
            let bytes: Vec<u8> = order.iter().flat_map(|&n| lines[n].clone()).collect();
            let is_start = order.iter().copied().eq(0..order.len());
            prop_assert_eq!(check(&bytes, None).is_ok(), is_start);
        }

        #[test]
        fn one_line_moved_shows(records in 2u64..20, from: prop::sample::Index, to: prop::sample::Index) {
            let mut lines = chain(records, 0);
            let (from, to) = (from.index(lines.len()), to.index(lines.len()));
            prop_assume!(from != to);
            let line = lines.remove(from);
            lines.insert(to, line);
            let error = check(&lines.concat(), None).unwrap_err();
            prop_assert_eq!(error.line, from.min(to) as u64 + 1);
        }

        #[test]
        fn no_bytes_panic(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
            let verified = check(&bytes, None);
            prop_assert_eq!(verified.is_ok(), bytes.is_empty());
        }
    }
}
