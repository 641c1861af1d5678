//! Files that rules name.

use std::os::fd::AsRawFd;
use std::path::Path;

use rustix::fs::{FileType, Mode, OFlags, fstat, open};
use rustix::io::pread;

use crate::error::ShieldError;

/// As much of a file as the kernel looks at to tell what executes it.
const BEGINNING: usize = 256;

/// A process that runs a script executes the script's interpreter: a rule that names the script would
/// match nobody. What cannot be read is not known for a script.
pub(crate) fn refuse_scripts<'a>(
    paths: impl IntoIterator<Item = &'a Path>,
) -> Result<(), ShieldError> {
    for path in paths {
        if let Some(interpreter) = interpreter(path) {
            return Err(ShieldError::Script { path: path.to_owned(), interpreter });
        }
    }
    Ok(())
}

/// The line that names the interpreter, where the file is a script.
fn interpreter(path: &Path) -> Option<String> {
    // Opening a device or a pipe has effects: first looked at, then opened.
    let found = open(path, OFlags::PATH | OFlags::CLOEXEC, Mode::empty()).ok()?;
    if FileType::from_raw_mode(fstat(&found).ok()?.st_mode) != FileType::RegularFile {
        return None;
    }
    let file = std::fs::File::open(format!("/proc/self/fd/{}", found.as_raw_fd())).ok()?;
    let mut beginning = [0; BEGINNING];
    let length = pread(&file, &mut beginning, 0).ok()?;
    let line = beginning[..length].strip_prefix(b"#!")?.split(|&byte| byte == b'\n').next()?;
    Some(format!("#!{}", line.escape_ascii()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_script_is_refused_with_its_interpreter() {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str, text: &[u8]| {
            let path = dir.path().join(name);
            std::fs::write(&path, text).unwrap();
            path
        };
        let long = [&b"#!/bin/"[..], &[b'x'; 1000]].concat();
        for (text, interpreter) in [
            (&b"\x7fELF"[..], None),
            (b"", None),
            (b"#", None),
            (b" #!/bin/sh\n", None),
            (b"#!", Some("#!")),
            (b"#!/bin/sh -e\necho", Some("#!/bin/sh -e")),
            (b"#!/bin/\x1b[2J\n", Some("#!/bin/\\x1b[2J")),
            (&long, Some(&*format!("#!/bin/{}", "x".repeat(BEGINNING - 7)))),
        ] {
            let path = at("file", text);
            assert_eq!(super::interpreter(&path).as_deref(), interpreter);
        }
        let (script, missing) = (at("script", b"#!/bin/sh\n"), dir.path().join("none"));
        let (pipe, link) = (dir.path().join("pipe"), dir.path().join("link"));
        rustix::fs::mkfifoat(rustix::fs::CWD, &pipe, Mode::RWXU).unwrap();
        std::os::unix::fs::symlink(&script, &link).unwrap();
        refuse_scripts([missing.as_path(), &pipe, dir.path(), "/dev/null".as_ref()]).unwrap();
        let refused = refuse_scripts([link.as_path()]).unwrap_err().to_string();
        assert!(refused.contains(&*link.to_string_lossy()), "{refused}");
        assert!(refused.contains("#!/bin/sh"), "{refused}");
    }
}
