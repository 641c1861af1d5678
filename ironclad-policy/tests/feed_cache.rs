//! The cache: private, verified, and whole after whatever happened to it.

mod feed_lab;

use std::fs::{self, Permissions};
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::PathBuf;
use std::time::Duration;

use feed_lab::{Lab, at, list};
use ironclad_policy::feed::{CacheError, FeedSet, FeedSpec, Outcome};
use ironclad_policy::list::ListFormat;

/// A lab with a version of 3 entries in the cache.
fn filled() -> (Lab, FeedSpec) {
    let lab = Lab::new(|_, client| client.answer(200, &["ETag: \"1\""], list(3)));
    let spec = lab.spec("/list");
    lab.updated(&spec, 0);
    (lab, spec)
}

fn content_file(lab: &Lab) -> PathBuf {
    let files = fs::read_dir(lab.dir()).unwrap().map(|entry| entry.unwrap().path());
    let mut lists = files.filter(|path| path.extension().is_some_and(|end| end == "list"));
    let found = lists.next().unwrap();
    assert_eq!(lists.next(), None);
    found
}

#[test]
fn files_are_private() {
    let (lab, _) = filled();
    assert_eq!(fs::metadata(lab.dir()).unwrap().mode() & 0o7777, 0o700);
    let mut count = 0;
    for entry in fs::read_dir(lab.dir()).unwrap() {
        assert_eq!(entry.unwrap().metadata().unwrap().mode() & 0o7777, 0o600);
        count += 1;
    }
    assert_eq!(count, 3);
}

#[test]
fn a_directory_that_is_not_private_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let untrusted = |path: PathBuf| match feed_lab::open(path) {
        Err(CacheError::Untrusted { what, .. }) => what,
        other => panic!("{other:?}"),
    };
    let open = dir.path().join("open");
    fs::create_dir(&open).unwrap();
    for mode in [0o755, 0o770, 0o701] {
        fs::set_permissions(&open, Permissions::from_mode(mode)).unwrap();
        assert_eq!(
            untrusted(open.clone()),
            format!("its mode {mode:04o} lets other users in; chmod 700")
        );
    }
    fs::set_permissions(&open, Permissions::from_mode(0o700)).unwrap();
    feed_lab::open(&open).unwrap();
    symlink(&open, dir.path().join("link")).unwrap();
    let what = "it is no directory; name one, and not by a symbolic link";
    assert_eq!(untrusted(dir.path().join("link")), what);
    fs::write(dir.path().join("file"), "").unwrap();
    assert_eq!(untrusted(dir.path().join("file")), what);
    let missing = feed_lab::open(dir.path().join("no/cache")).unwrap_err();
    assert!(matches!(missing, CacheError::Io { doing: "create it", .. }));
    if rustix::process::geteuid().is_root() {
        std::os::unix::fs::chown(&open, Some(65_534), None).unwrap();
        assert_eq!(untrusted(open), "it belongs to user 65534, who could change it; chown it");
    } else {
        println!("SKIP owner: only root can give a directory away");
    }
}

#[test]
fn files_that_others_could_have_made_are_refused() {
    for (spoil, expected) in [
        ("mode", "its mode 0666 lets other users in; chmod 600"),
        ("link", "it is a symbolic link; remove it"),
        ("fifo", "it is no regular file; remove it"),
        ("dir", "it is no regular file; remove it"),
    ] {
        let (lab, spec) = filled();
        for path in [lab.dir().join("f.json"), content_file(&lab)] {
            let aside = lab.dir().with_file_name("aside");
            match spoil {
                "mode" => fs::set_permissions(&path, Permissions::from_mode(0o666)).unwrap(),
                _ => fs::rename(&path, &aside).unwrap(),
            }
            match spoil {
                "link" => symlink(&aside, &path).unwrap(),
                "fifo" => {
                    let mode = rustix::fs::Mode::RUSR;
                    rustix::fs::mkfifoat(rustix::fs::CWD, &path, mode).unwrap();
                }
                "dir" => fs::create_dir(&path).unwrap(),
                _ => {}
            }
            let error = lab.reopened().load(&spec, at(0)).unwrap_err();
            let CacheError::Untrusted { what, .. } = &error else { panic!("{error:?}") };
            assert_eq!(what, expected);
            // A refresh sends no request: its result could not be stored.
            let asked = lab.server.requests().len();
            if path.extension().is_some_and(|end| end == "json") {
                lab.kept(&spec, 1);
                assert_eq!(lab.server.requests().len(), asked);
            }
            match spoil {
                "mode" => fs::set_permissions(&path, Permissions::from_mode(0o600)).unwrap(),
                "dir" => fs::remove_dir(&path).unwrap(),
                _ => fs::remove_file(&path).unwrap(),
            }
            if spoil != "mode" {
                fs::rename(&aside, &path).unwrap();
            }
            assert_eq!(lab.last_good(&spec), Some(3));
        }
    }
}

#[test]
fn a_damaged_cache_is_reported_and_filled_anew() {
    for damage in ["flip", "cut", "longer", "gone", "empty", "state", "no state", "version"] {
        let (lab, spec) = filled();
        let (content, state) = (content_file(&lab), lab.dir().join("f.json"));
        let bytes = fs::read(&content).unwrap();
        match damage {
            "flip" => fs::write(&content, [&bytes[..1], b"1", &bytes[2..]].concat()),
            "cut" => fs::write(&content, &bytes[..9]),
            "longer" => fs::write(&content, [&bytes[..], b"10.9.9.9\n"].concat()),
            "gone" => fs::remove_file(&content),
            "empty" => fs::write(&content, ""),
            "state" => fs::write(&state, "{\"version\":1"),
            "no state" => fs::write(&state, vec![b' '; 1 << 20]),
            _ => {
                let text = fs::read_to_string(&state).unwrap();
                fs::write(&state, text.replace("\"version\":1", "\"version\":2"))
            }
        }
        .unwrap();
        let error = lab.reopened().load(&spec, at(0)).unwrap_err();
        assert!(matches!(error, CacheError::Damaged { .. }), "{damage}: {error:?}");
        assert!(error.to_string().contains("no last good version until its next refresh"));

        // Due at once where the damage shows without reading it, and requested as a whole.
        let feeds = FeedSet::new(lab.reopened(), [spec.clone()]).unwrap();
        let hours = if damage == "flip" { 1 } else { 0 };
        assert_eq!(feeds.due(at(hours)).count(), 1, "{damage}");
        let outcome = lab.refresh(&spec, hours);
        assert!(matches!(outcome, Outcome::Updated { entries: 3, .. }), "{damage}: {outcome:?}");
        assert_eq!(lab.server.requests()[1].header("if-none-match"), None);
        assert_eq!(lab.last_good(&spec), Some(3));
    }
}

#[test]
fn what_a_crash_leaves_is_no_matter() {
    let (lab, spec) = filled();
    // Written, and not yet named; begun, and not yet renamed.
    let other = format!("f.{}.list", "0".repeat(64));
    for name in [&other, "f.json.new", &format!("{other}.new")] {
        fs::write(lab.dir().join(name), "10.9").unwrap();
    }
    assert_eq!(lab.last_good(&spec), Some(3));
    assert!(matches!(lab.refresh(&spec, 1), Outcome::NotModified));
    // A feed without a name is removed by the next refresh.
    content_file(&lab);
    assert_eq!(fs::read_dir(lab.dir()).unwrap().count(), 3);
}

#[test]
fn another_source_is_another_feed() {
    let (lab, spec) = filled();
    let moved = lab.spec("/moved");
    assert_eq!((lab.last_good(&moved), lab.last_good(&spec)), (None, Some(3)));
    assert_eq!(lab.updated(&moved, 0).2, 3);
    assert_eq!(lab.server.requests()[1].header("if-none-match"), None);
    assert_eq!((lab.last_good(&moved), lab.last_good(&spec)), (Some(3), None));
}

#[test]
fn another_description_reads_the_content_anew() {
    let (lab, spec) = filled();
    let stix = spec.clone().format(ListFormat::Stix);
    assert!(matches!(lab.cache.load(&stix, at(0)), Err(CacheError::List(_))));
    let small = spec.clone().entries(1, 2);
    assert!(matches!(lab.cache.load(&small, at(0)), Err(CacheError::List(_))));
    // A wrong description loses nothing: put right again, all is there.
    lab.kept(&stix, 1);
    assert_eq!(lab.server.requests()[1].header("if-none-match"), None);
    assert_eq!(lab.last_good(&spec), Some(3));
}

#[test]
fn feeds_do_not_touch_each_other() {
    let lab = Lab::new(|request, client| client.answer(200, &[], list(request.path.len() as u32)));
    let spec = |name: &str| {
        let url = lab.server.url(&format!("/{name}"));
        FeedSpec::new(name, &url).unwrap().danger_allow_http(true).allow_private(true)
    };
    for name in ["a", "a-b", "a_b", "ab"] {
        lab.updated(&spec(name), 0);
    }
    lab.cache.forget(&spec("a")).unwrap();
    assert_eq!(lab.last_good(&spec("a")), None);
    for name in ["a-b", "a_b", "ab"] {
        assert_eq!(lab.last_good(&spec(name)), Some(name.len() + 1));
    }
}

#[test]
fn processes_share_a_cache() {
    let lab = Lab::new(|request, client| {
        let since = request.header("if-none-match").unwrap_or("\"0\"").trim_matches('"').to_owned();
        let next = since.parse::<u32>().unwrap() + 1;
        client.answer(200, &[&format!("ETag: \"{next}\"")], list(next % 7 + 1))
    });
    let spec = lab.spec("/list").refresh(Duration::ZERO);
    lab.updated(&spec, 0);
    let (lab, spec) = (&lab, &spec);
    std::thread::scope(|scope| {
        for thread in 0..4 {
            scope.spawn(move || {
                let cache = lab.reopened();
                for round in 0..25 {
                    let outcome = lab.fetcher.refresh(spec, &cache, at(1 + round * 4 + thread));
                    assert!(!matches!(outcome, Outcome::Kept { .. }), "{outcome:?}");
                    // Whichever process wrote last: the file is whole.
                    assert!(cache.load(spec, at(0)).unwrap().is_some());
                }
            });
        }
    });
}
