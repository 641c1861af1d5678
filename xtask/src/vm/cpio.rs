//! The archive format of initramfs images (`newc`), as little of it as an image needs.

use std::collections::BTreeSet;

const DIRECTORY: u32 = 0o040_755;
const SYMLINK: u32 = 0o120_777;

/// An archive being written. Parents of what is added are added before it.
pub(crate) struct Archive {
    bytes: Vec<u8>,
    entries: BTreeSet<String>,
}

impl Archive {
    pub(crate) fn new() -> Self {
        Self { bytes: Vec::new(), entries: BTreeSet::new() }
    }

    pub(crate) fn has(&self, path: &str) -> bool {
        self.entries.contains(path.trim_start_matches('/'))
    }

    pub(crate) fn directory(&mut self, path: &str) {
        self.entry(path, DIRECTORY, &[]);
    }

    pub(crate) fn symlink(&mut self, path: &str, target: &str) {
        self.entry(path, SYMLINK, target.as_bytes());
    }

    /// A regular file; `mode` are its permissions.
    pub(crate) fn file(&mut self, path: &str, mode: u32, contents: &[u8]) {
        self.entry(path, 0o100_000 | mode, contents);
    }

    fn entry(&mut self, path: &str, mode: u32, contents: &[u8]) {
        let path = path.trim_matches('/');
        if let Some((parent, _)) = path.rsplit_once('/') {
            if !self.entries.contains(parent) {
                self.directory(parent);
            }
        }
        if self.entries.insert(path.to_owned()) {
            self.write(path, self.entries.len(), mode, contents);
        }
    }

    fn write(&mut self, path: &str, inode: usize, mode: u32, contents: &[u8]) {
        let fields = [
            inode as u32,
            mode,
            0, // owner
            0, // group
            1, // links
            0, // time: the same input gives the same image
            contents.len() as u32,
            0, // device of the file, two words
            0,
            0, // device that it is, two words
            0,
            path.len() as u32 + 1,
            0, // checksum, unused
        ];
        self.bytes.extend(b"070701");
        for field in fields {
            self.bytes.extend(format!("{field:08x}").bytes());
        }
        self.bytes.extend(path.bytes());
        self.bytes.push(0);
        self.pad();
        self.bytes.extend(contents);
        self.pad();
    }

    fn pad(&mut self) {
        self.bytes.resize(self.bytes.len().next_multiple_of(4), 0);
    }

    pub(crate) fn finish(mut self) -> Vec<u8> {
        self.write("TRAILER!!!", 0, 0, &[]);
        self.bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parents_come_first_and_once() {
        let mut archive = Archive::new();
        archive.file("/a/b/c", 0o644, b"x");
        archive.directory("a/b");
        assert!(archive.has("/a/b"));
        let text = String::from_utf8_lossy(&archive.finish()).into_owned();
        let headers: Vec<_> = text.split("070701").skip(1).collect();
        let names: Vec<_> =
            headers.iter().map(|header| header[104..].split('\0').next().unwrap()).collect();
        assert_eq!(names, ["a", "a/b", "a/b/c", "TRAILER!!!"]);
        assert!(headers[2].ends_with("a/b/c\0x\0\0\0"), "{:?}", headers[2]);
    }
}
