//! The libvirt network that VMs are in when their BOSH network names none.

use std::net::IpAddr;

use super::Finding;
use crate::config::Settings;
use crate::libvirt::Connection;
use crate::network::Subnet;
use crate::rpc::Result;
use crate::xml::element::Element;

pub fn network(libvirt: &Connection, settings: &Settings) -> Result<Finding> {
    let name = &settings.network_name;
    let what = &format!("network {name}");
    let Some(network) = libvirt.find_network(name)? else {
        return Ok(Finding::wrong(what, "does not exist").cured_by(
            "virsh net-list --all; set settings.network_name to one of them, or define one: virsh net-define FILE",
        ));
    };
    let start = format!("virsh net-start {name}; virsh net-autostart {name}");
    if !network.is_active()? {
        return Ok(Finding::warning(what, "is inactive; the next create_vm starts it").cured_by(start));
    }
    let xml = network.xml()?;
    let mode = xml
        .child("forward")
        .map_or("isolated", |forward| forward.attribute("mode").unwrap_or("nat"));
    let ranges: Vec<String> = xml.children_named("ip").filter_map(range).collect();
    let says = format!(
        "active ({mode}){}",
        ranges
            .iter()
            .map(|range| format!(", {range}"))
            .collect::<String>()
    );
    if let Some((first, last)) = xml.children_named("ip").find_map(too_wide) {
        return Ok(Finding::warning(
            what,
            format!(
                "{says}: DHCP has most of the subnet, so it may have given away an address that BOSH gives to a VM"
            ),
        )
        .cured_by(format!(
            "leave DHCP a small range: virsh net-update {name} delete ip-dhcp-range \"<range start='{first}' \
             end='{last}'/>\" --live --config, add a smaller one alike, and reserve that in the BOSH network"
        )));
    }
    if !network.autostart()? {
        return Ok(
            Finding::warning(what, format!("{says}, but not started with libvirt"))
                .cured_by(format!("virsh net-autostart {name}")),
        );
    }
    Ok(Finding::ok(what, says))
}

fn range(ip: &Element) -> Option<String> {
    let subnet = Subnet::of_ip_element(ip)?;
    Some(match dhcp_range(ip) {
        Some((first, last)) => {
            format!("{subnet} with DHCP {first}-{last}, to be reserved in the BOSH network")
        }
        None => subnet.to_string(),
    })
}

fn dhcp_range(ip: &Element) -> Option<(IpAddr, IpAddr)> {
    let range = ip.descend(&["dhcp", "range"])?;
    let address = |name: &str| range.attribute(name)?.parse().ok();
    Some((address("start")?, address("end")?))
}

/// The DHCP range of this `<ip>`, if it has more than half of the addresses.
fn too_wide(ip: &Element) -> Option<(IpAddr, IpAddr)> {
    let subnet = Subnet::of_ip_element(ip)?;
    let (first, last) = dhcp_range(ip)?;
    let number = |address: IpAddr| match address {
        IpAddr::V4(v4) => u128::from(v4.to_bits()),
        IpAddr::V6(v6) => v6.to_bits(),
    };
    let given = number(last).checked_sub(number(first))?;
    let all = 1u128.checked_shl(subnet.host_bits())?;
    (given > all / 2).then_some((first, last))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_range_of_most_addresses_is_too_wide() {
        for (first, last, expected) in [
            ("2", "254", true),
            ("192", "254", false),
            ("2", "100", false),
            ("2", "200", true),
        ] {
            let xml = format!(
                "<ip address='10.0.0.1' netmask='255.255.255.0'><dhcp><range start='10.0.0.{first}' \
                 end='10.0.0.{last}'/></dhcp></ip>"
            );
            let ip = Element::parse(&xml).unwrap();
            assert_eq!(too_wide(&ip).is_some(), expected, "{first}-{last}");
        }
        let without = Element::parse("<ip address='10.0.0.1' netmask='255.255.255.0'/>").unwrap();
        assert_eq!(too_wide(&without), None);
        assert_eq!(range(&without).as_deref(), Some("10.0.0.0/24"));
    }
}
