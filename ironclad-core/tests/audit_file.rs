//! The audit file on a real file system: reopened, torn, locked, replaced, full.
#![cfg(all(feature = "audit-jsonl", unix))]

use std::fs::{self, OpenOptions, Permissions};
use std::io::{BufRead, BufReader, Write};
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;

use ironclad_core::audit::{
    Anchor, AuditAction, AuditRecord, AuditSink, DeferredSink, Digest, Durability, Fault,
    JsonLinesSink, MAX_LINE, OpenError, verify_file,
};

/// Names the file to a test that runs itself once more as a process of its own.
const CHILD: &str = "IRONCLAD_AUDIT_CHILD";

fn dir() -> (tempfile::TempDir, PathBuf) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("audit.jsonl");
    (dir, path)
}

fn open(path: &Path) -> JsonLinesSink {
    JsonLinesSink::open_with(path, Durability::System).unwrap()
}

fn confirm(generation: u64) -> AuditAction {
    AuditAction::Confirm { generation }
}

fn records(path: &Path) -> Vec<AuditRecord> {
    fs::read_to_string(path)
        .unwrap()
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect()
}

/// This test alone, as a child that finds `path` in its environment.
fn this_test(name: &str, path: &Path) -> Command {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["--exact", name, "--nocapture"]).env(CHILD, path);
    command
}

#[test]
fn a_deferred_sink_opens_its_file_at_the_first_record() {
    let (_dir, path) = dir();
    let sink = DeferredSink::with(&path, Durability::System);
    assert!(!path.exists() && sink.anchor().is_none());
    let holder = open(&path);
    let error = sink.record("edge", &confirm(1)).unwrap_err().to_string();
    assert!(error.contains("another process (or another sink"), "{error}");
    drop(holder);
    sink.record("edge", &confirm(2)).unwrap();
    sink.record("edge", &confirm(3)).unwrap();
    assert_eq!(verify_file(&path, sink.anchor()).unwrap().records, 2);
}

#[test]
fn a_reopened_file_goes_on() {
    let (_dir, path) = dir();
    let mut anchors = vec![Anchor { seq: 0, hash: Digest::GENESIS }];
    for round in 0..3 {
        let sink = JsonLinesSink::open(&path).unwrap();
        assert_eq!(sink.anchor(), *anchors.last().unwrap());
        assert_eq!((sink.path(), sink.recovered()), (path.as_path(), None));
        for generation in 0..3 {
            sink.record("edge", &confirm(10 * round + generation)).unwrap();
            anchors.push(sink.anchor());
        }
    }
    assert_eq!(fs::metadata(&path).unwrap().mode() & 0o7777, 0o600);
    for anchor in anchors {
        assert_eq!(verify_file(&path, Some(anchor)).unwrap().records, 9);
    }
    let records = records(&path);
    let generations = [0, 1, 2, 10, 11, 12, 20, 21, 22].map(confirm);
    assert!(records.iter().map(|record| &record.action).eq(&generations));
    assert!(records.iter().all(|record| record.instance == "edge"));
    // 2020 to 2554.
    assert!(records.iter().all(|record| record.time > 1_577_836_800_000_000_000));
}

#[test]
fn a_torn_line_is_kept_aside_and_recorded() {
    for whole in [0, 1, 2] {
        let (_dir, path) = dir();
        let sink = open(&path);
        (0..=whole).for_each(|generation| sink.record("edge", &confirm(generation)).unwrap());
        drop(sink);
        let bytes = fs::read(&path).unwrap();
        let last =
            bytes[..bytes.len() - 1].iter().rposition(|&b| b == b'\n').map_or(0, |at| at + 1);
        for cut in (last + 1..bytes.len()).step_by(9).chain([bytes.len() - 1]) {
            fs::write(&path, &bytes[..cut]).unwrap();
            let before = verify_file(&path, None).unwrap_err();
            assert!(matches!(before.what, Fault::Torn), "{before}");

            let sink = open(&path);
            let torn = sink.recovered().unwrap().clone();
            assert_eq!(torn.kept.file_name().unwrap(), &*format!("audit.jsonl.torn-{}", whole + 1));
            assert_eq!(fs::read(&torn.kept).unwrap(), &bytes[last..cut]);
            assert_eq!(torn.bytes, (cut - last) as u64);
            assert_eq!(fs::metadata(&torn.kept).unwrap().mode() & 0o7777, 0o600);
            sink.record("edge", &confirm(99)).unwrap();
            drop(sink);

            assert_eq!(verify_file(&path, None).unwrap().records, whole + 2);
            let found = &records(&path)[whole as usize];
            let AuditAction::Recover { kept, bytes: length, .. } = &found.action else {
                panic!("{found:?}")
            };
            assert_eq!((Path::new(kept), *length), (&*torn.kept, torn.bytes));
            assert_eq!(found.instance, "audit");
            assert_eq!(open(&path).recovered(), None);
            fs::remove_file(torn.kept).unwrap();
        }
    }
}

#[test]
fn an_earlier_torn_line_is_not_overwritten() {
    let (_dir, path) = dir();
    for torn in [r#"{"seq":1,"a"#, r#"{"seq":1,"b"#, "\0\0\0"] {
        fs::write(&path, torn).unwrap();
        drop(open(&path));
    }
    for (name, torn) in [("1", r#"{"seq":1,"a"#), ("1.1", r#"{"seq":1,"b"#), ("1.2", "\0\0\0")] {
        let kept = path.with_file_name(format!("audit.jsonl.torn-{name}"));
        assert_eq!(fs::read_to_string(kept).unwrap(), torn);
    }
}

#[test]
fn a_file_of_another_program_is_unchanged() {
    let (_dir, path) = dir();
    let sink = open(&path);
    (0..2).for_each(|generation| sink.record("edge", &confirm(generation)).unwrap());
    drop(sink);
    let ours = fs::read_to_string(&path).unwrap();
    let second = ours.lines().nth(1).unwrap();
    let files = [
        "no audit file".to_owned(),
        "no audit file\n".to_owned(),
        "\n".to_owned(),
        "{}\n{}\n{\"seq\":1,".to_owned(),
        format!("{ours}\n"),
        format!("{second}\n"),
        format!("{}\n{ours}", "x".repeat(10)).replace("\"generation\":1", "\"generation\":2"),
        ours.replace("\"generation\":1", "\"generation\":3"),
        format!("{ours}{}", "x".repeat(MAX_LINE + 1)),
        format!("{ours}{}\n", "x".repeat(2 * MAX_LINE)),
    ];
    for (number, text) in files.iter().enumerate() {
        fs::write(&path, text).unwrap();
        let error = JsonLinesSink::open(&path).unwrap_err();
        assert!(matches!(error, OpenError::Broken { .. }), "{number}: {error}");
        assert!(fs::read_to_string(&path).unwrap() == *text, "{number}");
        assert_eq!(fs::read_dir(path.parent().unwrap()).unwrap().count(), 1);
    }
}

#[test]
fn long_files_and_the_longest_lines_are_reopened() {
    let (_dir, path) = dir();
    let sink = open(&path);
    let note = |length| AuditAction::Unpin { path: "x".repeat(length) };
    sink.record("edge", &note(0)).unwrap();
    let frame = fs::metadata(&path).unwrap().len() as usize;
    for _ in 0..3 {
        sink.record("edge", &note(MAX_LINE - frame)).unwrap();
    }
    assert_eq!(fs::metadata(&path).unwrap().len() as usize, frame + 3 * MAX_LINE);
    let error = sink.record("edge", &note(MAX_LINE - frame + 1)).unwrap_err();
    assert!(error.to_string().contains("are kept"), "{error}");
    let last = sink.anchor();
    drop(sink);
    // Behind the longest line, the longest torn one.
    let mut file = OpenOptions::new().append(true).open(&path).unwrap();
    file.write_all(&vec![0; MAX_LINE]).unwrap();
    let sink = open(&path);
    assert_eq!(sink.recovered().unwrap().bytes as usize, MAX_LINE);
    assert_eq!(sink.anchor().seq, last.seq + 1);
    sink.record("edge", &confirm(1)).unwrap();
    assert_eq!(verify_file(&path, Some(sink.anchor())).unwrap().records, 6);
}

#[test]
fn one_sink_per_file_in_all_processes() {
    if let Some(path) = std::env::var_os(CHILD) {
        let error = JsonLinesSink::open(path).unwrap_err();
        assert!(matches!(error, OpenError::Locked { .. }), "{error}");
        println!("locked out");
        return;
    }
    let (_dir, path) = dir();
    let sink = open(&path);
    let error = JsonLinesSink::open(&path).unwrap_err();
    assert!(matches!(error, OpenError::Locked { .. }), "{error}");
    let child = this_test("one_sink_per_file_in_all_processes", &path).output().unwrap();
    assert!(child.status.success(), "{child:?}");
    assert!(String::from_utf8_lossy(&child.stdout).contains("locked out"), "{child:?}");
    sink.record("edge", &confirm(0)).unwrap();
    drop(sink);
    assert_eq!(open(&path).anchor().seq, 1);
}

#[test]
fn what_others_may_change_is_refused() {
    let (_dir, path) = dir();
    let refused = |word: &str| {
        let error = JsonLinesSink::open(&path).unwrap_err();
        assert!(matches!(error, OpenError::Untrusted { .. }), "{error}");
        assert!(error.to_string().contains(word), "{error}");
    };
    let target = path.with_file_name("target");
    symlink(&target, &path).unwrap();
    refused("symbolic link");
    assert!(!target.exists(), "a dangling link was followed");
    fs::write(&target, "").unwrap();
    refused("symbolic link");
    fs::remove_file(&path).unwrap();

    assert!(Command::new("mkfifo").arg(&path).status().unwrap().success());
    refused("regular file");
    fs::remove_file(&path).unwrap();

    for mode in [0o620, 0o602, 0o666] {
        fs::write(&path, "").unwrap();
        fs::set_permissions(&path, Permissions::from_mode(mode)).unwrap();
        refused("chmod 600");
    }
    fs::set_permissions(&path, Permissions::from_mode(0o640)).unwrap();
    drop(open(&path));
    fs::remove_file(&path).unwrap();

    fs::create_dir(&path).unwrap();
    assert!(matches!(JsonLinesSink::open(&path).unwrap_err(), OpenError::Io { .. }));
    assert!(matches!(JsonLinesSink::open(path.join("a/b")).unwrap_err(), OpenError::Io { .. }));
}

#[test]
fn a_file_of_another_user_is_refused() {
    if !rustix::process::geteuid().is_root() {
        let test = "a_file_of_another_user_is_refused";
        writeln!(std::io::stdout(), "SKIP {test}: only root can make such a file").unwrap();
        return;
    }
    let (_dir, path) = dir();
    fs::write(&path, "").unwrap();
    std::os::unix::fs::chown(&path, Some(65534), None).unwrap();
    let error = JsonLinesSink::open(&path).unwrap_err();
    assert!(error.to_string().contains("user 65534"), "{error}");
}

#[test]
fn who_changes_the_file_behind_the_lock_is_noticed() {
    let (_dir, path) = dir();
    let sink = open(&path);
    sink.record("edge", &confirm(0)).unwrap();
    let mut other = OpenOptions::new().append(true).open(&path).unwrap();
    other.write_all(b"x").unwrap();
    let error = sink.record("edge", &confirm(1)).unwrap_err();
    assert!(error.to_string().contains("someone else"), "{error}");
    other.set_len(other.metadata().unwrap().len() - 1).unwrap();
    sink.record("edge", &confirm(1)).unwrap();
    other.set_len(0).unwrap();
    assert!(sink.record("edge", &confirm(2)).is_err());
    drop(sink);

    fs::remove_file(&path).unwrap();
    let sink = open(&path);
    sink.record("edge", &confirm(0)).unwrap();
    fs::remove_file(&path).unwrap();
    let error = sink.record("edge", &confirm(1)).unwrap_err();
    assert!(error.to_string().contains("deleted"), "{error}");
}

#[test]
fn threads_share_one_chain() {
    let (_dir, path) = dir();
    let sink: Arc<dyn AuditSink> = Arc::new(open(&path));
    std::thread::scope(|scope| {
        for thread in 0..8 {
            let sink = &sink;
            scope.spawn(move || {
                (0..100).for_each(|n| sink.record("edge", &confirm(1000 * thread + n)).unwrap())
            });
        }
    });
    assert_eq!(verify_file(&path, None).unwrap().records, 800);
    let mut seen: Vec<u64> = records(&path)
        .iter()
        .map(|record| match record.action {
            AuditAction::Confirm { generation } => generation,
            _ => panic!("{record:?}"),
        })
        .collect();
    seen.sort_unstable();
    assert!(
        seen.into_iter().eq((0..8).flat_map(|thread| (0..100).map(move |n| 1000 * thread + n)))
    );
}

/// The shell sets the limit and ignores the signal that comes with it; both outlive `exec`.
#[test]
fn a_record_that_does_not_fit_is_taken_back() {
    if let Some(path) = std::env::var_os(CHILD) {
        let sink = open(Path::new(&path));
        let kept = (0..100).take_while(|&n| sink.record("edge", &confirm(n)).is_ok()).count();
        let error = sink.record("edge", &confirm(0)).unwrap_err();
        let verified = verify_file(&path, None).unwrap();
        assert_eq!((verified.records, verified.anchor()), (kept as u64, sink.anchor()));
        assert!((1..100).contains(&kept));
        println!("{kept} kept, then: {error}");
        return;
    }
    let (_dir, path) = dir();
    let limited = r#"trap '' XFSZ; ulimit -f 2; exec "$0" "$@""#;
    let child = this_test("a_record_that_does_not_fit_is_taken_back", &path);
    let output = Command::new("sh")
        .args(["-c", limited])
        .arg(child.get_program())
        .args(child.get_args())
        .env(CHILD, &path)
        .output()
        .unwrap();
    assert!(output.status.success(), "{output:?}");
    assert!(String::from_utf8_lossy(&output.stdout).contains("kept, then: audit record not kept"));
    // With room again, the chain goes on.
    let sink = open(&path);
    assert_eq!(sink.recovered(), None);
    let before = sink.anchor().seq;
    sink.record("edge", &confirm(0)).unwrap();
    assert_eq!(verify_file(&path, None).unwrap().records, before + 1);
}

#[test]
fn a_killed_agent_leaves_a_chain_that_goes_on() {
    if let Some(path) = std::env::var_os(CHILD) {
        let sink = open(Path::new(&path));
        for generation in 0.. {
            sink.record("edge", &confirm(generation)).unwrap();
            println!("recorded {}", sink.anchor());
        }
    }
    let (_dir, path) = dir();
    let mut child = this_test("a_killed_agent_leaves_a_chain_that_goes_on", &path)
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let anchor = lines
        .by_ref()
        .filter_map(|line| line.unwrap().strip_prefix("recorded ")?.parse::<Anchor>().ok())
        .nth(200)
        .unwrap();
    child.kill().unwrap();
    child.wait().unwrap();
    let sink = open(&path);
    sink.record("edge", &confirm(0)).unwrap();
    let verified = verify_file(&path, Some(anchor)).unwrap();
    assert!(verified.records > anchor.seq);
    assert_eq!(verified.anchor(), sink.anchor());
}
