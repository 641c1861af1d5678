//! Debian packages of suites that this machine does not use: downloaded and unpacked, never
//! installed. A private apt keeps its lists in the cache; its mirrors are the machine's own.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::cache::{self, Lock};
use crate::command::{command, create_dir, output, output_bytes, read_text, write};
use crate::failure::{Context, Failure, Result};

/// Which of Debian's two archives has a suite.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Archive {
    Main,
    Security,
}

/// Where to look, and for which architectures.
const SUITES: [(Archive, &str, &str); 6] = [
    (Archive::Security, "bullseye-security", "amd64"),
    (Archive::Main, "bookworm", "amd64"),
    (Archive::Security, "bookworm-security", "amd64"),
    (Archive::Main, "trixie", "amd64"),
    (Archive::Security, "trixie-security", "amd64"),
    (Archive::Main, "trixie-backports", "amd64 arm64"),
];

/// A private apt whose lists are fresh.
pub(crate) struct Apt {
    root: PathBuf,
    /// What the update complained about: the reason why a package may be unknown.
    complaint: Option<String>,
    _lock: Lock,
}

impl Apt {
    /// Fetches the lists of all suites. A suite that is gone is remembered, not an error yet.
    pub(crate) fn update() -> Result<Self> {
        let root = cache::dir("apt")?;
        let lock = Lock::wait(&root)?;
        for dir in ["state/lists/partial", "cache/archives/partial"] {
            create_dir(&root.join(dir))?;
        }
        write(&root.join("status"), "")?;
        write(&root.join("debian.sources"), stanzas(&mirrors()?)?)?;
        let mut apt = Self { root, complaint: None, _lock: lock };
        eprintln!("fetching package lists");
        apt.complaint =
            output(&mut apt.tool("apt-get", ["update", "-q"])).err().map(|error| error.to_string());
        Ok(apt)
    }

    fn tool<'a>(&self, program: &str, args: impl IntoIterator<Item = &'a str>) -> Command {
        let set = |option: &str, path: &str| format!("{option}={}", self.root.join(path).display());
        let mut tool = command(program, Vec::<String>::new());
        for option in [
            set("Dir::State", "state"),
            set("Dir::State::status", "status"),
            set("Dir::Cache", "cache"),
            set("Dir::Etc::sourcelist", "debian.sources"),
            "Dir::Etc::sourceparts=-".into(),
            "Dir::Etc::preferencesparts=-".into(),
            "APT::Architecture=amd64".into(),
            "APT::Architectures::=arm64".into(),
            "Acquire::Languages=none".into(),
            "Acquire::IndexTargets::deb::DEP-11::DefaultEnabled=false".into(),
            "Acquire::Retries=3".into(),
            // The unprivileged download user may not enter root's cache.
            "APT::Sandbox::User=root".into(),
        ] {
            tool.args(["-o", &option]);
        }
        tool.args(args);
        tool
    }

    /// Names of the packages that match a regular expression.
    pub(crate) fn search(&self, pattern: &str) -> Result<Vec<String>> {
        let text = output(&mut self.tool("apt-cache", ["search", "--names-only", pattern]))?;
        let names = text.lines().filter_map(|line| line.split_once(" - "));
        Ok(names.map(|(name, _)| name.to_owned()).collect())
    }

    /// The error for something that no suite has.
    pub(crate) fn absent(&self, what: &str) -> Failure {
        let suites = SUITES.map(|(_, suite, _)| suite).join(", ");
        let complaint = self.complaint.as_deref().unwrap_or("Every suite answered.");
        Failure::new(format!(
            "no {what} in {suites}.\n{complaint}\nIf a suite moved to the archive of old releases, \
             change SUITES in xtask/src/apt.rs"
        ))
    }

    /// A package's version in its suite.
    pub(crate) fn version(&self, package: &str) -> Result<String> {
        let text = output(&mut self.tool("apt-cache", ["show", "--no-all-versions", package]))?;
        let version = text.lines().find_map(|line| line.strip_prefix("Version: "));
        Ok(version.context(format_args!("{package} has no version"))?.to_owned())
    }

    /// Downloads packages (checked against the signed lists) and unpacks them into `into`.
    pub(crate) fn unpack(&self, packages: &[String], into: &Path) -> Result<()> {
        let downloads = tempfile::tempdir_in(&self.root).context("temporary directory")?;
        eprintln!("downloading {}", packages.join(" "));
        let mut download = self.tool("apt-get", ["download", "-q"]);
        output_bytes(download.args(packages).current_dir(downloads.path()))?;
        unpack_all(downloads.path(), into)
    }

    /// The same with all that the packages depend on.
    pub(crate) fn unpack_closure(&self, packages: &[&str], into: &Path) -> Result<()> {
        let downloads = tempfile::tempdir_in(&self.root).context("temporary directory")?;
        create_dir(&downloads.path().join("partial"))?;
        eprintln!("downloading {} and what they depend on", packages.join(" "));
        let place = format!("Dir::Cache::archives={}", downloads.path().display());
        let mut download = self.tool(
            "apt-get",
            ["install", "-q", "-y", "--download-only", "--no-install-recommends", "-o", &place],
        );
        output_bytes(download.args(packages))?;
        unpack_all(downloads.path(), into)
    }
}

/// Unpacks all packages of a directory.
pub(crate) fn unpack_all(downloads: &Path, into: &Path) -> Result<()> {
    let entries = std::fs::read_dir(downloads).context(downloads.display())?;
    let mut packages = Vec::new();
    for entry in entries {
        let path = entry.context(downloads.display())?.path();
        if path.extension().is_some_and(|extension| extension == "deb") {
            packages.push(path);
        }
    }
    packages.sort();
    for package in packages {
        output(command("dpkg-deb", ["--extract"]).arg(package).arg(into))?;
    }
    Ok(())
}

/// A source entry of the machine: where, and with which keys.
#[derive(Debug, PartialEq)]
struct Mirror {
    uri: String,
    signed_by: Option<String>,
}

/// The machine's mirrors of Debian's archives, distinguished by the suites that they are used for.
fn mirrors() -> Result<BTreeMap<Archive, Mirror>> {
    let mut files = vec![PathBuf::from("/etc/apt/sources.list")];
    if let Ok(dir) = std::fs::read_dir("/etc/apt/sources.list.d") {
        files.extend(dir.flatten().map(|entry| entry.path()));
    }
    files.sort();
    let mut mirrors = BTreeMap::new();
    for file in files {
        let Ok(text) = read_text(&file) else { continue };
        let found = match file.extension().and_then(|extension| extension.to_str()) {
            Some("sources") => stanza_entries(&text),
            Some("list") => line_entries(&text),
            _ => continue,
        };
        for (suite, mirror) in found {
            if let Some(archive) = archive_of(&suite) {
                mirrors.entry(archive).or_insert(mirror);
            }
        }
    }
    Ok(mirrors)
}

fn archive_of(suite: &str) -> Option<Archive> {
    const RELEASES: [&str; 7] =
        ["bullseye", "bookworm", "trixie", "forky", "stable", "testing", "oldstable"];
    let release = suite.split(['-', '/']).next()?;
    if !RELEASES.contains(&release) {
        return None;
    }
    match &suite[release.len()..] {
        "-security" | "/updates" => Some(Archive::Security),
        "" => Some(Archive::Main),
        _ => None,
    }
}

/// `deb [options] URI suite components`.
fn line_entries(text: &str) -> Vec<(String, Mirror)> {
    let entry = |line: &str| {
        let rest = line.trim().strip_prefix("deb ")?.trim_start();
        let (options, rest) = match rest.strip_prefix('[') {
            Some(rest) => rest.split_once(']')?,
            None => ("", rest),
        };
        let mut words = rest.split_whitespace();
        let uri = words.next()?.to_owned();
        let signed_by = options.split_whitespace().find_map(|word| word.strip_prefix("signed-by="));
        let mirror = Mirror { uri, signed_by: signed_by.map(str::to_owned) };
        Some((words.next()?.to_owned(), mirror))
    };
    text.lines().filter_map(entry).collect()
}

/// Stanzas of `Key: value` lines, as deb822 has them.
fn stanza_entries(text: &str) -> Vec<(String, Mirror)> {
    let mut entries = Vec::new();
    let lines: Vec<_> = text.lines().filter(|line| !line.starts_with('#')).collect();
    for stanza in lines.split(|line| line.trim().is_empty()) {
        let field = |key: &str| {
            stanza.iter().find_map(|line| {
                let (name, value) = line.split_once(':')?;
                name.eq_ignore_ascii_case(key).then(|| value.trim())
            })
        };
        let is_off = field("Enabled").is_some_and(|value| value.eq_ignore_ascii_case("no"));
        let is_binary = field("Types").is_some_and(|types| types.split(' ').any(|t| t == "deb"));
        let (Some(uri), Some(suites), true, false) =
            (field("URIs"), field("Suites"), is_binary, is_off)
        else {
            continue;
        };
        let Some(uri) = uri.split_whitespace().next() else { continue };
        for suite in suites.split_whitespace() {
            let signed_by = field("Signed-By").filter(|value| value.starts_with('/'));
            let mirror = Mirror { uri: uri.to_owned(), signed_by: signed_by.map(str::to_owned) };
            entries.push((suite.to_owned(), mirror));
        }
    }
    entries
}

fn stanzas(mirrors: &BTreeMap<Archive, Mirror>) -> Result<String> {
    let mut text = String::new();
    for (archive, suite, architectures) in SUITES {
        let mirror = mirrors.get(&archive).context(format_args!(
            "this machine's apt sources have no entry for Debian's {} archive, which is needed for \
             {suite}: add one for its own release to /etc/apt/sources.list.d",
            if archive == Archive::Main { "main" } else { "security" },
        ))?;
        text += &format!(
            "Types: deb\nURIs: {}\nSuites: {suite}\nComponents: main\nArchitectures: \
             {architectures}\n",
            mirror.uri
        );
        if let Some(keys) = &mirror.signed_by {
            text += &format!("Signed-By: {keys}\n");
        }
        text.push('\n');
    }
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mirror(uri: &str, keys: Option<&str>) -> Mirror {
        Mirror { uri: uri.into(), signed_by: keys.map(str::to_owned) }
    }

    #[test]
    fn both_formats_of_sources() {
        let lines = "# x\ndeb [arch=amd64 signed-by=/k.gpg] http://a.test/d bookworm main\n\
                     deb-src http://a.test/d bookworm main\ndeb http://s.test/x bookworm-security main";
        assert_eq!(
            line_entries(lines),
            [
                ("bookworm".into(), mirror("http://a.test/d", Some("/k.gpg"))),
                ("bookworm-security".into(), mirror("http://s.test/x", None)),
            ]
        );
        let stanzas = "Types: deb\n# why\nURIs: http://a.test/d\nSuites: bookworm bookworm-updates\n\
                       Signed-By: /k.gpg\n\nEnabled: no\nTypes: deb\nURIs: http://b.test\nSuites: bookworm\n";
        let entries = stanza_entries(stanzas);
        assert_eq!(entries.len(), 2);
        assert_eq!(entries[0], ("bookworm".into(), mirror("http://a.test/d", Some("/k.gpg"))));
    }

    #[test]
    fn archives_by_suite() {
        assert_eq!(archive_of("bookworm"), Some(Archive::Main));
        assert_eq!(archive_of("bookworm-security"), Some(Archive::Security));
        assert_eq!(archive_of("bookworm-updates"), None);
        assert_eq!(archive_of("nodistro"), None);
    }

    #[test]
    fn a_machine_without_sources_gets_what_to_add() {
        let error = stanzas(&BTreeMap::new()).unwrap_err().to_string();
        assert!(error.contains("sources.list.d"), "{error}");
    }
}
