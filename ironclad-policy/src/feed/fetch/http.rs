//! One conversation: redirects, conditions, what the answer's head says.

use std::io::ErrorKind;
use std::time::{Duration, SystemTime};

use ureq::http::{HeaderMap, Response, Version, header};
use ureq::{Agent, Body, Error};

use super::FetchError;
use super::body::{self, Deadline};
use crate::feed::source::Url;
use crate::time::http_date;

const MAX_REDIRECTS: u32 = 5;
/// Characters of an `ETag` or a date that are kept.
const MAX_VALIDATOR: usize = 1024;

/// A request and its bounds.
pub(super) struct Request<'a> {
    pub(super) url: &'a Url,
    pub(super) allow_http: bool,
    pub(super) max_bytes: u64,
    pub(super) deadline: Deadline,
    /// Asks only for what changed since.
    pub(super) since: Validators,
    /// The time by the clock, which dates are held against.
    pub(super) now: SystemTime,
}

/// By what a server knows a version of the content.
#[derive(Clone, Debug, Default)]
pub(super) struct Validators {
    pub(super) etag: Option<String>,
    pub(super) last_modified: Option<String>,
}

pub(super) enum Answer {
    NotModified,
    Content { bytes: Vec<u8>, validators: Validators },
}

pub(super) fn get(agent: &Agent, request: &Request<'_>) -> Result<Answer, FetchError> {
    let mut url = request.url.clone();
    let host = |url: &Url| url.authority().to_owned();
    if !url.is_secure() && !request.allow_http {
        return Err(FetchError::PlainHttp { host: host(&url) });
    }
    for _ in 0..=MAX_REDIRECTS {
        let response = ask(agent, request, &url)?;
        match response.status().as_u16() {
            200 => return content(response, request, &host(&url)),
            304 if request.since.etag.is_none() && request.since.last_modified.is_none() => {
                return Err(FetchError::UnexpectedNotModified { host: host(&url) });
            }
            304 => return Ok(Answer::NotModified),
            301 | 302 | 303 | 307 | 308 => url = redirect(&url, response.headers())?,
            status => {
                let retry_after = retry_after(response.headers(), request.now);
                return Err(FetchError::Status { host: host(&url), status, retry_after });
            }
        }
    }
    Err(FetchError::TooManyRedirects { host: host(&url), limit: MAX_REDIRECTS })
}

fn ask(agent: &Agent, request: &Request<'_>, url: &Url) -> Result<Response<Body>, FetchError> {
    let mut call = agent.get(url.to_string());
    if let Some(etag) = &request.since.etag {
        call = call.header(header::IF_NONE_MATCH, etag);
    }
    if let Some(date) = &request.since.last_modified {
        call = call.header(header::IF_MODIFIED_SINCE, date);
    }
    let call = call.config().timeout_global(request.deadline.left()?).build();
    call.call().map_err(|error| failure(error, url.authority(), request.deadline, false))
}

/// Where a redirect leads, if it may lead there.
fn redirect(from: &Url, headers: &HeaderMap) -> Result<Url, FetchError> {
    let location = text(headers, header::LOCATION).unwrap_or_default();
    let refused = |to: &str, why| {
        // Behind a question mark there may be a key.
        let to = to.split('?').next().unwrap_or_default();
        let to = to.chars().take(80).flat_map(char::escape_debug).collect();
        Err(FetchError::Redirect { host: from.authority().to_owned(), to, why })
    };
    if location.is_empty() {
        return refused("nowhere", "there is no `Location`");
    }
    let Some(to) = from.join(location) else {
        return refused(location, "that is no URL to fetch from");
    };
    if from.is_secure() && !to.is_secure() {
        return refused(to.authority(), "from https to plain http");
    }
    if !to.is_secure() && to.authority() != from.authority() {
        return refused(to.authority(), "another host is fetched over https only");
    }
    Ok(to)
}

fn content(
    response: Response<Body>,
    request: &Request<'_>,
    host: &str,
) -> Result<Answer, FetchError> {
    let (head, body) = response.into_parts();
    if let Some(kind) = text(&head.headers, header::CONTENT_TYPE) {
        let essence = kind.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
        let family = essence.split('/').next().unwrap_or_default();
        if matches!(essence.as_str(), "text/html" | "application/xhtml+xml")
            || matches!(family, "image" | "audio" | "video" | "font" | "multipart")
        {
            return Err(FetchError::ContentType { host: host.to_owned(), found: essence });
        }
    }
    let encoding = text(&head.headers, header::CONTENT_ENCODING).unwrap_or_default();
    let is_gzip = match encoding.trim().to_ascii_lowercase().as_str() {
        "" | "identity" => false,
        "gzip" | "x-gzip" => true,
        other => {
            let found = other.chars().take(40).flat_map(char::escape_debug).collect();
            return Err(FetchError::Encoding { host: host.to_owned(), found });
        }
    };
    let length: Option<u64> =
        text(&head.headers, header::CONTENT_LENGTH).and_then(|length| length.trim().parse().ok());
    let is_chunked = head.version == Version::HTTP_11
        && text(&head.headers, header::TRANSFER_ENCODING)
            .is_some_and(|coding| coding.to_ascii_lowercase().contains("chunked"));
    match length {
        None if !is_chunked => return Err(FetchError::NoEnd { host: host.to_owned() }),
        Some(length) if length > request.max_bytes => {
            return Err(FetchError::TooLarge { limit: request.max_bytes, unpacked: false });
        }
        _ => {}
    }
    let bytes = body::read(body.into_reader(), is_gzip, request.max_bytes, request.deadline, host)?;
    let keep = |name| {
        text(&head.headers, name).filter(|text| text.len() <= MAX_VALIDATOR).map(str::to_owned)
    };
    let validators =
        Validators { etag: keep(header::ETAG), last_modified: keep(header::LAST_MODIFIED) };
    Ok(Answer::Content { bytes, validators })
}

fn retry_after(headers: &HeaderMap, now: SystemTime) -> Option<Duration> {
    let text = text(headers, header::RETRY_AFTER)?.trim();
    match text.parse() {
        Ok(seconds) => Some(Duration::from_secs(seconds)),
        Err(_) => http_date(text)?.duration_since(now).ok(),
    }
}

/// A header in visible ASCII.
fn text(headers: &HeaderMap, name: header::HeaderName) -> Option<&str> {
    headers.get(name)?.to_str().ok()
}

/// What the client says, in our words. `in_body`: after the head of a good answer.
pub(super) fn failure(error: Error, host: &str, deadline: Deadline, in_body: bool) -> FetchError {
    let host = host.to_owned();
    match error {
        Error::Timeout(_) => deadline.missed(),
        Error::HostNotFound => {
            FetchError::Connection { host, what: "no address for this name".to_owned() }
        }
        Error::Rustls(error) => FetchError::Tls { host, what: error.to_string() },
        Error::Tls(what) => FetchError::Tls { host, what: what.to_owned() },
        Error::Io(error) if error.kind() == ErrorKind::TimedOut => deadline.missed(),
        // So the TLS library hands its errors through.
        Error::Io(error) if error.kind() == ErrorKind::InvalidData => {
            FetchError::Tls { host, what: error.to_string() }
        }
        Error::Io(error) if in_body => FetchError::Truncated { what: error.to_string() },
        Error::Io(error) => FetchError::Connection { host, what: error.to_string() },
        error => FetchError::Protocol { host, what: error.to_string() },
    }
}
