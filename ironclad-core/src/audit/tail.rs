//! Where an audit file's chain goes on, and what a crash left behind it.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

use super::chain::{Anchor, Digest, LineFault, Link, MAX_LINE};

/// How every file of ours begins.
const FIRST: &[u8] = b"{\"seq\":1,";

pub(super) struct Tail {
    /// The last whole record.
    pub(super) anchor: Anchor,
    /// Where the file's whole lines end.
    pub(super) len: u64,
    /// What comes behind them.
    pub(super) torn: Vec<u8>,
}

pub(super) enum TailFault {
    Read(io::Error),
    /// The last line is not what a sink wrote.
    Broken(String),
}

impl Tail {
    /// Looks at the last whole line and what is behind it, whatever the file's length.
    pub(super) fn read(file: &File, len: u64) -> Result<Self, TailFault> {
        let broken = |what: &str| Err(TailFault::Broken(what.to_owned()));
        // The longest torn line, the longest whole one, and the end of the one before.
        let start = len.saturating_sub(2 * MAX_LINE as u64 + 1);
        let mut window = vec![0; (len - start) as usize];
        file.read_exact_at(&mut window, start).map_err(TailFault::Read)?;
        let end = window.iter().rposition(|&byte| byte == b'\n').map_or(0, |at| at + 1);
        let torn = window.split_off(end);
        if torn.len() > MAX_LINE {
            return broken("it ends in a line longer than any record");
        }
        let Some(lines) = window.strip_suffix(b"\n") else {
            // The very first record was torn; anything else is a file of another program.
            return if is_torn_first(&torn) {
                Ok(Self { anchor: Anchor::GENESIS, len: 0, torn })
            } else {
                broken("it is no audit file")
            };
        };
        let line = match lines.iter().rposition(|&byte| byte == b'\n') {
            Some(at) => &lines[at + 1..],
            None if start == 0 => lines,
            None => return broken("its last line is longer than any record"),
        };
        let Link { anchor, prev } = Link::read(line).map_err(|fault| {
            TailFault::Broken(match fault {
                LineFault::Form(what) => format!("its last line is no audit record: {what}"),
                LineFault::Hash { .. } => "its last line was edited".to_owned(),
            })
        })?;
        let is_first = line.len() as u64 + 1 == start + end as u64;
        if is_first != (anchor.seq == 1) || is_first && prev != Digest::GENESIS {
            return broken("its first lines are missing");
        }
        Ok(Self { anchor, len: start + end as u64, torn })
    }
}

/// Whether a sink that crashed may have left this: some of a first record's bytes, or the zeros
/// that a file system shows where it lost data that it had given room.
fn is_torn_first(torn: &[u8]) -> bool {
    torn.starts_with(FIRST) || FIRST.starts_with(torn) || torn.iter().all(|&byte| byte == 0)
}
