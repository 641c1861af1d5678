//! Feeds that behave: when requests are sent, what is kept, and for how long.

mod feed_lab;

use std::fs;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, SystemTime};

use feed_lab::{Lab, at, list};
use ironclad_policy::feed::{FeedSet, FeedSpec, FetchError, Outcome, Rejection, Why};
use ironclad_policy::list::{BadLines, ListFormat};

#[test]
fn a_version_outlives_the_process_and_the_network() {
    let lab = Lab::new(|_, client| client.answer(200, &[], "10.0.0.1\n10.0.0.2 # two\n"));
    let spec = lab.spec("/list");
    assert_eq!(lab.last_good(&spec), None);
    assert_eq!(lab.updated(&spec, 0), (2, 0, 2));

    let Lab { server, cache, .. } = &lab;
    assert_eq!(server.requests()[0].header("accept-encoding"), Some("gzip"));
    assert_eq!(server.requests()[0].header("if-none-match"), None);
    assert!(server.requests()[0].header("user-agent").unwrap().starts_with("ironclad/"));
    let list = cache.load(&spec, at(0)).unwrap().unwrap();
    assert_eq!((&**list.name(), list.entries()[1].line), ("f", 2));

    // The server is gone, and so is what was in memory.
    let dir = lab.dir();
    let Lab { server, cache, fetcher, temporary: _held, .. } = lab;
    drop((server, cache));
    let cache = feed_lab::open(&dir).unwrap();
    assert_eq!(cache.load(&spec, at(0)).unwrap().unwrap().entries().len(), 2);
    let outcome = fetcher.refresh(&spec, &cache, at(1));
    assert!(
        matches!(&outcome, Outcome::Kept { why: Why::Fetch(FetchError::Connection { .. }) }),
        "{outcome:?}"
    );
    assert_eq!(cache.load(&spec, at(1)).unwrap().unwrap().entries().len(), 2);
}

#[test]
fn a_file_is_a_source() {
    let lab = Lab::new(|_, client| client.answer(200, &[], ""));
    let path = lab.dir().with_file_name("list.netset");
    let spec = FeedSpec::new("f", &format!("file://{}", path.display())).unwrap();
    let Why::Fetch(FetchError::File { .. }) = lab.kept(&spec, 0) else { panic!() };
    fs::write(&path, "# ours\n192.0.2.0/24\n").unwrap();
    assert_eq!(lab.updated(&spec, 1), (1, 0, 1));
    assert!(matches!(lab.refresh(&spec, 2), Outcome::NotModified));
    fs::write(&path, "192.0.2.0/25\n").unwrap();
    assert_eq!(lab.updated(&spec, 3), (1, 1, 1));

    let small = spec.clone().max_bytes(12);
    let Why::Fetch(FetchError::TooLarge { limit: 12, unpacked: false }) = lab.kept(&small, 4)
    else {
        panic!()
    };
    let dir = FeedSpec::new("g", lab.dir().to_str().unwrap()).unwrap();
    assert!(lab.kept(&dir, 0).to_string().contains("it is no regular file"));
    // A FIFO without a writer.
    let fifo = lab.dir().with_file_name("fifo");
    rustix::fs::mkfifoat(rustix::fs::CWD, &fifo, rustix::fs::Mode::RUSR).unwrap();
    let fifo = FeedSpec::new("h", fifo.to_str().unwrap()).unwrap();
    assert!(lab.kept(&fifo, 0).to_string().contains("it is no regular file"));
    assert_eq!(lab.server.requests().len(), 0);
}

#[test]
fn what_has_not_changed_is_not_sent_again() {
    for (sent, asked) in [
        ("ETag: W/\"v 1\"", "if-none-match"),
        ("Last-Modified: Fri, 15 Jan 2027 08:00:00 GMT", "if-modified-since"),
    ] {
        let lab = Lab::new(move |request, client| match request.header(asked) {
            Some(_) => client.send("HTTP/1.1 304 x\r\n\r\n"),
            None => client.answer(200, &[sent], list(5)),
        });
        let spec = lab.spec("/list");
        assert_eq!(lab.updated(&spec, 0), (5, 0, 5));
        // Not due: no request.
        let Outcome::NotDue { until } = lab.refresh(&spec, 0) else { panic!() };
        assert_eq!(until, at(1));
        assert_eq!(lab.server.requests().len(), 1);
        for hour in [1, 2] {
            assert!(matches!(lab.refresh(&spec, hour), Outcome::NotModified));
            let value = lab.server.requests()[hour as usize].header(asked).unwrap().to_owned();
            assert_eq!(value, sent.split_once(": ").unwrap().1);
        }
        let state = lab.cache.state(&spec).unwrap().unwrap();
        assert_eq!((state.content.unwrap().fetched_at, state.back_off), (at(2), None));
        assert_eq!(lab.last_good(&spec), Some(5));
    }
}

#[test]
fn the_same_content_is_no_new_version() {
    let lab = Lab::new(|_, client| client.answer(200, &[], list(5)));
    let spec = lab.spec("/list");
    lab.updated(&spec, 0);
    assert!(matches!(lab.refresh(&spec, 1), Outcome::NotModified));
    assert_eq!(lab.server.requests().len(), 2);
}

#[test]
fn a_new_version_replaces_the_old_one() {
    let hour = AtomicUsize::new(0);
    let lab = Lab::new(move |_, client| match hour.fetch_add(1, Ordering::SeqCst) {
        0 => client.answer(200, &[], "10.0.0.1\n10.0.0.2\n10.0.0.2\n"),
        _ => client.answer(200, &["Content-Type: text/plain"], "10.0.0.2\n10.0.0.3\n"),
    });
    let spec = lab.spec("/list");
    assert_eq!(lab.updated(&spec, 0), (2, 0, 3));
    assert_eq!(lab.updated(&spec, 1), (1, 1, 2));
    // The old one's file is gone.
    let mut names: Vec<_> = fs::read_dir(lab.dir())
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    let [content, state, lock] = &names[..] else { panic!("{names:?}") };
    assert!(content.starts_with("f.") && content.ends_with(".list"));
    assert_eq!((state.as_str(), lock.as_str()), ("f.json", "lock"));
}

#[test]
fn failures_back_off_across_restarts() {
    let lab = Lab::new(|request, client| match request.path.as_str() {
        "/500" => client.answer(500, &[], "oops"),
        "/seconds" => client.answer(503, &["Retry-After: 7200"], ""),
        "/date" => client.answer(429, &["Retry-After: Fri, 15 Jan 2027 13:00:00 GMT"], ""),
        "/past" => client.answer(503, &["Retry-After: Thu, 14 Jan 2027 08:00:00 GMT"], ""),
        "/ever" => client.answer(503, &["Retry-After: 99999999999"], ""),
        _ => client.answer(503, &["Retry-After: soon"], ""),
    });
    let until = |path: &str| -> (Option<Duration>, SystemTime) {
        let spec = lab.spec(path);
        let Why::Fetch(FetchError::Status { retry_after, .. }) = lab.kept(&spec, 0) else {
            panic!()
        };
        // As another process finds it.
        let asked = lab.server.requests().len();
        let again = lab.fetcher.refresh(&spec, &lab.reopened(), at(0));
        let Outcome::NotDue { until } = again else { panic!("{again:?}") };
        assert_eq!(lab.server.requests().len(), asked);
        (retry_after, until)
    };
    let soon = at(0) + Duration::from_secs(30)..=at(0) + Duration::from_secs(60);
    for path in ["/500", "/past", "/nonsense"] {
        let (asked, until) = until(path);
        assert!(asked.is_none() && soon.contains(&until), "{path}: {until:?}");
    }
    assert_eq!(until("/seconds"), (Some(Duration::from_secs(7200)), at(2)));
    // 13:00 is five hours after the time of the test.
    assert_eq!(until("/date"), (Some(Duration::from_secs(5 * 3600)), at(5)));
    assert_eq!(until("/ever").1, at(24));

    // One after the other, further and further apart, and no further than that.
    let spec = lab.spec("/500");
    lab.cache.forget(&spec).unwrap();
    let mut now = at(0);
    for failures in 1..12 {
        let outcome = lab.fetcher.refresh(&spec, &lab.cache, now);
        assert!(matches!(outcome, Outcome::Kept { .. }));
        let back_off = lab.cache.state(&spec).unwrap().unwrap().back_off.unwrap();
        assert_eq!(back_off.failures, failures);
        let wait = back_off.until.duration_since(now).unwrap();
        let most = Duration::from_secs((60 << (failures - 1)).min(3600));
        // Kept to the second.
        assert!((most / 2 - Duration::from_secs(1)..=most).contains(&wait), "{failures}: {wait:?}");
        now = back_off.until;
    }
}

#[test]
fn a_success_ends_the_failures() {
    let count = AtomicUsize::new(0);
    let lab = Lab::new(move |_, client| match count.fetch_add(1, Ordering::SeqCst) {
        1 | 2 => client.answer(500, &[], ""),
        _ => client.answer(200, &[], list(3)),
    });
    let spec = lab.spec("/list");
    lab.updated(&spec, 0);
    lab.kept(&spec, 1);
    assert_eq!(lab.last_good(&spec), Some(3));
    lab.kept(&spec, 2);
    assert!(matches!(lab.refresh(&spec, 3), Outcome::NotModified));
    assert_eq!(lab.cache.state(&spec).unwrap().unwrap().back_off, None);
}

/// An agent that is killed while it fetches, and started again, backs off as if it had failed.
#[test]
fn the_start_of_a_refresh_is_written_before_the_first_request() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("feeds");
    let (seen, cache) = (path.clone(), feed_lab::open(&path).unwrap());
    let lab = Lab::new(move |request, client| {
        let url = format!("http://{}{}", request.header("host").unwrap(), request.path);
        let spec = FeedSpec::new("f", &url).unwrap();
        let state = feed_lab::open(&seen).unwrap().state(&spec).unwrap().unwrap();
        let failures = state.back_off.map_or(0, |back_off| back_off.failures);
        client.answer(200, &[], format!("10.0.0.{failures}\n"))
    });
    let spec = lab.spec("/list");
    let outcome = lab.fetcher.refresh(&spec, &cache, at(0));
    assert!(matches!(outcome, Outcome::Updated { .. }), "{outcome:?}");
    let list = cache.load(&spec, at(0)).unwrap().unwrap();
    assert_eq!(list.entries()[0].cidr.to_string(), "10.0.0.1/32");
}

#[test]
fn a_feed_that_empties_or_explodes_keeps_the_last_good_version() {
    let lab = Lab::new(|request, client| {
        let entries = request.path.trim_start_matches('/').parse().unwrap();
        client.answer(200, &[], list(entries))
    });
    // The same feed at each of its hours: only the file behind the source changes.
    let file = lab.dir().with_file_name("list");
    let spec =
        FeedSpec::new("f", file.to_str().unwrap()).unwrap().entries(10, 5000).allow_private(true);
    let with = |entries: u32, hours: u64| {
        fs::write(&file, list(entries)).unwrap();
        lab.refresh(&spec, hours)
    };
    assert!(matches!(
        with(9, 0),
        Outcome::Kept { why: Why::Content(Rejection::TooFew { entries: 9, min: 10 }) }
    ));
    assert_eq!(lab.last_good(&spec), None);
    assert!(matches!(with(1000, 1), Outcome::Updated { entries: 1000, .. }));
    for (hours, entries) in [(2, 0), (4, 499), (8, 4001), (16, 5001)] {
        let outcome = with(entries, hours);
        let Outcome::Kept { why: Why::Content(why) } = outcome else { panic!("{outcome:?}") };
        let message = why.to_string();
        let expected = match entries {
            0 => "it has 0 entries, and at least 10 are expected",
            499 => "it has 499 entries after 1000, smaller by more than 50 %",
            4001 => "it has 4001 entries after 1000, larger by more than 300 %",
            _ => "f:5001: more than 5000 entries",
        };
        assert!(message.starts_with(expected), "{message}");
        assert_eq!(lab.last_good(&spec), Some(1000));
    }
    assert!(matches!(with(500, 30), Outcome::Updated { added: 0, removed: 500, entries: 500 }));
    // What is meant can be made known.
    assert!(matches!(with(3000, 31), Outcome::Kept { .. }));
    lab.cache.forget(&spec).unwrap();
    assert_eq!(lab.last_good(&spec), None);
    assert!(matches!(with(3000, 31), Outcome::Updated { added: 3000, entries: 3000, .. }));
}

#[test]
fn bad_lines_are_refused_or_skipped_as_the_feed_says() {
    let lab = Lab::new(|_, client| client.answer(200, &[], "10.0.0.1\nnonsense\n"));
    let strict = lab.spec("/list");
    assert!(lab.kept(&strict, 0).to_string().contains("f:2:1: `nonsense`"));
    let lenient = strict.bad_lines(BadLines::Lenient);
    assert_eq!(lab.updated(&lenient, 1), (1, 0, 1));
}

#[test]
fn every_format_of_lists_is_one_of_feeds() {
    let lab = Lab::new(|request, client| {
        let text = match request.path.as_str() {
            "/plain" => "10.0.0.1\n10.0.0.2",
            "/netset" => "#\n# firehol_level1\n#\n10.0.0.1\n10.0.0.2/31\n",
            "/drop" => {
                "{\"cidr\":\"10.0.0.1\"}\n{\"cidr\":\"10.0.0.2/31\"}\n{\"type\":\"metadata\"}\n"
            }
            "/csv" => "# x\r\nid,ip,port\r\n1,10.0.0.1,80\r\n2,10.0.0.2,80\r\n",
            _ => {
                "{\"type\":\"bundle\",\"objects\":[{\"type\":\"indicator\",\
                 \"pattern\":\"[ipv4-addr:value IN ('10.0.0.1','10.0.0.2')]\",\
                 \"valid_until\":\"2027-01-16T00:00:00Z\"}]}"
            }
        };
        client.answer(200, &["Content-Type: application/octet-stream"], text)
    });
    for (path, format) in [
        ("/plain", ListFormat::Lines),
        ("/netset", ListFormat::Lines),
        ("/drop", ListFormat::Lines),
        ("/csv", ListFormat::csv_column("ip")),
        ("/stix", ListFormat::Stix),
    ] {
        let spec = lab.spec(path).format(format);
        assert_eq!(lab.updated(&spec, 0).2, 2, "{path}");
    }
    // Of what is over by then nothing is left, at boot as well.
    let stix = lab.spec("/stix").format(ListFormat::Stix);
    assert!(lab.cache.load(&stix, at(48)).unwrap().unwrap().entries().is_empty());
}

#[test]
fn one_that_fails_does_not_hold_the_others_up() {
    let lab = Lab::new(|request, client| match request.path.as_str() {
        "/good" => client.answer(200, &[], list(3)),
        _ => client.answer(404, &[], ""),
    });
    let spec = |name: &str, path: &str| {
        let spec = FeedSpec::new(name, &lab.server.url(path)).unwrap();
        spec.danger_allow_http(true).allow_private(true)
    };
    let specs = [spec("bad", "/bad"), spec("good", "/good")];
    assert!(FeedSet::new(lab.reopened(), [specs[0].clone(), specs[0].clone()]).is_err());
    let feeds = FeedSet::new(lab.reopened(), specs).unwrap();
    let names = |now| feeds.due(now).map(|spec| spec.name().to_owned()).collect::<Vec<_>>();
    assert_eq!(names(at(0)), ["bad", "good"]);
    assert!(feeds.next_due(at(0)).unwrap() <= at(0));
    let outcomes = feeds.refresh_due(&lab.fetcher, at(0));
    assert!(matches!(
        &outcomes[..],
        [
            (_, Outcome::Kept { why: Why::Fetch(FetchError::Status { status: 404, .. }) }),
            (_, Outcome::Updated { entries: 3, .. })
        ]
    ));
    assert!(names(at(0)).is_empty());
    let next = feeds.next_due(at(0)).unwrap();
    assert!(at(0) < next && next < at(1));
    assert_eq!(names(next), ["bad"]);
    assert_eq!(names(at(1)), ["bad", "good"]);
    let loaded: Vec<_> = feeds.load(at(0)).map(|(_, list)| list.unwrap().is_some()).collect();
    assert_eq!(loaded, [false, true]);
}
