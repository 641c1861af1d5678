//! What is written in one word, and lists of it.

use std::fmt;
use std::marker::PhantomData;
use std::net::IpAddr;
use std::ops::RangeInclusive;

use ironclad_core::{Cidr, Protocol, SocketProtocol, SocketVerdict, Verdict};
use serde::de::{self, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer};

use super::reader::ONE_OR_MANY;
use super::text::shown;
use crate::country::CountryCode;
use crate::sha256::Sha256Sum;

/// Ports of a socket rule: `443` or `8000-8100`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DocumentPorts(pub RangeInclusive<u16>);

/// Addresses of a socket rule: an address, or the name of a set of addresses.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum DocumentTo {
    /// An address or prefix.
    Cidr(Cidr),
    /// The name of a set under `addresses`.
    Name(String),
}

/// A user or a group: a number, or the name of one of this host.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum DocumentAccount {
    /// Its number.
    Id(u32),
    /// Its name.
    Name(String),
}

struct Items<T>(PhantomData<T>);

impl<'de, T: Deserialize<'de>> Visitor<'de> for Items<T> {
    type Value = Vec<T>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a list")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Vec<T>, A::Error> {
        // Without a hint of the length: the reader says when there are too many.
        let mut items = Vec::new();
        while let Some(item) = seq.next_element()? {
            items.push(item);
        }
        Ok(items)
    }
}

/// A list, which may be empty.
pub(super) fn list<'de, T, D>(from: D) -> Result<Vec<T>, D::Error>
where
    T: Deserialize<'de>,
    D: Deserializer<'de>,
{
    from.deserialize_seq(Items(PhantomData))
}

/// One value or a list of values, which may be empty.
pub(super) fn any<'de, T, D>(from: D) -> Result<Vec<T>, D::Error>
where
    T: Deserialize<'de>,
    D: Deserializer<'de>,
{
    from.deserialize_tuple_struct(ONE_OR_MANY, 0, Items(PhantomData))
}

/// One value or a list of values. One that is empty would mean nothing to some and anything to
/// others.
pub(super) fn some<'de, T, D>(from: D) -> Result<Vec<T>, D::Error>
where
    T: Deserialize<'de>,
    D: Deserializer<'de>,
{
    let items: Vec<T> = any(from)?;
    match items.is_empty() {
        false => Ok(items),
        true => Err(de::Error::custom("the list is empty: leave the key out, or name something")),
    }
}

/// A prefix without host bits. Lists have theirs cleared and reported; here a person can mend them.
struct Exact(Cidr);

fn exact_cidr<E: de::Error>(text: &str) -> Result<Cidr, E> {
    let text = shown(text);
    let cidr: Cidr = text.parse().map_err(de::Error::custom)?;
    let written = text.split('/').next().and_then(|addr| addr.parse::<IpAddr>().ok());
    if written.is_some_and(|addr| addr != cidr.addr()) {
        return Err(de::Error::custom(format_args!("`{text}` has host bits: write {cidr}")));
    }
    Ok(cidr)
}

impl<'de> Deserialize<'de> for Exact {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        exact_cidr(&String::deserialize(from)?).map(Self)
    }
}

/// An address alone.
struct Gateway(IpAddr);

impl<'de> Deserialize<'de> for Gateway {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        let text = String::deserialize(from)?;
        text.parse().map(Self).map_err(|_| {
            let text = shown(&text);
            de::Error::custom(match text.parse::<Cidr>() {
                Ok(_) => format!("`{text}` is a prefix: a gateway is one address"),
                Err(_) => format!("`{text}` is not an IPv4 or IPv6 address"),
            })
        })
    }
}

pub(super) fn gateways<'de, D: Deserializer<'de>>(from: D) -> Result<Vec<IpAddr>, D::Error> {
    Ok(any::<Gateway, D>(from)?.into_iter().map(|Gateway(address)| address).collect())
}

pub(super) fn exact_any<'de, D: Deserializer<'de>>(from: D) -> Result<Vec<Cidr>, D::Error> {
    Ok(any::<Exact, D>(from)?.into_iter().map(|Exact(cidr)| cidr).collect())
}

pub(super) fn exact_some<'de, D: Deserializer<'de>>(from: D) -> Result<Vec<Cidr>, D::Error> {
    Ok(some::<Exact, D>(from)?.into_iter().map(|Exact(cidr)| cidr).collect())
}

pub(super) fn exact<'de, D: Deserializer<'de>>(from: D) -> Result<Option<Cidr>, D::Error> {
    Ok(Option::<Exact>::deserialize(from)?.map(|Exact(cidr)| cidr))
}

/// A name that can be repeated without filling the memory.
pub(super) fn short<'de, D: Deserializer<'de>>(from: D) -> Result<String, D::Error> {
    let name = String::deserialize(from)?;
    match name.len() {
        ..=512 => Ok(name),
        _ => Err(de::Error::custom("the name has more than 512 bytes")),
    }
}

/// What is wrong with it is said of the digits.
pub(super) fn sha256<'de, D: Deserializer<'de>>(from: D) -> Result<Sha256Sum, D::Error> {
    let text = String::deserialize(from)?;
    text.parse().map_err(|error| {
        let other = text.chars().find(|c| !c.is_ascii_hexdigit());
        let found = match other {
            Some(other) => format!("`{}`", shown(&other.to_string())),
            None => format!("{} digits", text.len()),
        };
        de::Error::custom(format_args!("{error}: found {found}"))
    })
}

/// What becomes of packets that nothing matches; `pass` is the former word for `allow`.
pub(super) fn verdict<'de, D: Deserializer<'de>>(from: D) -> Result<Verdict, D::Error> {
    match String::deserialize(from)?.as_str() {
        "allow" | "pass" => Ok(Verdict::Allow),
        "drop" => Ok(Verdict::Drop),
        other => Err(de::Error::unknown_variant(other, &["allow", "drop"])),
    }
}

/// What becomes of sockets that nothing matches; `pass` and `drop` are former words.
pub(super) fn socket_verdict<'de, D: Deserializer<'de>>(
    from: D,
) -> Result<SocketVerdict, D::Error> {
    match String::deserialize(from)?.as_str() {
        "allow" | "pass" => Ok(SocketVerdict::Allow),
        "deny" | "drop" => Ok(SocketVerdict::Deny),
        other => Err(de::Error::unknown_variant(other, &["allow", "deny"])),
    }
}

/// What a limit counts: a million a second is as good as no limit.
pub(super) fn tokens<'de, D: Deserializer<'de>>(from: D) -> Result<u32, D::Error> {
    match u32::deserialize(from)? {
        number @ 1..=1_000_000 => Ok(number),
        number => Err(de::Error::custom(format_args!("`{number}` is not from 1 to 1,000,000"))),
    }
}

pub(super) fn maybe_tokens<'de, D: Deserializer<'de>>(from: D) -> Result<Option<u32>, D::Error> {
    tokens(from).map(Some)
}

/// Whether a text can only be meant as an address.
pub(super) fn is_address(text: &str) -> bool {
    text.contains(['/', ':']) || text.bytes().all(|b| b.is_ascii_digit() || b == b'.')
}

impl<'de> Deserialize<'de> for DocumentTo {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        let text = String::deserialize(from)?;
        if is_address(&text) { exact_cidr(&text).map(Self::Cidr) } else { Ok(Self::Name(text)) }
    }
}

impl<'de> Deserialize<'de> for DocumentAccount {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        let text = String::deserialize(from)?;
        let is_number = text.bytes().all(|b| b.is_ascii_digit());
        if !is_number && !text.starts_with(['-', '+']) {
            return Ok(Self::Name(text));
        }
        // The kernel's number for no user.
        let id = text.parse().ok().filter(|&id| is_number && id != u32::MAX);
        id.map(Self::Id).ok_or_else(|| {
            let text = shown(&text);
            de::Error::custom(format_args!(
                "`{text}` is neither a name nor a number below {}",
                u32::MAX
            ))
        })
    }
}

impl<'de> Deserialize<'de> for DocumentPorts {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        let text = String::deserialize(from)?;
        let port = |text: &str| -> Option<u16> {
            let is_plain = text.bytes().all(|b| b.is_ascii_digit());
            text.parse().ok().filter(|_| is_plain)
        };
        let (first, last) = text.split_once('-').unwrap_or((&text, &text));
        match (port(first), port(last)) {
            (Some(first), Some(last)) if first <= last => Ok(Self(first..=last)),
            (Some(first), Some(last)) => Err(de::Error::custom(format_args!(
                "the range of ports `{first}-{last}` ends before it begins: write {last}-{first}"
            ))),
            _ => {
                let text = shown(&text);
                let expected = "expected a port from 0 to 65535 or a range like 8000-8100";
                Err(de::Error::custom(format_args!("`{text}` is no port: {expected}")))
            }
        }
    }
}

impl<'de> Deserialize<'de> for CountryCode {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        String::deserialize(from)?.parse().map_err(de::Error::custom)
    }
}

/// The names of protocols that a socket rule may have.
pub(super) const PROTOCOLS: &[&str] = &[
    "tcp",
    "udp",
    "icmp",
    "icmpv6",
    "sctp",
    "dccp",
    "udplite",
    "raw",
    "packet",
    "a number from 0 to 255",
];

const IP_PROTOCOLS: &[&str] =
    &["tcp", "udp", "icmp", "icmpv6", "sctp", "dccp", "udplite", "a number from 0 to 255"];

/// What a packet has: sockets have names besides that stand for more than one protocol.
pub(super) fn maybe_ip_protocol<'de, D: Deserializer<'de>>(
    from: D,
) -> Result<Option<Protocol>, D::Error> {
    let Some(name) = Option::<String>::deserialize(from)? else { return Ok(None) };
    match (Protocol::by_name(&name), SocketProtocol::by_name(&name)) {
        (Some(protocol), _) => Ok(Some(protocol)),
        (None, Some(_)) => Err(de::Error::custom(format_args!(
            "`{name}` is a kind of socket and no protocol of packets: name the processes that may open such sockets in `rules`, with `direction: create`"
        ))),
        (None, None) => Err(de::Error::unknown_variant(&name, IP_PROTOCOLS)),
    }
}

struct OfSocket(SocketProtocol);

impl<'de> Deserialize<'de> for OfSocket {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        let name = String::deserialize(from)?;
        let protocol = SocketProtocol::by_name(&name).map(Self);
        protocol.ok_or_else(|| de::Error::unknown_variant(&name, PROTOCOLS))
    }
}

pub(super) fn socket_protocols<'de, D: Deserializer<'de>>(
    from: D,
) -> Result<Vec<SocketProtocol>, D::Error> {
    Ok(some::<OfSocket, D>(from)?.into_iter().map(|OfSocket(protocol)| protocol).collect())
}
