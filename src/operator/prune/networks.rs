//! Networks that calls make for a moment, so that libvirt creates its directory for dnsmasq.

use super::{Leftover, Target};
use bosh_cpi::rpc::Result;
use libvirt_host::{Connection, DNSMASQ_NETWORK_PREFIX};

/// A call that has just made such a network needs it no longer, so the age of one does not matter.
pub fn find(libvirt: &Connection) -> Result<Vec<Leftover>> {
    let networks = libvirt.all_networks()?;
    let orphaned = networks.into_iter().filter(|network| is_ours(&network.name));
    Ok(orphaned
        .map(|network| Leftover {
            kind: "network",
            place: network.name.clone(),
            name: network.name,
            bytes: 0,
            written_at: None,
            spared: None,
            deleted: false,
            target: Target::Network,
        })
        .collect())
}

fn is_ours(name: &str) -> bool {
    name.strip_prefix(DNSMASQ_NETWORK_PREFIX)
        .is_some_and(|rest| uuid::Uuid::try_parse(rest).is_ok())
}

/// Deletes the network; one that is gone is fine.
pub fn delete(libvirt: &Connection, name: &str) -> Result<()> {
    libvirt
        .find_network(name)?
        .map_or(Ok(()), |network| network.remove())
}
