//! What the rules of a policy name.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::file::as_escaped;
use super::{Change, FileChange};

/// A path or pattern of a rule.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub(crate) struct Scope {
    pub(crate) kind: Kind,
    /// The path or pattern of the rule.
    #[serde(with = "as_escaped")]
    pub(crate) named: PathBuf,
    /// The same without symbolic links; of a pattern, only before its first wildcard.
    #[serde(with = "as_escaped")]
    pub(crate) real: PathBuf,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Kind {
    File,
    Tree,
    Glob,
}

/// The scopes of a policy.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Scopes(pub(crate) Vec<Scope>);

impl Scopes {
    /// Whether any of them names a file.
    pub(super) fn cover(&self, path: &Path) -> bool {
        self.0.iter().any(|scope| match scope.kind {
            Kind::File => path == scope.real,
            Kind::Tree => path.starts_with(&scope.real),
            Kind::Glob => {
                let pattern = scope.real.to_str().and_then(|it| glob::Pattern::new(it).ok());
                pattern.is_some_and(|it| it.matches_path_with(path, GLOB))
            }
        })
    }

    /// Paths that resolve to another file than in `former`.
    pub(super) fn moved_targets(&self, former: &Self) -> Vec<FileChange> {
        let pairs = self.0.iter().filter_map(|now| {
            let is_it = |was: &&Scope| (was.kind, &was.named) == (now.kind, &now.named);
            former.0.iter().find(is_it).map(|was| (was, now))
        });
        pairs
            .filter(|(was, now)| was.real != now.real)
            .map(|(was, now)| FileChange {
                path: now.named.clone(),
                change: Change::Elsewhere { before: was.real.clone(), after: now.real.clone() },
            })
            .collect()
    }
}

/// The options of `glob::glob`.
const GLOB: glob::MatchOptions = glob::MatchOptions {
    case_sensitive: true,
    require_literal_separator: true,
    require_literal_leading_dot: false,
};
