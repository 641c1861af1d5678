//! Reading a body: bounded in bytes on both sides of unpacking, and in time.

use std::io::{self, Read};
use std::time::{Duration, Instant};

use flate2::read::MultiGzDecoder;

use super::FetchError;

/// When a refresh has to be done.
#[derive(Clone, Copy)]
pub(super) struct Deadline {
    limit: Duration,
    end: Option<Instant>,
}

impl Deadline {
    pub(super) fn after(limit: Duration) -> Self {
        Self { limit, end: Instant::now().checked_add(limit) }
    }

    /// The time that is left; none where there is no end.
    pub(super) fn left(&self) -> Result<Option<Duration>, FetchError> {
        let left = self.end.map(|end| end.saturating_duration_since(Instant::now()));
        match left {
            Some(Duration::ZERO) => Err(self.missed()),
            left => Ok(left),
        }
    }

    pub(super) fn missed(&self) -> FetchError {
        FetchError::TimedOut { limit: self.limit }
    }
}

/// Reads a body to its end, unpacked where it is gzip.
pub(super) fn read(
    body: impl Read,
    is_gzip: bool,
    max_bytes: u64,
    deadline: Deadline,
    host: &str,
) -> Result<Vec<u8>, FetchError> {
    let wire = Wire { body, limit: max_bytes, left: max_bytes, deadline, host };
    let mut bytes = Vec::new();
    let most = max_bytes.saturating_add(1);
    let ended = match is_gzip {
        true => MultiGzDecoder::new(wire).take(most).read_to_end(&mut bytes),
        false => wire.take(most).read_to_end(&mut bytes),
    };
    match ended.map_err(io::Error::downcast::<FetchError>) {
        Ok(_) if bytes.len() as u64 > max_bytes => {
            Err(FetchError::TooLarge { limit: max_bytes, unpacked: is_gzip })
        }
        Ok(_) => Ok(bytes),
        Err(Ok(error)) => Err(error),
        // What is not the wire's is the unpacking's.
        Err(Err(error)) => Err(FetchError::Gzip { what: error.to_string() }),
    }
}

/// The body as it is sent. Its errors are [`FetchError`]s in the guise of I/O.
struct Wire<'a, R> {
    body: R,
    limit: u64,
    left: u64,
    deadline: Deadline,
    host: &'a str,
}

impl<R: Read> Read for Wire<'_, R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.deadline.left().map_err(io::Error::other)?;
        let read = self.body.read(buffer).map_err(|error| {
            io::Error::other(super::http::failure(error.into(), self.host, self.deadline, true))
        })?;
        self.left = self.left.checked_sub(read as u64).ok_or_else(|| {
            io::Error::other(FetchError::TooLarge { limit: self.limit, unpacked: false })
        })?;
        Ok(read)
    }
}
