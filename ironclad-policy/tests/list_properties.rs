//! Lists rendered from known prefixes read back as those; any other bytes keep the invariants.

mod list_invariants;

use std::collections::BTreeSet;
use std::fs;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::path::Path;

use ironclad_core::{Cidr, Family};
use ironclad_policy::list::{AddressList, BadLines, ListError, ListOptions};
use proptest::prelude::*;

/// An address with a prefix length of its family. IPv4-mapped ones have no place in a list.
fn network() -> impl Strategy<Value = (IpAddr, u8)> {
    let v6 = prop_oneof![
        any::<u128>(),
        any::<u64>().prop_map(u128::from),
        any::<u8>().prop_map(u128::from)
    ];
    prop_oneof![
        (any::<u32>(), 0u8..=32).prop_map(|(n, length)| (IpAddr::V4(n.into()), length)),
        (v6, 0u8..=128)
            .prop_map(|(n, length)| (Ipv6Addr::from(n), length))
            .prop_filter("mapped", |(addr, _)| addr.to_ipv4_mapped().is_none())
            .prop_map(|(addr, length)| (IpAddr::V6(addr), length)),
    ]
}

fn last_of(cidr: Cidr) -> IpAddr {
    match cidr.addr() {
        IpAddr::V4(a) => IpAddr::V4(
            (u32::from(a) | u32::MAX.checked_shr(cidr.length().into()).unwrap_or(0)).into(),
        ),
        IpAddr::V6(a) => IpAddr::V6(
            (u128::from(a) | u128::MAX.checked_shr(cidr.length().into()).unwrap_or(0)).into(),
        ),
    }
}

/// One line: its text without an end, the prefix that it stands for, if any, and whether reading
/// has to clear host bits.
#[derive(Clone, Debug)]
struct Rendered {
    text: String,
    cidr: Option<Cidr>,
    normalised: bool,
}

fn entry_line() -> impl Strategy<Value = Rendered> {
    let blank = || prop::sample::select(vec!["", " ", "\t", "  \t "]);
    let comment = prop_oneof![Just(String::new()), "[ \t]{0,2}[#;][ !#-~üé–]{0,12}",];
    (network(), 0..9u8, blank(), blank(), comment).prop_map(
        |((addr, length), form, before, between, comment)| {
            let cidr = Cidr::new(addr, length).unwrap();
            let host = Cidr::host(addr);
            let mask = match Cidr::new([255; 4].into(), length) {
                Ok(mask) if cidr.family() == Family::V4 && length > 0 => mask.addr().to_string(),
                _ => length.to_string(),
            };
            let (text, cidr, written) = match form {
                0 => (format!("{before}{addr}{between}{comment}"), host, addr),
                1 => (format!("{before}{addr}/{length}{between}{comment}"), cidr, addr),
                2 => (format!("{before}{cidr}{comment}"), cidr, cidr.addr()),
                3 => (format!("{before}{addr}/{mask}{comment}"), cidr, addr),
                4 => {
                    let (first, last) = (cidr.addr(), last_of(cidr));
                    (format!("{before}{first}{between}-{between}{last}{comment}"), cidr, first)
                }
                5 => (format!("{before}{}{comment}", addr.to_string().to_uppercase()), host, addr),
                6 => (format!("{before}add set {cidr} timeout 0 {comment}"), cidr, cidr.addr()),
                7 => {
                    (format!("-A set {addr}/{length}{between} comment \"# {comment}\""), cidr, addr)
                }
                _ => {
                    let json =
                        format!("{before}{{\"rir\":\"x\",{between}\"cidr\":\"{addr}/{length}\"}}");
                    (json, cidr, addr)
                }
            };
            Rendered { text, cidr: Some(cidr), normalised: written != cidr.addr() }
        },
    )
}

fn other_line() -> impl Strategy<Value = Rendered> {
    prop_oneof![
        Just(String::new()),
        "[ \t]{1,3}",
        "[ \t]{0,2}[#;][ -~ü]{0,20}",
        Just("create set hash:net family inet".to_owned()),
        Just("COMMIT".to_owned()),
        Just("{\"type\":\"metadata\",\"records\":1}".to_owned()),
    ]
    .prop_map(|text| Rendered { text, cidr: None, normalised: false })
}

const BAD: [&str; 9] = [
    "10.0.0.300",
    "10.0.0.0/33",
    "10.0.0.9-10.0.0.1",
    "example.org",
    "add set 10.0.0.0/8 nomatch",
    "add other",
    "{\"cidr\":7}",
    "10.0.0.1 10.0.0.2",
    "::ffff:10.0.0.1",
];

fn rendered() -> impl Strategy<Value = Vec<Rendered>> {
    prop::collection::vec(prop_oneof![4 => entry_line(), 1 => other_line()], 0..40)
}

fn line_end() -> impl Strategy<Value = &'static str> {
    prop::sample::select(vec!["\n", "\r\n", "\r"])
}

fn text_of(lines: &[Rendered], end: &str, mark: bool, last_end: bool) -> String {
    let mut text = String::from(if mark { "\u{feff}" } else { "" });
    for line in lines {
        text += &line.text;
        text += end;
    }
    if !last_end {
        text.truncate(text.trim_end_matches(end).len());
    }
    text
}

fn expected(lines: &[Rendered]) -> Vec<(u32, Cidr)> {
    lines.iter().zip(1..).filter_map(|(line, number)| Some((number, line.cidr?))).collect()
}

fn found(list: &AddressList) -> Vec<(u32, Cidr)> {
    list.entries().iter().map(|entry| (entry.line, entry.cidr)).collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    #[test]
    fn what_was_rendered_is_read(
        lines in rendered(), end in line_end(), mark in any::<bool>(), last_end in any::<bool>(),
    ) {
        let text = text_of(&lines, end, mark, last_end);
        let list = AddressList::parse("list", text.as_bytes(), &ListOptions::new()).unwrap();
        prop_assert_eq!(found(&list), expected(&lines));
        let normalised = lines.iter().filter(|line| line.normalised).count();
        prop_assert_eq!(list.report().normalised, normalised as u64);
        for message in &list.report().first_normalised {
            let line = &lines[message.line as usize - 1];
            prop_assert_eq!(line.cidr, Some(message.cidr));
            prop_assert!(line.text.contains(&message.text), "{}", message);
        }
        list_invariants::check(text.as_bytes());
    }

    // Bad lines put between good ones: named by their numbers, and the good ones read as without them.
    #[test]
    fn bad_lines_do_not_touch_the_others(
        lines in rendered(), end in line_end(),
        bad in prop::collection::vec((prop::sample::select(&BAD[..]), any::<prop::sample::Index>()), 1..8),
    ) {
        let mut lines = lines;
        for (text, place) in bad {
            let text = text.to_owned();
            let place = place.index(lines.len() + 1);
            lines.insert(place, Rendered { text, cidr: None, normalised: true });
        }
        let is_bad = |line: &Rendered| line.cidr.is_none() && line.normalised;
        let numbers: Vec<u32> =
            lines.iter().zip(1..).filter(|(line, _)| is_bad(line)).map(|(_, number)| number).collect();
        let text = text_of(&lines, end, false, true);

        let options = ListOptions::new();
        let Err(ListError::Bad { errors, total, .. }) = AddressList::parse("list", text.as_bytes(), &options) else {
            return Err(TestCaseError::fail("taken"));
        };
        prop_assert_eq!(total as usize, numbers.len());
        prop_assert_eq!(errors.iter().map(|error| error.line).collect::<Vec<_>>(), numbers);

        match AddressList::parse("list", text.as_bytes(), &options.bad_lines(BadLines::Lenient)) {
            Ok(list) => prop_assert_eq!(found(&list), expected(&lines)),
            Err(_) => prop_assert!(expected(&lines).is_empty()),
        }
        list_invariants::check(text.as_bytes());
    }

    // Every address of a range once and no other, by enumeration.
    #[test]
    fn ranges_hold_their_addresses(first in any::<u32>(), more in 0u32..1500, six in any::<bool>()) {
        let last = first.saturating_add(more);
        let addr = |n: u32| match six {
            true => IpAddr::V6(((0x2001_0db8_u128 << 96) | u128::from(n)).into()),
            false => IpAddr::V4(Ipv4Addr::from(n)),
        };
        let text = format!("{}-{}", addr(first), addr(last));
        let list = AddressList::parse("list", text.as_bytes(), &ListOptions::new()).unwrap();
        let mut seen = BTreeSet::new();
        for entry in list.entries() {
            let size = 1u32 << (entry.cidr.family().bits() - entry.cidr.length());
            let start = match entry.cidr.addr() {
                IpAddr::V4(a) => u32::from(a),
                IpAddr::V6(a) => u128::from(a) as u32,
            };
            for n in start..=start + (size - 1) {
                prop_assert!(entry.cidr.contains(addr(n)));
                prop_assert!(seen.insert(n), "{} twice", addr(n));
            }
        }
        prop_assert_eq!(seen, (first..=last).collect::<BTreeSet<u32>>());
    }

    #[test]
    fn any_bytes_keep_the_invariants(bytes in prop::collection::vec(any::<u8>(), 0..400)) {
        list_invariants::check(&bytes);
    }

    #[test]
    fn any_words_of_lists_keep_the_invariants(
        words in prop::collection::vec(prop::sample::select(&WORDS[..]), 0..60),
    ) {
        list_invariants::check(&words.concat());
    }
}

/// What lists are made of, to be put together in any way.
const WORDS: [&[u8]; 58] = [
    b"\n",
    b"\n",
    b"\n",
    b"\r\n",
    b"\r",
    b" ",
    b" ",
    b"\t",
    b"#",
    b";",
    b"-",
    b"/",
    b"/",
    b".",
    b":",
    b",",
    b"10.0.0.1",
    b"10.0.0.0/8",
    b"192.0.2.9",
    b"255.255.0.0",
    b"0",
    b"08",
    b"24",
    b"129",
    b"2001:db8::",
    b"::ffff:10.0.0.1",
    b"::",
    b"%eth0",
    b"add ",
    b"add s ",
    b"create s hash:net",
    b"create t hash:ip,port",
    b"swap s t",
    b"flush s",
    b"destroy",
    b" nomatch",
    b" timeout 9",
    b" comment ",
    b"\"",
    b"{",
    b"}",
    b"{\"cidr\":\"10.0.0.0/9\"}",
    b"{\"type\":\"metadata\"}",
    b"\"10.0.0.1\",",
    b"ip,port",
    b"10.0.0.1:80",
    b"{\"objects\":[",
    b"]}",
    b"{\"type\":\"indicator\"",
    b",\"pattern\":\"",
    b"[ipv4-addr:value = '",
    b"10.0.0.1']",
    b"\"}",
    b" OR ",
    b",\"valid_until\":\"2026-01-01T00:00:00Z\"",
    b"\0",
    b"\xff",
    "\u{feff}é".as_bytes(),
];

#[test]
fn the_fuzz_corpus_keeps_the_invariants() {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("../fuzz/corpus/list");
    let Ok(files) = fs::read_dir(&dir) else {
        println!("SKIP the_fuzz_corpus_keeps_the_invariants: no {}", dir.display());
        return;
    };
    let mut count = 0;
    for file in files {
        let path = file.unwrap().path();
        println!("{}", path.display());
        list_invariants::check(&fs::read(path).unwrap());
        count += 1;
    }
    assert!(count > 20, "{count} files in the corpus");
}
