use std::collections::HashMap;

use super::error::Problem;
use super::spec::{self, Spec};

const ONE_SET: &str =
    "an entry of the same set as before, because a list is one set: save each to a file of its own";

/// Sets of addresses, the last three in the words of ipset before version 5.
const TYPES: [&[u8]; 6] = [b"hash:ip", b"hash:net", b"bitmap:ip", b"iphash", b"nethash", b"ipmap"];

/// The sets of an `ipset save` file, as far as its lines have been read.
#[derive(Default)]
pub(super) struct Sets<'a> {
    /// The set whose entries are the list, under the name that it has by now.
    list: Option<&'a [u8]>,
    /// Sets whose entries are not addresses, and the lines that create them.
    refused: HashMap<&'a [u8], u32>,
}

/// An entry of the set.
pub(super) struct Added<'a> {
    pub(super) spec: Spec,
    pub(super) text: &'a [u8],
    /// Whether the entry has a `timeout`.
    pub(super) expires: bool,
}

#[derive(Clone, Copy)]
enum Verb {
    Create,
    Add,
    Empty,
    Swap,
    Commit,
    TakeAway,
}

fn verb(word: &[u8]) -> Option<Verb> {
    Some(match word {
        b"create" | b"--create" | b"-N" => Verb::Create,
        b"add" | b"--add" | b"-A" => Verb::Add,
        b"flush" | b"--flush" | b"-F" | b"destroy" | b"--destroy" | b"-X" => Verb::Empty,
        b"swap" | b"--swap" | b"-W" | b"rename" | b"--rename" | b"-E" => Verb::Swap,
        b"COMMIT" => Verb::Commit,
        b"del" | b"--del" | b"-D" => Verb::TakeAway,
        _ => return None,
    })
}

/// Whether ipset would take `word` at any place of a line and go on as before.
fn is_flag(word: &[u8]) -> bool {
    matches!(word, b"-exist" | b"--exist" | b"-!" | b"-quiet" | b"--quiet" | b"-q")
}

/// Whether a line that begins with `word` is a command.
pub(super) fn is_command(word: &[u8]) -> bool {
    verb(word).is_some() || is_flag(word)
}

impl<'a> Sets<'a> {
    /// Reads a command; an `add` has an entry.
    pub(super) fn command(
        &mut self,
        line: &'a [u8],
        number: u32,
    ) -> Result<Option<Added<'a>>, Problem<'a>> {
        let mut words = Words(line);
        let first = words.expect("a command of ipset")?;
        match verb(first) {
            Some(Verb::Add) => return self.add(&mut words).map(Some),
            Some(Verb::Create) => self.create(&mut words, number)?,
            Some(Verb::Empty) => self.empty(first, &mut words)?,
            Some(Verb::Swap) => self.swap(&mut words)?,
            Some(Verb::Commit) => {}
            Some(Verb::TakeAway) => {
                return Err(Problem::new(first, "`add`: a list cannot take entries away"));
            }
            None => return Err(Problem::new(first, "`create`, `add` or another command of ipset")),
        }
        Ok(None)
    }

    fn add(&mut self, words: &mut Words<'a>) -> Result<Added<'a>, Problem<'a>> {
        let set = words.expect("the name of a set")?;
        let text = words.expect("an address, a prefix or a range")?;
        if let Some(line) = self.refused.get(set) {
            return Err(Problem::new(
                set,
                format!("a set of addresses, other than line {line} creates"),
            ));
        }
        if self.list.is_some_and(|list| list != set) {
            return Err(Problem::new(set, ONE_SET));
        }
        if let Some(comma) = text.iter().position(|&b| b == b',') {
            return Err(Problem::new(
                &text[comma..],
                "an address, a prefix or a range alone, without port, mark or interface",
            ));
        }
        let spec = spec::parse(text)?;
        let mut expires = false;
        while let Some(option) = words.next() {
            match option {
                b"timeout" => expires = words.expect("seconds")? != b"0",
                b"comment" => words.comment()?,
                b"packets" | b"bytes" | b"skbmark" | b"skbprio" | b"skbqueue" => {
                    words.expect("the option's value")?;
                }
                b"nomatch" => {
                    return Err(Problem::new(
                        option,
                        "no `nomatch`: put the exception into a list whose action is allow",
                    ));
                }
                other => {
                    return Err(Problem::new(
                        other,
                        "an option of `add` such as timeout or comment",
                    ));
                }
            }
        }
        self.list = Some(set);
        Ok(Added { spec, text, expires })
    }

    fn create(&mut self, words: &mut Words<'a>, number: u32) -> Result<(), Problem<'a>> {
        let set = words.expect("the name of a set")?;
        let kind = words.expect("the type of the set")?;
        self.refused.insert(set, number);
        if !TYPES.contains(&kind) {
            return Err(Problem::new(
                kind,
                "hash:ip, hash:net or bitmap:ip, the types whose entries are addresses alone",
            ));
        }
        while let Some(option) = words.next() {
            // With these an address stands for more than itself.
            if matches!(option, b"netmask" | b"--netmask" | b"bitmask") {
                return Err(Problem::new(
                    option,
                    "no netmask: make it a set of prefixes, of type hash:net",
                ));
            }
        }
        self.refused.remove(set);
        Ok(())
    }

    /// `flush` and `destroy`, with a name or without one for all sets.
    fn empty(&mut self, verb: &'a [u8], words: &mut Words<'a>) -> Result<(), Problem<'a>> {
        match (words.next(), self.list) {
            (Some(set), Some(list)) if set != list => Ok(()),
            (_, Some(_)) => {
                Err(Problem::new(verb, "no command that empties the set after its entries"))
            }
            (_, None) => Ok(()),
        }
    }

    /// `swap` and `rename`.
    fn swap(&mut self, words: &mut Words<'a>) -> Result<(), Problem<'a>> {
        let (a, b) = (words.expect("the name of a set")?, words.expect("the name of a set")?);
        self.list = self.list.map(|list| match list {
            list if list == a => b,
            list if list == b => a,
            list => list,
        });
        let (was_a, was_b) = (self.refused.remove(a), self.refused.remove(b));
        self.refused
            .extend(was_a.map(|line| (b, line)).into_iter().chain(was_b.map(|line| (a, line))));
        Ok(())
    }
}

/// The words of a line up to its comment.
struct Words<'a>(&'a [u8]);

impl<'a> Words<'a> {
    fn next(&mut self) -> Option<&'a [u8]> {
        loop {
            self.0 = self.0.trim_ascii_start();
            if matches!(self.0, [] | [b'#' | b';', ..]) {
                return None;
            }
            let word = spec::first_word(self.0);
            self.0 = &self.0[word.len()..];
            if !is_flag(word) {
                return Some(word);
            }
        }
    }

    fn expect(&mut self, what: &'static str) -> Result<&'a [u8], Problem<'a>> {
        self.next().ok_or(Problem::new(&self.0[..0], what))
    }

    /// Passes over the text of a comment, which quotation marks may hold together.
    fn comment(&mut self) -> Result<(), Problem<'a>> {
        self.0 = self.0.trim_ascii_start();
        let Some(quoted) = self.0.strip_prefix(b"\"") else {
            return self.expect("the option's value").map(drop);
        };
        match quoted.iter().position(|&b| b == b'"') {
            Some(end) => self.0 = &quoted[end + 1..],
            None => return Err(Problem::new(self.0, "a quotation mark at the end, too")),
        }
        Ok(())
    }
}
