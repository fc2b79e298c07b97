//! What else a NIC can need of the host: network devices and filters.

use virt::error::ErrorNumber;
use virt::sys;

use super::Connection;
use super::errors::is;
use crate::rpc::{Error, Result};

impl Connection {
    /// Whether the host has a network device or bridge of this name. True as well where libvirt can't tell: then the
    /// VM's start will.
    pub fn may_have_network_device(&self, name: &str) -> bool {
        // Reads the kernel's list, but is a driver that some hosts lack.
        let (found, says) = match self.connect.lookup_interface_by_name(name) {
            Ok(_) => return true,
            Err(e) => (is(&e, ErrorNumber::NoInterface), e),
        };
        // Every host has this one, but it learns of new devices from udev only, if that runs.
        let prefix = format!("net_{}_", as_in_node_devices(name));
        let devices = self
            .connect
            .list_all_node_devices(sys::VIR_CONNECT_LIST_NODE_DEVICES_CAP_NET);
        match devices {
            Ok(devices) => devices.iter().any(|device| {
                let device = device.name().unwrap_or_default();
                device.strip_prefix(&prefix).is_some_and(is_mac)
            }),
            Err(e) => {
                log::debug!(
                    "can't tell whether the host has {name}: {}; {}",
                    says.message(),
                    e.message()
                );
                !found
            }
        }
    }

    /// Whether libvirt has an nwfilter of this name.
    pub fn has_filter(&self, name: &str) -> Result<bool> {
        match self.connect.lookup_nwfilter_by_name(name) {
            Ok(_) => Ok(true),
            Err(e) if is(&e, ErrorNumber::NoNwfilter) => Ok(false),
            Err(e) => Err(Error::from(e).during(format!("looking up nwfilter {name}"))),
        }
    }
}

/// Node devices are named in letters, digits and underscores.
fn as_in_node_devices(name: &str) -> String {
    name.chars()
        .map(|c| if c.is_ascii_alphanumeric() { c } else { '_' })
        .collect()
}

/// Six bytes with underscores between them.
fn is_mac(text: &str) -> bool {
    text.len() == 17 && text.split('_').all(|byte| byte.len() == 2)
}
