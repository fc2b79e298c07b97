//! `<host>`: one reserved address in the DHCP service of a libvirt network.

use std::net::IpAddr;

use super::element::Element;
use super::template;
use bosh_cpi::rpc::{Error, Result};

/// An entry to make.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DhcpHostSpec<'a> {
    /// Name of the libvirt network.
    pub network_name: &'a str,
    pub mac: &'a str,
    pub address: IpAddr,
    /// What the entry is found again by.
    pub name: &'a str,
    pub vm_name: &'a str,
}

/// The `<host>` from the operator's `settings.network_dhcp_ip`, or our own when that is empty. DHCPv6 knows no MACs:
/// an IPv6 entry goes by its name.
///
/// # Errors
/// `CpiError` for a template that cannot be rendered or is no `<host>`.
pub fn render(spec: &DhcpHostSpec<'_>, template: &str) -> Result<Element> {
    let address = spec.address.to_string();
    let mut host = if template.is_empty() {
        Element::new("host")
    } else {
        let values = [
            ("NetworkName", spec.network_name),
            ("MacAddress", spec.mac),
            ("IpAddress", &address),
            ("VmName", spec.vm_name),
        ];
        template::render("settings.network_dhcp_ip", template, &values)?
    };
    if host.name != "host" {
        return Err(Error::cpi(format!(
            "template settings.network_dhcp_ip: it renders to <{}>, not to <host>",
            host.name
        )));
    }
    if spec.address.is_ipv6() {
        host.remove_attribute("mac");
    } else {
        host.set_attribute("mac", spec.mac);
    }
    host.set_attribute("name", spec.name);
    host.set_attribute("ip", address);
    Ok(host)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rendered(address: &str, template: &str) -> Result<String> {
        let spec = DhcpHostSpec {
            network_name: "n",
            mac: "52:54:01:02:03:04",
            address: address.parse().unwrap(),
            name: "vm-1-2",
            vm_name: "vm-1",
        };
        render(&spec, template).map(|host| host.to_string())
    }

    #[test]
    fn an_entry_has_its_address_mac_and_name_whatever_the_template_says() {
        let seeds = "<host mac='{{.MacAddress}}' name='{{.VmName}}' ip='{{.IpAddress}}'/>";
        let leased = "<host mac='00:00:00:00:00:00' ip='10.9.9.9'><lease expiry='0'/></host>";
        for (template, address, expected) in [
            (
                "",
                "10.0.0.5",
                "<host mac='52:54:01:02:03:04' name='vm-1-2' ip='10.0.0.5'/>",
            ),
            (
                seeds,
                "10.0.0.5",
                "<host mac='52:54:01:02:03:04' name='vm-1-2' ip='10.0.0.5'/>",
            ),
            (seeds, "fd00::5", "<host name='vm-1-2' ip='fd00::5'/>"),
            (
                leased,
                "10.0.0.5",
                "<host mac='52:54:01:02:03:04' ip='10.0.0.5' name='vm-1-2'><lease expiry='0'/></host>",
            ),
        ] {
            assert_eq!(rendered(address, template).unwrap(), expected);
        }
        let message = rendered("10.0.0.5", "<dhcp/>").unwrap_err().message;
        assert!(
            message.contains("settings.network_dhcp_ip") && message.contains("<host>"),
            "{message}"
        );
    }
}
