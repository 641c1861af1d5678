//! Servers that misbehave: each is refused in its own words, and the last good version stays.

mod feed_lab;

use std::io::{self, Write};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use feed_lab::server::{Connection, Request};
use feed_lab::{Lab, list};
use flate2::Compression;
use flate2::write::GzEncoder;
use ironclad_policy::feed::{FeedSpec, FetchError, Rejection, Sha256Sum, Why};

/// A feed whose first version is good and of 3 entries; then `handler` answers.
fn spoilt(
    handler: impl Fn(&Request, &mut Connection) -> io::Result<()> + Send + Sync + 'static,
) -> (Lab, FeedSpec) {
    let first = AtomicBool::new(true);
    let lab = Lab::new(move |request, client| match first.swap(false, Ordering::SeqCst) {
        true => client.answer(200, &["ETag: \"1\""], list(3)),
        false => handler(request, client),
    });
    let spec = lab.spec("/list");
    lab.updated(&spec, 0);
    (lab, spec)
}

/// Why the second version is refused. The first is there before and after, in a new process, too.
#[track_caller]
fn refused_as(
    change: impl FnOnce(FeedSpec) -> FeedSpec,
    handler: impl Fn(&Request, &mut Connection) -> io::Result<()> + Send + Sync + 'static,
) -> Why {
    let (lab, spec) = spoilt(handler);
    let spec = change(spec);
    let why = lab.kept(&spec, 1);
    assert_eq!(lab.last_good(&spec), Some(3));
    let state = lab.cache.state(&spec).unwrap().unwrap();
    assert_eq!(state.back_off.unwrap().failures, 1);
    // What the server knows the last good version by is still that one's.
    assert_eq!(state.content.unwrap().etag.as_deref(), Some("\"1\""));
    why
}

#[track_caller]
fn refused(
    handler: impl Fn(&Request, &mut Connection) -> io::Result<()> + Send + Sync + 'static,
) -> Why {
    refused_as(|spec| spec, handler)
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::best());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

/// A server that keeps the client waiting. When the client has left, the server's threads end.
#[track_caller]
fn times_out(stall: impl Fn(&mut Connection) -> io::Result<()> + Send + Sync + 'static) {
    let short = |spec: FeedSpec| spec.timeout(Duration::from_millis(300));
    let why = refused_as(short, move |_, client| stall(client));
    assert!(matches!(why, Why::Fetch(FetchError::TimedOut { .. })), "{why:?}");
}

/// A byte at a time, often enough for any timeout of a single read, until the client hangs up.
fn drip(client: &mut Connection, bytes: impl Iterator<Item = u8>) -> io::Result<()> {
    for byte in bytes {
        client.send([byte])?;
        if client.hung_up_within(Duration::from_millis(5)) {
            break;
        }
    }
    Ok(())
}

#[test]
fn slow_servers_are_left() {
    // Nothing at all.
    times_out(|client| {
        client.wait();
        Ok(())
    });
    // A head that never ends, and one that stops.
    times_out(|client| {
        drip(client, b"HTTP/1.1 200 x\r\nX: ".iter().copied().chain([b'x'; 60_000]))
    });
    times_out(|client| {
        client.send("HTTP/1.1 200 x\r\n")?;
        client.wait();
        Ok(())
    });
    // A body that trickles, by length and in chunks; one that stops.
    times_out(|client| {
        client.send("HTTP/1.1 200 x\r\nContent-Length: 100000\r\n\r\n")?;
        drip(client, b"10.0.0.1\n".iter().copied().cycle().take(100_000))
    });
    times_out(|client| {
        client.send("HTTP/1.1 200 x\r\nTransfer-Encoding: chunked\r\n\r\n")?;
        drip(client, b"1\r\n\n\r\n".iter().copied().cycle().take(100_000))
    });
    times_out(|client| {
        client.send("HTTP/1.1 200 x\r\nContent-Length: 100\r\n\r\n10.0.0.1\n")?;
        client.wait();
        Ok(())
    });
    // Redirects do not begin the time anew.
    times_out(|client| {
        if client.hung_up_within(Duration::from_millis(100)) {
            return Ok(());
        }
        client.answer(302, &["Location: /again"], "")
    });
}

#[test]
fn endless_answers_are_cut() {
    let too_large = |why: &Why| {
        matches!(why, Why::Fetch(FetchError::TooLarge { limit: 100_000, unpacked: false }))
    };
    let small = |spec: FeedSpec| spec.max_bytes(100_000);
    let flood = |client: &mut Connection, block: &[u8]| loop {
        client.send(block)?;
    };
    let why = refused_as(small, move |_, client| {
        client.send("HTTP/1.1 200 x\r\nContent-Length: 99999999999\r\n\r\n")?;
        flood(client, &[b'\n'; 4096])
    });
    assert!(too_large(&why), "{why:?}");
    let why = refused_as(small, move |_, client| {
        client.send("HTTP/1.1 200 x\r\n\r\n")?;
        flood(client, &[b'\n'; 4096])
    });
    assert!(matches!(why, Why::Fetch(FetchError::NoEnd { .. })), "{why:?}");
    let why = refused_as(small, move |_, client| {
        client.send("HTTP/1.1 200 x\r\nTransfer-Encoding: chunked\r\n\r\n")?;
        flood(client, b"8\r\n########\r\n")
    });
    assert!(too_large(&why), "{why:?}");
    // The body of a status that is refused is not waited for, nor is one of a redirect.
    for status in ["500 x", "302 x\r\nLocation: ftp://x/"] {
        let why = refused(move |_, client| {
            client.send(format!("HTTP/1.1 {status}\r\nContent-Length: 99999999999\r\n\r\n"))?;
            flood(client, &[b'\n'; 4096])
        });
        let is_right = matches!(
            why,
            Why::Fetch(FetchError::Status { status: 500, .. } | FetchError::Redirect { .. })
        );
        assert!(is_right, "{why:?}");
    }
    let why = refused(move |_, client| {
        client.send("HTTP/1.1 200 x\r\n")?;
        flood(client, &b"X: y\r\n".repeat(1000))
    });
    assert!(matches!(why, Why::Fetch(FetchError::Protocol { .. })), "{why:?}");
}

#[test]
fn the_limit_of_bytes_is_exact() {
    let lab = Lab::new(|request, client| match request.path.as_str() {
        "/packed" => client.answer(200, &["Content-Encoding: gzip"], gzip(list(1000).as_bytes())),
        "/announced" => client.answer(200, &[], list(1000)),
        _ => {
            let body = list(1000);
            let head = "HTTP/1.1 200 x\r\nTransfer-Encoding: chunked\r\n\r\n";
            client.send(format!("{head}{:x}\r\n{body}\r\n0\r\n\r\n", body.len()))
        }
    });
    let length = list(1000).len() as u64;
    for path in ["/packed", "/announced", "/chunked"] {
        let spec = lab.spec(path);
        let why = lab.kept(&spec.clone().max_bytes(length - 1), 0);
        assert!(matches!(why, Why::Fetch(FetchError::TooLarge { .. })), "{path}: {why:?}");
        assert_eq!(lab.updated(&spec.max_bytes(length), 1).2, 1000, "{path}");
    }
}

#[test]
fn what_is_cut_off_is_refused() {
    for (head, body) in [
        ("Content-Length: 100", "10.0.0.1\n"),
        ("Content-Length: 9", ""),
        ("Transfer-Encoding: chunked", "9\r\n10.0.0.1\n\r\n"),
        ("Transfer-Encoding: chunked", "9\r\n10.0"),
        ("Transfer-Encoding: chunked", ""),
    ] {
        let why = refused(move |_, client| {
            client.send(format!("HTTP/1.1 200 x\r\n{head}\r\n\r\n{body}"))
        });
        assert!(matches!(why, Why::Fetch(FetchError::Truncated { .. })), "{head} {body}: {why:?}");
    }
    // Where only the connection ends it, the end is not known.
    for version in ["1.1", "1.0"] {
        for head in ["X: y", "Transfer-Encoding: chunked", "Content-Encoding: gzip"] {
            if (version, head) == ("1.1", "Transfer-Encoding: chunked") {
                continue;
            }
            let why = refused(move |_, client| {
                client.send(format!("HTTP/{version} 200 x\r\n{head}\r\n\r\n10.0.0.1\n"))
            });
            assert!(matches!(why, Why::Fetch(FetchError::NoEnd { .. })), "{head}: {why:?}");
        }
    }
    // Longer than announced: the rest is dropped, and the last line is no address.
    let why =
        refused(|_, client| client.send("HTTP/1.1 200 x\r\nContent-Length: 7\r\n\r\n10.0.0.1\n"));
    assert!(matches!(why, Why::Content(Rejection::List(_))), "{why:?}");
}

#[test]
fn what_is_no_http_is_refused() {
    for answer in [
        "",
        "\r\n\r\n",
        "hello\r\n\r\n",
        "10.0.0.1\n10.0.0.2\n",
        "HTTP/1.1 200 x\r\nContent-Length: x\r\n\r\n10.0.0.1\n",
        "HTTP/1.1 200 x\r\nContent-Length: -1\r\n\r\n10.0.0.1\n",
        "HTTP/1.1 200 x\r\nContent-Length: 8\r\nContent-Length: 9\r\n\r\n10.0.0.1\n",
        "HTTP/1.1 200 x\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n10.0.0.1\n",
        "HTTP/1.1 200 x\r\nTransfer-Encoding: chunked\r\n\r\nffffffffffffffffff\r\n10.0.0.1\n",
    ] {
        let why = refused(move |_, client| client.send(answer));
        let is_right = matches!(
            why,
            Why::Fetch(
                FetchError::Protocol { .. }
                    | FetchError::Connection { .. }
                    | FetchError::Truncated { .. }
            )
        );
        assert!(is_right, "{answer:?}: {why:?}");
    }
}

#[test]
fn other_statuses_are_refused() {
    for status in [201, 204, 206, 300, 305, 400, 403, 404, 410, 500, 502] {
        let why = refused(move |_, client| client.answer(status, &["Location: /x"], ""));
        let Why::Fetch(FetchError::Status { status: found, .. }) = why else { panic!("{why:?}") };
        assert_eq!(found, status);
    }
}

#[test]
fn nothing_to_compare_with_is_not_unmodified() {
    let lab = Lab::new(|_, client| client.send("HTTP/1.1 304 x\r\n\r\n"));
    let spec = lab.spec("/list");
    let why = lab.kept(&spec, 0);
    assert!(matches!(why, Why::Fetch(FetchError::UnexpectedNotModified { .. })), "{why:?}");
    assert_eq!(lab.last_good(&spec), None);
}

#[test]
fn redirects_are_bounded() {
    let why = refused(|_, client| client.answer(302, &["Location: /list"], ""));
    assert!(matches!(why, Why::Fetch(FetchError::TooManyRedirects { limit: 5, .. })), "{why:?}");
    for (location, message) in [
        (&[][..], "nowhere: there is no `Location`"),
        (&["Location: ftp://x/"], "ftp://x/: that is no URL to fetch from"),
        (&["Location: ftp://x/?key=secret"], "to ftp://x/: that is no URL to fetch from"),
        (&["Location: file:///etc/passwd"], "that is no URL to fetch from"),
        (
            &["Location: http://192.0.2.1/list"],
            "192.0.2.1: another host is fetched over https only",
        ),
        (&["Location: //localhost/list"], "localhost: another host is fetched over https only"),
    ] {
        let why = refused(move |_, client| client.answer(301, location, ""));
        assert!(matches!(why, Why::Fetch(FetchError::Redirect { .. })), "{why:?}");
        assert!(why.to_string().ends_with(message), "{why}");
    }
}

#[test]
fn redirects_on_the_same_host_are_followed() {
    let lab = Lab::new(|request, client| match request.path.as_str() {
        "/a/list" => client.answer(301, &["Location: ../b/list?x=1#top"], "moved"),
        "/b/list?x=1" => client.answer(307, &["Location: /c"], ""),
        "/c" => client.answer(200, &[], list(3)),
        _ => client.answer(404, &[], ""),
    });
    assert_eq!(lab.updated(&lab.spec("/a/list"), 0).2, 3);
    let paths: Vec<_> = lab.server.requests().into_iter().map(|request| request.path).collect();
    assert_eq!(paths, ["/a/list", "/b/list?x=1", "/c"]);
}

#[test]
fn plain_http_needs_an_option() {
    let lab = Lab::new(|_, client| client.answer(200, &[], list(3)));
    let spec = lab.spec("/list").danger_allow_http(false);
    let why = lab.kept(&spec, 0);
    assert!(matches!(why, Why::Fetch(FetchError::PlainHttp { .. })), "{why:?}");
    assert!(lab.server.requests().is_empty());
}

#[test]
fn web_pages_are_no_lists() {
    let page = "<!DOCTYPE html>\n<html><body>10.0.0.1</body></html>\n";
    for kind in ["text/html", "Text/HTML; charset=utf-8", "application/xhtml+xml", "image/png"] {
        let why =
            refused(move |_, client| client.answer(200, &[&format!("Content-Type: {kind}")], page));
        assert!(matches!(why, Why::Fetch(FetchError::ContentType { .. })), "{kind}: {why:?}");
    }
    // One that says nothing of itself is none all the same.
    let why = refused(move |_, client| client.answer(200, &["Content-Type: text/plain"], page));
    assert!(matches!(why, Why::Content(Rejection::List(_))), "{why:?}");
}

#[test]
fn gzip_is_unpacked_within_limits() {
    let packed = gzip(list(3).as_bytes());
    let lab = Lab::new(move |request, client| {
        assert_eq!(request.header("accept-encoding"), Some("gzip"));
        client.answer(200, &["Content-Encoding: gzip", "Content-Type: text/plain"], &packed)
    });
    assert_eq!(lab.updated(&lab.spec("/list"), 0).2, 3);

    // A thousandfold, from a body that is small enough. The reader does not reach its end, which is missing.
    let mut bomb = gzip(&vec![b'\n'; 50 << 20]);
    bomb.truncate(bomb.len() - 20);
    assert!(bomb.len() < 100_000);
    let why = refused_as(
        |spec| spec.max_bytes(1 << 20),
        move |_, client| client.answer(200, &["Content-Encoding: gzip"], &bomb),
    );
    assert!(
        matches!(why, Why::Fetch(FetchError::TooLarge { limit: 0x10_0000, unpacked: true })),
        "{why:?}"
    );
    // The other way round: much that unpacks to little.
    let empty = gzip(b"");
    let why = refused_as(
        |spec| spec.max_bytes(1 << 20),
        move |_, client| {
            let block = empty.repeat(1000);
            let head = "HTTP/1.1 200 x\r\nContent-Encoding: gzip\r\nTransfer-Encoding: chunked";
            client.send(format!("{head}\r\n\r\n"))?;
            loop {
                client.send(format!("{:x}\r\n", block.len()))?;
                client.send(&block)?;
                client.send("\r\n")?;
            }
        },
    );
    assert!(
        matches!(why, Why::Fetch(FetchError::TooLarge { limit: 0x10_0000, unpacked: false })),
        "{why:?}"
    );
}

#[test]
fn damaged_gzip_is_refused() {
    let good = gzip(list(3).as_bytes());
    let mut flipped = good.clone();
    let end = flipped.len() - 6;
    flipped[end] ^= 1;
    let cut = good[..good.len() - 5].to_vec();
    let behind = [&good[..], b"garbage"].concat();
    for bytes in [list(3).into_bytes(), Vec::new(), flipped, cut, behind, vec![0x1f, 0x8b]] {
        let message = bytes.clone();
        let why = refused(move |_, client| client.answer(200, &["Content-Encoding: gzip"], &bytes));
        assert!(matches!(why, Why::Fetch(FetchError::Gzip { .. })), "{message:x?}: {why:?}");
    }
    // Cut off by the connection, not by the one who packed it.
    let why = refused(move |_, client| {
        let half = &good[..good.len() / 2];
        let head = "HTTP/1.1 200 x\r\nContent-Encoding: x-gzip\r\nContent-Length:";
        client.send(format!("{head} {}\r\n\r\n", good.len()))?;
        client.send(half)
    });
    assert!(matches!(why, Why::Fetch(FetchError::Truncated { .. })), "{why:?}");
    for encoding in ["br", "deflate", "gzip, gzip", "\u{1b}[31m"] {
        let why = refused(move |_, client| {
            client.answer(200, &[&format!("Content-Encoding: {encoding}")], list(3))
        });
        let is_right =
            matches!(why, Why::Fetch(FetchError::Encoding { .. } | FetchError::Protocol { .. }));
        assert!(is_right, "{encoding}: {why:?}");
    }
    // Packed content that does not say so is no text.
    let why = refused(move |_, client| client.answer(200, &[], gzip(b"10.0.0.1")));
    assert!(why.to_string().contains("a gzip file, not a list"), "{why}");
}

#[test]
fn content_is_what_its_checksum_says() {
    let sum = "1dd9a8b4ea1dc0d6ba04f0e1dcd2e5af5d0d3f8b5dd5a0f9c7bd7ff1a46bd3c0";
    let wrong: Sha256Sum = sum.parse().unwrap();
    let why =
        refused_as(|spec| spec.sha256(wrong), |_, client| client.answer(200, &[], "10.0.0.9\n"));
    let Why::Content(Rejection::Checksum { expected, found }) = why else { panic!("{why:?}") };
    assert_eq!(expected, wrong);
    let lab = Lab::new(|_, client| client.answer(200, &[], "10.0.0.9\n"));
    assert_eq!(lab.updated(&lab.spec("/list").sha256(found), 0).2, 1);

    // Published beside the content; over the same transport, and by the same rules.
    let lab = Lab::new(move |request, client| match request.path.as_str() {
        "/a/list.txt?key=1" => client.answer(200, &[], "10.0.0.9\n"),
        "/good" => client.answer(200, &[], format!("{found}  list.txt\n")),
        "/wrong" => client.answer(200, &[], format!("{wrong} *list.txt\n")),
        "/other" => client.answer(200, &[], format!("{found}  other.txt\n")),
        "/page" => client.answer(200, &["Content-Type: text/html"], format!("{found}")),
        "/huge" => client.answer(200, &[], vec![b'0'; 2 << 20]),
        _ => client.answer(404, &[], ""),
    });
    let spec = lab.spec("/a/list.txt?key=1");
    let hours = 10..;
    for (path, hours) in ["/wrong", "/other", "/page", "/huge", "/none"].into_iter().zip(hours) {
        let spec = spec.clone().sha256_at(&lab.server.url(path)).unwrap();
        let why = lab.kept(&spec, hours);
        let is_right = match path {
            "/wrong" => matches!(why, Why::Content(Rejection::Checksum { .. })),
            "/other" => matches!(why, Why::Fetch(FetchError::NoChecksum { .. })),
            "/page" => matches!(why, Why::Fetch(FetchError::ContentType { .. })),
            "/huge" => matches!(why, Why::Fetch(FetchError::TooLarge { .. })),
            _ => matches!(why, Why::Fetch(FetchError::Status { status: 404, .. })),
        };
        assert!(is_right, "{path}: {why:?}");
        assert_eq!(lab.last_good(&spec), None);
    }
    let spec = spec.sha256_at(&lab.server.url("/good")).unwrap();
    assert_eq!(lab.updated(&spec, 20).2, 1);
}

#[test]
fn an_unreachable_server_is_a_failure() {
    let lab = Lab::new(|_, client| {
        client.cut();
        Ok(())
    });
    let why = lab.kept(&lab.spec("/list"), 0);
    assert!(matches!(why, Why::Fetch(FetchError::Connection { .. })), "{why:?}");
}
