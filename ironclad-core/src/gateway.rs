use std::net::IpAddr;

use crate::abi::{GATEWAYS_MAX, Gateways};
use crate::cidr::Family;

/// Why addresses cannot be gateways.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum GatewayError {
    /// No host sends from it.
    #[error("`{0}` is no gateway, no host sends from it: name a unicast address, IPv4 as IPv4")]
    NoHost(IpAddr),
    /// More than [`GATEWAYS_MAX`] of one family.
    #[error(
        "there are {count} gateways of IPv{}, the limit is {GATEWAYS_MAX}: allow the others by a set",
        match family { Family::V4 => 4, Family::V6 => 6 }
    )]
    TooMany {
        /// The family.
        family: Family,
        /// How many there are.
        count: usize,
    },
}

impl Gateways {
    /// The kernel's form of addresses, each once.
    ///
    /// # Errors
    /// [`GatewayError`].
    pub fn new(addresses: &[IpAddr]) -> Result<Self, GatewayError> {
        let is_host = |address: &IpAddr| match address {
            IpAddr::V4(a) => !a.is_unspecified() && !a.is_multicast() && !a.is_broadcast(),
            IpAddr::V6(a) => {
                !a.is_unspecified() && !a.is_multicast() && a.to_ipv4_mapped().is_none()
            }
        };
        let mut distinct: Vec<IpAddr> = Vec::new();
        for &address in addresses {
            if !is_host(&address) {
                return Err(GatewayError::NoHost(address));
            }
            if !distinct.contains(&address) {
                distinct.push(address);
            }
        }
        for family in [Family::V4, Family::V6] {
            let count = distinct.iter().filter(|address| Family::of(**address) == family).count();
            if count > GATEWAYS_MAX {
                return Err(GatewayError::TooMany { family, count });
            }
        }
        let mut set = Self::default();
        for address in distinct {
            match address {
                IpAddr::V4(a) => {
                    set.addr4[set.count4 as usize] = a.octets();
                    set.count4 += 1;
                }
                IpAddr::V6(a) => {
                    set.addr6[set.count6 as usize] = a.octets();
                    set.count6 += 1;
                }
            }
        }
        Ok(set)
    }

    /// The addresses, IPv4 first.
    pub fn addresses(&self) -> impl Iterator<Item = IpAddr> + '_ {
        let v4 = self.addr4.iter().take(self.count4 as usize).map(|&a| IpAddr::from(a));
        v4.chain(self.addr6.iter().take(self.count6 as usize).map(|&a| IpAddr::from(a)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_host_is_there_once() {
        let all = ["fd00::1", "10.0.0.1", "10.0.0.1"].map(|text| text.parse().unwrap());
        let set = Gateways::new(&all).unwrap();
        assert_eq!(set.addresses().collect::<Vec<_>>(), [all[1], all[0]]);
        for wrong in ["0.0.0.0", "255.255.255.255", "224.0.0.1", "::", "ff02::1", "::ffff:1.2.3.4"]
        {
            let wrong = wrong.parse().unwrap();
            assert_eq!(Gateways::new(&[wrong]), Err(GatewayError::NoHost(wrong)));
        }
        let nine: Vec<IpAddr> = (1..=9).map(|n| IpAddr::from([10, 0, 0, n])).collect();
        let error = Err(GatewayError::TooMany { family: Family::V4, count: 9 });
        assert_eq!(Gateways::new(&nine), error);
        assert_eq!(Gateways::new(&nine[..8]).unwrap().count4, 8);
    }
}
