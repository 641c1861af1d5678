use std::collections::BTreeMap;
use std::path::{Component, Path, PathBuf};

use ironclad_core::RuleId;
use ironclad_core::abi::{FileOp, FilePolicy};
use sha2::{Digest as _, Sha256};

use super::{FILE_RULES_MAX, FileAction, FileOps, FileRule, FileScope};
use crate::error::{Failure, PolicyError, check_rule};

/// What is known of a rule of a compiled policy.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct FileRuleInfo {
    /// The id.
    pub id: RuleId,
    /// The name.
    pub name: String,
    /// What it does.
    pub action: FileAction,
    /// What it speaks of, with what that needs: see [`CompiledFiles`].
    pub ops: FileOps,
    /// Whether it denies nothing.
    pub dry_run: bool,
    /// What it covers.
    pub scopes: Vec<FileScope>,
    /// Executables that it does not bind.
    pub except: Vec<PathBuf>,
    /// Where a policy file says it.
    pub described_at: Option<String>,
}

/// File rules, compiled but for what only the host knows: which files their paths lead to.
///
/// A rule that denies anything denies renaming and linking as well: a file that were elsewhere would
/// be covered no more.
#[derive(Clone, Debug)]
pub struct CompiledFiles {
    rules: Vec<FileRuleInfo>,
    policy: FilePolicy,
}

impl CompiledFiles {
    pub(crate) fn compile(rules: &[FileRule]) -> Result<Self, PolicyError> {
        if rules.len() > FILE_RULES_MAX {
            return Err(Failure::Limit {
                what: "file rules",
                value: rules.len() as u64,
                limit: FILE_RULES_MAX as u64,
                next: "let one rule cover several paths",
            }
            .into());
        }
        for (number, rule) in rules.iter().enumerate() {
            check_rule(rule.rule, &rule.name)?;
            let before = rules[..number].iter().find(|it| it.rule == rule.rule);
            if let Some(first) = before.filter(|it| it.name != rule.name) {
                let (first, second) = (first.name.clone(), rule.name.clone());
                return Err(Failure::RuleName { rule: rule.rule, first, second }.into());
            }
        }
        let rules = rules.iter().map(info).collect::<Result<Vec<_>, _>>()?;
        let mut policy = FilePolicy { op: [0; FileOp::ALL.len()], deny: 0, log: 0, below: 0 };
        for (number, rule) in rules.iter().enumerate() {
            let bit = 1 << number;
            for op in rule.ops.iter() {
                policy.op[op as usize] |= bit;
            }
            if rule.denies() {
                policy.deny |= bit;
                policy.op[FileOp::Mount as usize] |= bit;
            } else {
                policy.log |= bit;
            }
            if rule.scopes.iter().any(|scope| matches!(scope, FileScope::Tree(_))) {
                policy.below |= bit;
            }
        }
        Ok(Self { rules, policy })
    }

    /// The rules; rule n is bit n.
    pub fn rules(&self) -> &[FileRuleInfo] {
        &self.rules
    }

    /// What the kernel reads first.
    pub fn policy(&self) -> FilePolicy {
        self.policy
    }

    /// The executables that are exempt from rules, and from which.
    pub fn exceptions(&self) -> BTreeMap<&Path, u64> {
        let mut found = BTreeMap::new();
        for (number, rule) in self.rules.iter().enumerate() {
            for path in &rule.except {
                *found.entry(path.as_path()).or_default() |= 1 << number;
            }
        }
        found
    }
}

impl FileRuleInfo {
    /// Whether it denies in truth.
    pub fn denies(&self) -> bool {
        self.action == FileAction::Deny && !self.dry_run
    }
}

fn info(rule: &FileRule) -> Result<FileRuleInfo, PolicyError> {
    let wrong = |what: String| -> PolicyError {
        Failure::FileRule { rule: rule.rule, name: rule.name.clone(), what }.into()
    };
    if rule.scopes.is_empty() {
        return Err(wrong("it covers nothing: name a file, a directory or a pattern".to_owned()));
    }
    if rule.ops.is_empty() {
        return Err(wrong("it speaks of no operation".to_owned()));
    }
    let paths = rule.scopes.iter().map(|scope| match scope {
        FileScope::File(path) | FileScope::Tree(path) => path.as_path(),
        FileScope::Glob(pattern) => Path::new(pattern),
    });
    for path in paths.chain(rule.except.iter().map(PathBuf::as_path)) {
        let what = if !path.is_absolute() {
            "is no absolute path: begin it with `/`"
        } else if path.components().any(|part| part == Component::ParentDir) {
            "contains `..`: write where it leads without"
        } else {
            continue;
        };
        return Err(wrong(format!("`{}` {what}", path.display())));
    }
    let mut ops = rule.ops;
    if rule.action == FileAction::Deny {
        ops = ops | FileOps::RENAME | FileOps::LINK;
    }
    Ok(FileRuleInfo {
        id: rule.rule,
        name: rule.name.clone(),
        action: rule.action,
        ops,
        dry_run: rule.dry_run,
        scopes: rule.scopes.clone(),
        except: rule.except.clone(),
        described_at: rule.described_at.clone(),
    })
}

/// Everything that decides, for the policy's id.
pub(crate) fn digest(rules: &[FileRule], hash: &mut Sha256) {
    hash.update(b"files");
    for rule in rules {
        hash.update(rule.rule.0.to_le_bytes());
        hash.update([rule.action as u8, u8::from(rule.dry_run)]);
        hash.update(rule.ops.bits().to_le_bytes());
        for scope in &rule.scopes {
            let (kind, path) = match scope {
                FileScope::File(path) => (0u8, path.as_os_str()),
                FileScope::Tree(path) => (1, path.as_os_str()),
                FileScope::Glob(pattern) => (2, pattern.as_ref()),
            };
            hash.update([kind]);
            text(path.as_encoded_bytes(), hash);
        }
        hash.update([3]);
        rule.except.iter().for_each(|path| text(path.as_os_str().as_encoded_bytes(), hash));
        hash.update([4]);
    }
}

fn text(bytes: &[u8], hash: &mut Sha256) {
    hash.update((bytes.len() as u64).to_le_bytes());
    hash.update(bytes);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Policy;

    fn compiled(rule: FileRule) -> Result<CompiledFiles, PolicyError> {
        CompiledFiles::compile(&[rule])
    }

    fn deny() -> FileRule {
        FileRule::new(RuleId(7), "seven", FileAction::Deny)
    }

    #[test]
    fn what_denies_denies_moving_too() {
        let files = compiled(deny().file("/a").operations(FileOps::READ)).unwrap();
        let policy = files.policy();
        for (number, bits) in policy.op.iter().enumerate() {
            let ops = [FileOp::Read, FileOp::Rename, FileOp::Link, FileOp::Mount];
            let is_denied = ops.iter().any(|op| *op as usize == number);
            assert_eq!(*bits, u64::from(is_denied), "{number}");
        }
        assert_eq!((policy.deny, policy.log, policy.below), (1, 0, 0));
        let log = FileRule::new(RuleId(1), "log", FileAction::Log).tree("/a");
        let policy = compiled(log.operations(FileOps::READ)).unwrap().policy();
        assert_eq!((policy.op[0], policy.op[4]), (1, 0));
        assert_eq!((policy.deny, policy.log, policy.below), (0, 1, 1));
        let policy = compiled(deny().file("/a").dry_run(true)).unwrap().policy();
        assert_eq!((policy.deny, policy.log), (0, 1));
    }

    #[test]
    fn rules_that_make_no_sense_are_refused() {
        let refused = |rule: FileRule| compiled(rule).unwrap_err().to_string();
        assert!(refused(deny()).contains("rule 7 (`seven`): it covers nothing"));
        assert!(refused(deny().file("etc/a")).contains("`etc/a` is no absolute path: begin"));
        assert!(refused(deny().tree("/etc/../a")).contains("`/etc/../a` contains `..`"));
        assert!(refused(deny().glob("*.conf")).contains("begin it with `/`"));
        assert!(refused(deny().file("/a").except("dpkg")).contains("`dpkg`"));
        let none = deny().file("/a").operations(FileOps::default());
        assert!(refused(none).contains("no operation"));
        let many = vec![deny().file("/a"); FILE_RULES_MAX + 1];
        assert!(CompiledFiles::compile(&many).is_err());
        assert!(CompiledFiles::compile(&many[1..]).is_ok());
    }

    #[test]
    fn whatever_decides_is_part_of_the_id() {
        let id = |rule: FileRule| Policy::builder().file_rule(rule).compile().unwrap().id();
        let base = || deny().file("/a");
        let mut others = vec![
            Policy::builder().compile().unwrap().id(),
            id(base()),
            id(base().file("/b")),
            id(deny().tree("/a")),
            id(deny().glob("/a")),
            id(base().operations(FileOps::WRITE)),
            id(base().except("/b")),
            id(base().dry_run(true)),
            id(FileRule::new(RuleId(7), "seven", FileAction::Log).file("/a")),
            id(FileRule::new(RuleId(8), "seven", FileAction::Deny).file("/a")),
        ];
        let all = others.len();
        others.sort_unstable_by_key(|id| id.0);
        others.dedup();
        assert_eq!(others.len(), all);
        assert_eq!(id(base()), id(base()));
    }
}
