//! Files that rules name.

use std::os::fd::AsRawFd;
use std::path::Path;

use ironclad_policy::socket::CompiledSockets;
use rustix::fs::{FileType, Mode, OFlags, fstat, open};
use rustix::io::pread;

use crate::error::ShieldError;

/// As much of a file as the kernel looks at to tell what executes it.
const BEGINNING: usize = 256;

/// A process that runs a script executes the script's interpreter: a rule that names the script would
/// match nobody. What cannot be read is not known for a script.
pub(crate) fn refuse_scripts(sockets: &CompiledSockets) -> Result<(), ShieldError> {
    for path in sockets.files() {
        if let Some(interpreter) = interpreter(path) {
            let rule = sockets.naming_file(path).map(ToString::to_string).unwrap_or_default();
            return Err(ShieldError::Script { rule, path: path.clone(), interpreter });
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
    // Nor does whoever holds a lease on it make us wait.
    let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let file = open(format!("/proc/self/fd/{}", found.as_raw_fd()), flags, Mode::empty()).ok()?;
    let mut beginning = [0; BEGINNING];
    let length = pread(&file, &mut beginning, 0).ok()?;
    let line = beginning[..length].strip_prefix(b"#!")?.split(|&byte| byte == b'\n').next()?;
    Some(format!("#!{}", line.escape_ascii()))
}

#[cfg(test)]
mod tests {
    use ironclad_core::RuleId;
    use ironclad_policy::Policy;
    use ironclad_policy::socket::{SocketAction, SocketRule, Subject};

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
        let refuse = |paths: &[&Path]| {
            let rule = |id, who| SocketRule::new(RuleId(id), "one", SocketAction::Deny).who(who);
            let exes = paths.iter().fold(Subject::default(), Subject::exe);
            let policy = Policy::builder().socket_rule(rule(7, Subject::new("").exe("/first")));
            let policy = policy.socket_rule(rule(8, exes)).compile().unwrap();
            refuse_scripts(policy.sockets().unwrap())
        };
        refuse(&[&missing, &pipe, dir.path(), "/dev/null".as_ref()]).unwrap();
        let refused = refuse(&[&missing, &link]).unwrap_err().to_string();
        let expected = format!("rule 8 (`one`): {} is a script (#!/bin/sh): ", link.display());
        assert!(refused.starts_with(&expected), "{refused}");
    }
}
