//! The pages of docs/: tables that are made from data and code, links, and discarded words.

mod enums;
mod links;
mod policy;
mod programs;
pub(crate) mod threats;
mod words;

use std::path::{Path, PathBuf};

use crate::command::{read_text, write};
use crate::failure::{Context, Result};
use crate::test::Outcome;

/// Begins a region that is made, and is followed by its name and ` -->`.
const BEGIN: &str = "<!-- generated: ";
const END: &str = "<!-- end of generated -->";

/// Writes every generated region anew.
pub(crate) fn generate() -> Result<()> {
    for (path, old, new) in pages()? {
        if old != new {
            write(&path, new)?;
            println!("{} written", path.display());
        }
    }
    Ok(())
}

/// Generated regions are as they would be written, links lead somewhere, no discarded word is used.
pub(crate) fn check() -> Result<Outcome> {
    let mut problems = Vec::new();
    for (path, old, new) in pages()? {
        if old != new {
            problems.push(format!("{}: run `cargo xtask docs`", path.display()));
        }
    }
    problems.extend(links::problems()?);
    problems.extend(words::problems()?);
    Ok(match problems.as_slice() {
        [] => Outcome::Passed,
        _ => Outcome::Failed(problems.join("\n")),
    })
}

/// Pages with generated regions: path, text, text with new regions.
fn pages() -> Result<Vec<(PathBuf, String, String)>> {
    let mut pages = Vec::new();
    let mut names: Vec<_> = std::fs::read_dir("docs")
        .context("docs")?
        .filter_map(|entry| Some(entry.ok()?.path()))
        .filter(|path| path.extension().is_some_and(|extension| extension == "md"))
        .collect();
    names.sort();
    for path in names {
        let old = read_text(&path)?;
        if old.contains(BEGIN) {
            let new = fill(&old, region).context(path.display())?;
            pages.push((path, old, new));
        }
    }
    Ok(pages)
}

/// The text with every region made anew by its name.
fn fill(text: &str, region: impl Fn(&str) -> Result<String>) -> Result<String> {
    let mut filled = String::new();
    let mut rest = text;
    while let Some((before, after)) = rest.split_once(BEGIN) {
        let (name, after) = after.split_once(" -->").context("a region without a name")?;
        let (_, after) = after.split_once(END).context(format_args!("{name}: no '{END}'"))?;
        filled += &format!("{before}{BEGIN}{name} -->\n\n{}\n{END}", region(name)?);
        rest = after;
    }
    Ok(filled + rest)
}

/// A region by its name: a kind and, after a blank, what of it.
fn region(name: &str) -> Result<String> {
    let (kind, what) = name.split_once(' ').unwrap_or((name, ""));
    match kind {
        "policy" => policy::reference(),
        "enum" => enums::table(what),
        "errors" => enums::errors(),
        "threats" => threats::Threats::read()?.table(what),
        "programs" => programs::table(),
        _ => Err(format!("no generated region is called '{name}'").into()),
    }
}

/// A cell of a table: one line, without what would end it.
fn cell(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ").replace('|', "\\|")
}

/// Markdown files of the repository.
fn markdown() -> Result<Vec<PathBuf>> {
    let is_markdown = |path: &PathBuf| path.extension().is_some_and(|extension| extension == "md");
    Ok(crate::check::tree::files()?.into_iter().filter(is_markdown).collect())
}

/// Lines outside of fenced blocks, with their numbers.
fn prose(text: &str) -> impl Iterator<Item = (usize, &str)> {
    let mut is_code = false;
    (1..).zip(text.lines()).filter(move |(_, line)| {
        let is_fence = line.trim_start().starts_with("```");
        is_code ^= is_fence;
        !is_code && !is_fence
    })
}

fn parent(path: &Path) -> &Path {
    path.parent().unwrap_or(Path::new(""))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn regions_are_replaced_and_all_else_stays() {
        let page = format!("a\n{BEGIN}one x -->\nold\n{END}\nb\n{BEGIN}two -->{END}\n");
        let filled = fill(&page, |name| Ok(format!("<{name}>\n"))).unwrap();
        let made = |name: &str| format!("{BEGIN}{name} -->\n\n<{name}>\n\n{END}");
        assert_eq!(filled, format!("a\n{}\nb\n{}\n", made("one x"), made("two")));
        assert_eq!(fill(&filled, |name| Ok(format!("<{name}>\n"))).unwrap(), filled);
        assert!(fill(&format!("{BEGIN}one -->"), |_| Ok(String::new())).is_err());
        assert!(region("nothing").is_err());
    }

    #[test]
    fn code_is_no_prose() {
        let lines: Vec<_> = prose("a\n```sh\nb\n```\nc\n").collect();
        assert_eq!(lines, [(1, "a"), (5, "c")]);
    }
}
