//! The networks that `create_network` makes: which addresses they get, and who uses them.

use std::net::IpAddr;

use super::request::{Range, Request, SMALLEST_IPV6_PREFIX};
use super::{Nic, Subnet};
use bosh_cpi::cid::Cid;
use bosh_cpi::rpc::{Cause, Error, ErrorType, Result};
use libvirt_host::Undo;
use libvirt_host::{Connection, Network};
use libvirt_xml::element::Element;
use libvirt_xml::interface::Link;
use libvirt_xml::network::{self, Mode, NetworkSpec};

/// How many free ranges are tried before the host, which knows of more than libvirt's networks, is believed to have
/// none.
const ATTEMPTS: usize = 16;

/// A network that runs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewNetwork {
    /// Its name in libvirt, too.
    pub id: Cid,
    pub subnet: Subnet,
    pub gateway: Option<IpAddr>,
    /// First and last address that DHCP gives away.
    pub dhcp: Option<(IpAddr, IpAddr)>,
    /// Whether the gateway is the host.
    pub host_is_gateway: bool,
}

impl NewNetwork {
    /// Makes the network and starts it, now and together with libvirt, or leaves nothing behind.
    ///
    /// # Errors
    /// `CloudError` naming the libvirt network that has the range already or the bridge that is not there, or saying
    /// why the network does not start.
    pub fn create(libvirt: &Connection, request: &Request) -> Result<Self> {
        if let Some(bridge) = &request.bridge
            && !libvirt.may_have_network_device(bridge)
        {
            return Err(Error::cloud(format!(
                "creating a network: bridge {bridge} does not exist at {}; create it on the host, or name another",
                libvirt.uri
            )));
        }
        let taken = ranges_in_use(libvirt)?;
        match request.range {
            Range::Given { subnet, gateway } => {
                let network = Self::plan(request, subnet, gateway);
                if let Some((other, theirs)) = taken.iter().find(|(_, theirs)| theirs.overlaps(&subnet)) {
                    return Err(Error::cloud(format!(
                        "creating network {}: its range {subnet} overlaps with {theirs} of libvirt network {other}; \
                         take another range, or delete that network",
                        network.id
                    )));
                }
                network.start(libvirt, request)?;
                Ok(network)
            }
            Range::Any { prefix } => {
                let is_free = |subnet: &Subnet| !taken.iter().any(|(_, theirs)| theirs.overlaps(subnet));
                let mut last_error = None;
                for subnet in private_subnets(prefix).filter(is_free).take(ATTEMPTS) {
                    let network = Self::plan(request, subnet, None);
                    match network.start(libvirt, request) {
                        Ok(()) => return Ok(network),
                        // Something else of the host's, or another call a moment ago, has that range.
                        Err(e) if e.cause == Cause::InUse => last_error = Some(e),
                        Err(e) => return Err(e),
                    }
                }
                Err(last_error.unwrap_or_else(|| {
                    Error::cloud(format!(
                        "creating a network: no private range with netmask_bits {prefix} is free at {}; give a range",
                        libvirt.uri
                    ))
                }))
            }
        }
    }

    fn plan(request: &Request, subnet: Subnet, gateway: Option<IpAddr>) -> Self {
        let (id, _) = Cid::new_network();
        Self {
            id,
            subnet,
            // On an existing bridge, the gateway is whatever is there.
            gateway: gateway.or_else(|| (request.mode != Mode::Bridge).then(|| subnet.address(1))),
            dhcp: request.dhcp.then(|| dhcp_range(&subnet)),
            host_is_gateway: request.host_address,
        }
    }

    fn start(&self, libvirt: &Connection, request: &Request) -> Result<()> {
        let id = self.id.as_str();
        // A device's name has at most 15 bytes.
        let own_bridge = format!("bosh{}", &id["net-".len()..][..8]);
        let spec = NetworkSpec {
            name: id,
            mode: request.mode,
            bridge: request.bridge.as_deref().unwrap_or(&own_bridge),
            host: self
                .gateway
                .filter(|_| self.host_is_gateway)
                .map(|gateway| (gateway, self.subnet.prefix)),
            dhcp: self.dhcp,
        };
        let mut undo = Undo::new(libvirt);
        undo.push(format!("network {id}"), |libvirt| {
            libvirt
                .find_network(id)?
                .map_or(Ok(()), |network| network.remove())
        });
        libvirt.define_network(&network::render(&spec), id)?.start()?;
        undo.disarm();
        Ok(())
    }

    /// Addresses, and ranges of them (`first-last`), that no VM may be given.
    pub fn reserved(&self) -> Vec<String> {
        let host = self.gateway.filter(|_| self.host_is_gateway);
        let dhcp = self.dhcp.map(|(first, last)| format!("{first}-{last}"));
        host.map(|address| address.to_string())
            .into_iter()
            .chain(dhcp)
            .collect()
    }
}

/// The last quarter, of the first 65536 addresses if there are more, for who has no address of the Director's.
fn dhcp_range(subnet: &Subnet) -> (IpAddr, IpAddr) {
    let size = 1u128 << subnet.host_bits().min(16);
    (subnet.address(size - size / 4), subnet.address(size - 2))
}

/// The ranges of all libvirt networks, by name.
fn ranges_in_use(libvirt: &Connection) -> Result<Vec<(String, Subnet)>> {
    let mut ranges = Vec::new();
    for network in libvirt.all_networks()? {
        match network.xml() {
            Ok(xml) => {
                let subnets = xml.children_named("ip").filter_map(Subnet::of_ip_element);
                ranges.extend(subnets.map(|subnet| (network.name.clone(), subnet)));
            }
            // Networks come and go while we look.
            Err(e) if e.error_type == ErrorType::NetworkNotFound => {}
            Err(e) => return Err(e),
        }
    }
    Ok(ranges)
}

/// Private ranges of this size, from a random one on, so that calls at the same time rarely meet.
fn private_subnets(prefix: u32) -> impl Iterator<Item = Subnet> {
    let random = uuid::Uuid::new_v4().into_bytes();
    let ipv6 = prefix >= SMALLEST_IPV6_PREFIX;
    let (within, first): (Option<Subnet>, IpAddr) = if ipv6 {
        // RFC 4193: fd and 40 random bits.
        let mut address = [0; 16];
        address[..6].copy_from_slice(&[0xfd, random[0], random[1], random[2], random[3], random[4]]);
        let first = IpAddr::from(address);
        (Subnet::around(first, 8), first)
    } else {
        let first = IpAddr::from([10, random[0], random[1], random[2]]);
        (Subnet::around(first, 8), first)
    };
    let start = Subnet::around(first, prefix);
    let of_family = within.zip(start);
    of_family.into_iter().flat_map(|(within, start)| {
        let first_of_all = Subnet::around(within.address(0), start.prefix).unwrap_or(start);
        let count = 1usize << (start.prefix - within.prefix).min(20);
        std::iter::successors(Some(start), move |subnet| {
            Some(
                Some(subnet.next())
                    .filter(|next| within.overlaps(next))
                    .unwrap_or(first_of_all),
            )
        })
        .take(count)
    })
}

/// Deletes a network that no VM has a NIC in. It is transient from before the second look at the VMs until it is gone;
/// create_vm defines its VM before it checks for that (`require_kept`). So one of the two sees the other.
///
/// # Errors
/// `CloudError` naming the VMs; the network stays as it is then.
pub fn delete(libvirt: &Connection, network: &Network) -> Result<()> {
    require_unused(libvirt, &network.name)?;
    let mut undo = Undo::new(libvirt);
    if let Some(xml) = network.persistent_xml()? {
        let name = network.name.clone();
        undo.push(format!("definition of network {name}"), move |libvirt| {
            libvirt.redefine_network(&xml, &name)
        });
    }
    network.undefine()?;
    require_unused(libvirt, &network.name)?;
    network.remove()?;
    undo.disarm();
    Ok(())
}

fn require_unused(libvirt: &Connection, network: &str) -> Result<()> {
    let users = users(libvirt, network)?;
    if users.is_empty() {
        return Ok(());
    }
    Err(Error::cloud(format!(
        "deleting network {network}: {} {} NICs in it; delete the VMs first",
        users.join(", "),
        if users.len() == 1 { "has" } else { "have" }
    )))
}

/// For a VM that has just been defined: that none of its networks is being deleted.
///
/// # Errors
/// `CloudError`, retryable, naming the network.
pub fn require_kept(libvirt: &Connection, nics: &[Nic]) -> Result<()> {
    for nic in nics {
        let Link::Network { name, .. } = &nic.link else {
            continue;
        };
        if !Cid::new(name).is_ok_and(|cid| cid.names_network()) {
            continue;
        }
        let network = libvirt.find_network(name)?;
        let is_kept = network.map_or(Ok(false), |network| network.is_persistent())?;
        if !is_kept {
            return Err(Error::cloud(format!(
                "a deletion of network {name} is in progress or was interrupted (repeat delete_network; or, to keep the \
                 network: virsh net-dumpxml {name} >FILE, then virsh net-define FILE)"
            ))
            .retryable());
        }
    }
    Ok(())
}

/// Names of the domains, running or only defined, that have a NIC in this network.
fn users(libvirt: &Connection, network: &str) -> Result<Vec<String>> {
    let mut users = Vec::new();
    for domain in libvirt.all_domains()? {
        for xml in [domain.xml(), domain.persistent_xml()] {
            match xml {
                Ok(xml) if has_nic_in(&xml, network) => {
                    users.push(domain.name.clone());
                    break;
                }
                Ok(_) => {}
                // VMs come and go while we look.
                Err(e) if e.error_type == ErrorType::VmNotFound => break,
                Err(e) => return Err(e),
            }
        }
    }
    Ok(users)
}

fn has_nic_in(domain: &Element, network: &str) -> bool {
    domain
        .child("devices")
        .into_iter()
        .flat_map(|devices| devices.children_named("interface"))
        .filter_map(|interface| interface.child("source"))
        .any(|source| source.attribute("network") == Some(network))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn private_ranges_are_private_and_differ() {
        for (prefix, private, count) in [
            (8, "10.0.0.0/8", 1),
            (9, "10.0.0.0/8", 2),
            (24, "10.0.0.0/8", 65536),
        ] {
            let private: Subnet = private.parse().unwrap();
            let all: Vec<Subnet> = private_subnets(prefix).collect();
            assert_eq!(all.len(), count);
            assert!(
                all.iter()
                    .all(|subnet| subnet.overlaps(&private) && subnet.prefix == prefix)
            );
            let distinct: std::collections::HashSet<String> = all.iter().map(ToString::to_string).collect();
            assert_eq!(distinct.len(), count);
        }
        let ula: Subnet = "fd00::/8".parse().unwrap();
        assert!(private_subnets(64).take(100).all(|subnet| subnet.overlaps(&ula)));
    }

    #[test]
    fn dhcp_gives_away_the_last_quarter() {
        for (range, expected) in [
            ("10.0.0.0/24", ("10.0.0.192", "10.0.0.254")),
            ("10.0.0.0/29", ("10.0.0.6", "10.0.0.6")),
            ("fd00::/64", ("fd00::c000", "fd00::fffe")),
        ] {
            let (first, last) = dhcp_range(&range.parse().unwrap());
            assert_eq!((first.to_string().as_str(), last.to_string().as_str()), expected);
        }
    }
}
