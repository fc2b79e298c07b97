//! DHCP host entries: where a libvirt network's own DHCP would give the address of a VM to others, it is entered there,
//! so that nobody else gets it and a VM that asks is told its own. Other addresses need no entry, as the agent sets them,
//! and libvirt takes long for each. An entry carries the VM's cid as its name, by which it is found again, with or without
//! the VM.

use std::collections::BTreeMap;
use std::net::IpAddr;

use super::{Nic, Subnet, gives_away};
use bosh_cpi::cid::Cid;
use bosh_cpi::logging;
use bosh_cpi::rpc::{Error, ErrorType, Result};
use cpi_config::{NetworkDhcp, Settings};
use libvirt_host::{Changes, Connection, Network};
use libvirt_xml::dhcp_host::{self, DhcpHostSpec};
use libvirt_xml::element::Element;
use libvirt_xml::interface::Link;

/// One entry to be made in one of a network's descriptions.
struct Change<'a> {
    network: &'a Network,
    description: Changes,
    /// Position of the `<ip>` whose DHCP service it goes to.
    ip: usize,
    /// Entries of dead VMs that are in its way.
    stale: Vec<Element>,
    entry: Element,
}

/// Looks for entries in the way of the VM's addresses, and changes nothing. Returns whether `reserve` has any to make.
///
/// # Errors
/// `CloudError` naming the living VM, or the entry, that has one of the addresses already; `CpiError` for a template
/// that cannot be rendered.
pub fn require_free_addresses(
    libvirt: &Connection,
    settings: &Settings,
    vm_cid: &Cid,
    nics: &[Nic],
) -> Result<bool> {
    let networks = networks_of(libvirt, settings, nics)?;
    changes(libvirt, settings, vm_cid, nics, &networks).map(|changes| !changes.is_empty())
}

/// Makes the VM's entries, in the running networks and in what is started next time. Entries of dead VMs that are in
/// the way go.
///
/// # Errors
/// As `require_free_addresses`, and what libvirt says.
pub fn reserve(libvirt: &Connection, settings: &Settings, vm_cid: &Cid, nics: &[Nic]) -> Result<()> {
    let networks = networks_of(libvirt, settings, nics)?;
    let changes = changes(libvirt, settings, vm_cid, nics, &networks)?;
    let _step =
        (!changes.is_empty()).then(|| logging::step(format!("making DHCP host entries of VM {vm_cid}")));
    for change in changes {
        for stale in &change.stale {
            log::warn!(
                "network {}: replacing the DHCP host entry {stale}, which a VM that is gone has left",
                change.network.name
            );
            change
                .network
                .remove_dhcp_host(stale, change.ip, change.description)?;
        }
        change
            .network
            .add_dhcp_host(&change.entry, change.ip, change.description)?;
    }
    Ok(())
}

/// Removes the VM's entries from every network; returns how many there were.
pub fn unreserve(libvirt: &Connection, vm_cid: &Cid) -> Result<usize> {
    unreserve_in(libvirt, vm_cid, |_| true)
}

/// Removes the VM's entries from the networks whose names fit; returns how many there were.
pub fn unreserve_in(libvirt: &Connection, vm_cid: &Cid, fits: impl Fn(&str) -> bool) -> Result<usize> {
    let mut removed = 0;
    for network in libvirt.all_networks()? {
        if !fits(&network.name) {
            continue;
        }
        for (description, xml) in network.descriptions_if_there()? {
            for (ip, element) in xml.children_named("ip").enumerate() {
                for host in hosts(element) {
                    if host.attribute("name").and_then(vm_named_by) == Some(vm_cid.as_str()) {
                        network.remove_dhcp_host(host, ip, description)?;
                        removed += 1;
                    }
                }
            }
        }
    }
    Ok(removed)
}

/// A DHCP host entry that was made for a VM, alive or not.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EntryOfVm {
    pub network: String,
    pub vm: String,
    /// In lower case; empty in IPv6 networks.
    pub mac: String,
}

/// Every entry that carries a VM's cid, in all networks.
pub fn entries_of_vms(libvirt: &Connection) -> Result<Vec<EntryOfVm>> {
    let mut entries = Vec::new();
    for network in libvirt.all_networks()? {
        let descriptions = network.descriptions_if_there()?;
        for host in descriptions
            .iter()
            .flat_map(|(_, xml)| xml.children_named("ip"))
            .flat_map(hosts)
        {
            if let Some(vm) = host.attribute("name").and_then(vm_named_by) {
                entries.push(EntryOfVm {
                    network: network.name.clone(),
                    vm: vm.to_owned(),
                    mac: host.attribute("mac").unwrap_or_default().to_lowercase(),
                });
            }
        }
    }
    Ok(entries)
}

/// The libvirt networks that NICs with static addresses are on, by name.
fn networks_of(libvirt: &Connection, settings: &Settings, nics: &[Nic]) -> Result<BTreeMap<String, Network>> {
    let mut networks = BTreeMap::new();
    for nic in nics
        .iter()
        .filter(|nic| settings.network_dhcp != NetworkDhcp::Never && !nic.addresses.is_empty())
    {
        if let Link::Network { name, .. } = &nic.link
            && let Some(network) = libvirt.find_network(name)?
        {
            networks.insert(name.clone(), network);
        }
    }
    Ok(networks)
}

fn changes<'a>(
    libvirt: &Connection,
    settings: &Settings,
    vm_cid: &Cid,
    nics: &[Nic],
    networks: &'a BTreeMap<String, Network>,
) -> Result<Vec<Change<'a>>> {
    let mut changes = Vec::new();
    for network in networks.values() {
        let on_it: Vec<&Nic> = nics
            .iter()
            .filter(|nic| matches!(&nic.link, Link::Network { name, .. } if *name == network.name))
            .collect();
        for (description, xml) in network.descriptions()? {
            for (ip, element) in xml.children_named("ip").enumerate() {
                let (Some(_), Some(subnet)) = (element.child("dhcp"), Subnet::of_ip_element(element)) else {
                    continue;
                };
                let addresses = on_it.iter().flat_map(|nic| &nic.addresses);
                for address in addresses.filter(|address| subnet.contains(**address)) {
                    in_the_way(libvirt, network, element, *address, None)?;
                }
                // Entries of one service must differ in name and MAC, so further NICs are numbered and further
                // addresses of a NIC go without.
                let addressed = on_it
                    .iter()
                    .filter_map(|nic| Some((nic, to_enter(nic, element, &subnet, settings.network_dhcp)?)));
                for (number, (nic, address)) in addressed.enumerate() {
                    let spec = DhcpHostSpec {
                        network_name: &network.name,
                        mac: &nic.mac,
                        address,
                        name: &entry_name(vm_cid, number),
                        vm_name: vm_cid.as_str(),
                    };
                    let entry = dhcp_host::render(&spec, &settings.network_dhcp_ip)?;
                    let stale = in_the_way(libvirt, network, element, address, Some(&entry))?;
                    changes.push(Change {
                        network,
                        description,
                        ip,
                        stale,
                        entry,
                    });
                }
            }
        }
        for (nic, address) in on_it
            .iter()
            .flat_map(|nic| nic.addresses.iter().map(move |a| (nic, a)))
        {
            let text = address.to_string();
            if !changes
                .iter()
                .any(|change| change.entry.attribute("ip") == Some(&text))
            {
                log::debug!(
                    "network {}: no DHCP host entry for {address} ({}): its DHCP does not give that away",
                    network.name,
                    nic.networks.join(", ")
                );
            }
        }
    }
    Ok(changes)
}

/// The address of the NIC's that is entered in the DHCP service of this `<ip>`.
fn to_enter(nic: &Nic, ip: &Element, subnet: &Subnet, wanted: NetworkDhcp) -> Option<IpAddr> {
    let mut addresses = nic.addresses.iter().copied().filter(|a| subnet.contains(*a));
    match wanted {
        NetworkDhcp::Never => None,
        NetworkDhcp::Auto if !nic.asks_dhcp => addresses.find(|address| gives_away(ip, *address)),
        NetworkDhcp::Auto | NetworkDhcp::Always => addresses.next(),
    }
}

/// The entries of dead VMs that clash with this address, or with the entry that is to be made for it.
fn in_the_way(
    libvirt: &Connection,
    network: &Network,
    ip: &Element,
    address: IpAddr,
    entry: Option<&Element>,
) -> Result<Vec<Element>> {
    let has_address = |host: &Element| host.attribute("ip").and_then(|ip| ip.parse().ok()) == Some(address);
    let same = |host: &Element, key| {
        let of_entry = entry.and_then(|entry| entry.attribute(key));
        of_entry.is_some() && host.attribute(key) == of_entry
    };
    let mut stale = Vec::new();
    for host in hosts(ip) {
        if !has_address(host) && !same(host, "name") && !same(host, "mac") {
            continue;
        }
        let taken = |by: String| {
            Error::cloud(format!(
                "network {}: address {address} is reserved by the DHCP host entry {host}, which {by}",
                network.name,
            ))
        };
        if let Some(vm) = living_owner(libvirt, host)? {
            return Err(taken(format!(
                "is VM {vm}'s; take another address, or delete that VM"
            )));
        }
        if !is_a_vms(host) {
            return Err(taken(format!(
                "is no VM's; remove it with `virsh net-update {} delete ip-dhcp-host`, or take another address",
                network.name
            )));
        }
        stale.push(host.clone());
    }
    Ok(stale)
}

/// The VM that an entry belongs to, if it is still there.
fn living_owner(libvirt: &Connection, host: &Element) -> Result<Option<String>> {
    if let Some(vm) = host.attribute("name").and_then(vm_named_by)
        && libvirt.find_domain(vm)?.is_some()
    {
        return Ok(Some(vm.to_owned()));
    }
    let Some(mac) = host.attribute("mac") else {
        return Ok(None);
    };
    for domain in libvirt.all_domains()? {
        let xml = match domain.xml() {
            // VMs come and go while we look.
            Err(e) if e.error_type == ErrorType::VmNotFound => continue,
            xml => xml?,
        };
        let devices = xml.child("devices");
        let has_it = devices
            .into_iter()
            .flat_map(|d| d.children_named("interface"))
            .any(|nic| {
                nic.child("mac")
                    .and_then(|m| m.attribute("address"))
                    .is_some_and(|m| m.eq_ignore_ascii_case(mac))
            });
        if has_it {
            return Ok(Some(domain.name));
        }
    }
    Ok(None)
}

/// Whether an entry was made for a VM, by us or by the seed's CPI, rather than by the operator for something else.
fn is_a_vms(host: &Element) -> bool {
    match host.attribute("name") {
        Some(name) => vm_named_by(name).is_some(),
        None => host.attribute("mac").is_some_and(|mac| mac.starts_with("52:54:")),
    }
}

/// The name of the entry for the VM's n-th NIC in one network.
fn entry_name(vm_cid: &Cid, number: usize) -> String {
    match number {
        0 => vm_cid.to_string(),
        _ => format!("{vm_cid}-{}", number + 1),
    }
}

/// The cid in the name of an entry.
pub fn vm_named_by(name: &str) -> Option<&str> {
    let length = "vm-".len() + 36;
    let (cid, rest) = name.split_at_checked(length)?;
    let is_ours = Cid::new(cid).is_ok_and(|cid| cid.names_vm());
    (is_ours && (rest.is_empty() || rest.starts_with('-'))).then_some(cid)
}

/// The `<host>` entries of an `<ip>`.
fn hosts(ip: &Element) -> impl Iterator<Item = &Element> {
    ip.children_named("dhcp")
        .flat_map(|dhcp| dhcp.children_named("host"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entries_are_found_by_the_cid_in_their_name() {
        let (cid, _) = Cid::new_vm();
        for number in [0, 1, 11] {
            assert_eq!(vm_named_by(&entry_name(&cid, number)), Some(cid.as_str()));
        }
        for other in [
            "",
            "vm-1",
            "webserver",
            &format!("{cid}x"),
            &format!("x{cid}"),
            "vm-ö0000000-0000-4000-8000-0000000000000",
        ] {
            assert_eq!(vm_named_by(other), None, "{other}");
        }
    }

    #[test]
    fn entries_of_vms_are_told_from_the_operators() {
        let (cid, _) = Cid::new_vm();
        for (xml, expected) in [
            (
                format!("<host mac='52:54:00:00:00:01' name='{cid}' ip='10.0.0.5'/>"),
                true,
            ),
            ("<host mac='52:54:00:00:00:01' ip='10.0.0.5'/>".to_owned(), true),
            (
                "<host mac='52:54:00:00:00:01' name='printer' ip='10.0.0.5'/>".to_owned(),
                false,
            ),
            ("<host mac='00:11:22:33:44:55' ip='10.0.0.5'/>".to_owned(), false),
        ] {
            assert_eq!(is_a_vms(&Element::parse(&xml).unwrap()), expected, "{xml}");
        }
    }
}
