//! What happens to feeds leaves records, and without its record no version is taken.

mod feed_lab;

use std::fs;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use feed_lab::{Lab, at, list};
use ironclad_core::audit::AuditAction;
use ironclad_policy::feed::{CacheError, FeedCache, FeedSet, Outcome, Sha256Sum, Why};

/// Answers with so many entries, one after the other; with none left, by an error.
fn sequence(counts: &'static [u32]) -> Lab {
    let next = AtomicUsize::new(0);
    Lab::new(move |_, client| match counts.get(next.fetch_add(1, Ordering::SeqCst)) {
        Some(count) => client.answer(200, &[], list(*count)),
        None => client.answer(500, &[], ""),
    })
}

fn update(entries: u64, added: u64, lab: &Lab) -> AuditAction {
    let state = lab.cache.state(&lab.spec("/secret/list?key=secret")).unwrap().unwrap();
    let sha256: Sha256Sum = state.content.unwrap().sha256;
    AuditAction::FeedUpdate {
        feed: "f".to_owned(),
        source: format!("http://127.0.0.1:{}", lab.server.port()),
        sha256: sha256.to_string(),
        entries,
        added,
        removed: 0,
    }
}

#[test]
fn versions_and_failures_are_recorded() {
    let lab = sequence(&[3, 3, 5]);
    let spec = lab.spec("/secret/list?key=secret");
    lab.updated(&spec, 0);
    assert_eq!(lab.records.take(), [update(3, 3, &lab)]);
    // Not due, and unchanged.
    assert!(matches!(lab.refresh(&spec, 0), Outcome::NotDue { .. }));
    assert!(matches!(lab.refresh(&spec, 1), Outcome::NotModified));
    assert_eq!(lab.records.take(), []);
    lab.updated(&spec, 2);
    assert_eq!(lab.records.take(), [update(5, 2, &lab)]);
    let why = lab.kept(&spec, 3).to_string();
    assert!(why.contains("status 500"), "{why}");
    assert_eq!(lab.records.take(), [AuditAction::FeedKeep { feed: "f".to_owned(), reason: why }]);
    lab.cache.forget(&spec).unwrap();
    assert_eq!(lab.records.take(), [AuditAction::FeedForget { feed: "f".to_owned() }]);
}

#[test]
fn damage_is_recorded_when_it_is_found() {
    let lab = sequence(&[3, 3]);
    let spec = lab.spec("/list");
    lab.updated(&spec, 0);
    let files = fs::read_dir(lab.dir()).unwrap().map(|entry| entry.unwrap().path());
    for path in files.filter(|path| path.extension().is_some_and(|end| end == "list")) {
        let bytes = fs::read(&path).unwrap();
        fs::write(&path, [&bytes[..1], b"1", &bytes[2..]].concat()).unwrap();
    }
    let damage = |reason: String| AuditAction::FeedDamage { feed: "f".to_owned(), reason };
    lab.records.take();
    let error = lab.cache.load(&spec, at(0)).unwrap_err();
    assert!(matches!(error, CacheError::Damaged { .. }), "{error}");
    assert_eq!(lab.records.take(), [damage(error.to_string())]);
    lab.updated(&spec, 1);
    let [found, AuditAction::FeedUpdate { added: 3, .. }] = &lab.records.take()[..] else {
        panic!()
    };
    assert_eq!(*found, damage(error.to_string()));
}

#[test]
fn without_its_record_nothing_is_taken_or_forgotten() {
    let lab = sequence(&[3, 5, 5, 5]);
    let spec = lab.spec("/list");
    lab.updated(&spec, 0);
    lab.records.breaks(true);
    let why = lab.kept(&spec, 1);
    assert!(matches!(why, Why::Audit { cause: None, .. }), "{why:?}");
    assert_eq!(lab.last_good(&spec), Some(3));
    assert!(matches!(lab.cache.forget(&spec), Err(CacheError::Audit { cause: None, .. })));
    assert_eq!(lab.last_good(&spec), Some(3));
    // The sink works again: the version is still to be had.
    lab.records.breaks(false);
    assert_eq!(lab.updated(&spec, 2), (2, 0, 5));
    // The first error is in the text, too.
    lab.records.breaks(true);
    let empty = lab.spec("/list").entries(10, 20);
    let why = lab.kept(&empty, 3);
    let Why::Audit { cause: Some(cause), .. } = &why else { panic!("{why:?}") };
    assert!(matches!(**cause, Why::Content(_)), "{cause:?}");
    let message = why.to_string();
    assert!(message.contains("the disk is full; it has 5 entries, and at least 10"), "{message}");
}

/// A cache that cannot be written cannot say that a refresh failed.
#[test]
fn a_cache_that_takes_nothing_is_not_tried_over_and_over() {
    let lab = sequence(&[3]);
    let spec = lab.spec("/list");
    lab.updated(&spec, 0);
    let state = lab.dir().join("f.json");
    fs::remove_file(&state).unwrap();
    fs::create_dir(&state).unwrap();
    lab.records.take();
    let cache = FeedCache::open(lab.dir(), "lab", Arc::clone(&lab.records) as _).unwrap();
    let feeds = FeedSet::new(cache, [spec]).unwrap();
    let refresh = |time| feeds.refresh_due(&lab.fetcher, time).len();
    assert_eq!(refresh(at(1)), 1);
    let next = feeds.next_due(at(1)).unwrap();
    assert_eq!(next, at(1) + Duration::from_secs(30));
    for _ in 0..3 {
        assert_eq!(refresh(next - Duration::from_secs(1)), 0);
    }
    assert!(matches!(&lab.records.take()[..], [AuditAction::FeedKeep { .. }]));
    assert_eq!((refresh(next), lab.server.requests().len()), (1, 1));
    // A clock that was set back, and a disk that is well again.
    fs::remove_dir(&state).unwrap();
    assert_eq!(refresh(at(0)), 1);
}
