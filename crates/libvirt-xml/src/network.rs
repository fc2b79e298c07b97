//! `<network>`: a libvirt network that `create_network` makes.

use std::net::IpAddr;

use super::element::Element;

/// What a network does with packets that are for elsewhere.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// Sends them on under the host's address.
    Nat,
    /// Sends them on as they are.
    Route,
    /// Drops them.
    Isolated,
    /// Is a bridge that exists already, and leads where that leads.
    Bridge,
}

/// A network to define.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NetworkSpec<'a> {
    pub name: &'a str,
    pub mode: Mode,
    /// The host's device: a new one, or the one that exists for `Mode::Bridge`. At most 15 bytes.
    pub bridge: &'a str,
    /// The host's own address in it, and how many bits of it all addresses share.
    pub host: Option<(IpAddr, u32)>,
    /// First and last address that DHCP gives away.
    pub dhcp: Option<(IpAddr, IpAddr)>,
}

pub fn render(spec: &NetworkSpec<'_>) -> Element {
    let mut network = Element::new("network").with_child(Element::new("name").with_text(spec.name));
    let forward = match spec.mode {
        Mode::Nat => Some("nat"),
        Mode::Route => Some("route"),
        Mode::Isolated => None,
        Mode::Bridge => Some("bridge"),
    };
    if let Some(mode) = forward {
        let mut forward = Element::new("forward").with_attribute("mode", mode);
        let ipv6 = spec.host.is_some_and(|(address, _)| address.is_ipv6());
        if spec.mode == Mode::Nat && ipv6 {
            // Without this, IPv6 is routed.
            forward.push(Element::new("nat").with_attribute("ipv6", "yes"));
        }
        network.push(forward);
    }
    let mut bridge = Element::new("bridge").with_attribute("name", spec.bridge);
    if spec.mode == Mode::Bridge {
        network.push(bridge);
        return network;
    }
    bridge.set_attribute("stp", "off");
    bridge.set_attribute("delay", "0");
    network.push(bridge);
    if spec.mode == Mode::Isolated {
        // A name server on the host would lead out of it.
        network.push(Element::new("dns").with_attribute("enable", "no"));
    }
    if let Some((address, prefix)) = spec.host {
        let family = if address.is_ipv6() { "ipv6" } else { "ipv4" };
        let mut ip = Element::new("ip")
            .with_attribute("family", family)
            .with_attribute("address", address.to_string())
            .with_attribute("prefix", prefix.to_string());
        if let Some((first, last)) = spec.dhcp {
            let range = Element::new("range")
                .with_attribute("start", first.to_string())
                .with_attribute("end", last.to_string());
            ip.push(Element::new("dhcp").with_child(range));
        }
        network.push(ip);
    }
    network
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn networks_of_every_mode() {
        let address = |text: &str| -> IpAddr { text.parse().unwrap() };
        let v4 = Some((address("10.0.0.1"), 24));
        let v6 = Some((address("fd00::1"), 64));
        let dhcp = Some((address("10.0.0.192"), address("10.0.0.254")));
        for (mode, host, dhcp, expected) in [
            (
                Mode::Nat,
                v4,
                dhcp,
                "<forward mode='nat'/><bridge name='b' stp='off' delay='0'/><ip family='ipv4' address='10.0.0.1' prefix='24'>\
                 <dhcp><range start='10.0.0.192' end='10.0.0.254'/></dhcp></ip>",
            ),
            (
                Mode::Nat,
                v6,
                None,
                "<forward mode='nat'><nat ipv6='yes'/></forward><bridge name='b' stp='off' delay='0'/>\
                 <ip family='ipv6' address='fd00::1' prefix='64'/>",
            ),
            (
                Mode::Route,
                v6,
                None,
                "<forward mode='route'/><bridge name='b' stp='off' delay='0'/><ip family='ipv6' address='fd00::1' prefix='64'/>",
            ),
            (
                Mode::Isolated,
                None,
                None,
                "<bridge name='b' stp='off' delay='0'/><dns enable='no'/>",
            ),
            (
                Mode::Bridge,
                v4,
                None,
                "<forward mode='bridge'/><bridge name='b'/>",
            ),
        ] {
            let spec = NetworkSpec {
                name: "n",
                mode,
                bridge: "b",
                host,
                dhcp,
            };
            assert_eq!(
                render(&spec).to_string(),
                format!("<network><name>n</name>{expected}</network>")
            );
        }
    }
}
