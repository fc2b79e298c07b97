//! IP subnets of both families, and the little arithmetic they need.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::str::FromStr;

use libvirt_xml::element::Element;

/// A subnet: all addresses whose first `prefix` bits are those of `base`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Subnet {
    base: IpAddr,
    pub prefix: u32,
}

impl Subnet {
    /// The subnet that this address is in; None when an address has no that many bits.
    pub fn around(address: IpAddr, prefix: u32) -> Option<Self> {
        let host_bits = bits(address).checked_sub(prefix)?;
        let number = to_number(address);
        let base = number.checked_shr(host_bits).unwrap_or(0).checked_shl(host_bits);
        Some(Self {
            base: to_address(address, base.unwrap_or(0)),
            prefix,
        })
    }

    /// The subnet of an `<ip>` in a libvirt network, with the host's own address in it.
    pub fn of_ip_element(ip: &Element) -> Option<Self> {
        let address: IpAddr = ip.attribute("address")?.parse().ok()?;
        let prefix = match (ip.attribute("prefix"), ip.attribute("netmask")) {
            (Some(prefix), _) => prefix.parse().ok()?,
            (None, Some(netmask)) => to_number(netmask.parse().ok()?).count_ones(),
            // What libvirt takes for an address without either: its class.
            (None, None) => match address {
                IpAddr::V4(v4) if v4.octets()[0] < 128 => 8,
                IpAddr::V4(v4) if v4.octets()[0] < 192 => 16,
                IpAddr::V4(_) => 24,
                IpAddr::V6(_) => 64,
            },
        };
        Self::around(address, prefix)
    }

    pub fn contains(&self, address: IpAddr) -> bool {
        Self::around(address, self.prefix).is_some_and(|other| other == *self)
    }

    pub fn overlaps(&self, other: &Self) -> bool {
        self.contains(other.base) || other.contains(self.base)
    }

    /// How many bits tell the addresses of the subnet apart.
    pub fn host_bits(&self) -> u32 {
        bits(self.base) - self.prefix
    }

    /// The subnet's first address plus this number, within the subnet.
    pub fn address(&self, number: u128) -> IpAddr {
        let mask = 1u128.checked_shl(self.host_bits()).unwrap_or(0).wrapping_sub(1);
        to_address(self.base, to_number(self.base) | (number & mask))
    }

    /// The next subnet of the same size; wraps at the end of the family's addresses.
    pub fn next(&self) -> Self {
        let size = 1u128.checked_shl(self.host_bits()).unwrap_or(0);
        Self {
            base: to_address(self.base, to_number(self.base).wrapping_add(size)),
            prefix: self.prefix,
        }
    }
}

impl FromStr for Subnet {
    type Err = String;

    /// `10.0.0.0/24` or `fd00::/64`; host bits may be set.
    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || format!("{text:?} is no subnet such as 10.0.0.0/24 or fd00::/64");
        let (address, prefix) = text.split_once('/').ok_or_else(wrong)?;
        let address = address.parse().map_err(|_| wrong())?;
        let prefix = prefix.parse().map_err(|_| wrong())?;
        Self::around(address, prefix).ok_or_else(wrong)
    }
}

impl fmt::Display for Subnet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.base, self.prefix)
    }
}

fn bits(address: IpAddr) -> u32 {
    match address {
        IpAddr::V4(_) => 32,
        IpAddr::V6(_) => 128,
    }
}

fn to_number(address: IpAddr) -> u128 {
    match address {
        IpAddr::V4(v4) => u128::from(v4.to_bits()),
        IpAddr::V6(v6) => v6.to_bits(),
    }
}

/// An address of the same family as `like`.
fn to_address(like: IpAddr, number: u128) -> IpAddr {
    match like {
        IpAddr::V4(_) => Ipv4Addr::from_bits(u32::try_from(number & 0xffff_ffff).unwrap_or(0)).into(),
        IpAddr::V6(_) => Ipv6Addr::from_bits(number).into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn subnet(text: &str) -> Subnet {
        text.parse().unwrap()
    }

    #[test]
    fn subnets_of_both_families() {
        for (text, shown, first, inside, outside) in [
            (
                "10.0.1.77/24",
                "10.0.1.0/24",
                "10.0.1.1",
                "10.0.1.255",
                "10.0.2.0",
            ),
            ("0.0.0.0/0", "0.0.0.0/0", "0.0.0.1", "255.255.255.255", "fd00::1"),
            ("10.0.0.4/30", "10.0.0.4/30", "10.0.0.5", "10.0.0.7", "10.0.0.8"),
            (
                "fd00::5/64",
                "fd00::/64",
                "fd00::1",
                "fd00::ffff:1",
                "fd00:0:0:1::1",
            ),
            ("::/0", "::/0", "::1", "fd00::1", "10.0.0.1"),
        ] {
            let subnet = subnet(text);
            assert_eq!(subnet.to_string(), shown);
            assert_eq!(subnet.address(1).to_string(), first);
            assert!(subnet.contains(inside.parse().unwrap()), "{text} {inside}");
            assert!(!subnet.contains(outside.parse().unwrap()), "{text} {outside}");
        }
        assert!(subnet("10.0.0.0/16").overlaps(&subnet("10.0.3.0/24")));
        assert!(subnet("10.0.3.0/24").overlaps(&subnet("10.0.0.0/16")));
        assert!(!subnet("10.0.3.0/24").overlaps(&subnet("10.0.4.0/24")));
        assert!(!subnet("0.0.0.0/0").overlaps(&subnet("::/0")));
        assert_eq!(subnet("10.0.255.0/24").next().to_string(), "10.1.0.0/24");
        for text in ["10.0.0.0", "10.0.0.0/33", "fd00::/129", "x/8", "10.0.0.0/x", ""] {
            assert!(text.parse::<Subnet>().is_err(), "{text}");
        }
    }

    #[test]
    fn the_ip_elements_that_libvirt_writes() {
        for (xml, expected) in [
            ("<ip address='10.0.1.1' netmask='255.255.255.0'/>", "10.0.1.0/24"),
            ("<ip address='10.0.1.1' prefix='28'/>", "10.0.1.0/28"),
            ("<ip family='ipv6' address='fd00::1' prefix='64'/>", "fd00::/64"),
            ("<ip address='192.168.5.1'/>", "192.168.5.0/24"),
        ] {
            let subnet = Subnet::of_ip_element(&Element::parse(xml).unwrap()).unwrap();
            assert_eq!(subnet.to_string(), expected);
        }
    }
}
