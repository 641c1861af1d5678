//! The file of a baseline: lines of JSON.
//!
//! The first line has version, policy and scopes. The last line has the number of files and the checksum of all
//! lines before it. Each line between them is a file.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, Read};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use ironclad_policy::Sha256Sum;
use serde::{Deserialize, Serialize};

use super::walk::Snapshot;
use super::{FileState, Scopes};
use crate::secret_store;

pub(super) const NAME: &str = "baseline";
const DAMAGED: &str = "baseline.damaged";
const VERSION: u32 = 1;
/// Size in bytes of the largest baseline that is read.
const LARGEST: u64 = 1 << 29;

#[derive(Serialize, Deserialize)]
struct Head {
    baseline: u32,
    instance: String,
    policy: String,
    /// Wall clock, nanoseconds since 1970 UTC.
    time: u64,
    is_cut: bool,
    scopes: Scopes,
}

#[derive(Serialize, Deserialize)]
struct Line {
    #[serde(with = "as_escaped")]
    path: PathBuf,
    #[serde(flatten)]
    state: FileState,
}

#[derive(Serialize, Deserialize)]
struct Tail {
    files: usize,
    /// Of all bytes before this line.
    sha256: Sha256Sum,
}

/// The baseline of an earlier agent.
pub(super) struct Former {
    pub(super) time: u64,
    /// The digest of the whole file.
    pub(super) sha256: Sha256Sum,
    pub(super) scopes: Scopes,
    pub(super) files: BTreeMap<PathBuf, FileState>,
    pub(super) is_cut: bool,
}

pub(super) enum Loaded {
    Whole(Former),
    Missing,
    Damaged(String),
}

/// Reads a baseline. Renames one that is damaged.
pub(super) fn load(path: &Path) -> io::Result<Loaded> {
    let mut bytes = Vec::new();
    let read = File::open(path).and_then(|file| file.take(LARGEST + 1).read_to_end(&mut bytes));
    let parsed = match read {
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(Loaded::Missing),
        Err(e) => Err(e.to_string()),
        Ok(len) if len as u64 > LARGEST => Err(format!("it is larger than {LARGEST} bytes")),
        Ok(_) => parse(&bytes),
    };
    parsed.map(Loaded::Whole).or_else(|why| {
        fs::rename(path, path.with_file_name(DAMAGED))?;
        Ok(Loaded::Damaged(why))
    })
}

fn parse(bytes: &[u8]) -> Result<Former, String> {
    let text = std::str::from_utf8(bytes).map_err(|e| e.to_string())?;
    let body = text.strip_suffix('\n').ok_or("its end is missing")?;
    let (body, tail) = body.rsplit_once('\n').ok_or("its end is missing")?;
    let wrong = |number: usize, e: serde_json::Error| format!("line {number}: {e}");
    let mut lines = body.split('\n');
    let head = lines.next().unwrap_or_default();
    // Every version has this field.
    let version: serde_json::Value = serde_json::from_str(head).map_err(|e| wrong(1, e))?;
    if version["baseline"] != VERSION {
        return Err(format!(
            "its version is {}, and only version {VERSION} is known",
            version["baseline"]
        ));
    }
    let head: Head = serde_json::from_str(head).map_err(|e| wrong(1, e))?;
    let files = lines.enumerate().map(|(number, line)| {
        let line: Line = serde_json::from_str(line).map_err(|e| wrong(number + 2, e))?;
        Ok((line.path, line.state))
    });
    let files = files.collect::<Result<BTreeMap<_, _>, String>>()?;
    let tail: Tail = serde_json::from_str(tail).map_err(|_| "its end is missing")?;
    if tail.files != files.len() {
        return Err(format!("it has {} files instead of {}", files.len(), tail.files));
    }
    if tail.sha256 != Sha256Sum::of(&bytes[..body.len() + 1]) {
        return Err("its checksum does not match its content".to_owned());
    }
    let Head { time, scopes, is_cut, .. } = head;
    Ok(Former { time, sha256: Sha256Sum::of(bytes), scopes, files, is_cut })
}

/// Writes a baseline, and returns the digest of the file.
pub(super) fn store(
    path: &Path,
    instance: &str,
    policy: &str,
    scopes: &Scopes,
    snapshot: &Snapshot,
) -> io::Result<Sha256Sum> {
    let time = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |it| it.as_nanos() as u64);
    let head = Head {
        baseline: VERSION,
        instance: instance.to_owned(),
        policy: policy.to_owned(),
        time,
        is_cut: snapshot.is_cut,
        scopes: scopes.clone(),
    };
    let mut bytes = Vec::new();
    line(&mut bytes, &head)?;
    for (path, seen) in &snapshot.files {
        line(&mut bytes, &Line { path: path.clone(), state: seen.state.clone() })?;
    }
    let tail = Tail { files: snapshot.files.len(), sha256: Sha256Sum::of(&bytes) };
    line(&mut bytes, &tail)?;
    secret_store::replace(path, &bytes)?;
    Ok(Sha256Sum::of(&bytes))
}

fn line(bytes: &mut Vec<u8>, what: &impl Serialize) -> io::Result<()> {
    serde_json::to_writer(&mut *bytes, what)?;
    bytes.push(b'\n');
    Ok(())
}

/// A path as printable ASCII: all other bytes, and `%`, are `%` and two hexadecimal digits.
pub(crate) fn escaped(path: &Path) -> String {
    let mut text = String::new();
    for &byte in path.as_os_str().as_bytes() {
        match byte {
            b' '..=b'~' if byte != b'%' => text.push(byte.into()),
            _ => text.push_str(&format!("%{byte:02x}")),
        }
    }
    text
}

fn unescaped(text: &str) -> Option<PathBuf> {
    let (mut bytes, mut rest) = (Vec::with_capacity(text.len()), text.as_bytes());
    while let [first, tail @ ..] = rest {
        let (byte, left) = match first {
            b'%' => {
                let digits = std::str::from_utf8(tail.get(..2)?).ok()?;
                (u8::from_str_radix(digits, 16).ok()?, &tail[2..])
            }
            _ => (*first, tail),
        };
        bytes.push(byte);
        rest = left;
    }
    Some(std::ffi::OsString::from_vec(bytes).into())
}

pub(super) mod as_escaped {
    use std::path::{Path, PathBuf};

    use serde::{Deserialize, Deserializer, Serializer};

    pub(crate) fn serialize<S: Serializer>(path: &Path, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&super::escaped(path))
    }

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(it: D) -> Result<PathBuf, D::Error> {
        let text = String::deserialize(it)?;
        super::unescaped(&text).ok_or_else(|| serde::de::Error::custom("no escaped path"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_of_any_bytes_is_escaped() {
        let path = PathBuf::from(std::ffi::OsString::from_vec((1..=255).collect()));
        let text = escaped(&path);
        assert!(text.is_ascii() && !text.contains('\n'), "{text}");
        assert_eq!(unescaped(&text), Some(path));
        assert_eq!(escaped(Path::new("/a b%")), "/a b%25");
        for broken in ["%", "%2", "%zz"] {
            assert_eq!(unescaped(broken), None, "{broken}");
        }
    }
}
