use std::fs::File;
use std::io::{self, Read};
use std::path::Path;

use rustix::fs::{Mode, OFlags};

use super::FetchError;

/// The bytes of a regular file.
pub(super) fn read(path: &Path, max_bytes: u64) -> Result<Vec<u8>, FetchError> {
    let bytes = open(path).and_then(|file| {
        let mut bytes = Vec::new();
        file.take(max_bytes.saturating_add(1)).read_to_end(&mut bytes)?;
        Ok(bytes)
    });
    let bytes = bytes.map_err(|source| FetchError::File { path: path.to_owned(), source })?;
    match bytes.len() as u64 > max_bytes {
        true => Err(FetchError::TooLarge { limit: max_bytes, unpacked: false }),
        false => Ok(bytes),
    }
}

fn open(path: &Path) -> io::Result<File> {
    // NONBLOCK: a FIFO must not hold us up before we see what it is.
    let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NONBLOCK | OFlags::NOCTTY;
    let file = File::from(rustix::fs::open(path, flags, Mode::empty())?);
    match file.metadata()?.is_file() {
        true => Ok(file),
        false => Err(io::Error::other("it is no regular file")),
    }
}
