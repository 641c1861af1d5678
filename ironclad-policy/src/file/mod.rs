//! File rules: which programs may do what with which files. Sentinel enforces them.
//!
//! ```
//! use ironclad_core::RuleId;
//! use ironclad_policy::Policy;
//! use ironclad_policy::file::{FileAction, FileOps, FileRule};
//!
//! let config = FileRule::new(RuleId(1), "configuration", FileAction::Deny)
//!     .tree("/etc/my-agent")
//!     .file("/etc/shadow")
//!     .operations(FileOps::CHANGE)
//!     .except("/usr/bin/dpkg");
//! let policy = Policy::builder().file_rule(config).compile()?;
//! assert_eq!(policy.files().unwrap().rules().len(), 1);
//! # Ok::<(), ironclad_policy::PolicyError>(())
//! ```
//!
//! Every rule that covers a file decides: where one denies, it is denied. What a rule covers, it
//! covers by what it is and by the name that it has: see `docs/file-rules.md`.

mod compile;
mod ops;

use std::path::PathBuf;

use ironclad_core::RuleId;

pub(crate) use compile::digest;
pub use compile::{CompiledFiles, FileRuleInfo};
pub use ops::FileOps;

/// Rules on files that a policy may have. Sentinel keeps eight more for itself.
pub const FILE_RULES_MAX: usize = 56;

/// What a rule does with what it matches.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum FileAction {
    /// The system call fails with EPERM, and an event reports it.
    Deny,
    /// An event reports it.
    Log,
}

/// What a rule covers.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[non_exhaustive]
pub enum FileScope {
    /// A file by its path: the one that is there, and whichever comes to be there. A directory is none.
    File(PathBuf),
    /// A directory that is there, with everything below it, now and later.
    Tree(PathBuf),
    /// Whatever paths a pattern matches at the moment when the policy is applied: `*`, `?`, `[…]`
    /// within a name and `**` for directories between. Each as [`File`](Self::File); of a directory
    /// nothing that is in it.
    Glob(String),
}

/// Which files × what is done with them × by whom → action.
#[derive(Clone, Debug)]
pub struct FileRule {
    pub(crate) rule: RuleId,
    pub(crate) name: String,
    pub(crate) action: FileAction,
    pub(crate) scopes: Vec<FileScope>,
    pub(crate) ops: FileOps,
    pub(crate) except: Vec<PathBuf>,
    pub(crate) dry_run: bool,
    /// Where a policy file says it.
    pub(crate) described_at: Option<String>,
}

impl FileRule {
    /// A rule on no file yet, for what changes files ([`FileOps::CHANGE`]).
    pub fn new(rule: RuleId, name: impl Into<String>, action: FileAction) -> Self {
        Self {
            rule,
            name: name.into(),
            action,
            scopes: Vec::new(),
            ops: FileOps::CHANGE,
            except: Vec::new(),
            dry_run: false,
            described_at: None,
        }
    }

    /// Covers a file, by an absolute path. Its directory has to be there when the policy is applied.
    #[must_use]
    pub fn file(self, path: impl Into<PathBuf>) -> Self {
        self.scope(FileScope::File(path.into()))
    }

    /// Covers a directory and everything below it, by an absolute path.
    #[must_use]
    pub fn tree(self, path: impl Into<PathBuf>) -> Self {
        self.scope(FileScope::Tree(path.into()))
    }

    /// Covers what a pattern matches when the policy is applied: `*`, `?` and `[…]` within a name, `**` for any number
    /// of directories.
    #[must_use]
    pub fn glob(self, pattern: impl Into<String>) -> Self {
        self.scope(FileScope::Glob(pattern.into()))
    }

    fn scope(mut self, scope: FileScope) -> Self {
        self.scopes.push(scope);
        self
    }

    /// What it speaks of. Default: [`FileOps::CHANGE`].
    #[must_use]
    pub fn operations(mut self, ops: FileOps) -> Self {
        self.ops = ops;
        self
    }

    /// An executable that it does not bind, by an absolute path. A process that can run that can do what it
    /// does: a package manager installs what it is given. The agent is always exempt.
    #[must_use]
    pub fn except(mut self, executable: impl Into<PathBuf>) -> Self {
        self.except.push(executable.into());
        self
    }

    /// Tell what would be denied, and deny nothing. Default: false.
    #[must_use]
    pub fn dry_run(mut self, dry_run: bool) -> Self {
        self.dry_run = dry_run;
        self
    }
}
