//! Sets of rules as bits, and the rows that the kernel reads.

use ironclad_core::abi::SOCK_SUMMARY_WORDS;

/// A set of rules by their numbers.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub(crate) struct RuleSet(Vec<u64>);

impl RuleSet {
    pub(crate) fn none(rules: usize) -> Self {
        Self(vec![0; rules.div_ceil(64)])
    }

    pub(crate) fn insert(&mut self, rule: usize) {
        self.0[rule / 64] |= 1 << (rule % 64);
    }

    pub(crate) fn with(&self, rules: impl IntoIterator<Item = usize>) -> Self {
        let mut set = self.clone();
        rules.into_iter().for_each(|rule| set.insert(rule));
        set
    }
}

/// Rows behind each other, each of the same number of 64-byte cells: four words of summary, then
/// the words of the set.
#[derive(Clone, Debug)]
pub(crate) struct Rows {
    words: Vec<u64>,
    stride: usize,
}

impl Rows {
    pub(crate) fn new(rules: usize) -> Self {
        let stride = (SOCK_SUMMARY_WORDS + rules.div_ceil(64)).div_ceil(8);
        Self { words: Vec::new(), stride }
    }

    /// Adds a row; its first cell.
    pub(crate) fn push(&mut self, set: &RuleSet) -> u32 {
        let (cell, at) = (self.words.len() / 8, self.words.len());
        self.words.resize(at + self.stride * 8, 0);
        let row = &mut self.words[at..];
        for (number, word) in set.0.iter().enumerate().filter(|(_, word)| **word != 0) {
            row[number / 64] |= 1 << (number % 64);
            row[SOCK_SUMMARY_WORDS + number] = *word;
        }
        cell as u32
    }

    pub(crate) fn stride(&self) -> u32 {
        self.stride as u32
    }

    pub(crate) fn into_words(self) -> Vec<u64> {
        self.words
    }
}
