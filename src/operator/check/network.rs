//! The libvirt network that VMs are in when their BOSH network names none.

use std::net::IpAddr;

use super::Finding;
use crate::network::{Subnet, dhcp_ranges, gives_away, vm_named_by};
use bosh_cpi::rpc::Result;
use cpi_config::Settings;
use libvirt_host::Connection;
use libvirt_xml::element::Element;

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
    let subnets: Vec<String> = xml.children_named("ip").filter_map(subnet).collect();
    let says = format!(
        "active ({mode}){}",
        subnets
            .iter()
            .map(|subnet| format!(", {subnet}"))
            .collect::<String>()
    );
    if let Some((vm, address)) = xml.children_named("ip").find_map(given_twice) {
        return Ok(Finding::warning(
            what,
            format!("{says}: BOSH has given {address} of this range to {vm}, and DHCP may give it to others"),
        )
        .cured_by("reserve the DHCP range in the BOSH network (reserved: [FIRST-LAST] of its subnet)"));
    }
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

fn subnet(ip: &Element) -> Option<String> {
    let subnet = Subnet::of_ip_element(ip)?;
    let ranges: Vec<String> = dhcp_ranges(ip)
        .map(|(first, last)| format!("{first}-{last}"))
        .collect();
    Some(if ranges.is_empty() {
        subnet.to_string()
    } else {
        let ranges = ranges.join(" and ");
        format!("{subnet} with DHCP {ranges}, to be reserved in the BOSH network")
    })
}

/// A VM, and its address that is also DHCP's to give. Unless `settings.network_dhcp` is `never`, each VM with one has an
/// entry.
fn given_twice(ip: &Element) -> Option<(&str, IpAddr)> {
    let mut of_vms = ip
        .children_named("dhcp")
        .flat_map(|dhcp| dhcp.children_named("host"))
        .filter_map(|host| {
            let vm = vm_named_by(host.attribute("name")?)?;
            Some((vm, host.attribute("ip")?.parse::<IpAddr>().ok()?))
        });
    of_vms.find(|(_, address)| gives_away(ip, *address))
}

/// The widest DHCP range of this `<ip>`, if they have more than half of the addresses.
fn too_wide(ip: &Element) -> Option<(IpAddr, IpAddr)> {
    let subnet = Subnet::of_ip_element(ip)?;
    let number = |address: IpAddr| match address {
        IpAddr::V4(v4) => u128::from(v4.to_bits()),
        IpAddr::V6(v6) => v6.to_bits(),
    };
    let size = |(first, last)| number(last).saturating_sub(number(first));
    let all = 1u128.checked_shl(subnet.host_bits())?;
    let given = dhcp_ranges(ip).map(size).fold(0, u128::saturating_add);
    let widest = dhcp_ranges(ip).max_by_key(|range| size(*range));
    widest.filter(|_| given > all / 2)
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
        assert_eq!(subnet(&without).as_deref(), Some("10.0.0.0/24"));
    }

    #[test]
    fn several_ranges_count_together() {
        let ip = Element::parse(
            "<ip address='10.0.0.1' netmask='255.255.255.0'><dhcp><range start='10.0.0.2' end='10.0.0.90'/>\
             <range start='10.0.0.100' end='10.0.0.254'/></dhcp></ip>",
        )
        .unwrap();
        let widest = ("10.0.0.100".parse().unwrap(), "10.0.0.254".parse().unwrap());
        assert_eq!(too_wide(&ip), Some(widest));
        assert_eq!(
            subnet(&ip).as_deref(),
            Some(
                "10.0.0.0/24 with DHCP 10.0.0.2-10.0.0.90 and 10.0.0.100-10.0.0.254, to be reserved in the BOSH network"
            )
        );
    }

    #[test]
    fn an_address_that_bosh_and_dhcp_both_give_is_found() {
        let vm = "vm-12345678-9abc-4def-8123-456789abcdef";
        for (name, address, expected) in [
            (vm, "10.0.0.210", true),
            (vm, "10.0.0.200", true),
            (vm, "10.0.0.199", false),
            ("printer", "10.0.0.210", false),
        ] {
            let ip = Element::parse(&format!(
                "<ip address='10.0.0.1' netmask='255.255.255.0'><dhcp><range start='10.0.0.200' end='10.0.0.220'/>\
                 <host mac='52:54:00:00:00:01' name='{name}' ip='{address}'/></dhcp></ip>"
            ))
            .unwrap();
            let found = given_twice(&ip);
            assert_eq!(found.is_some(), expected, "{name} {address}");
            assert!(found.is_none_or(|found| found == (vm, address.parse().unwrap())));
        }
    }
}
