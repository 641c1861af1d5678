//! STIX 2.1: which indicators become entries, which are counted, and what is refused in which words.

use std::net::{Ipv4Addr, Ipv6Addr};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use ironclad_core::{Cidr, Family};
use ironclad_policy::list::{AddressList, BadLines, ListError, ListFormat, ListOptions};
use proptest::prelude::*;

/// 2026-01-31T12:00:00Z.
fn at() -> SystemTime {
    UNIX_EPOCH + Duration::from_secs(1_769_860_800)
}

fn options() -> ListOptions {
    ListOptions::new().format(ListFormat::Stix).at(at())
}

#[track_caller]
fn read(text: &str) -> AddressList {
    AddressList::parse("s.json", text.as_bytes(), &options()).unwrap()
}

fn entries(list: &AddressList) -> Vec<String> {
    list.entries().iter().map(|entry| format!("{} {}", entry.line, entry.cidr)).collect()
}

#[track_caller]
fn errors(text: &str) -> Vec<String> {
    match AddressList::parse("f", text.as_bytes(), &options()) {
        Err(ListError::Bad { errors, .. }) => {
            errors.iter().map(|error| error.to_string().replacen("f:", "", 1)).collect()
        }
        other => panic!("{other:?}"),
    }
}

fn indicator(pattern: &str) -> String {
    format!(r#"{{"type":"indicator","pattern_type":"stix","pattern":"{pattern}"}}"#)
}

const BUNDLE: &str = r#"{
  "type": "bundle", "id": "bundle--5d0092c5-5f74-4287-9642-33f4c354e56d",
  "objects": [
    {"type": "identity", "spec_version": "2.1", "name": "Example \"CERT\"", "x": [[{}]]},
    {"type": "indicator", "spec_version": "2.1", "pattern_type": "stix",
     "pattern": "[ipv4-addr:value = '198.51.100.1/32']",
     "valid_from": "2026-01-31T12:00:00Z", "valid_until": "2026-01-31T12:00:01.5Z"},
    {"type": "indicator", "pattern": "[ipv4-addr:value = '192.0.2.1']",
     "valid_from": "2020-01-01T00:00:00Z", "valid_until": "2026-01-31T12:00:00Z"},
    {"type": "indicator", "pattern": "[ipv4-addr:value = '192.0.2.2']",
     "valid_from": "2026-01-31T12:00:01Z"},
    {"type": "indicator", "pattern": "[ipv4-addr:value = '192.0.2.3']", "revoked": true},
    {"type": "indicator", "pattern_type": "yara", "pattern": "rule x { condition: true }"},
    {"type": "indicator", "pattern": "[domain-name:value = 'example.org']", "revoked": false},
    {"type": "indicator",
     "pattern": "[ipv6-addr:value ISSUBSET '2001:db8::/32' OR domain-name:value = 'example.org']"}
  ]
}
"#;

#[test]
fn a_bundle_is_read_as_of_a_time() {
    let list = read(BUNDLE);
    assert_eq!(entries(&list), ["6 198.51.100.1/32", "16 2001:db8::/32"]);
    let report = list.report();
    assert_eq!((report.directives, report.inactive, report.other_patterns), (1, 3, 3));
    assert_eq!((report.lines, report.entries, report.skipped), (18, 2, 0));
    assert_eq!(
        report.to_string(),
        "s.json: 2 entries from 18 lines, 3 not in force, 3 with a pattern of other things than addresses"
    );
    // Later, and much earlier.
    for (at, expected) in [(at() + Duration::from_secs(60), 2), (UNIX_EPOCH, 1)] {
        let list = AddressList::parse("s", BUNDLE.as_bytes(), &options().at(at)).unwrap();
        assert_eq!(list.entries().len(), expected);
    }
    // What has no end is in force now, too.
    let now = ListOptions::new().format(ListFormat::Stix);
    assert!(!AddressList::parse("s", BUNDLE.as_bytes(), &now).unwrap().entries().is_empty());
}

#[test]
fn what_a_document_may_be() {
    let one = indicator("[ipv4-addr:value = '10.0.0.1']");
    for text in [
        one.clone(),
        format!("\u{feff} {one} \n"),
        format!(r#"{{"objects":[{one}],"more":false}}"#),
        format!(r#"{{"type":"bundle","objects":[{one}]}}"#),
    ] {
        assert_eq!(entries(&read(&text)), ["1 10.0.0.1/32"], "{text}");
    }
    assert!(entries(&read(r#"{"type":"bundle","id":"x"}"#)).is_empty());
    assert!(entries(&read(r#"{"objects":[]}"#)).is_empty());

    let document = "a STIX 2.1 bundle, an object with `objects`, or an indicator";
    for (text, place, cause) in [
        (r#"{"error":"x"}"#, "1:1: `{\"error\":\"x\"}`", ""),
        (r#"{"type":"identity"}"#, "1:1: `{\"type\":\"identity\"}`", ""),
        ("", "1:1: nothing", ", as JSON"),
        ("\n <html>\n", "2:2: `<html>`", ", as JSON"),
        ("[\"bundle\", []]", "1:1: `[\"bundle\", []]`", ", as JSON"),
        ("{\n \"objects\": [\n {\"a\": 1},", "3:10: `,`", ", as JSON (EOF while parsing a value)"),
        ("{\"objects\": [1 2]}", "1:16: `2]}`", ", as JSON (expected `,` or `]`)"),
    ] {
        assert_eq!(errors(text), [format!("{place}: expected {document}{cause}")], "{text}");
        // Cut off is refused even where bad lines are skipped.
        let lenient = options().bad_lines(BadLines::Lenient);
        assert!(AddressList::parse("f", text.as_bytes(), &lenient).is_err());
    }
}

#[test]
fn patterns_that_name_addresses() {
    for (pattern, expected) in [
        ("[ipv4-addr:value = '198.51.100.1/32']", &["198.51.100.1/32"][..]),
        ("[ipv4-addr:value='198.51.100.1']", &["198.51.100.1/32"]),
        ("  [ ipv4-addr:value  ISSUBSET\\t'198.51.100.0/24' ] ", &["198.51.100.0/24"]),
        ("[ipv6-addr:value = '2001:DB8::1']", &["2001:db8::1/128"]),
        (
            "[ipv4-addr:value = '10.0.0.1' OR ipv6-addr:value = '::1' OR ipv4-addr:value = '10.0.0.2']",
            &["10.0.0.1/32", "::1/128", "10.0.0.2/32"],
        ),
        ("[ipv4-addr:value IN ('10.0.0.1', '10.0.0.2')]", &["10.0.0.1/32", "10.0.0.2/32"]),
        (
            "[((ipv4-addr:value = '10.0.0.1') OR (ipv4-addr:value = '10.0.0.2'))]",
            &["10.0.0.1/32", "10.0.0.2/32"],
        ),
        (
            "[ipv4-addr:value = '10.0.0.1'] OR [ipv4-addr:value = '10.0.0.2']",
            &["10.0.0.1/32", "10.0.0.2/32"],
        ),
        // As serialisers write it that escape the quotation mark.
        ("[ipv4-addr:value = \\u002710.0.0.1\\u0027]", &["10.0.0.1/32"]),
    ] {
        let list = read(&indicator(pattern));
        let found: Vec<_> = list.entries().iter().map(|entry| entry.cidr.to_string()).collect();
        assert_eq!(found, expected, "{pattern}");
        assert_eq!(list.report().other_patterns, 0, "{pattern}");
    }
    let list = read(&indicator("[ipv4-addr:value = '10.1.2.3/8']"));
    assert_eq!(
        list.report().first_normalised[0].to_string(),
        "line 1: `10.1.2.3/8` has host bits, read as 10.0.0.0/8"
    );
}

#[test]
fn patterns_about_something_else_are_counted() {
    for pattern in [
        "[domain-name:value = 'example.org']",
        "[file:hashes.'SHA-256' = 'aa' OR file:size > 5]",
        "[x:y[*].z LIKE 'a%' OR x:y[0] = true]",
        "[a:b = t'2026-01-01T00:00:00Z']",
        "[a:b IN (1, 2)]",
        "[ipv4-addr:value != '10.0.0.1']",
        "[ipv4-addr:value LIKE '10.%']",
        "[ipv4-addr:value ISSUPERSET '10.0.0.0/8']",
        "[NOT ipv4-addr:value = '10.0.0.1']",
        "[ipv4-addr:value NOT = '10.0.0.1']",
        "[network-traffic:dst_ref.value = '10.0.0.1' AND network-traffic:dst_port = 443]",
        "[ipv4-addr:value = '10.0.0.1'] AND [ipv4-addr:value = '10.0.0.2']",
        "[ipv4-addr:value = '10.0.0.1'] FOLLOWEDBY [ipv4-addr:value = '10.0.0.2']",
        "([ipv4-addr:value = '10.0.0.1'] AND [a:b = 1]) WITHIN 5 SECONDS",
        "[ipv4-addr:value = '10.0.0.1'] REPEATS 5 TIMES",
        "[url:value = 'http://x/?a=1 OR [\\\\'b']",
    ] {
        let list = read(&indicator(pattern));
        assert_eq!(entries(&list), [""; 0], "{pattern}");
        assert_eq!(list.report().other_patterns, 1, "{pattern}");
    }
}

#[test]
fn bad_indicators() {
    // The column of the first character of the pattern.
    let first = indicator("").find("\"pattern\":").unwrap() + 12;
    for (pattern, offset, text, expected) in [
        ("", 0, "", "`[`"),
        ("ipv4-addr:value = '10.0.0.1'", 0, "ipv4-addr:value", "`[`"),
        ("[]", 1, "]", "a path such as ipv4-addr:value"),
        ("['x' = 'y']", 2, "x", "a path such as ipv4-addr:value"),
        ("[ipv4-addr:value]", 16, "]", "an operator such as `=`"),
        ("[a:b IS 'x']", 5, "IS", "an operator such as `=`"),
        ("[ipv4-addr:value = 5]", 19, "5", "a value, text between ' and '"),
        ("[ipv4-addr:value IN '10.0.0.1']", 21, "10.0.0.1", "`(`"),
        ("[ipv4-addr:value IN ('10.0.0.1' '10.0.0.2')]", 33, "10.0.0.2", "`,` or `)`"),
        ("[ipv4-addr:value = '10.0.0.1", 19, "'10.0.0.1", "a quotation mark ' at the end, too"),
        ("[ipv4-addr:value = '10.0.0.1'", 29, "", "`]`"),
        ("[(a:b = 'x']", 11, "]", "`OR`, or `]` after all parentheses"),
        ("[a:b = 'x')]", 10, ")", "`OR`, or `]` after all parentheses"),
        ("[a:b = 'x'] x", 12, "x", "`OR` or the end of the pattern"),
        ("[a:b[ = 'x'", 4, "[ = 'x'", "`]`"),
        ("[ipv4-addr:value = '::1']", 20, "::1", "an IPv4 address, as the path says"),
        ("[ipv6-addr:value = '10.0.0.1']", 20, "10.0.0.1", "an IPv6 address, as the path says"),
        (
            "[ipv4-addr:value = '10.0.0.0/33']",
            28,
            "/33",
            "a prefix length from /0 to /32, or a netmask",
        ),
    ] {
        let shown = if text.is_empty() { "nothing".to_owned() } else { format!("`{text}`") };
        let column = first + offset;
        assert_eq!(
            errors(&indicator(pattern)),
            [format!("1:{column}: {shown}: expected {expected}")],
            "{pattern}"
        );
    }
    // Unescaped it has no place: the whole pattern is shown.
    assert_eq!(
        errors(&indicator("[ipv4-addr:value = \\u0027x\\u0027]")),
        [
            "1:53: `\"[ipv4-addr:value = \\\\u0027x\\\\u0027]\"`: expected an IPv4 or IPv6 address, a prefix or a range"
        ]
    );
    let time = "expected a time in UTC from 1970 on, such as 2026-01-31T12:00:00Z";
    let text = "{\"objects\":[\r\n {\"type\":\"indicator\",\"pattern\":\"[a:b=1]\",\r\n  \"valid_until\":\"soon\"},\r\n\
                 {\"type\":\"indicator\"},\n 7,\r{\"type\":8}\n]}";
    assert_eq!(
        errors(text),
        [
            format!("3:17: `\"soon\"`: {time}"),
            "4:1: `{\"type\":\"indicator\"}`: expected an indicator with a member `pattern`".into(),
            "5:2: `7`: expected a STIX object".into(),
            "6:9: `8}`: expected a STIX object (invalid type: integer `8`, expected a string)"
                .into(),
        ]
    );
    // Other indicators are read where an option says so.
    let text = text
        .replace("7,", "{\"type\":\"indicator\",\"pattern\":\"[ipv4-addr:value='10.0.0.1']\"},");
    let list =
        AddressList::parse("f", text.as_bytes(), &options().bad_lines(BadLines::Lenient)).unwrap();
    assert_eq!((entries(&list), list.report().skipped), (vec!["5 10.0.0.1/32".to_owned()], 3));
}

#[test]
fn limits_hold() {
    let one = indicator("[ipv4-addr:value IN ('10.0.0.1','10.0.0.2')]");
    let text = format!("{{\"objects\":[{one},\n{one}]}}");
    let taken = |options: ListOptions| AddressList::parse("f", text.as_bytes(), &options);
    assert_eq!(taken(options().max_entries(4)).unwrap().entries().len(), 4);
    let error = taken(options().max_entries(3)).unwrap_err();
    assert!(matches!(error, ListError::TooManyEntries { line: 2, limit: 3, .. }), "{error}");
    assert!(taken(options().max_bytes(text.len() as u64 - 1)).is_err());
    // As many bad objects as fit, all on one line.
    errors(&format!("{{\"objects\":[{}7]}}", "7,".repeat(500_000)));
    // Deep nesting, in what is looked at and in what is not.
    let deep = "[".repeat(100_000);
    errors(&format!("{{\"objects\":[{deep}"));
    errors(&format!("{{\"objects\":[{deep}{}]}}", "]".repeat(100_000)));
    errors(&indicator(&"[".repeat(100_000)));
    errors(&indicator(&format!("[{}", "(".repeat(100_000))));
}

fn prefixes() -> impl Strategy<Value = Vec<Cidr>> {
    let v4 = (any::<u32>(), 0u8..=32).prop_map(|(n, length)| (Ipv4Addr::from(n).into(), length));
    let v6 = (any::<u64>(), 0u8..=128)
        .prop_map(|(n, length)| (Ipv6Addr::from(u128::from(n) << 64).into(), length));
    let one = prop_oneof![v4, v6].prop_map(|(addr, length)| Cidr::new(addr, length).unwrap());
    prop::collection::vec(one, 1..5)
}

proptest! {
    // Whatever prefixes a pattern joins, and however it is laid out, they are read, in their order.
    #[test]
    fn what_was_rendered_is_read(
        patterns in prop::collection::vec((prefixes(), 0..4u8, any::<bool>()), 0..8),
        pretty in any::<bool>(),
    ) {
        let mut expected = Vec::new();
        let mut objects = Vec::new();
        for (cidrs, form, escaped) in patterns {
            let comparison = |cidr: &Cidr| {
                let family = if cidr.family() == Family::V4 { "ipv4" } else { "ipv6" };
                match form {
                    0 => format!("{family}-addr:value = '{cidr}'"),
                    1 => format!("({family}-addr:value ISSUBSET '{cidr}')"),
                    2 => format!("{family}-addr:value IN ('{cidr}','{cidr}')"),
                    _ => format!("{family}-addr:value='{cidr}'"),
                }
            };
            let comparisons: Vec<_> = cidrs.iter().map(comparison).collect();
            let pattern = match form {
                3 => format!("[{}]", comparisons.join("] OR [")),
                _ => format!("[{}]", comparisons.join(" OR ")),
            };
            let times = if form == 2 { 2 } else { 1 };
            expected.extend(cidrs.iter().flat_map(|cidr| vec![*cidr; times]));
            let object = serde_json::json!({"type": "indicator", "pattern": pattern}).to_string();
            objects.push(if escaped { object.replace('\'', "\\u0027") } else { object });
        }
        let end = if pretty { ",\r\n  " } else { "," };
        let text = format!("{{\"objects\":[{}]}}", objects.join(end));
        let list = AddressList::parse("s", text.as_bytes(), &options()).unwrap();
        prop_assert!(list.entries().iter().map(|entry| entry.cidr).eq(expected));
        prop_assert_eq!(list.report().other_patterns, 0);
    }

    // Any pattern is read or refused, at a place in it.
    #[test]
    fn any_pattern_is_read_or_refused(pattern in "[\\]\\[()=!<>',.:*a-zOR0-9/ \\\\-]{0,60}") {
        let text = serde_json::json!({"type": "indicator", "pattern": pattern}).to_string();
        match AddressList::parse("s", text.as_bytes(), &options()) {
            Ok(list) => prop_assert!(!list.entries().is_empty() || list.report().other_patterns == 1),
            Err(ListError::Bad { errors, total, .. }) => {
                prop_assert_eq!((errors.len(), total, errors[0].line), (1, 1, 1));
                prop_assert!(errors[0].column as usize >= text.find(":\"").unwrap());
            }
            Err(other) => prop_assert!(false, "{}", other),
        }
    }
}
