//! The directory of libvirt's dnsmasq files. libvirt creates the directory when it starts the first dnsmasq of a host.
//! libvirt also writes a file there for each VM with a NIC on a virtual network, even on a network without dnsmasq: on
//! a fresh host no such VM starts.

use uuid::Uuid;
use virt::connect::Connect;
use virt::error::{Error as LibvirtError, ErrorNumber};

use super::errors::is;

/// Name of the transient network that `create` makes; a uuid follows.
pub const NETWORK_PREFIX: &str = "cpi-dnsmasq-";

/// The directory, if libvirt failed to write a file in it. The path is the same in every language.
pub(super) fn missing(error: &LibvirtError) -> Option<&str> {
    if is(error, ErrorNumber::SystemError) {
        directory_in(error.message())
    } else {
        None
    }
}

fn directory_in(message: &str) -> Option<&str> {
    const NAME: &str = "/dnsmasq";
    let up_to = &message[..message.find(&format!("{NAME}/"))? + NAME.len()];
    let is_before = |c: char| c.is_whitespace() || "'\"`‘’‚“”„«»".contains(c);
    let path = up_to.rsplit(is_before).next()?;
    path.starts_with('/').then_some(path)
}

/// Has libvirt create the directory, by a network with a dnsmasq that is removed at once. libvirt creates the directory
/// before it starts the dnsmasq, so a failure of the network says nothing.
pub(super) fn create(connect: &Connect) {
    let id = Uuid::new_v4();
    let (name, xml) = network(id);
    log::info!("libvirt has no directory for dnsmasq yet; starting network {name} for a moment");
    match connect.create_network_xml(&xml) {
        Ok(network) => {
            if let Err(e) = network.destroy() {
                log::warn!("network {name} is orphaned: {}", e.message());
            }
        }
        Err(e) => log::warn!("starting network {name}: {}", e.message()),
    }
}

/// Isolated, with four link-local addresses that calls at the same time rarely share.
fn network(id: Uuid) -> (String, String) {
    let name = format!("{NETWORK_PREFIX}{id}");
    let [third, fourth, ..] = *id.as_bytes();
    // The first and the last 256 link-local addresses are reserved; 169.254.169.254 has a meaning in clouds.
    let address = format!("169.254.{}.{}", third % 168 + 1, fourth / 4 * 4 + 1);
    let bridge = &id.simple().to_string()[..8];
    let xml = format!(
        "<network><name>{name}</name><bridge name='cpi-{bridge}' stp='off' delay='0'/>\
         <ip address='{address}' prefix='30'/></network>"
    );
    (name, xml)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_directory_is_found_in_messages_of_every_language() {
        for (message, expected) in [
            (
                "Failed to create file '/var/lib/libvirt/dnsmasq/bosh0.macs.new': No such file or directory",
                Some("/var/lib/libvirt/dnsmasq"),
            ),
            (
                "Datei „/home/u/.config/libvirt/dnsmasq/bosh0.macs.new“ kann nicht erstellt werden",
                Some("/home/u/.config/libvirt/dnsmasq"),
            ),
            (
                "cannot open file '/srv/dnsmasq.d/x': No such file or directory",
                None,
            ),
            ("dnsmasq/ is no path", None),
        ] {
            assert_eq!(directory_in(message), expected, "{message}");
        }
    }

    #[test]
    fn the_network_has_addresses_that_nobody_else_uses() {
        for (id, expected) in [(Uuid::nil(), "169.254.1.1"), (Uuid::max(), "169.254.88.253")] {
            let (name, xml) = network(id);
            assert!(
                xml.contains(&format!("<ip address='{expected}' prefix='30'/>")),
                "{xml}"
            );
            assert!(xml.contains(&name));
        }
    }
}
