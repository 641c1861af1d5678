//! Refuses rules that name scripts.

use ironclad_bpf::paths::interpreter;
use ironclad_policy::socket::CompiledSockets;

use crate::error::{Failure, ShieldError};

/// A process that runs a script executes the script's interpreter: a rule that names the script would
/// match no process. A file that cannot be read is accepted.
pub(crate) fn refuse_scripts(sockets: &CompiledSockets) -> Result<(), ShieldError> {
    for path in sockets.files() {
        if let Some(interpreter) = interpreter(path) {
            let rule = sockets.naming_file(path).map(ToString::to_string).unwrap_or_default();
            return Err(Failure::Script { rule, path: path.clone(), interpreter }.into());
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use ironclad_core::RuleId;
    use ironclad_policy::Policy;
    use ironclad_policy::socket::{SocketAction, SocketRule, Subject};
    use rustix::fs::Mode;

    use super::*;

    #[test]
    fn a_script_is_refused_with_its_interpreter() {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str, text: &[u8]| {
            let path = dir.path().join(name);
            std::fs::write(&path, text).unwrap();
            path
        };
        let (script, missing) = (at("script", b"#!/bin/sh\n"), dir.path().join("none"));
        let (pipe, link) = (dir.path().join("pipe"), dir.path().join("link"));
        rustix::fs::mkfifoat(rustix::fs::CWD, &pipe, Mode::RWXU).unwrap();
        std::os::unix::fs::symlink(&script, &link).unwrap();
        let refuse = |paths: &[&Path]| {
            let rule = |id, subject| {
                SocketRule::new(RuleId(id), "one", SocketAction::Deny).subject(subject)
            };
            let exes = paths.iter().fold(Subject::default(), Subject::exe);
            let policy = Policy::builder().socket_rule(rule(7, Subject::new("").exe("/first")));
            let policy = policy.socket_rule(rule(8, exes)).compile().unwrap();
            refuse_scripts(policy.sockets().unwrap())
        };
        refuse(&[&missing, &pipe, dir.path(), "/dev/null".as_ref()]).unwrap();
        let refused = refuse(&[&missing, &link]).unwrap_err().to_string();
        let expected = format!("rule 8 (`one`): {} is a script (#!/bin/sh), ", link.display());
        assert!(refused.starts_with(&expected), "{refused}");
    }
}
