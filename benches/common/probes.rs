//! Addresses to look up: as many as a loop in the kernel goes through.

use std::net::IpAddr;

use ironclad::core::{Cidr, Family};
use ironclad::policy::CompiledPolicy;
use ironclad_bpf::bench::PROBES;

use super::random::Random;

/// The address as a probe: network byte order, IPv4 in the first four bytes.
fn probe(addr: IpAddr) -> [u8; 16] {
    Cidr::host(addr).bits().to_be_bytes()
}

/// Addresses that no prefix covers.
pub(crate) fn misses(
    policy: &CompiledPolicy,
    family: Family,
    near: &[Cidr],
    seed: u64,
) -> Vec<[u8; 16]> {
    let mut random = Random::new(seed);
    let mut out = Vec::with_capacity(PROBES);
    while out.len() < PROBES {
        let addr = match family {
            Family::V4 => IpAddr::V4((random.next() as u32).into()),
            // Where IPv6 addresses are: in the /16 of some prefix.
            Family::V6 => {
                let near = near[random.below(near.len() as u64) as usize].bits();
                let noise = u128::from(random.next()) << 64 | u128::from(random.next());
                IpAddr::V6((near & (u128::MAX << 112) | noise >> 16).into())
            }
        };
        if policy.flat().lookup(addr) == 0 {
            out.push(probe(addr));
        }
    }
    out
}

/// A random address of a random prefix, again and again.
pub(crate) fn hits(cidrs: &[Cidr], seed: u64) -> Vec<[u8; 16]> {
    let mut random = Random::new(seed);
    (0..PROBES)
        .map(|_| {
            let cidr = cidrs[random.below(cidrs.len() as u64) as usize];
            let noise = u128::from(random.next()) << 64 | u128::from(random.next());
            let host = if cidr.length() == 128 { 0 } else { noise >> cidr.length() };
            let bits = cidr.bits() | host;
            match cidr.family() {
                Family::V4 => (bits >> 96 << 96).to_be_bytes(),
                Family::V6 => bits.to_be_bytes(),
            }
        })
        .collect()
}
