use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

/// Where a feed comes from: `https://…`, `http://…`, `file:///…` or an absolute path.
///
/// ```
/// use ironclad_policy::feed::Source;
///
/// let source: Source = "https://feeds.example/drop.txt".parse()?;
/// assert_eq!(source.to_string(), "https://feeds.example/drop.txt");
/// assert!(matches!("/srv/drop.txt".parse()?, Source::File(_)));
/// assert!("https://user:secret@feeds.example/".parse::<Source>().is_err());
/// # Ok::<(), ironclad_policy::feed::SourceError>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Source {
    /// Fetched by HTTP, over TLS unless its URL says otherwise.
    Web(Url),
    /// Read from a regular file of this host.
    File(PathBuf),
}

/// A text is no source.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{text}` is no source of a feed: expected {expected}")]
pub struct SourceError {
    /// The text, without what may be secret.
    pub text: String,
    /// What was expected.
    pub expected: &'static str,
}

/// A URL of the scheme `https` or `http`, without user, password and fragment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Url {
    secure: bool,
    /// Host and port, in lower case.
    authority: String,
    /// Path and query; begins with a slash.
    path: String,
}

impl FromStr for Source {
    type Err = SourceError;

    fn from_str(text: &str) -> Result<Self, SourceError> {
        let wrong = |expected| {
            // What stands behind a question mark, or before an at sign, may be a key.
            let end = match text.contains('@') {
                true => text.find("://").map_or(0, |at| at + 3),
                false => text.find('?').unwrap_or(text.len()),
            };
            let text = text[..end].chars().take(80).flat_map(char::escape_debug).collect();
            Err(SourceError { text, expected })
        };
        if text.contains('\0') {
            return wrong("no NUL byte");
        }
        if let Some(path) = text.strip_prefix("file://") {
            return match path {
                path if path.contains(['%', '?', '#']) => wrong("a path without %, ? and #"),
                path if path.starts_with('/') => Ok(Self::File(path.into())),
                _ => wrong("`file:///` and a path, without a host"),
            };
        }
        if text.starts_with('/') {
            return Ok(Self::File(text.into()));
        }
        Url::parse(text).map(Self::Web).or_else(wrong)
    }
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Web(url) => url.fmt(f),
            Self::File(path) => write!(f, "file://{}", path.display()),
        }
    }
}

impl Source {
    /// Where it leads as records may show it: keys stand in paths and queries.
    pub(super) fn origin(&self) -> String {
        match self {
            Self::Web(Url { secure: true, authority, .. }) => format!("https://{authority}"),
            Self::Web(Url { authority, .. }) => format!("http://{authority}"),
            Self::File(_) => self.to_string(),
        }
    }

    /// The last part of the path.
    pub(super) fn file_name(&self) -> String {
        let path = match self {
            Self::Web(url) => url.path.split('?').next().unwrap_or_default().to_owned(),
            Self::File(path) => path.display().to_string(),
        };
        path.rsplit('/').next().unwrap_or_default().to_owned()
    }
}

impl fmt::Display for Url {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let scheme = if self.secure { "https" } else { "http" };
        write!(f, "{scheme}://{}{}", self.authority, self.path)
    }
}

impl Url {
    fn parse(text: &str) -> Result<Self, &'static str> {
        let (scheme, rest) = text.split_once("://").unwrap_or_default();
        let secure = match scheme.to_ascii_lowercase().as_str() {
            "https" => true,
            "http" => false,
            _ => return Err("https://, file:/// or an absolute path"),
        };
        let rest = rest.split('#').next().unwrap_or_default();
        let (authority, path) = rest.split_at(rest.find(['/', '?']).unwrap_or(rest.len()));
        let slash = if path.starts_with('/') { "" } else { "/" };
        let url = Self {
            secure,
            authority: authority.to_ascii_lowercase(),
            path: format!("{slash}{path}"),
        };
        if authority.contains('@') {
            return Err("a URL without user and password");
        }
        if !is_authority(&url.authority) {
            return Err("a host, with or without a port, in ASCII");
        }
        match url.path.bytes().all(is_path_byte) {
            true => Ok(url),
            false => Err("a path and a query in which all but ASCII is escaped by %"),
        }
    }

    /// Whether it is fetched over TLS.
    pub fn is_secure(&self) -> bool {
        self.secure
    }

    /// Host and port as they are written, in lower case.
    pub fn authority(&self) -> &str {
        &self.authority
    }

    /// Where a redirect from here to `location` leads; none where that is no URL to fetch.
    pub(super) fn join(&self, location: &str) -> Option<Self> {
        let location = location.split('#').next().unwrap_or_default();
        let scheme = if self.secure { "https" } else { "http" };
        let (path, query) = self.path.split_at(self.path.find('?').unwrap_or(self.path.len()));
        let dir = &path[..=path.rfind('/').unwrap_or(0).min(path.len() - 1)];
        let origin = format!("{scheme}://{}", self.authority);
        let is_absolute = location.split(['/', '?']).next().is_some_and(|part| part.contains(':'));
        let text = match location.as_bytes() {
            [] => format!("{origin}{path}{query}"),
            [b'/', b'/', ..] => format!("{scheme}:{location}"),
            [b'/', ..] => format!("{origin}{location}"),
            [b'?', ..] => format!("{origin}{path}{location}"),
            _ if is_absolute => location.to_owned(),
            _ => format!("{origin}{dir}{location}"),
        };
        let mut url = Self::parse(&text).ok()?;
        url.path = without_dots(&url.path);
        Some(url)
    }
}

/// `path` without its segments `.` and `..`; a query stays as it is.
fn without_dots(path: &str) -> String {
    let (path, query) = path.split_at(path.find('?').unwrap_or(path.len()));
    let mut kept: Vec<&str> = Vec::new();
    let mut segments = path.split('/').skip(1).peekable();
    while let Some(segment) = segments.next() {
        let is_last = segments.peek().is_none();
        match segment {
            ".." => drop(kept.pop()),
            "." => {}
            segment => {
                kept.push(segment);
                continue;
            }
        }
        if is_last {
            kept.push("");
        }
    }
    format!("/{}{query}", kept.join("/"))
}

fn is_authority(text: &str) -> bool {
    let (host, port) = match text.rfind(']') {
        Some(end) => text.split_at(end + 1),
        None => text.split_at(text.find(':').unwrap_or(text.len())),
    };
    let is_port = match port.strip_prefix(':') {
        Some(digits) => digits.bytes().all(|b| b.is_ascii_digit()) && digits.parse::<u16>().is_ok(),
        None => port.is_empty(),
    };
    let is_host = match host.strip_prefix('[').and_then(|host| host.strip_suffix(']')) {
        Some(addr) => addr.parse::<std::net::Ipv6Addr>().is_ok(),
        None => host.bytes().all(|b| b.is_ascii_alphanumeric() || b"-._".contains(&b)),
    };
    is_port && is_host && !host.is_empty()
}

fn is_path_byte(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"-._~!$&'()*+,;=:@/?%".contains(&byte)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sources_are_urls_or_absolute_paths() {
        for (text, shown) in [
            ("https://a.example", "https://a.example/"),
            ("HTTPS://A.Example:8443/X?k=V#top", "https://a.example:8443/X?k=V"),
            ("http://[2001:db8::1]:80?q", "http://[2001:db8::1]:80/?q"),
            ("file:///srv/a b", "file:///srv/a b"),
            ("/srv/100%", "file:///srv/100%"),
        ] {
            assert_eq!(text.parse::<Source>().unwrap().to_string(), shown, "{text}");
        }
        for text in [
            "",
            "list.txt",
            "ftp://a.example/",
            "https://",
            "https:///x",
            "https://:443/",
            "https://a.example:65536/",
            "https://a.example:+1/",
            "https://a:1:2/",
            "https://[::1/",
            "https://[a.example]/",
            "https://ä.example/",
            "https://a.example/ü",
            "https://a.example/a b",
            "https://a.example/\r\nX: y",
            "https://u:p@a.example/",
            "file://host/x",
            "file:///a%20b",
            "/a\0b",
        ] {
            text.parse::<Source>().expect_err(text);
        }
        let error = "https://key@a.example/?token=secret".parse::<Source>().unwrap_err();
        assert_eq!(
            error.to_string(),
            "`https://` is no source of a feed: expected a URL without user and password"
        );
    }

    #[test]
    fn redirects_are_relative_to_where_they_come_from() {
        let base = Url::parse("https://a.example/x/y?q=1").unwrap();
        for (location, expected) in [
            ("https://b.example/z#f", Some("https://b.example/z")),
            ("http://b.example", Some("http://b.example/")),
            ("//b.example/z", Some("https://b.example/z")),
            ("/z", Some("https://a.example/z")),
            ("z?r=https://c.example/", Some("https://a.example/x/z?r=https://c.example/")),
            ("../z", Some("https://a.example/z")),
            ("../../../z/./.", Some("https://a.example/z/")),
            ("?r", Some("https://a.example/x/y?r")),
            ("", Some("https://a.example/x/y?q=1")),
            ("https://u@b.example/", None),
            ("ftp://b.example/", None),
            ("javascript:alert(1)", None),
            ("./z:1", Some("https://a.example/x/z:1")),
            ("/a b", None),
            ("https://", None),
        ] {
            let found = base.join(location).map(|url| url.to_string());
            assert_eq!(found.as_deref(), expected, "{location}");
        }
    }
}
