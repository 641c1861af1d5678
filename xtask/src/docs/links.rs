//! Relative links of Markdown files lead to files and headings, and the summary has every page of docs/.

use std::path::{Component, Path, PathBuf};

use super::{markdown, parent, prose};
use crate::command::read_text;
use crate::failure::Result;

const SUMMARY: &str = "docs/SUMMARY.md";

pub(super) fn problems() -> Result<Vec<String>> {
    let mut problems = Vec::new();
    let mut listed = Vec::new();
    for path in markdown()? {
        let text = read_text(&path)?;
        for (line, target) in targets(&text) {
            let (file, anchor) = target.split_once('#').unwrap_or((target, ""));
            let file = match file {
                "" => path.clone(),
                _ => normal(&parent(&path).join(file)),
            };
            if path == Path::new(SUMMARY) {
                listed.push(file.clone());
            }
            if !file.exists() {
                problems.push(format!("{}:{line}: {target} does not exist", path.display()));
            } else if !anchor.is_empty() && !has_heading(&read_text(&file)?, anchor) {
                problems.push(format!("{}:{line}: {target} has no such heading", path.display()));
            }
        }
    }
    for path in markdown()?.iter().filter(|path| path.starts_with("docs")) {
        if path != Path::new(SUMMARY) && !listed.contains(path) {
            problems.push(format!("{SUMMARY} lacks {}", path.display()));
        }
    }
    Ok(problems)
}

/// Targets of links that are no URLs.
fn targets(text: &str) -> Vec<(usize, &str)> {
    let links = prose(text).flat_map(|(number, line)| {
        line.split("](").skip(1).filter_map(move |rest| Some((number, rest.split_once(')')?.0)))
    });
    links.filter(|(_, target)| !target.contains("://") && !target.starts_with("mailto:")).collect()
}

/// Without `.` and `..`.
fn normal(path: &Path) -> PathBuf {
    let mut normal = PathBuf::new();
    for part in path.components() {
        match part {
            Component::ParentDir => drop(normal.pop()),
            Component::CurDir => {}
            part => normal.push(part),
        }
    }
    normal
}

/// Whether a heading has this anchor, as GitHub and mdBook make it.
fn has_heading(text: &str, anchor: &str) -> bool {
    prose(text).filter(|(_, line)| line.starts_with('#')).any(|(_, line)| slug(line) == anchor)
}

fn slug(heading: &str) -> String {
    let words = heading.trim_start_matches('#').trim().to_lowercase();
    let kept = words.chars().filter(|c| c.is_alphanumeric() || matches!(c, ' ' | '-' | '_'));
    kept.map(|c| if c == ' ' { '-' } else { c }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn links_and_headings() {
        let text = "see [a](b.md#c) and [d](https://e.test/), [f](#g)\n```\n[no](no.md)\n```\n";
        assert_eq!(targets(text), [(1, "b.md#c"), (1, "#g")]);
        assert_eq!(normal("docs/../x/./y".as_ref()), Path::new("x/y"));
        assert_eq!(slug("## `sets`: packets, by (source)"), "sets-packets-by-source");
        assert!(has_heading("# One two\n", "one-two"));
        assert!(!has_heading("```\n# One two\n```\n", "one-two"));
    }
}
