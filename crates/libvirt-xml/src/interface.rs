//! `<interface>`: a NIC on a libvirt network, a bridge of the host, or one of its devices.

use std::net::IpAddr;

use super::element::Element;
use super::template;
use bosh_cpi::rpc::Result;

/// What the other end of a NIC is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Link {
    /// A libvirt network.
    Network {
        name: String,
        portgroup: Option<String>,
        /// VLAN id.
        vlan: Option<u64>,
    },
    /// A bridge of the host.
    Bridge {
        name: String,
        openvswitch: bool,
        /// VLAN id.
        vlan: Option<u64>,
    },
    /// A device of the host, through macvtap.
    Direct {
        device: String,
        mode: DirectMode,
        /// VLAN id; libvirt takes it in mode passthrough only.
        vlan: Option<u64>,
    },
}

/// How macvtap shares its device.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DirectMode {
    Bridge,
    Vepa,
    Private,
    Passthrough,
}

/// A limit in one direction, as the guest sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rate {
    /// KiB/s.
    pub average: u64,
    /// KiB/s.
    pub peak: Option<u64>,
    /// KiB that may go at peak speed at once.
    pub burst: Option<u64>,
}

#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Bandwidth {
    pub inbound: Option<Rate>,
    pub outbound: Option<Rate>,
}

/// The NIC itself, whatever it is plugged into.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct NicProperties {
    /// `virtio`, `e1000e` and so on.
    pub model: Option<String>,
    /// Bytes.
    pub mtu: Option<u64>,
    /// Pairs of queues of a virtio NIC.
    pub queues: Option<u64>,
    /// Name of an nwfilter.
    pub filter: Option<String>,
    pub bandwidth: Option<Bandwidth>,
}

impl DirectMode {
    /// As libvirt writes it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Bridge => "bridge",
            Self::Vepa => "vepa",
            Self::Private => "private",
            Self::Passthrough => "passthrough",
        }
    }
}

impl std::fmt::Display for Link {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Network { name, .. } => write!(f, "libvirt network {name}"),
            Self::Bridge { name, .. } => write!(f, "bridge {name}"),
            Self::Direct { device, mode, .. } => write!(f, "device {device} ({})", mode.name()),
        }
    }
}

/// One NIC of a VM.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InterfaceSpec<'a> {
    pub link: &'a Link,
    pub properties: &'a NicProperties,
    pub mac: &'a str,
    /// The NIC's static addresses.
    pub addresses: &'a [IpAddr],
    pub vm_name: &'a str,
}

/// The `<interface>` of a NIC. For one on a libvirt network the operator's `settings.manual_network_interface` is taken
/// when there is one; whatever that says, the cloud properties hold.
///
/// # Errors
/// `CpiError` for a template that cannot be rendered.
pub fn render(spec: &InterfaceSpec<'_>, template: &str) -> Result<Element> {
    let mut interface = match spec.link {
        Link::Network { name, .. } if !template.is_empty() => {
            let address = spec.addresses.first().map(ToString::to_string);
            let values = [
                ("NetworkName", name.as_str()),
                ("MacAddress", spec.mac),
                ("IpAddress", address.as_deref().unwrap_or_default()),
                ("VmName", spec.vm_name),
            ];
            template::render("settings.manual_network_interface", template, &values)?
        }
        link => built_in(link),
    };
    interface.child_or_new("mac").set_attribute("address", spec.mac);
    // A template is used for every NIC, and a host device, alias or address can be given once.
    for once in ["target", "alias", "address"] {
        interface.remove_children(once);
    }
    enforce_link(&mut interface, spec.link);
    enforce_properties(&mut interface, spec);
    Ok(interface)
}

fn built_in(link: &Link) -> Element {
    let (kind, source) = match link {
        Link::Network { name, .. } => ("network", Element::new("source").with_attribute("network", name)),
        Link::Bridge { name, .. } => ("bridge", Element::new("source").with_attribute("bridge", name)),
        Link::Direct { device, mode, .. } => (
            "direct",
            Element::new("source")
                .with_attribute("dev", device)
                .with_attribute("mode", mode.name()),
        ),
    };
    Element::new("interface")
        .with_attribute("type", kind)
        .with_child(source)
        .with_child(Element::new("model").with_attribute("type", "virtio"))
}

fn enforce_link(interface: &mut Element, link: &Link) {
    let vlan = match link {
        Link::Network { vlan, portgroup, .. } => {
            if let Some(portgroup) = portgroup {
                interface
                    .child_or_new("source")
                    .set_attribute("portgroup", portgroup);
            }
            vlan
        }
        Link::Bridge {
            openvswitch, vlan, ..
        } => {
            if *openvswitch {
                interface
                    .child_or_new("virtualport")
                    .set_attribute("type", "openvswitch");
            }
            vlan
        }
        Link::Direct { vlan, .. } => vlan,
    };
    if let Some(id) = vlan {
        let tag = Element::new("tag").with_attribute("id", id.to_string());
        replace(interface, Element::new("vlan").with_child(tag));
    }
}

fn enforce_properties(interface: &mut Element, spec: &InterfaceSpec<'_>) {
    let NicProperties {
        model,
        mtu,
        queues,
        filter,
        bandwidth,
    } = spec.properties;
    if let Some(model) = model {
        interface.child_or_new("model").set_attribute("type", model);
    }
    if let Some(mtu) = mtu {
        interface
            .child_or_new("mtu")
            .set_attribute("size", mtu.to_string());
    }
    if let Some(queues) = queues {
        interface
            .child_or_new("driver")
            .set_attribute("queues", queues.to_string());
    }
    if let Some(filter) = filter {
        replace(interface, filter_reference(filter, spec.addresses));
    }
    if let Some(bandwidth) = bandwidth {
        replace(interface, bandwidth_element(bandwidth));
    }
}

/// The filter lets these addresses pass and no others; without any, libvirt learns a guest's IPv4 address from what
/// the guest sends first.
fn filter_reference(filter: &str, addresses: &[IpAddr]) -> Element {
    let mut reference = Element::new("filterref").with_attribute("filter", filter);
    for address in addresses {
        let variable = if address.is_ipv6() { "IPV6" } else { "IP" };
        reference.push(
            Element::new("parameter")
                .with_attribute("name", variable)
                .with_attribute("value", address.to_string()),
        );
    }
    reference
}

fn bandwidth_element(bandwidth: &Bandwidth) -> Element {
    let mut element = Element::new("bandwidth");
    for (direction, rate) in [("inbound", &bandwidth.inbound), ("outbound", &bandwidth.outbound)] {
        let Some(Rate { average, peak, burst }) = rate else {
            continue;
        };
        let mut limits = Element::new(direction).with_attribute("average", average.to_string());
        for (name, value) in [("peak", peak), ("burst", burst)] {
            if let Some(value) = value {
                limits.set_attribute(name, value.to_string());
            }
        }
        element.push(limits);
    }
    element
}

fn replace(interface: &mut Element, child: Element) {
    interface.remove_children(&child.name);
    interface.push(child);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn network(portgroup: Option<&str>) -> Link {
        Link::Network {
            name: "n".to_owned(),
            portgroup: portgroup.map(str::to_owned),
            vlan: None,
        }
    }

    fn rendered(link: &Link, properties: &NicProperties, template: &str) -> String {
        let spec = InterfaceSpec {
            link,
            properties,
            mac: "52:54:01:02:03:04",
            addresses: &["10.0.0.5".parse().unwrap(), "fd00::5".parse().unwrap()],
            vm_name: "vm-1",
        };
        render(&spec, template).unwrap().to_string()
    }

    #[test]
    fn the_seeds_template_serves_more_than_one_nic() {
        let template = "<interface type='network'><source network='{{.NetworkName}}'/><target dev='vnet0'/>\
            <mac address='{{.MacAddress}}'/><model type='virtio'/><alias name='net0'/></interface>";
        let expected = "<interface type='network'><source network='n'/><mac address='52:54:01:02:03:04'/>\
            <model type='virtio'/></interface>";
        assert_eq!(
            rendered(&network(None), &NicProperties::default(), template),
            expected
        );
    }

    #[test]
    fn links_of_every_kind() {
        let bridge = Link::Bridge {
            name: "br0".to_owned(),
            openvswitch: true,
            vlan: Some(7),
        };
        let direct = Link::Direct {
            device: "eth0".to_owned(),
            mode: DirectMode::Vepa,
            vlan: None,
        };
        for (link, expected) in [
            (
                network(Some("p")),
                "<interface type='network'><source network='n' portgroup='p'/><model type='virtio'/>\
                 <mac address='52:54:01:02:03:04'/></interface>",
            ),
            (
                bridge,
                "<interface type='bridge'><source bridge='br0'/><model type='virtio'/>\
                 <mac address='52:54:01:02:03:04'/><virtualport type='openvswitch'/><vlan><tag id='7'/></vlan></interface>",
            ),
            (
                direct,
                "<interface type='direct'><source dev='eth0' mode='vepa'/><model type='virtio'/>\
                 <mac address='52:54:01:02:03:04'/></interface>",
            ),
        ] {
            assert_eq!(rendered(&link, &NicProperties::default(), ""), expected);
        }
    }

    #[test]
    fn cloud_properties_hold_whatever_the_template_says() {
        let template = "<interface type='network'><source network='{{.NetworkName}}'/><model type='e1000'/>\
            <mtu size='1500'/><filterref filter='other'/></interface>";
        let properties = NicProperties {
            model: Some("virtio".to_owned()),
            mtu: Some(9000),
            queues: Some(4),
            filter: Some("clean-traffic".to_owned()),
            bandwidth: Some(Bandwidth {
                inbound: None,
                outbound: Some(Rate {
                    average: 100,
                    peak: Some(200),
                    burst: None,
                }),
            }),
        };
        let expected = "<interface type='network'><source network='n'/><model type='virtio'/><mtu size='9000'/>\
            <mac address='52:54:01:02:03:04'/><driver queues='4'/><filterref filter='clean-traffic'>\
            <parameter name='IP' value='10.0.0.5'/><parameter name='IPV6' value='fd00::5'/></filterref>\
            <bandwidth><outbound average='100' peak='200'/></bandwidth></interface>";
        assert_eq!(rendered(&network(None), &properties, template), expected);
    }
}
