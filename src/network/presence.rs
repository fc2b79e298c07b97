//! What a VM's NICs need on the host, looked up before anything is created: a VM without its networks is of no use.

use super::Nic;
use bosh_cpi::rpc::{Error, Result};
use libvirt_host::Connection;
use libvirt_xml::interface::Link;

/// Finds everything that the NICs need, then starts libvirt networks that are inactive.
///
/// # Errors
/// `CloudError` naming the network, port group, bridge, device or nwfilter that is not there, and the BOSH network that
/// wants it.
pub fn require(libvirt: &Connection, nics: &[Nic]) -> Result<()> {
    let mut networks = Vec::new();
    for nic in nics {
        let missing = |what: String, advice: &str| {
            let wanted_by = nic.networks.join(", ");
            Error::cloud(format!(
                "{what} (of network {wanted_by}) does not exist at {}; {advice}",
                libvirt.uri
            ))
        };
        match &nic.link {
            Link::Network { name, portgroup, .. } => {
                let network = libvirt.find_network(name)?.ok_or_else(|| {
                    missing(format!("libvirt network {name}"), "see `virsh net-list --all`")
                })?;
                if let Some(wanted) = portgroup {
                    let xml = network.xml()?;
                    let known = xml
                        .children_named("portgroup")
                        .any(|group| group.attribute("name") == Some(wanted));
                    if !known {
                        let what = format!("port group {wanted} in libvirt network {name}");
                        return Err(missing(what, &format!("see `virsh net-dumpxml {name}`")));
                    }
                }
                networks.push(network);
            }
            Link::Bridge { name, .. } => {
                if !libvirt.may_have_network_device(name) {
                    return Err(missing(
                        format!("bridge {name}"),
                        "create it on the host, or name another",
                    ));
                }
            }
            Link::Direct { device, .. } => {
                if !libvirt.may_have_network_device(device) {
                    return Err(missing(
                        format!("network device {device}"),
                        "see `ip link` on the host",
                    ));
                }
            }
        }
        if let Some(filter) = &nic.properties.filter
            && !libvirt.has_filter(filter)?
        {
            return Err(missing(format!("nwfilter {filter}"), "see `virsh nwfilter-list`"));
        }
    }
    networks.iter().try_for_each(libvirt_host::Network::ensure_active)
}
