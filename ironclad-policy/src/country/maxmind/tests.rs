use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv6Addr};

use ironclad_core::Family;
use proptest::collection::vec;
use proptest::prelude::*;

use super::*;

/// What is said of a network.
#[derive(Clone, Debug)]
enum Data {
    Map(Vec<(&'static str, Data)>),
    Text(String),
    Short(u16),
    Number(u32),
    Long(u64),
    List(Vec<Data>),
}

impl Data {
    /// By the specification of the format: a type of three bits and a size, or a byte more for
    /// larger types.
    fn write(&self, out: &mut Vec<u8>) {
        let head = |kind: u8, size: usize| {
            assert!(size < 29, "no test needs more");
            if kind < 8 { vec![kind << 5 | size as u8] } else { vec![size as u8, kind - 7] }
        };
        match self {
            Self::Map(entries) => {
                out.extend(head(7, entries.len()));
                for (key, value) in entries {
                    Self::Text((*key).to_owned()).write(out);
                    value.write(out);
                }
            }
            Self::Text(text) => {
                out.extend(head(2, text.len()));
                out.extend(text.as_bytes());
            }
            Self::Short(number) => {
                out.extend(head(5, 2));
                out.extend(number.to_be_bytes());
            }
            Self::Long(number) => {
                out.extend(head(9, 8));
                out.extend(number.to_be_bytes());
            }
            Self::Number(number) => {
                out.extend(head(6, 4));
                out.extend(number.to_be_bytes());
            }
            Self::List(items) => {
                out.extend(head(11, items.len()));
                items.iter().for_each(|item| item.write(out));
            }
        }
    }
}

fn text(text: &str) -> Data {
    Data::Text(text.to_owned())
}

/// As GeoLite2-Country has it: the country where a network is, and the one where it is registered.
fn record(code: &str) -> Data {
    let iso = |code: &str| {
        let names = Data::Map(vec![("en", text("somewhere"))]);
        Data::Map(vec![("geoname_id", Data::Number(7)), ("iso_code", text(code)), ("names", names)])
    };
    Data::Map(vec![
        ("continent", Data::Map(vec![("code", text("EU"))])),
        ("country", iso(code)),
        ("registered_country", iso("ZZ")),
    ])
}

#[derive(Clone, Copy, PartialEq)]
enum Slot {
    Empty,
    Node(usize),
    Data(usize),
}

/// A database being written.
struct Writer {
    ip_version: u16,
    record_size: u16,
    nodes: Vec<[Slot; 2]>,
    data: Vec<u8>,
}

impl Writer {
    fn new(ip_version: u16, record_size: u16) -> Self {
        Self { ip_version, record_size, nodes: vec![[Slot::Empty; 2]], data: Vec::new() }
    }

    fn add(&mut self, data: &Data) -> usize {
        let offset = self.data.len();
        data.write(&mut self.data);
        offset
    }

    /// Bits from the root of the tree.
    fn bits(&self, cidr: Cidr) -> (u128, u32) {
        match (cidr.family(), self.ip_version) {
            (Family::V4, 6) => (cidr.bits() >> 96, u32::from(cidr.length()) + 96),
            _ => (cidr.bits(), u32::from(cidr.length())),
        }
    }

    /// Longer prefixes come after the shorter ones that cover them.
    fn insert(&mut self, cidr: Cidr, slot: Slot) {
        let (bits, length) = self.bits(cidr);
        self.put(bits, length, slot);
    }

    fn put(&mut self, bits: u128, length: u32, slot: Slot) {
        let mut node = 0;
        for depth in 0..length {
            let side = (bits >> (127 - depth) & 1) as usize;
            if depth + 1 == length {
                self.nodes[node][side] = slot;
                return;
            }
            node = match self.nodes[node][side] {
                Slot::Node(next) => next,
                other => {
                    self.nodes.push([other; 2]);
                    let next = self.nodes.len() - 1;
                    self.nodes[node][side] = Slot::Node(next);
                    next
                }
            };
        }
        panic!("no prefix of no length in a test");
    }

    fn node_of(&self, bits: u128, length: u32) -> Slot {
        let mut at = Slot::Node(0);
        for depth in 0..length {
            let Slot::Node(node) = at else { return at };
            at = self.nodes[node][(bits >> (127 - depth) & 1) as usize];
        }
        at
    }

    fn bytes(&self) -> Vec<u8> {
        let count = self.nodes.len();
        let number = |slot| match slot {
            Slot::Empty => count,
            Slot::Node(node) => node,
            Slot::Data(offset) => count + 16 + offset,
        } as u32;
        let mut out = Vec::new();
        for &[left, right] in &self.nodes {
            let (left, right) = (number(left).to_be_bytes(), number(right).to_be_bytes());
            match self.record_size {
                24 => out.extend([&left[1..], &right[1..]].concat()),
                28 => {
                    out.extend(&left[1..]);
                    out.push(left[0] << 4 | right[0]);
                    out.extend(&right[1..]);
                }
                _ => out.extend([left, right].concat()),
            }
        }
        out.extend([0; 16]);
        out.extend(&self.data);
        out.extend(b"\xab\xcd\xefMaxMind.com");
        Data::Map(vec![
            ("binary_format_major_version", Data::Short(2)),
            ("binary_format_minor_version", Data::Short(0)),
            ("build_epoch", Data::Long(1)),
            ("database_type", text("Test-Country")),
            ("description", Data::Map(vec![("en", text("for a test"))])),
            ("ip_version", Data::Short(self.ip_version)),
            ("languages", Data::List(vec![text("en")])),
            ("node_count", Data::Number(count as u32)),
            ("record_size", Data::Short(self.record_size)),
        ])
        .write(&mut out);
        out
    }
}

fn code(text: &str) -> CountryCode {
    text.parse().unwrap()
}

fn cidrs(found: &CountryLists, of: &str) -> Vec<String> {
    let lists = found.get(code(of)).unwrap_or_default().iter();
    lists.flat_map(|list| list.entries()).map(|entry| entry.cidr.to_string()).collect()
}

fn read_all(bytes: Vec<u8>, codes: &[&str]) -> Result<CountryLists, String> {
    read("test.mmdb", bytes, &codes.iter().map(|c| code(c)).collect(), &ListOptions::new())
}

#[test]
fn networks_of_both_versions_and_no_aliases() {
    let mut writer = Writer::new(6, 28);
    let de = Slot::Data(writer.add(&record("DE")));
    let no = Slot::Data(writer.add(&record("NO")));
    writer.insert("192.0.2.0/24".parse().unwrap(), de);
    writer.insert("192.0.2.128/25".parse().unwrap(), no);
    writer.insert("2001:db8::/32".parse().unwrap(), de);
    // As MaxMind has them: IPv4-mapped addresses, Teredo and 6to4 lead to the tree of IPv4.
    let v4 = writer.node_of(0, 96);
    assert!(matches!(v4, Slot::Node(_)));
    for (alias, length) in [("::ffff:0:0", 96), ("2001::", 32), ("2002::", 16)] {
        writer.put(alias.parse::<Ipv6Addr>().unwrap().into(), length, v4);
    }
    let found = read_all(writer.bytes(), &["de", "fr"]).unwrap();
    assert_eq!(cidrs(&found, "de"), ["192.0.2.0/25", "2001:db8::/32"]);
    assert!(found.get(code("no")).is_none() && found.get(code("fr")).is_none());
    assert_eq!(found.known().map(|code| code.to_string()).collect::<Vec<_>>(), ["de", "no"]);
    let name = found.get(code("de")).unwrap()[0].name().to_string();
    assert_eq!(name, "test.mmdb:de");
}

#[test]
fn other_publishers_write_the_code_alone() {
    for data in [
        Data::Map(vec![("country", text("DE"))]),
        Data::Map(vec![("country_code", text("DE")), ("country_name", text("Germany"))]),
        Data::Map(vec![("country", text("Germany")), ("country_code", text("DE"))]),
    ] {
        let mut writer = Writer::new(4, 24);
        let slot = Slot::Data(writer.add(&data));
        writer.insert("192.0.2.0/24".parse().unwrap(), slot);
        assert_eq!(cidrs(&read_all(writer.bytes(), &["de"]).unwrap(), "de"), ["192.0.2.0/24"]);
    }
}

#[test]
fn what_is_no_database_of_countries_is_refused() {
    let error = read_all(b"192.0.2.0/24\n".to_vec(), &["de"]).unwrap_err();
    assert!(error.starts_with("no database of MaxMind's format, or a damaged one: "), "{error}");
    let mut writer = Writer::new(4, 24);
    let slot = Slot::Data(writer.add(&Data::Map(vec![("autonomous_system", Data::Number(7))])));
    writer.insert("192.0.2.0/24".parse().unwrap(), slot);
    let error = read_all(writer.bytes(), &["de"]).unwrap_err();
    assert!(error.contains("in which country"), "{error}");

    let mut writer = Writer::new(4, 24);
    let slot = Slot::Data(writer.add(&record("DE")));
    for cidr in ["192.0.2.0/24", "198.51.100.0/24"] {
        writer.insert(cidr.parse().unwrap(), slot);
    }
    let few = ListOptions::new().max_entries(1);
    let error = read("t", writer.bytes(), &[code("de")].into(), &few).unwrap_err();
    assert!(error.starts_with("more than 1 networks in `de`: raise `max_entries`"), "{error}");

    let error = CountryLists::from_database("/none.mmdb".as_ref(), &[].into(), &few).unwrap_err();
    let error = ironclad_core::ErrorChain::new(&error).to_string();
    assert!(error.starts_with("cannot read /none.mmdb (check"), "{error}");
    assert!(error.ends_with(": No such file or directory (os error 2)"), "{error}");
}

fn address(v6: bool, bits: u128) -> IpAddr {
    match v6 {
        // Beside the addresses of IPv4 and their aliases.
        true => Ipv6Addr::from(bits >> 4 | 0x3 << 124).into(),
        false => std::net::Ipv4Addr::from((bits >> 96) as u32).into(),
    }
}

fn prefix() -> impl Strategy<Value = Cidr> {
    // Few distinct first bits, so that prefixes cover each other.
    let bits = (any::<u8>(), any::<u128>())
        .prop_map(|(few, rest)| u128::from(few % 4) << 126 | rest & (u128::MAX >> 2));
    (any::<bool>(), bits, 1u8..=32).prop_map(|(v6, bits, length)| {
        let length = if v6 { length * 4 } else { length };
        Cidr::new(address(v6, bits), length).unwrap()
    })
}

proptest! {
    /// An address is in the list of a country if and only if the longest prefix says so.
    #[test]
    fn lists_are_what_the_database_says(
        prefixes in vec((prefix(), 0usize..4), 1..40),
        probes in vec((any::<bool>(), any::<u128>()), 40),
        record_size in prop::sample::select(vec![24u16, 28, 32]),
    ) {
        const CODES: [&str; 4] = ["DE", "NO", "FR", "US"];
        let mut writer = Writer::new(6, record_size);
        let slots = CODES.map(|code| Slot::Data(writer.add(&record(code))));
        let mut by_prefix: BTreeMap<(u8, Cidr), usize> = BTreeMap::new();
        for (cidr, country) in prefixes {
            by_prefix.insert((cidr.length(), cidr), country);
        }
        for ((_, cidr), country) in &by_prefix {
            writer.insert(*cidr, slots[*country]);
        }
        let found = read_all(writer.bytes(), &CODES).unwrap();
        let ends = by_prefix.keys().map(|(_, cidr)| cidr.addr());
        let probes = probes.into_iter().map(|(v6, bits)| address(v6, bits)).chain(ends);
        for probe in probes {
            let says = by_prefix.iter().rev().find(|((_, cidr), _)| cidr.contains(probe));
            for (country, of) in CODES.iter().enumerate() {
                let lists = found.get(code(of)).unwrap_or_default();
                let mut entries = lists.iter().flat_map(|list| list.entries());
                let is_in = entries.any(|entry| entry.cidr.contains(probe));
                prop_assert_eq!(is_in, says.is_some_and(|(_, c)| *c == country), "{} {}", probe, of);
            }
        }
    }

    /// Whatever is wrong with the bytes: an error or a list, and soon.
    #[test]
    fn damage_is_survived(
        prefixes in vec((prefix(), 0usize..2), 1..20),
        damage in vec((any::<prop::sample::Index>(), any::<u8>()), 1..8),
        cut in any::<prop::sample::Index>(),
    ) {
        let mut writer = Writer::new(6, 24);
        let slots = ["DE", "NO"].map(|code| Slot::Data(writer.add(&record(code))));
        for (cidr, country) in prefixes {
            writer.insert(cidr, slots[country]);
        }
        let mut bytes = writer.bytes();
        for (at, byte) in damage {
            let at = at.index(bytes.len());
            bytes[at] = byte;
        }
        let _ = read_all(bytes.clone(), &["de"]);
        bytes.truncate(cut.index(bytes.len()));
        let _ = read_all(bytes, &["de"]);
    }
}
