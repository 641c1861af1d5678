//! Sets of rules as bits, and the rows that the kernel reads.

use ironclad_core::abi::SockRow;

/// A set of rules by their numbers: those that decide, and those that only report.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub(crate) struct RuleSet {
    words: Vec<u64>,
    logs: u64,
}

/// Which of the two numberings a rule has its number in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Place {
    Decides(usize),
    Logs(usize),
}

impl RuleSet {
    pub(crate) fn insert(&mut self, place: Place) {
        match place {
            Place::Decides(rule) => {
                if self.words.len() <= rule / 64 {
                    self.words.resize(rule / 64 + 1, 0);
                }
                self.words[rule / 64] |= 1 << (rule % 64);
            }
            Place::Logs(rule) => self.logs |= 1 << rule,
        }
    }

    pub(crate) fn with(&self, places: impl IntoIterator<Item = Place>) -> Self {
        let mut set = self.clone();
        places.into_iter().for_each(|place| set.insert(place));
        set
    }

    pub(crate) fn row(&self) -> SockRow {
        let mut row = SockRow { logs: self.logs, ..SockRow::NONE };
        for (number, word) in self.words.iter().enumerate().filter(|(_, word)| **word != 0) {
            row.summary[number / 64] |= 1 << (number % 64);
            row.word[number] = *word;
        }
        row
    }
}
