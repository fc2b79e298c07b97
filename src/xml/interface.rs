//! `<interface>`: a NIC on a libvirt network.

use super::element::Element;
use super::template;
use crate::rpc::Result;

/// One NIC of a VM.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InterfaceSpec<'a> {
    /// Name of the libvirt network.
    pub network_name: &'a str,
    pub mac: &'a str,
    /// The NIC's first static address, or empty.
    pub ip: &'a str,
    pub vm_name: &'a str,
}

/// The `<interface>` from the operator's `settings.manual_network_interface`, or our own when that is empty.
///
/// # Errors
/// `CpiError` for a template that cannot be rendered.
pub fn render(spec: &InterfaceSpec<'_>, template: &str) -> Result<Element> {
    let mut interface = if template.is_empty() {
        Element::new("interface")
            .with_attribute("type", "network")
            .with_child(Element::new("source").with_attribute("network", spec.network_name))
            .with_child(Element::new("model").with_attribute("type", "virtio"))
    } else {
        let values = [
            ("NetworkName", spec.network_name),
            ("MacAddress", spec.mac),
            ("IpAddress", spec.ip),
            ("VmName", spec.vm_name),
        ];
        template::render("settings.manual_network_interface", template, &values)?
    };
    interface.child_or_new("mac").set_attribute("address", spec.mac);
    // A template is used for every NIC, and a host device, alias or address can be given once.
    for once in ["target", "alias", "address"] {
        interface.remove_children(once);
    }
    Ok(interface)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_seeds_template_serves_more_than_one_nic() {
        let template = "<interface type='network'><source network='{{.NetworkName}}'/><target dev='vnet0'/>\
            <mac address='{{.MacAddress}}'/><model type='virtio'/><alias name='net0'/></interface>";
        let spec = InterfaceSpec {
            network_name: "n",
            mac: "52:54:01:02:03:04",
            ip: "",
            vm_name: "vm-1",
        };
        let expected = "<interface type='network'><source network='n'/><mac address='52:54:01:02:03:04'/>\
            <model type='virtio'/></interface>";
        assert_eq!(render(&spec, template).unwrap().to_string(), expected);
    }
}
