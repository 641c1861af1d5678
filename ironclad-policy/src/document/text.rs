//! Words of a file in messages, and what may have been meant by a misspelt one.

use strsim::{levenshtein, osa_distance};

/// Longer words are not compared, nor more of them: what is wrong is said soon, whatever the file.
const LONGEST: usize = 64;
const MOST: usize = 4096;

/// The word nearest to `word`, if any is near.
pub(super) fn nearest<'a>(word: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    if word.is_empty() || word.len() > LONGEST {
        return None;
    }
    let word = word.to_lowercase();
    let known = known.into_iter().take(MOST).filter(|known| known.len() <= LONGEST);
    let distances = known.filter_map(|known| {
        let other = known.to_lowercase();
        let distance = osa_distance(&word, &other);
        let is_near = match word.chars().count() {
            // Any two short words are near: only letters that changed places tell.
            0..=2 => distance == 0 || distance == 1 && levenshtein(&word, &other) == 2,
            3..=4 => distance <= 1,
            5..=7 => distance <= 2,
            _ => distance <= 3,
        };
        is_near.then_some((distance, known))
    });
    distances.min_by_key(|(distance, _)| *distance).map(|(_, known)| known)
}

/// A text of the file as it is shown: control characters escaped, the end of a long one cut off.
pub(super) fn shown(text: &str) -> String {
    const SHOWN: usize = 80;
    let mut out = String::new();
    for (number, c) in text.chars().enumerate() {
        if number == SHOWN {
            out.push('…');
            break;
        }
        match c {
            '"' | '\'' | '\\' => out.push(c),
            c => out.extend(c.escape_debug()),
        }
    }
    out
}

/// Words in quotes, the last after `or`.
pub(super) fn alternatives(words: &[&str]) -> String {
    let quoted: Vec<String> = words.iter().map(|word| format!("`{word}`")).collect();
    match quoted.split_last() {
        None => "nothing".to_owned(),
        Some((only, [])) => only.clone(),
        Some((last, others)) => format!("{} or {last}", others.join(", ")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn near_words_and_far_ones() {
        let keys = ["action", "direction", "protocol", "ports", "uid", "gid"];
        assert_eq!(nearest("protocols", keys), Some("protocol"));
        assert_eq!(nearest("Action", keys), Some("action"));
        assert_eq!(nearest("port", keys), Some("ports"));
        assert_eq!(nearest("guid", keys), Some("uid"));
        assert_eq!(nearest("colour", keys), None);
        assert_eq!(nearest("ed", ["de", "dk", "us"]), Some("de"));
        assert_eq!(nearest("DE", ["dk", "de"]), Some("de"));
        assert_eq!(nearest("xx", ["ax", "xa", "mx"]), None);
        assert_eq!(nearest(&"a".repeat(100_000), ["a"]), None);
        assert_eq!(nearest("", keys), None);
    }
}
