//! The addresses that a libvirt network's own DHCP service gives away.

use std::net::IpAddr;

use libvirt_xml::element::Element;

/// First and last address of each DHCP range of an `<ip>`.
pub fn dhcp_ranges(ip: &Element) -> impl Iterator<Item = (IpAddr, IpAddr)> {
    let address = |range: &Element, name: &str| range.attribute(name)?.parse().ok();
    ip.children_named("dhcp")
        .flat_map(|dhcp| dhcp.children_named("range"))
        .filter_map(move |range| Some((address(range, "start")?, address(range, "end")?)))
}

/// Whether the DHCP service of this `<ip>` may give the address to whoever asks.
pub fn gives_away(ip: &Element, address: IpAddr) -> bool {
    dhcp_ranges(ip).any(|(first, last)| (first..=last).contains(&address))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_in_a_range_is_given_away() {
        let ip = Element::parse(
            "<ip address='10.0.0.1' netmask='255.255.255.0'><dhcp><range start='10.0.0.20' end='10.0.0.30'/>\
             <range start='10.0.0.50' end='10.0.0.50'/><range start='nonsense' end='10.0.0.99'/>\
             <host mac='52:54:00:00:00:01' ip='10.0.0.5'/></dhcp></ip>",
        )
        .unwrap();
        for (address, expected) in [
            ("10.0.0.19", false),
            ("10.0.0.20", true),
            ("10.0.0.30", true),
            ("10.0.0.31", false),
            ("10.0.0.50", true),
            ("10.0.0.99", false),
            ("10.0.0.5", false),
            ("fd00::20", false),
        ] {
            assert_eq!(gives_away(&ip, address.parse().unwrap()), expected, "{address}");
        }
        let without = Element::parse("<ip address='10.0.0.1' netmask='255.255.255.0'/>").unwrap();
        assert!(!gives_away(&without, "10.0.0.20".parse().unwrap()));
        let ipv6 = Element::parse(
            "<ip family='ipv6' address='fd00::1' prefix='64'><dhcp><range start='fd00::100' end='fd00::1ff'/></dhcp></ip>",
        )
        .unwrap();
        assert!(gives_away(&ipv6, "fd00::180".parse().unwrap()));
        assert!(!gives_away(&ipv6, "fd00::200".parse().unwrap()));
    }
}
