use super::Source;
use crate::sha256::Sha256Sum;

/// What a feed's content is compared with before it is accepted.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Checksum {
    /// A checksum that is known beforehand: the content never changes.
    Pinned(Sha256Sum),
    /// A file that says it, fetched after the content by the same rules: 64 hexadecimal digits,
    /// alone or in a line of `sha256sum` (with or without `--tag`) for the content's file name.
    At(Source),
}

impl Sha256Sum {
    /// The checksum of the file called `name` in what `sha256sum` wrote.
    pub(super) fn find(text: &str, name: &str) -> Option<Self> {
        text.lines().find_map(|line| {
            let line = line.trim();
            let (digits, file) = match line.strip_prefix("SHA256 (") {
                Some(tagged) => {
                    let (file, digits) = tagged.rsplit_once(") = ")?;
                    (digits, file)
                }
                None => line.split_once(char::is_whitespace).unwrap_or((line, name)),
            };
            let file = file.trim_start().trim_start_matches('*');
            (file.rsplit('/').next() == Some(name)).then(|| digits.parse().ok())?
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Of nothing, as `sha256sum` says.
    const NOTHING: &str = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

    #[test]
    fn files_of_checksums() {
        let other = "0".repeat(64);
        for text in [
            NOTHING.to_owned(),
            format!("\n{NOTHING}\r\n"),
            format!("{NOTHING}  list.txt\n"),
            format!("{NOTHING} *list.txt"),
            format!("{other}  other.txt\n{NOTHING}  ./a/list.txt\n"),
            format!("SHA256 (list.txt) = {NOTHING}"),
        ] {
            assert_eq!(Sha256Sum::find(&text, "list.txt"), Some(Sha256Sum::of(b"")), "{text}");
        }
        for text in [
            String::new(),
            "list.txt".into(),
            format!("{NOTHING}  other.txt"),
            format!("SHA256 (other.txt) = {NOTHING}"),
            format!("MD5 (list.txt) = {NOTHING}"),
            format!("x{NOTHING}  list.txt"),
            "<html>".into(),
        ] {
            assert_eq!(Sha256Sum::find(&text, "list.txt"), None, "{text}");
        }
    }
}
