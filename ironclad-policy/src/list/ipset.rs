use std::collections::HashMap;

use super::error::Problem;
use super::spec::{self, Spec};

const ONE_SET: &str =
    "an entry of the same set as before, because a list is one set: save each to a file of its own";

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
        while let Some(option) = words.next()? {
            match option {
                b"timeout" => expires = words.expect("seconds")? != b"0",
                b"comment" | b"packets" | b"bytes" | b"skbmark" | b"skbprio" | b"skbqueue" => {
                    words.expect("the option's value")?;
                }
                b"nomatch" => {
                    return Err(Problem::new(
                        option,
                        "no `nomatch`: put the exception into a list of its own, whose action is allow",
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
        let refused = match kind {
            b"hash:ip" | b"hash:net" | b"bitmap:ip" | b"iphash" | b"nethash" | b"ipmap"
            | b"iptree" => {
                // With these an address stands for more than itself.
                let mut widens = None;
                while let Some(option) = words.next()? {
                    if matches!(option, b"netmask" | b"--netmask" | b"bitmask") {
                        widens = Some(Problem::new(
                            option,
                            "no netmask: save the set as one of prefixes, of type hash:net",
                        ));
                    }
                }
                widens
            }
            kind => Some(Problem::new(
                kind,
                "hash:ip, hash:net or bitmap:ip, the types whose entries are addresses alone",
            )),
        };
        match refused {
            Some(problem) => {
                self.refused.insert(set, number);
                Err(problem)
            }
            None => {
                self.refused.remove(set);
                Ok(())
            }
        }
    }

    /// `flush` and `destroy`, with a name or without one for all sets.
    fn empty(&mut self, verb: &'a [u8], words: &mut Words<'a>) -> Result<(), Problem<'a>> {
        match (words.next()?, self.list) {
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

/// The words of a line up to its comment; quotes hold one together.
struct Words<'a>(&'a [u8]);

impl<'a> Words<'a> {
    fn next(&mut self) -> Result<Option<&'a [u8]>, Problem<'a>> {
        loop {
            self.0 = self.0.trim_ascii_start();
            let word = match self.0 {
                [] | [b'#' | b';', ..] => return Ok(None),
                [b'"', rest @ ..] => match rest.iter().position(|&b| b == b'"') {
                    Some(end) => {
                        self.0 = &rest[end + 1..];
                        return Ok(Some(&rest[..end]));
                    }
                    None => return Err(Problem::new(self.0, "a quotation mark at the end, too")),
                },
                text => spec::first_word(text),
            };
            self.0 = &self.0[word.len()..];
            if !is_flag(word) {
                return Ok(Some(word));
            }
        }
    }

    fn expect(&mut self, what: &'static str) -> Result<&'a [u8], Problem<'a>> {
        self.next()?.ok_or(Problem::new(&self.0[..0], what))
    }
}
