//! The filter that docs/NETWORKING.md gives for NICs with IPv4 and IPv6, as it stands there.

use std::fs;

use serde_json::json;

use crate::guest::shell;
use crate::networks_host::OwnNetwork;
use crate::sandbox::{Sandbox, try_virsh, virsh};

const DOCUMENT: &str = include_str!("../../docs/NETWORKING.md");

/// An nwfilter that is gone when it is dropped.
struct Filter(String);

impl Filter {
    fn of_the_document(sandbox: &Sandbox) -> Self {
        let (_, rest) = DOCUMENT
            .split_once("```xml\n<filter name='bosh-dual-stack'")
            .unwrap();
        let (rest, _) = rest.split_once("```").unwrap();
        let filter = Self(format!("{}-dual-stack", sandbox.name));
        let file = sandbox.directory().join("filter.xml");
        fs::write(&file, format!("<filter name='{}'{rest}", filter.0)).unwrap();
        virsh(&["nwfilter-define", file.to_str().unwrap()]);
        filter
    }
}

impl Drop for Filter {
    fn drop(&mut self) {
        let _ = try_virsh(&["nwfilter-undefine", &self.0]);
    }
}

#[test]
fn a_guest_with_ipv4_and_ipv6_keeps_to_its_own_addresses() {
    let sandbox = Sandbox::new();
    let filter = Filter::of_the_document(&sandbox);
    let network = OwnNetwork::new(&sandbox, "f", |n| {
        format!(
            "<ip address='{}' netmask='255.255.255.0'/><ip family='ipv6' address='{}' prefix='64'/>",
            n.v4(1),
            n.v6(1)
        )
    });
    let nic = json!({"name": network.name, "filter": filter.0});
    let mut networks = sandbox.manual_network(10);
    networks["v4"] = json!({"type": "manual", "ip": network.v4(11), "netmask": "255.255.255.0", "nic_group": "1",
        "dns": [], "default": [], "cloud_properties": nic});
    networks["v6"] = json!({"type": "manual", "ip": network.v6(0x11), "netmask": "ffff:ffff:ffff:ffff::",
        "nic_group": "1", "dns": [], "default": [], "cloud_properties": nic});
    let arguments = json!(["agent", sandbox.stemcell(), {"memory": 192}, networks, [], {}]);
    let vm = sandbox.call("create_vm", arguments).result()[0]
        .as_str()
        .unwrap()
        .to_owned();
    sandbox.wait_until_ready(&vm, 1);

    // Whoever is outside reaches it over both; it gives its answers over the NIC without a filter.
    let nics = shell(&network.v6(0x11), "nics");
    assert_eq!(shell(&network.v4(11), "nics"), nics);
    let line = nics.lines().find(|line| line.contains(&network.v4(11))).unwrap();
    let device = line.split_whitespace().next().unwrap();
    let over = sandbox.address(10);
    let ping = |from: &str, to: &str| {
        let command = format!("ping -c 1 -W 3 -I {from} {to} >/dev/null && echo answered || echo silence");
        shell(&over, &command).trim().to_owned()
    };
    assert_eq!(ping(&network.v4(11), &network.v4(1)), "answered");
    assert_eq!(ping(&network.v6(0x11), &network.v6(1)), "answered");
    let stolen = |address: &str, bits: u8, to: &str| {
        // A new IPv6 address is not used before the guest knows that nobody else has it.
        shell(
            &over,
            &format!("ip addr add {address}/{bits} dev {device}; sleep 3"),
        );
        let answer = ping(address, to);
        shell(&over, &format!("ip addr del {address}/{bits} dev {device}"));
        answer
    };
    assert_eq!(stolen(&network.v4(77), 24, &network.v4(1)), "silence");
    assert_eq!(stolen(&network.v6(0x77), 64, &network.v6(1)), "silence");

    // Without the filter both would get through.
    let interface = virsh(&[
        "dumpxml",
        &vm,
        "--xpath",
        &format!("//interface[source/@network='{}']", network.name),
    ]);
    let (before, rest) = interface.split_once("<filterref").unwrap();
    let (_, after) = rest.split_once("</filterref>").unwrap();
    let file = sandbox.directory().join("interface.xml");
    fs::write(&file, format!("{before}{after}")).unwrap();
    virsh(&["update-device", &vm, file.to_str().unwrap(), "--live"]);
    assert_eq!(stolen(&network.v4(77), 24, &network.v4(1)), "answered");
    assert_eq!(stolen(&network.v6(0x77), 64, &network.v6(1)), "answered");
    sandbox.call("delete_vm", json!([vm])).result();
}
