//! What each line of a list is taken for, and the exact words where it is refused.

use ironclad_core::Cidr;
use ironclad_policy::list::{AddressList, BadLines, ListError, ListOptions, ListReport, Refusal};

fn strict() -> ListOptions {
    ListOptions::new()
}

fn lenient() -> ListOptions {
    ListOptions::new().bad_lines(BadLines::Lenient)
}

/// Entries of a list without bad lines, as `line prefix`.
#[track_caller]
fn entries(text: impl AsRef<[u8]>) -> Vec<String> {
    let list = AddressList::parse("good.txt", text.as_ref(), &strict()).unwrap();
    list.entries().iter().map(|entry| format!("{} {}", entry.line, entry.cidr)).collect()
}

#[track_caller]
fn report(text: impl AsRef<[u8]>) -> ListReport {
    AddressList::parse("good.txt", text.as_ref(), &strict()).unwrap().report().clone()
}

/// Errors of a list, one per bad line, without the name of the file.
#[track_caller]
fn errors(text: impl AsRef<[u8]>) -> Vec<String> {
    match AddressList::parse("f", text.as_ref(), &strict()) {
        Err(ListError::Bad { errors, total, .. }) => {
            assert_eq!(errors.len() as u64, total);
            errors.iter().map(|error| error.to_string().replacen("f:", "", 1)).collect()
        }
        Err(other) => panic!("{other}"),
        Ok(list) => panic!("taken: {:?}", list.entries()),
    }
}

#[test]
fn good_lines() {
    for (line, expected) in [
        ("192.0.2.1", "192.0.2.1/32"),
        ("0.0.0.0", "0.0.0.0/32"),
        ("255.255.255.255", "255.255.255.255/32"),
        ("192.0.2.0/24", "192.0.2.0/24"),
        ("0.0.0.0/0", "0.0.0.0/0"),
        ("  192.0.2.1\t", "192.0.2.1/32"),
        ("192.0.2.1#comment", "192.0.2.1/32"),
        ("192.0.2.1 # comment; with # more", "192.0.2.1/32"),
        ("192.0.2.1;comment - not a range", "192.0.2.1/32"),
        ("192.0.2.0/24 ; SBL256894", "192.0.2.0/24"),
        ("192.0.2.0/255.255.255.0", "192.0.2.0/24"),
        ("192.0.2.1/255.255.255.255", "192.0.2.1/32"),
        ("0.0.0.0/0.0.0.0", "0.0.0.0/0"),
        ("::", "::/128"),
        ("::/0", "::/0"),
        ("2001:DB8::1", "2001:db8::1/128"),
        ("2001:db8:0:0:0:0:0:0/32", "2001:db8::/32"),
        ("64:ff9b::192.0.2.1", "64:ff9b::c000:201/128"),
        ("::192.0.2.1", "::c000:201/128"),
        // Lists of addresses that must not be seen have the whole block.
        ("::ffff:0:0/96", "::ffff:0.0.0.0/96"),
        ("::ffff:0.0.0.0-::ffff:255.255.255.255", "::ffff:0.0.0.0/96"),
        ("192.0.2.1-192.0.2.1", "192.0.2.1/32"),
        ("192.0.2.0-192.0.2.255", "192.0.2.0/24"),
        ("192.0.2.0 - 192.0.2.255 # all", "192.0.2.0/24"),
        ("192.0.2.0\t-192.0.2.255", "192.0.2.0/24"),
        ("0.0.0.0-255.255.255.255", "0.0.0.0/0"),
        ("2001:db8::-2001:db8::ff", "2001:db8::/120"),
        ("::-ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff", "::/0"),
    ] {
        assert_eq!(entries(line), [format!("1 {expected}")], "{line}");
        assert_eq!(report(line).normalised, 0, "{line}");
    }
}

#[test]
fn host_bits_are_cleared_and_said() {
    for (line, text, expected) in [
        ("10.1.2.3/8", "10.1.2.3/8", "10.0.0.0/8"),
        (" 10.1.2.3/8 # office", "10.1.2.3/8", "10.0.0.0/8"),
        ("10.1.2.3/255.0.0.0", "10.1.2.3/255.0.0.0", "10.0.0.0/8"),
        ("2001:db8::1/32", "2001:db8::1/32", "2001:db8::/32"),
        ("add s 10.1.2.3/8 timeout 0", "10.1.2.3/8", "10.0.0.0/8"),
        ("{\"cidr\":\"10.1.2.3/8\"}", "10.1.2.3/8", "10.0.0.0/8"),
    ] {
        let report = report(format!("192.0.2.0/24\n{line}\n"));
        assert_eq!((report.normalised, report.entries, report.skipped), (1, 2, 0), "{line}");
        let message: Vec<String> =
            report.first_normalised.iter().map(ToString::to_string).collect();
        assert_eq!(
            message,
            [format!("line 2: `{text}` has host bits, read as {expected}")],
            "{line}"
        );
    }
}

#[test]
fn bad_lines() {
    let address = "expected an IPv4 or IPv6 address, a prefix or a range";
    let ipv4 = "expected an IPv4 address: four numbers from 0 to 255 with dots between them";
    let ipv6 = "expected an IPv6 address: eight groups of up to four hexadecimal digits, or fewer and `::`";
    let zeros = "expected an IPv4 address without leading zeros, which some programs read as octal";
    let length4 = "expected a prefix length from /0 to /32, or a netmask";
    let length6 = "expected a prefix length from /0 to /128";
    let mask = "expected a netmask of ones before zeros, such as 255.255.0.0, or a prefix length";
    let end = "expected the end of the line, or a comment after `#` or `;`";
    let alone = "expected an address without a prefix length, because it is one end of a range";
    let mapped = "because packets never carry IPv4-mapped addresses";
    for (line, expected) in [
        ("10.0.0.300", format!("1: `10.0.0.300`: {ipv4}")),
        ("    10.0.0.300", format!("5: `10.0.0.300`: {ipv4}")),
        ("10.0.0", format!("1: `10.0.0`: {ipv4}")),
        ("10.0.0.0.0", format!("1: `10.0.0.0.0`: {ipv4}")),
        ("10.0.0.", format!("1: `10.0.0.`: {ipv4}")),
        ("10.0.0.0010", format!("1: `10.0.0.0010`: {zeros}")),
        ("010.0.0.1/8", format!("1: `010.0.0.1`: {zeros}")),
        ("10.0.0.1 - 10.0.0.010", format!("12: `10.0.0.010`: {zeros}")),
        ("10.0.0.0/33", format!("9: `/33`: {length4}")),
        ("10.0.0.0/", format!("9: `/`: {length4}")),
        ("10.0.0.0/+8", format!("9: `/+8`: {length4}")),
        ("10.0.0.0/08", format!("9: `/08`: {length4}")),
        ("10.0.0.0/256", format!("9: `/256`: {length4}")),
        ("10.0.0.0/8/9", format!("9: `/8/9`: {length4}")),
        ("10.0.0.0/8x", format!("9: `/8x`: {length4}")),
        ("10.0.0.0/255.0.255.0", format!("9: `/255.0.255.0`: {mask}")),
        ("10.0.0.0/0.0.0.255", format!("9: `/0.0.0.255`: {mask}")),
        ("10.0.0.0/255.0.0", format!("9: `/255.0.0`: {mask}")),
        (
            "10.0.0.0/0.0.0.0",
            "9: `/0.0.0.0`: expected a prefix length, because this mask has two meanings: /0 or /32"
                .into(),
        ),
        ("10.0.0.0 /8", format!("10: `/8`: {end}")),
        ("10.0.0.0 255.0.0.0", format!("10: `255.0.0.0`: {end}")),
        ("10.0.0.0,", format!("1: `10.0.0.0,`: {address}")),
        ("10.0.0.1 mail.example.org", format!("10: `mail.example.org`: {end}")),
        ("10.0.0.1 my-host", format!("10: `my-host`: {end}")),
        ("10.0.0.1\t7", format!("10: `7`: {end}")),
        ("my-host.example.org", format!("1: `my-host.example.org`: {address}")),
        ("a-b c", format!("1: `a-b`: {address}")),
        ("-", format!("1: `-`: {address}")),
        ("-10.0.0.1", format!("1: `-10.0.0.1`: {address}")),
        ("/8", format!("1: `/8`: {address}")),
        ("// comment", format!("1: `//`: {address}")),
        ("10.0.0.1–10.0.0.9", format!("1: `10.0.0.1–10.0.0.9`: {address}")),
        ("\u{a0}10.0.0.1", format!("1: `\\u{{a0}}10.0.0.1`: {address}")),
        ("\"10.0.0.1\"", format!("1: `\"10.0.0.1\"`: {address}")),
        ("10.0.0.1 ü ", format!("10: `ü`: {end}")),
        ("10.0.0.1 – 10.0.0.2", format!("10: `– 10.0.0.2`: {end}")),
        ("2001:db8::g", format!("1: `2001:db8::g`: {address}")),
        ("2001:db8:::", format!("1: `2001:db8:::`: {ipv6}")),
        ("1:2:3:4:5:6:7:8:9", format!("1: `1:2:3:4:5:6:7:8:9`: {ipv6}")),
        ("2001:db8::/129", format!("11: `/129`: {length6}")),
        ("2001:db8::/ffff::", format!("11: `/ffff::`: {length6}")),
        ("2001:db8::/255.0.0.0", format!("11: `/255.0.0.0`: {length6}")),
        (
            "fe80::1%eth0",
            "8: `%eth0`: expected an IPv6 address without a zone, which means nothing on other hosts"
                .into(),
        ),
        ("10.0.0.1:80:90", format!("1: `10.0.0.1:80:90`: {ipv6}")),
        ("::ffff:0:0/97", format!("1: `::ffff:0:0/97`: expected `0.0.0.0/1`, {mapped}")),
        ("10.0.0.1:80", "9: `:80`: expected an address without a port".into()),
        ("::ffff:10.0.0.1", format!("1: `::ffff:10.0.0.1`: expected `10.0.0.1/32`, {mapped}")),
        (
            "::ffff:10.0.0.1/104",
            format!("1: `::ffff:10.0.0.1/104`: expected `10.0.0.0/8`, {mapped}"),
        ),
        (
            "::ffff:a00:1 - ::ffff:a00:2",
            format!("1: `::ffff:a00:1`: expected `10.0.0.1`, {mapped}"),
        ),
        ("::fffe:0:0-::ffff:a00:2", format!("12: `::ffff:a00:2`: expected `10.0.0.2`, {mapped}")),
        ("10.0.0.1-", "10: nothing: expected the last address of the range".into()),
        ("10.0.0.1 - # to?", "11: nothing: expected the last address of the range".into()),
        ("10.0.0.1-9", format!("10: `9`: {address}")),
        ("10.0.0.1--10.0.0.9", format!("10: `-10.0.0.9`: {address}")),
        ("10.0.0.1-10.0.0.9-10.0.0.12", format!("10: `10.0.0.9-10.0.0.12`: {address}")),
        ("10.0.0.1-10.0.0.9 10.0.0.12", format!("19: `10.0.0.12`: {end}")),
        ("10.0.0.0/24-10.0.1.0/24", format!("1: `10.0.0.0/24`: {alone}")),
        ("10.0.0.0-10.0.1.0/24", format!("10: `10.0.1.0/24`: {alone}")),
        (
            "10.0.0.9-10.0.0.1",
            "10: `10.0.0.1`: expected a last address that is not below the first of the range"
                .into(),
        ),
        (
            "10.0.0.1-::1",
            "10: `::1`: expected an IPv4 address, as at the other end of the range".into(),
        ),
        (
            "::1-10.0.0.1",
            "5: `10.0.0.1`: expected an IPv6 address, as at the other end of the range".into(),
        ),
        ("10.0.0.1\u{b}", format!("1: `10.0.0.1\\u{{b}}`: {address}")),
        ("10.0.0.1\u{202e}", format!("1: `10.0.0.1\\u{{202e}}`: {address}")),
        ("<!DOCTYPE html>", format!("1: `<!DOCTYPE`: {address}")),
    ] {
        assert_eq!(errors(line), [format!("1:{expected}")], "{line:?}");
        let text = format!("# one\r\n\r\n192.0.2.1\n{line}\n192.0.2.2");
        assert_eq!(errors(text), [format!("4:{expected}")], "{line:?}");
    }
}

#[test]
fn bytes_that_are_not_text() {
    assert_eq!(errors(b"10.0.0.1\xff\n"), ["1:9: `\\xff`: expected text in UTF-8"]);
    assert_eq!(errors(b"\xe9\n"), ["1:1: `\\xe9`: expected text in UTF-8"]);
    assert_eq!(errors(b"10.0.0.1 \xe9t\xe9\n").len(), 1);
    assert_eq!(errors(b"1\xffx\0"), ["1:2: `\\xff`: expected text in UTF-8"]);
    assert_eq!(errors(b"10.0.0.1\0"), ["1:9: `\\0`: expected text without NUL bytes"]);
    assert_eq!(errors(b"1\0\xff"), ["1:2: `\\0`: expected text without NUL bytes"]);
    assert_eq!(errors("ü10.0.0.1\0"), ["1:10: `\\0`: expected text without NUL bytes"]);
    // A cut character, and columns after what is not UTF-8.
    assert_eq!(errors(b"1\xe2\x80"), ["1:2: `\\xe2`: expected text in UTF-8"]);
    assert_eq!(
        errors(b"add \xff\xfe x"),
        ["1:8: `x`: expected an IPv4 or IPv6 address, a prefix or a range"]
    );
    // Comments are skipped, whatever their encoding.
    assert_eq!(entries(b"# Fran\xe7ais \0\n10.0.0.1 ; caf\xe9\n"), ["2 10.0.0.1/32"]);
}

#[test]
fn long_and_strange_texts_are_shown_short_and_escaped() {
    let shown = |text: &[u8]| {
        let error = errors(text).remove(0);
        error.split_once(": `").unwrap().1.split_once("`: expected").unwrap().0.to_owned()
    };
    assert_eq!(shown("x".repeat(60).as_bytes()), "x".repeat(60));
    assert_eq!(shown("x".repeat(61).as_bytes()), "x".repeat(60) + "…");
    assert_eq!(shown("x".repeat(9_000_000).as_bytes()), "x".repeat(60) + "…");
    assert_eq!(shown("é🦀".repeat(5000).as_bytes()), "é🦀".repeat(30) + "…");
    assert_eq!(shown("\u{1b}[31m\u{7f}'\"`\\".as_bytes()), "\\u{1b}[31m\\u{7f}'\"`\\\\");
    assert_eq!(shown(&[b"10.0.0.1 ".as_slice(), &[0xff; 1000]].concat()), "\\xff".repeat(60) + "…");
}

#[test]
fn lines_end_with_lf_crlf_or_cr() {
    let expected = ["1 10.0.0.1/32", "2 10.0.0.0/24", "4 2001:db8::/32", "5 10.0.0.4/31"];
    for end in ["\n", "\r\n", "\r"] {
        let lines = ["10.0.0.1", "10.0.0.0/24", "", "2001:db8::/32 # six", "10.0.0.4-10.0.0.5"];
        let text = lines.join(end);
        assert_eq!(entries(&text), expected, "{end:?}");
        assert_eq!(report(&text).lines, 5);
        // A last line without its end is a line; an end is not a line of its own.
        let text = text + end;
        assert_eq!(entries(&text), expected, "{end:?}");
        assert_eq!(report(&text).lines, 5);
        assert_eq!(report(text + end).lines, 6);
    }
    // A comment ends with its line, also where that is a lone CR.
    assert_eq!(entries("# made on an old machine\r10.0.0.1\r"), ["2 10.0.0.1/32"]);
    assert_eq!(report("").lines, 0);
    assert_eq!(report("10.0.0.1").lines, 1);
}

#[test]
fn a_byte_order_mark_is_not_text() {
    assert_eq!(entries("\u{feff}10.0.0.1\n"), ["1 10.0.0.1/32"]);
    assert_eq!(errors("\u{feff}x\n").remove(0).split(": ").next(), Some("1:1"));
    assert_eq!(entries("\u{feff}"), [""; 0]);
    // Elsewhere it is a fault like any other.
    assert_eq!(errors("10.0.0.1\n\u{feff}10.0.0.2").remove(0).split(": ").next(), Some("2:1"));
}

#[test]
fn the_report_counts_every_line_once() {
    let text = "# ipset of one family\n\n \t \n  ; indented\n10.0.0.1\n10.0.0.5-10.0.0.9\n\
                create s hash:net\nadd s 10.9.9.9/16 timeout 600\nadd s 10.8.0.0/16 timeout 0\nnonsense\n";
    let list = AddressList::parse("mixed", text.as_bytes(), &lenient()).unwrap();
    let report = list.report();
    assert_eq!((report.lines, report.entries, list.entries().len()), (10, 6, 6));
    assert_eq!((report.blank, report.comments, report.directives), (2, 2, 1));
    assert_eq!((report.ranges, report.timeouts, report.normalised), (1, 1, 1));
    assert_eq!((report.skipped, report.errors.len()), (1, 1));
    assert_eq!(
        report.to_string(),
        "mixed: 6 entries from 10 lines, 1 normalised, 1 with a timeout that is not kept, \
         1 bad and skipped\n  \
         line 8: `10.9.9.9/16` has host bits, read as 10.9.0.0/16\n  \
         mixed:10:1: `nonsense`: expected an IPv4 or IPv6 address, a prefix or a range"
    );
}

/// As `ipset save` 7.17 writes it.
const SAVED: &str = "\
create bl hash:net family inet hashsize 1024 maxelem 65536 timeout 0 counters comment skbinfo bucketsize 12 initval 0x4202d911
add bl 1.2.3.0/24 timeout 299 packets 0 bytes 0 comment \"spam; # not a \\ comment\"
add bl 10.0.0.0/8 timeout 0 packets 0 bytes 0 skbmark 0x1111/0xff
add bl 0.0.0.0/1
";

#[test]
fn ipset_files() {
    assert_eq!(entries(SAVED), ["2 1.2.3.0/24", "3 10.0.0.0/8", "4 0.0.0.0/1"]);
    assert_eq!((report(SAVED).directives, report(SAVED).timeouts), (1, 1));

    // As scripts write for `ipset restore`: filled aside, then swapped in.
    let swapped = "create real hash:net -exist\ncreate tmp hash:net\nflush tmp\n\
                   add tmp 192.0.2.1\n-exist add tmp 192.0.2.1-192.0.2.2 # twice\n\
                   add -! tmp 2001:db8::/32\nswap tmp real\ndestroy tmp\nadd real 192.0.2.9\n";
    assert_eq!(
        entries(swapped),
        ["4 192.0.2.1/32", "5 192.0.2.1/32", "5 192.0.2.2/32", "6 2001:db8::/32", "9 192.0.2.9/32"]
    );

    assert_eq!(entries("add a 10.0.0.1\nswap b a\nadd b 10.0.0.2").len(), 2);

    // ipset before version 5, and a FireHOL file that is plain text.
    let old = "-N old nethash --hashsize 1024 --probes 4 --resize 50\n-A old 3.0.0.0/8\nCOMMIT\n";
    assert_eq!(entries(old), ["2 3.0.0.0/8"]);
    assert_eq!(entries("#\n# example\n# Maintainer : nobody\n#\n192.0.2.7\n"), ["5 192.0.2.7/32"]);
    // An empty quotation is a word too.
    assert_eq!(entries("add s 10.0.0.1 comment \"\" timeout 5"), ["1 10.0.0.1/32"]);
}

#[test]
fn ipset_commands_that_a_list_cannot_follow() {
    let types =
        "expected hash:ip, hash:net or bitmap:ip, the types whose entries are addresses alone";
    let one = "expected an entry of the same set as before, because a list is one set: \
               save each to a file of its own";
    let netmask = "expected no netmask: make it a set of prefixes, of type hash:net";
    let empty = "expected no command that empties the set after its entries";
    for (text, expected) in [
        (
            "add s 10.1.0.0/16 nomatch",
            "1:19: `nomatch`: expected no `nomatch`: put the exception into a list whose action is allow".to_owned(),
        ),
        (
            "add s 10.1.0.0/16 wings 2",
            "1:19: `wings`: expected an option of `add` such as timeout or comment".into(),
        ),
        (
            "add s \"\"",
            "1:7: `\"\"`: expected an IPv4 or IPv6 address, a prefix or a range".into(),
        ),
        ("add", "1:4: nothing: expected the name of a set".into()),
        ("add s # none", "1:7: nothing: expected an address, a prefix or a range".into()),
        ("add s 10.0.0.1 timeout", "1:23: nothing: expected seconds".into()),
        (
            "add s 10.0.0.1 comment \"open",
            "1:24: `\"open`: expected a quotation mark at the end, too".into(),
        ),
        (
            "add s 10.0.0.1,tcp:80",
            "1:15: `,tcp:80`: expected an address, a prefix or a range alone, without port, mark or interface".into(),
        ),
        (
            "add s 10.0.0.300",
            "1:7: `10.0.0.300`: expected an IPv4 address: four numbers from 0 to 255 with dots between them".into(),
        ),
        ("add a 10.0.0.1\nadd b 10.0.0.2", format!("2:5: `b`: {one}")),
        ("add a 10.0.0.1\nswap a b\nadd a 10.0.0.2", format!("3:5: `a`: {one}")),
        ("add a 10.0.0.1\nflush a", format!("2:1: `flush`: {empty}")),
        ("add a 10.0.0.1\ndestroy", format!("2:1: `destroy`: {empty}")),
        ("add a 10.0.0.1\nrename a b\n-X b", format!("3:1: `-X`: {empty}")),
        ("del a 10.0.0.1", "1:1: `del`: expected `add`: a list cannot take entries away".into()),
        ("create s hash:ip,port family inet", format!("1:10: `hash:ip,port`: {types}")),
        ("create s list:set", format!("1:10: `list:set`: {types}")),
        ("create s", "1:9: nothing: expected the type of the set".into()),
        ("create s hash:ip netmask 24", format!("1:18: `netmask`: {netmask}")),
        ("create s hash:ip family inet bitmask 255.255.0.255", format!("1:30: `bitmask`: {netmask}")),
        ("swap a", "1:7: nothing: expected the name of a set".into()),
        ("-exist frob", "1:8: `frob`: expected `create`, `add` or another command of ipset".into()),
        ("-exist", "1:7: nothing: expected a command of ipset".into()),
    ] {
        assert_eq!(errors(text), [expected], "{text}");
    }
    // An address of such a set stands for other addresses than itself: none is taken.
    assert_eq!(
        errors("create s hash:ip netmask 24\nswap s t\nadd t 10.0.0.0\nadd s 10.0.0.0")[1..],
        ["3:5: `t`: expected a set of addresses, other than line 1 creates"]
    );
}

#[test]
fn spamhaus_drop_as_text() {
    let text = "; Spamhaus DROP List 2024/05/14 - (c) 2024 The Spamhaus Project\n\
                ; Last-Modified: Tue, 14 May 2024 11:15:02 GMT\n\
                1.10.16.0/20 ; SBL256894\n2a06:e480::/29 ; SBL301771\n";
    assert_eq!(entries(text), ["3 1.10.16.0/20", "4 2a06:e480::/29"]);
    assert_eq!(report(text).comments, 2);
}

#[test]
fn spamhaus_drop_as_json_lines() {
    let text = "{\"cidr\":\"1.10.16.0/20\",\"sblid\":\"SBL256894\",\"rir\":\"apnic\"}\n\
                { \"rir\": \"ripencc\", \"cidr\": \"2a06:e480::/29\", \"n\": [{\"x\": null}] }\r\n\
                {\"cidr\":\"1.19.0.0\\/16\"}\n\
                {\"type\":\"metadata\",\"timestamp\":1715682182,\"size\":86126,\"records\":3,\
                 \"copyright\":\"(c) 2024 The Spamhaus Project SLU\"}\n";
    assert_eq!(entries(text), ["1 1.10.16.0/20", "2 2a06:e480::/29", "3 1.19.0.0/16"]);
    assert_eq!(report(text).directives, 1);

    let object = "expected a JSON object such as {\"cidr\":\"192.0.2.0/24\"}";
    let member = "expected a member `cidr` with an address or a prefix";
    for (line, expected) in [
        (
            "{\"cidr\":\"10.0.0.0/33\"}",
            "1:18: `/33`: expected a prefix length from /0 to /32, or a netmask".to_owned(),
        ),
        (
            "  {\"cidr\":\"10.0.0.0\\/33\"}",
            "1:3: `{\"cidr\":\"10.0.0.0\\\\/33\"}`: expected a prefix length from /0 to /32, or a netmask".into(),
        ),
        (
            "{\"cidr\":\"\"}",
            format!("1:1: `{{\"cidr\":\"\"}}`: {member}"),
        ),
        ("{\"asn\":64496}", format!("1:1: `{{\"asn\":64496}}`: {member}")),
        ("{\"type\":\"other\"}", format!("1:1: `{{\"type\":\"other\"}}`: {member}")),
        ("{\"cidr\":null}", format!("1:1: `{{\"cidr\":null}}`: {member}")),
        ("{\"cidr\":7}", format!("1:9: `7}}`: {object} (invalid type: integer `7`, expected a string)")),
        ("{\"cidr\":\"10.0.0.1\"", format!("1:18: `\"`: {object} (EOF while parsing an object)")),
        ("{\"cidr\":\"10.0.0.1\"} x", format!("1:21: `x`: {object} (trailing characters)")),
        ("{10.0.0.1}", format!("1:2: `10.0.0.1}}`: {object} (key must be a string)")),
        (
            "{\"cidr\":\"10.0.0.1\",\"cidr\":\"10.0.0.2\"}",
            format!("1:25: `\":\"10.0.0.2\"}}`: {object} (duplicate field `cidr`)"),
        ),
    ] {
        assert_eq!(errors(line), [expected], "{line}");
    }
}

#[test]
fn strict_refuses_with_all_it_found() {
    let text = "x\n10.0.0.1\n".repeat(30);
    let error = AddressList::parse("s.txt", text.as_bytes(), &strict().max_errors(2)).unwrap_err();
    assert_eq!(
        error.to_string(),
        "s.txt: 30 bad lines: correct them, or skip them by reading the list as `lenient`\n  \
         s.txt:1:1: `x`: expected an IPv4 or IPv6 address, a prefix or a range\n  \
         s.txt:3:1: `x`: expected an IPv4 or IPv6 address, a prefix or a range\n  \
         and 28 more"
    );
    let Err(ListError::Bad { errors, total, refusal, name }) =
        AddressList::parse("s.txt", text.as_bytes(), &strict())
    else {
        panic!()
    };
    assert_eq!((errors.len(), total, refusal, &*name), (20, 30, Refusal::Strict, "s.txt"));
    assert_eq!(errors[19].line, 39);
    let none = AddressList::parse("s.txt", b"x", &strict().max_errors(0)).unwrap_err();
    assert_eq!(
        none.to_string(),
        "s.txt: 1 bad line: correct them, or skip them by reading the list as `lenient`\n  and 1 more"
    );
}

#[test]
fn lenient_skips_and_counts() {
    let text = "x\n10.0.0.1\n".repeat(30);
    let options = lenient().max_errors(2);
    let list = AddressList::parse("l.txt", text.as_bytes(), &options).unwrap();
    assert_eq!((list.entries().len(), list.report().skipped), (30, 30));
    assert_eq!(list.report().errors.iter().map(|e| e.line).collect::<Vec<_>>(), [1, 3]);

    AddressList::parse("l.txt", text.as_bytes(), &options.clone().max_skipped(30)).unwrap();
    let error = AddressList::parse("l.txt", text.as_bytes(), &options.max_skipped(29)).unwrap_err();
    assert!(matches!(
        error,
        ListError::Bad { total: 30, refusal: Refusal::TooManySkipped { limit: 29 }, .. }
    ));
    assert!(error.to_string().starts_with(
        "l.txt: 30 bad lines, more than the 29 that may be skipped: check that this is the list, \
         or raise `max_skipped` (in a policy file `list-limits.max-skipped`, of a feed `max-skipped`)\n  \
         l.txt:1:1: `x`"
    ));
}

#[test]
fn lenient_does_not_take_a_web_page_for_an_empty_list() {
    let page = b"<!DOCTYPE html>\n<html><body>503</body></html>\n";
    let error = AddressList::parse("feed", page, &lenient()).unwrap_err();
    assert!(error.to_string().starts_with(
        "feed: 2 bad lines and not one entry: check that this is the list, not an error page\n"
    ));
    // An empty list is one; so are comments alone.
    assert!(AddressList::parse("feed", b"", &lenient()).unwrap().entries().is_empty());
    assert!(AddressList::parse("feed", b"# none today\n", &strict()).unwrap().entries().is_empty());
}

#[test]
fn limits_are_exact() {
    let text = b"10.0.0.1\n10.0.0.2\n10.0.0.3-10.0.0.4";
    let taken = |options| AddressList::parse("f", text, &options);
    assert_eq!(taken(strict().max_entries(4)).unwrap().entries().len(), 4);
    let error = taken(strict().max_entries(3)).unwrap_err();
    assert!(matches!(error, ListError::TooManyEntries { line: 3, limit: 3, .. }));
    assert_eq!(
        error.to_string(),
        "f:3: more than 3 entries: raise `max_entries` (in a policy file \
         `list-limits.max-entries`, of a feed `entries.max`), or split the list"
    );
    assert!(taken(lenient().max_entries(0)).is_err());

    let bytes = text.len() as u64;
    assert!(taken(strict().max_bytes(bytes)).is_ok());
    let error = taken(strict().max_bytes(bytes - 1)).unwrap_err();
    assert!(matches!(error, ListError::TooLarge { .. }));
    assert_eq!(
        error.to_string(),
        format!(
            "f is larger than {} bytes: raise `max_bytes` (in a policy file \
             `list-limits.max-bytes`), or check that it is a list",
            bytes - 1
        )
    );
}

#[test]
fn what_is_no_text_is_named() {
    for (bytes, message) in [
        (
            b"\x1f\x8b\x08\0".as_slice(),
            "f is a gzip file, not a list in UTF-8 text: convert it first, e.g. with `gunzip`",
        ),
        (
            b"\xff\xfe1\0.\0",
            "f is UTF-16 text, not a list in UTF-8 text: convert it first, e.g. with `iconv -f UTF-16 -t UTF-8`",
        ),
        (
            b"\xfe\xff\x001\0.",
            "f is UTF-16 text, not a list in UTF-8 text: convert it first, e.g. with `iconv -f UTF-16 -t UTF-8`",
        ),
        (
            b"\xff\xfe\0\x001\0\0\0",
            "f is UTF-32 text, not a list in UTF-8 text: convert it first, e.g. with `iconv -f UTF-32 -t UTF-8`",
        ),
        (
            b"\0\0\xfe\xff\0\0\x001",
            "f is UTF-32 text, not a list in UTF-8 text: convert it first, e.g. with `iconv -f UTF-32 -t UTF-8`",
        ),
        (
            b"BZh91AY&SY",
            "f is a bzip2 file, not a list in UTF-8 text: convert it first, e.g. with `bunzip2`",
        ),
        (
            b"PK\x03\x04...",
            "f is a zip file, not a list in UTF-8 text: convert it first, e.g. with `unzip`",
        ),
        (
            b"\xfd7zXZ\0",
            "f is an xz file, not a list in UTF-8 text: convert it first, e.g. with `unxz`",
        ),
        (
            b"\x28\xb5\x2f\xfd",
            "f is a Zstandard file, not a list in UTF-8 text: convert it first, e.g. with `unzstd`",
        ),
    ] {
        for options in [strict(), lenient()] {
            let error = AddressList::parse("f", bytes, &options).unwrap_err();
            assert_eq!(error.to_string(), message);
        }
    }
}

#[test]
fn prefixes_without_a_file() {
    let cidrs: Vec<Cidr> = ["10.0.0.0/8", "::/0"].map(|text| text.parse().unwrap()).into();
    let list = AddressList::from_cidrs("inline", cidrs.clone());
    assert_eq!(&**list.name(), "inline");
    assert_eq!(list.report().entries, 2);
    let entries = list.into_entries();
    assert_eq!(entries.iter().map(|entry| entry.cidr).collect::<Vec<_>>(), cidrs);
    assert_eq!(entries.iter().map(|entry| entry.line).collect::<Vec<_>>(), [1, 2]);
}

#[test]
fn a_length_below_zero_is_a_length() {
    for (text, expected) in [
        ("1.2.3.4/-1", "f:1:8: `/-1`: expected a prefix length from /0 to /32, or a netmask"),
        ("::1/-1 # x", "f:1:4: `/-1`: expected a prefix length from /0 to /128"),
    ] {
        let error = AddressList::parse("f", text.as_bytes(), &strict()).unwrap_err().to_string();
        assert!(error.contains(expected), "{error}");
    }
}
