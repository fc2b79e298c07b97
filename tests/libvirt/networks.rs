//! Networks of create_vm, in guests that really boot: several NICs, shared NICs, DHCP, filters and links of every kind.

use serde_json::{Value, json};

use crate::guest::shell;
use crate::networks_host::{Namespace, OwnNetwork};
use crate::sandbox::{Sandbox, virsh};

/// A network as the Director sends it.
fn manual(ip: &str, cloud_properties: Value) -> Value {
    let netmask = if ip.contains(':') {
        "ffff:ffff:ffff:ffff::"
    } else {
        "255.255.255.0"
    };
    json!({"type": "manual", "ip": ip, "netmask": netmask, "dns": [], "default": [], "prefix": "32",
           "cloud_properties": cloud_properties})
}

fn create_vm(sandbox: &Sandbox, stemcell: &str, networks: &Value, memory: u64) -> String {
    let arguments = json!(["agent", stemcell, {"memory": memory}, networks, [], {}]);
    let result = sandbox.call("create_vm", arguments).result();
    assert_eq!(&result[1], networks, "the networks come back as they were sent");
    result[0].as_str().unwrap().to_owned()
}

#[test]
fn a_guest_with_many_networks_is_reached_over_each_and_cannot_take_anothers_address() {
    let sandbox = Sandbox::new();
    let second = OwnNetwork::new(&sandbox, "b", |n| {
        format!(
            "<ip address='{}' netmask='255.255.255.0'><dhcp><range start='{}' end='{}'/></dhcp></ip>\
             <ip family='ipv6' address='{}' prefix='64'/>",
            n.v4(1),
            n.v4(200),
            n.v4(220),
            n.v6(1)
        )
    });
    let name = second.name.as_str();
    let mut shared = manual(&second.v4(11), json!({"name": name}));
    shared["nic_group"] = json!("1");
    shared["routes"] =
        json!([{"destination": "10.9.0.0", "netmask": "255.255.0.0", "gateway": second.v4(1)}]);
    let mut shared_v6 = manual(&second.v6(0x11), json!({"name": name}));
    shared_v6["nic_group"] = json!(1);
    shared_v6["prefix"] = json!("64");
    let networks = json!({
        "z-filtered": manual(&sandbox.address(10), json!({"filter": "clean-traffic", "queues": 2, "mtu": 1400})),
        "shared": shared,
        "float": {"type": "vip", "ip": "173.1.2.3", "cloud_properties": {}},
        "shared-v6": shared_v6,
        "a-dynamic": {"type": "dynamic", "dns": [], "default": [], "cloud_properties": {"name": name}},
    });
    let vm = create_vm(&sandbox, &sandbox.stemcell(), &networks, 192);
    sandbox.wait_until_ready(&vm, 1);

    // MACs of settings and domain agree, in the order of the networks.
    let settings = sandbox.settings_seen_by(&vm);
    let mac = |network: &str| settings["networks"][network]["mac"].as_str().unwrap().to_owned();
    assert_eq!(mac("shared"), mac("shared-v6"));
    assert_eq!(settings["networks"]["float"], networks["float"]);
    assert_eq!(
        settings["networks"]["shared"]["routes"],
        networks["shared"]["routes"]
    );
    assert_eq!(settings["networks"]["shared-v6"]["prefix"], "64");
    assert_eq!(settings["networks"]["a-dynamic"]["use_dhcp"], true);
    let interfaces = virsh(&["domiflist", &vm]);
    let in_domain: Vec<&str> = interfaces
        .lines()
        .filter_map(|line| line.split_whitespace().nth(4))
        .collect();
    assert_eq!(in_domain, [mac("z-filtered"), mac("shared"), mac("a-dynamic")]);

    // The host reaches the guest over each address.
    let lease = virsh(&["net-dhcp-leases", name, &mac("a-dynamic")]);
    let leased = lease
        .split_whitespace()
        .find_map(|word| word.strip_suffix("/24"))
        .expect(&lease);
    for address in [&sandbox.address(10), &second.v4(11), &second.v6(0x11), leased] {
        let nics = shell(address, "nics");
        for (network, address) in [
            ("z-filtered", format!("{}/24", sandbox.address(10))),
            ("shared", format!("{}/24", second.v4(11))),
            ("shared", format!("{}/64", second.v6(0x11))),
            ("a-dynamic", format!("{leased}/24")),
        ] {
            let line = nics
                .lines()
                .find(|line| line.contains(&mac(network)))
                .expect(&nics);
            assert!(
                line.split_whitespace().any(|word| word == address),
                "{address} is not in {line}"
            );
        }
    }

    // What the properties say is what the NIC is.
    let xml = virsh(&["dumpxml", &vm]);
    for expected in [
        "<filterref filter='clean-traffic'>",
        &format!("<parameter name='IP' value='{}'/>", sandbox.address(10)),
        "<mtu size='1400'/>",
        "queues='2'",
    ] {
        assert!(xml.contains(expected), "{expected} is not in {xml}");
    }

    // With its own address the guest gets through the filter; with another, or another MAC, it does not.
    let over = second.v4(11);
    let nics = shell(&over, "nics");
    let device = |network: &str| {
        let line = nics.lines().find(|line| line.contains(&mac(network))).unwrap();
        line.split_whitespace().next().unwrap().to_owned()
    };
    let ping = |from: &str, to: &str| {
        let command = format!("ping -c 1 -W 3 -I {from} {to} >/dev/null && echo answered || echo silence");
        shell(&over, &command).trim().to_owned()
    };
    let ping_with_stolen = |address: &str, device: &str, to: &str| {
        shell(&over, &format!("ip addr add {address}/24 dev {device}"));
        let answer = ping(address, to);
        shell(&over, &format!("ip addr del {address}/24 dev {device}"));
        answer
    };
    let set_mac = |mac: &str| {
        let nic = device("z-filtered");
        shell(
            &over,
            &format!("ip link set {nic} down; ip link set {nic} address {mac}; ip link set {nic} up"),
        );
    };
    let (own, host) = (sandbox.address(10), sandbox.address(1));
    assert_eq!(ping(&own, &host), "answered");
    let stolen = ping_with_stolen(&sandbox.address(77), &device("z-filtered"), &host);
    assert_eq!(stolen, "silence", "the guest could use another's address");
    let unfiltered = ping_with_stolen(&second.v4(77), &device("shared"), &second.v4(1));
    assert_eq!(
        unfiltered, "answered",
        "it is not the filter that keeps the guest from it"
    );
    set_mac("52:54:99:99:99:99");
    assert_eq!(ping(&own, &host), "silence", "the guest could use another's MAC");
    set_mac(&mac("z-filtered"));
    assert_eq!(ping(&own, &host), "answered");

    sandbox.call("delete_vm", json!([vm])).result();
    assert!(!virsh(&["net-dumpxml", name]).contains("<host"));
}

#[test]
fn what_is_not_there_is_named_before_anything_is_created() {
    let sandbox = Sandbox::new();
    let stemcell = sandbox.stemcell();
    let before = sandbox.state();
    for (properties, expected) in [
        (
            json!({"name": "no-such-net"}),
            "libvirt network no-such-net (of network n) does not exist",
        ),
        (
            json!({"bridge": "no-such-br"}),
            "bridge no-such-br (of network n) does not exist",
        ),
        (
            json!({"direct": {"device": "no-such-dev", "mode": "vepa"}}),
            "network device no-such-dev (of network n) does not exist",
        ),
        (
            json!({"filter": "no-such-filter"}),
            "nwfilter no-such-filter (of network n) does not exist",
        ),
        (
            json!({"portgroup": "no-such-group"}),
            "port group no-such-group in libvirt network",
        ),
    ] {
        let networks = json!({"n": manual(&sandbox.address(10), properties)});
        let message = sandbox
            .call(
                "create_vm",
                json!(["a", stemcell, {"memory": 64}, networks, [], {}]),
            )
            .error("VMCreationFailed", false);
        assert!(message.contains(expected), "{message}");
    }
    let networks = json!({"n": manual(&sandbox.address(10), json!({"brigde": "x"}))});
    let message = sandbox
        .call(
            "create_vm",
            json!(["a", stemcell, {"memory": 64}, networks, [], {}]),
        )
        .error("CloudError", false);
    assert!(
        message.contains("unknown property brigde; did you mean bridge?"),
        "{message}"
    );
    assert_eq!(sandbox.state(), before);
}

#[test]
fn an_inactive_network_is_started() {
    let sandbox = Sandbox::new();
    let network = OwnNetwork::new(&sandbox, "b", |n| {
        format!("<ip address='{}' netmask='255.255.255.0'/>", n.v4(1))
    });
    virsh(&["net-destroy", &network.name]);
    let networks = json!({"n": manual(&network.v4(10), json!({"name": network.name}))});
    create_vm(&sandbox, &sandbox.stemcell(), &networks, 64);
    assert!(
        virsh(&["net-list", "--name"])
            .lines()
            .any(|name| name.trim() == network.name)
    );
}

#[test]
fn a_nic_goes_to_a_bridge_or_to_a_device_of_the_host() {
    let sandbox = Sandbox::new();
    // The sandbox's network has a bridge of its own, which is as good as any; macvtap gets a veth pair.
    let bridge = sandbox.bridge();
    let host = Namespace::new(&sandbox, None);
    let networks = json!({
        "bridged": manual(&sandbox.address(10), json!({"bridge": bridge})),
        "macvtap": manual("10.132.0.10", json!({"direct": {"device": host.outer, "mode": "private"}, "model": "e1000"})),
    });
    let vm = create_vm(&sandbox, &sandbox.stemcell(), &networks, 64);
    let xml = virsh(&["dumpxml", &vm]);
    for expected in [
        format!("<source bridge='{bridge}'/>"),
        format!("<source dev='{}' mode='private'/>", host.outer),
        "<model type='e1000'/>".to_owned(),
    ] {
        assert!(xml.contains(&expected), "{expected} is not in {xml}");
    }
}

#[test]
fn the_operators_template_serves_networks_with_cloud_properties() {
    let template = "<interface type='network'><source network='{{.NetworkName}}'/><model type='e1000'/>\
        <mac address='{{.MacAddress}}'/><link state='down'/></interface>";
    let sandbox = Sandbox::with_config(json!({"settings": {"manual_network_interface": template}}));
    let networks = json!({
        "a": manual(&sandbox.address(10), json!({})),
        "b": manual(&sandbox.address(11), json!({"model": "virtio", "filter": "clean-traffic"})),
    });
    let vm = create_vm(&sandbox, &sandbox.stemcell(), &networks, 64);
    let xml = virsh(&["dumpxml", &vm]);
    assert_eq!(xml.matches("<link state='down'/>").count(), 2, "{xml}");
    assert!(
        xml.contains("<model type='e1000'/>") && xml.contains("clean-traffic"),
        "{xml}"
    );
}
