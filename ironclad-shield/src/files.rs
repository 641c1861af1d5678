//! Files that rules name.

use std::fs::FileType;
use std::os::unix::fs::FileTypeExt;
use std::path::Path;

use rustix::fs::{Mode, OFlags, open};
use rustix::io::pread;

use crate::error::ShieldError;

/// As much of a file as the kernel looks at to tell what executes it.
const BEGINNING: usize = 256;

/// Refuses what no process can be said to execute: a process that runs a script executes the
/// script's interpreter, and nobody executes a directory. What is not there may come.
pub(crate) fn refuse_unfit<'a>(
    paths: impl IntoIterator<Item = &'a Path>,
) -> Result<(), ShieldError> {
    for path in paths {
        // Not opened before it is known for a file: others wait, or do something.
        let Ok(found) = std::fs::metadata(path) else { continue };
        if !found.is_file() {
            let what = kind(found.file_type());
            return Err(ShieldError::NoProgram { path: path.to_owned(), what });
        }
        if let Some(interpreter) = interpreter(path) {
            return Err(ShieldError::Script { path: path.to_owned(), interpreter });
        }
    }
    Ok(())
}

fn kind(file: FileType) -> &'static str {
    match file {
        _ if file.is_dir() => "a directory",
        _ if file.is_fifo() => "a pipe",
        _ if file.is_socket() => "a socket",
        _ => "a device",
    }
}

/// The line that names the interpreter, where the file is a script.
fn interpreter(path: &Path) -> Option<String> {
    // Another may have taken its place meanwhile: not to wait for the other end of a pipe.
    let file = open(path, OFlags::RDONLY | OFlags::NONBLOCK | OFlags::CLOEXEC, Mode::empty());
    let mut beginning = [0; BEGINNING];
    let length = pread(&file.ok()?, &mut beginning, 0).ok()?;
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
        refuse_unfit([missing.as_path(), Path::new("/proc/self/exe")]).unwrap();
        for (path, what) in [
            (pipe.as_path(), "a pipe"),
            (dir.path(), "a directory"),
            ("/dev/null".as_ref(), "a device"),
        ] {
            let refused = refuse_unfit([path]).unwrap_err().to_string();
            let expected = format!("{} is {what}", path.display());
            assert!(refused.starts_with(&expected), "{refused}");
        }
        let refused = refuse_unfit([link.as_path()]).unwrap_err().to_string();
        assert!(refused.contains(&*link.to_string_lossy()), "{refused}");
        assert!(refused.contains("#!/bin/sh"), "{refused}");
    }
}
