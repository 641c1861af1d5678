//! What a document says of files.

use std::path::PathBuf;

use ironclad_core::RuleId;
use serde::Deserialize;

use super::values;
use crate::file::{FileAction, FileOps, FileRule};

/// Who may do what with which files. Every rule that covers a file decides.
#[derive(Clone, Debug, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
#[non_exhaustive]
pub struct DocumentFileRule {
    /// The rule's id.
    #[cfg_attr(feature = "schema", schemars(with = "u32"))]
    pub id: RuleId,
    /// Its name.
    #[serde(deserialize_with = "values::short")]
    pub name: String,
    /// What becomes of it.
    pub action: FileAction,
    /// Files, by absolute paths: what is there, and whatever comes to be there.
    #[serde(default, deserialize_with = "values::some")]
    #[cfg_attr(feature = "schema", schemars(with = "super::schema::SomeOf<PathBuf>"))]
    pub files: Vec<PathBuf>,
    /// Directories with everything below, by absolute paths.
    #[serde(default, deserialize_with = "values::some")]
    #[cfg_attr(feature = "schema", schemars(with = "super::schema::SomeOf<PathBuf>"))]
    pub trees: Vec<PathBuf>,
    /// Patterns of absolute paths: what they match when the policy is applied.
    #[serde(default, deserialize_with = "values::some")]
    #[cfg_attr(feature = "schema", schemars(with = "super::schema::SomeOf<String>"))]
    pub globs: Vec<String>,
    /// What it speaks of.
    #[serde(default = "change", deserialize_with = "values::some")]
    #[cfg_attr(feature = "schema", schemars(with = "super::schema::SomeOf<DocumentFileOps>"))]
    pub operations: Vec<DocumentFileOps>,
    /// Executables that it does not bind, by absolute paths.
    #[serde(default, deserialize_with = "values::some")]
    #[cfg_attr(feature = "schema", schemars(with = "super::schema::SomeOf<PathBuf>"))]
    pub except: Vec<PathBuf>,
    /// Report what it would deny, and deny nothing.
    #[serde(default)]
    pub dry_run: bool,
}

/// What is done with a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum DocumentFileOps {
    /// Opening it to read, and listing a directory.
    Read,
    /// Opening it to write, and truncate(2).
    Write,
    /// A new name in a directory.
    Create,
    /// Taking a name away.
    Delete,
    /// Giving it another name.
    Rename,
    /// Giving it one more name.
    Link,
    /// Mode, owner, times, extended attributes, access control lists, flags.
    Metadata,
    /// Executing it.
    Execute,
    /// Everything but reading and executing.
    Change,
    /// Everything.
    All,
}

fn change() -> Vec<DocumentFileOps> {
    vec![DocumentFileOps::Change]
}

impl From<DocumentFileOps> for FileOps {
    fn from(ops: DocumentFileOps) -> Self {
        match ops {
            DocumentFileOps::Read => Self::READ,
            DocumentFileOps::Write => Self::WRITE,
            DocumentFileOps::Create => Self::CREATE,
            DocumentFileOps::Delete => Self::DELETE,
            DocumentFileOps::Rename => Self::RENAME,
            DocumentFileOps::Link => Self::LINK,
            DocumentFileOps::Metadata => Self::METADATA,
            DocumentFileOps::Execute => Self::EXECUTE,
            DocumentFileOps::Change => Self::CHANGE,
            DocumentFileOps::All => Self::ALL,
        }
    }
}

impl DocumentFileRule {
    /// As a policy has it; `dry_run` is the whole document's.
    pub(super) fn rule(&self, dry_run: bool) -> FileRule {
        let ops = self.operations.iter().fold(FileOps::default(), |ops, &op| ops | op.into());
        let rule = FileRule::new(self.id, self.name.clone(), self.action)
            .operations(ops)
            .dry_run(self.dry_run || dry_run);
        let rule = self.files.iter().fold(rule, FileRule::file);
        let rule = self.trees.iter().fold(rule, FileRule::tree);
        let rule = self.globs.iter().fold(rule, FileRule::glob);
        self.except.iter().fold(rule, FileRule::except)
    }
}
