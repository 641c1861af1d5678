use std::io;
use std::path::PathBuf;
use std::time::Duration;

/// Why content did not arrive.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum FetchError {
    /// The source is plain HTTP, and the feed does not allow it.
    #[error(
        "{host} would be fetched over plain HTTP, where any host on the path can write the feed: use https, \
             or `danger_allow_http`"
    )]
    PlainHttp {
        /// Host and port.
        host: String,
    },
    /// It took longer than the feed's time for all of it.
    #[error("not done within {limit:?} (`timeout`)")]
    TimedOut {
        /// The limit.
        limit: Duration,
    },
    /// No address for the host's name, no connection, or one that broke before there was an answer.
    #[error("{host}: {what}")]
    Connection {
        /// Host and port.
        host: String,
        /// What the system says.
        what: String,
    },
    /// The server could not be verified, or does not speak TLS.
    #[error("{host}: not verified: {what}")]
    Tls {
        /// Host and port.
        host: String,
        /// What is wrong.
        what: String,
    },
    /// The answer is no HTTP.
    #[error("{host}: no answer in HTTP: {what}")]
    Protocol {
        /// Host and port.
        host: String,
        /// What is wrong.
        what: String,
    },
    /// The status of the answer is not 200.
    #[error("{host} answers with status {status}{}", later(retry_after))]
    Status {
        /// Host and port.
        host: String,
        /// The status.
        status: u16,
        /// When the server allows the next request, from now.
        retry_after: Option<Duration>,
    },
    /// The server answers 304, and the request had no condition.
    #[error(
        "{host} answers with status 304 (not modified), though there is no version that it could mean"
    )]
    UnexpectedNotModified {
        /// Host and port.
        host: String,
    },
    /// A redirect leads where it must not.
    #[error("{host} redirects to {to}: {why}")]
    Redirect {
        /// Host and port that redirect.
        host: String,
        /// Host and port where to.
        to: String,
        /// Why that is not followed.
        why: &'static str,
    },
    /// More redirects than are followed.
    #[error("more than {limit} redirects, the last by {host}")]
    TooManyRedirects {
        /// Host and port of the last.
        host: String,
        /// The limit.
        limit: u32,
    },
    /// The content's type says that it is no list.
    #[error("{host} sends {found}, not a list: check the source")]
    ContentType {
        /// Host and port.
        host: String,
        /// The type.
        found: String,
    },
    /// The content has an encoding that was not requested.
    #[error("{host} sends the content encoded as {found}, and only gzip is understood")]
    Encoding {
        /// Host and port.
        host: String,
        /// The encoding.
        found: String,
    },
    /// The content has more bytes than the feed may have.
    #[error(
        "larger than {limit} bytes{} (`max_bytes`, in a policy file `max-bytes`)",
        if *unpacked { " after unpacking" } else { "" }
    )]
    TooLarge {
        /// The limit.
        limit: u64,
        /// Whether it was so only after unpacking.
        unpacked: bool,
    },
    /// The answer does not say where it ends: neither by a length nor by chunks.
    ///
    /// Where the connection alone ends it, a host that can break the connection can shorten the feed, over
    /// TLS as well: the client does not insist on the proper end of a session.
    #[error(
        "{host} announces neither a length nor chunks, so that an end that was cut off would not show: fetch \
             the feed by other means, and name the file as the source"
    )]
    NoEnd {
        /// Host and port.
        host: String,
    },
    /// The content ended before its announced end.
    #[error("cut off: {what}")]
    Truncated {
        /// What is missing.
        what: String,
    },
    /// The content is no gzip, or damaged.
    #[error("cannot be unpacked: {what}")]
    Gzip {
        /// What is wrong.
        what: String,
    },
    /// The checksum's file names none for the content.
    #[error("no SHA-256 checksum of `{name}` where it should be published")]
    NoChecksum {
        /// The content's file name.
        name: String,
    },
    /// The file cannot be read.
    #[error("cannot read {}: {source}", path.display())]
    File {
        /// Which.
        path: PathBuf,
        /// The system's reason.
        source: io::Error,
    },
}

fn later(retry_after: &Option<Duration>) -> String {
    match retry_after {
        Some(time) => format!(" and asks to be left alone for {} s", time.as_secs()),
        None => String::new(),
    }
}

impl FetchError {
    /// How long the server wants to be left alone.
    pub fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::Status { retry_after, .. } => *retry_after,
            _ => None,
        }
    }
}
