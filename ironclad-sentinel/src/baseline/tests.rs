use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};

use super::*;

struct Lab {
    dir: tempfile::TempDir,
    options: BaselineOptions,
}

impl Lab {
    fn new() -> Self {
        let this = Self { dir: tempfile::tempdir().unwrap(), options: BaselineOptions::default() };
        for dir in ["state", "tree", "tree/below"] {
            fs::create_dir(this.path(dir)).unwrap();
        }
        for (name, content) in [("one", "1"), ("tree/two", "2"), ("tree/below/three", "3")] {
            fs::write(this.path(name), content).unwrap();
        }
        this
    }

    fn path(&self, name: &str) -> PathBuf {
        fs::canonicalize(self.dir.path()).unwrap().join(name)
    }

    fn baseline(&self) -> Baseline {
        Baseline::new(&self.path("state"), "test", self.options.clone())
    }

    fn scopes(&self) -> Scopes {
        let scope = |kind, name| {
            let named = self.path(name);
            Scope { kind, real: named.clone(), named }
        };
        Scopes(vec![
            scope(Kind::File, "one"),
            scope(Kind::Tree, "tree"),
            scope(Kind::Glob, "*.conf"),
        ])
    }

    /// A start, and a stop.
    fn start(&self) -> BaselineReport {
        self.start_with(self.scopes())
    }

    fn start_with(&self, scopes: Scopes) -> BaselineReport {
        let baseline = self.baseline();
        let (report, _) = baseline.begin(scopes, "policy").unwrap();
        baseline.write(0).unwrap().unwrap();
        report
    }
}

fn summary(changes: &[FileChange]) -> Vec<(String, &'static str)> {
    let name = |it: &FileChange| it.path.file_name().unwrap().to_string_lossy().into_owned();
    let what = |change: &Change| match change {
        Change::Added(_) => "added",
        Change::Removed(_) => "removed",
        Change::Content { .. } => "content",
        Change::Metadata { .. } => "metadata",
        Change::Elsewhere { .. } => "elsewhere",
    };
    let mut summary: Vec<_> = changes.iter().map(|it| (name(it), what(&it.change))).collect();
    summary.sort();
    summary
}

fn words(of: &[(&str, &'static str)]) -> Vec<(String, &'static str)> {
    of.iter().map(|(name, what)| ((*name).to_owned(), *what)).collect()
}

#[test]
fn changes_while_stopped_are_reported_once() {
    let lab = Lab::new();
    let first = lab.start();
    assert_eq!((first.compared, first.files), (Compared::Missing, 3));
    let same = lab.start();
    assert!(matches!(same.compared, Compared::With { .. }), "{same:?}");
    assert_eq!((same.changes, same.files, same.newly_named), (vec![], 3, 0));

    fs::write(lab.path("one"), "changed").unwrap();
    fs::remove_file(lab.path("tree/two")).unwrap();
    fs::write(lab.path("tree/four"), "4").unwrap();
    fs::write(lab.path("new.conf"), "5").unwrap();
    let mode = fs::Permissions::from_mode(0o4755);
    fs::set_permissions(lab.path("tree/below/three"), mode).unwrap();
    // No rule names it, and links and pipes are not recorded.
    fs::write(lab.path("other"), "6").unwrap();
    symlink("/etc/passwd", lab.path("tree/link")).unwrap();
    rustix::fs::mknodat(
        rustix::fs::CWD,
        lab.path("tree/pipe"),
        rustix::fs::FileType::Fifo,
        rustix::fs::Mode::RUSR,
        0,
    )
    .unwrap();
    let report = lab.start();
    let expected = [
        ("four", "added"),
        ("new.conf", "added"),
        ("one", "content"),
        ("three", "metadata"),
        ("two", "removed"),
    ];
    assert_eq!(summary(&report.changes), words(&expected));
    let text: Vec<_> = report.changes.iter().map(|it| it.change.to_string()).collect();
    assert!(text.iter().any(|it| it.contains("mode 0644 to 4755")), "{text:?}");
    assert!(text.iter().any(|it| it.contains("size 1 to 7")), "{text:?}");
    assert_eq!(lab.start().changes, []);
}

#[test]
fn a_change_that_leaves_size_and_times_as_they_were_is_seen() {
    let lab = Lab::new();
    lab.start();
    let file = fs::File::options().write(true).open(lab.path("one")).unwrap();
    let modified = file.metadata().unwrap().modified().unwrap();
    fs::write(lab.path("one"), "x").unwrap();
    file.set_modified(modified).unwrap();
    assert_eq!(summary(&lab.start().changes), words(&[("one", "content")]));
}

#[test]
fn changes_while_running_are_not_reported_after_a_restart() {
    let lab = Lab::new();
    let baseline = lab.baseline();
    assert!(baseline.compare(None).unwrap().is_none(), "before it has begun");
    baseline.begin(lab.scopes(), "policy").unwrap();
    baseline.write(0).unwrap();
    fs::write(lab.path("tree/two"), "updated").unwrap();
    let found = baseline.compare(None).unwrap().unwrap();
    assert_eq!(summary(&found.changes), words(&[("two", "content")]));
    let [AuditAction::FileChange { away: false, .. }, AuditAction::Baseline { written, .. }] =
        &found.records[..]
    else {
        panic!("{:?}", found.records)
    };
    assert!(written);
    let found = baseline.compare(None).unwrap().unwrap();
    assert_eq!((found.changes, found.records), (vec![], vec![]));
    // After the last comparison, Sentinel counts as stopped.
    fs::write(lab.path("one"), "late").unwrap();
    assert_eq!(summary(&lab.start().changes), words(&[("one", "content")]));
}

#[test]
fn other_rules_are_no_change() {
    let lab = Lab::new();
    let some = Scopes(lab.scopes().0[..1].to_vec());
    lab.start_with(some.clone());
    let report = lab.start();
    assert_eq!((report.changes, report.newly_named), (vec![], 2));
    fs::remove_file(lab.path("tree/two")).unwrap();
    assert_eq!(lab.start_with(some).changes, []);
}

#[test]
fn a_path_that_resolves_elsewhere_is_reported() {
    let lab = Lab::new();
    let named = lab.path("link");
    let scopes = |real| {
        let real = lab.path(real);
        Scopes(vec![Scope { kind: Kind::File, named: named.clone(), real }])
    };
    lab.start_with(scopes("one"));
    let report = lab.start_with(scopes("tree/two"));
    assert_eq!(summary(&report.changes), words(&[("link", "elsewhere")]));
    assert_eq!(report.newly_named, 1);
}

#[test]
fn the_baseline_does_not_contain_itself() {
    let lab = Lab::new();
    let named = lab.path("");
    let scopes =
        || Scopes(vec![Scope { kind: Kind::Tree, named: named.clone(), real: named.clone() }]);
    lab.start_with(scopes());
    let report = lab.start_with(scopes());
    assert_eq!((report.changes, report.files), (vec![], 3));
}

#[test]
fn limits_are_reported() {
    let mut lab = Lab::new();
    lab.options.file_bytes = 5;
    fs::write(lab.path("one"), "123456").unwrap();
    lab.start();
    fs::write(lab.path("one"), "654321").unwrap();
    assert_eq!(lab.start().changes, [], "of large files, the size is compared");
    fs::write(lab.path("one"), "1234567").unwrap();
    assert_eq!(summary(&lab.start().changes), words(&[("one", "metadata")]));

    lab.options.files = 2;
    let report = lab.start();
    assert!(report.is_cut && report.files == 2, "{report:?}");
    assert_eq!(report.changes, [], "files beyond the limit are not removed");
    lab.options.files = 3;
    assert!(lab.start().is_cut, "the one before was");
    assert!(!lab.start().is_cut);

    lab.options.total_bytes = 1;
    let baseline = lab.baseline();
    baseline.begin(lab.scopes(), "").unwrap();
    let current = baseline.current();
    let files = &current.as_ref().unwrap().snapshot.files;
    let read = files.values().filter(|it| it.state.sha256.is_some()).count();
    assert_eq!(read, 1, "{files:?}");
}

#[test]
fn a_damaged_baseline_is_renamed() {
    let lab = Lab::new();
    let path = lab.path("state/baseline");
    lab.start();
    let whole = fs::read_to_string(&path).unwrap();
    let sum = whole.find("\"sha256\":\"").unwrap() + 10;
    let mut other = whole.clone();
    other.replace_range(sum..sum + 1, if &whole[sum..sum + 1] == "0" { "1" } else { "0" });
    let later = whole.replacen("\"baseline\":1", "\"baseline\":2", 1);
    let (body, _) = whole.trim_end().rsplit_once('\n').unwrap();
    for (broken, why) in [
        (other.as_str(), "checksum"),
        (later.as_str(), "version is 2"),
        (&whole[..whole.len() - 1], "end is missing"),
        (body, "end is missing"),
        (&whole[..whole.len() / 2], "missing"),
        ("", "end is missing"),
        ("\n\n", "line 1"),
    ] {
        fs::write(&path, broken).unwrap();
        let report = lab.start();
        let Compared::Damaged(found) = &report.compared else { panic!("{report:?}") };
        assert!(found.contains(why), "{found}: {broken}");
        assert_eq!(fs::read_to_string(lab.path("state/baseline.damaged")).unwrap(), broken);
        assert!(matches!(lab.start().compared, Compared::With { .. }));
    }
}

#[test]
fn the_audit_record_has_the_checksum_of_the_baseline() {
    let lab = Lab::new();
    let baseline = lab.baseline();
    baseline.begin(lab.scopes(), "").unwrap();
    let record = baseline.write(0).unwrap();
    let Some(AuditAction::Baseline { sha256: written, .. }) = record else { panic!("{record:?}") };
    let Compared::With { sha256, .. } = lab.start().compared else { panic!("nothing to compare") };
    assert_eq!(sha256.to_string(), written);
    let mode = fs::metadata(lab.path("state/baseline")).unwrap().permissions().mode();
    assert_eq!(mode & 0o7777, 0o600);
}

#[test]
fn a_comparison_ends_when_the_baseline_ends() {
    let lab = Lab::new();
    let baseline = lab.baseline();
    baseline.end();
    assert!(baseline.begin(lab.scopes(), "").is_err());
}
