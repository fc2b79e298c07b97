//! What else a NIC can need of the host: network devices and filters.

use virt::error::ErrorNumber;
use virt::sys;

use super::Connection;
use super::errors::{cpi_error, is};
use bosh_cpi::rpc::Result;

impl Connection {
    /// Whether the host has a network device or bridge of this name. True as well where libvirt does not know: the VM's
    /// start shows it then.
    pub fn may_have_network_device(&self, name: &str) -> bool {
        // Reads the kernel's list, but needs a driver that is a package of its own on some distributions.
        let says = match self.connect.lookup_interface_by_name(name) {
            Ok(_) => return true,
            Err(e) => e,
        };
        let has_driver = is(&says, ErrorNumber::NoInterface);
        // Every host has this driver, but it learns of new devices from udevd only, which need not run.
        let prefix = format!("net_{}_", as_in_node_devices(name));
        let devices = self
            .connect
            .list_all_node_devices(sys::VIR_CONNECT_LIST_NODE_DEVICES_CAP_NET)
            .unwrap_or_default();
        let is_listed = devices.iter().any(|device| {
            let device = device.name().unwrap_or_default();
            device.strip_prefix(&prefix).is_some_and(is_mac)
        });
        if !is_listed && !has_driver {
            log::debug!(
                "libvirt does not know whether the host has {name}: {}",
                says.message()
            );
        }
        is_listed || !has_driver
    }

    /// Whether libvirt has an nwfilter of this name.
    pub fn has_filter(&self, name: &str) -> Result<bool> {
        match self.connect.lookup_nwfilter_by_name(name) {
            Ok(_) => Ok(true),
            Err(e) if is(&e, ErrorNumber::NoNwfilter) => Ok(false),
            Err(e) => Err(cpi_error(e).during(format!("looking up nwfilter {name}"))),
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
