//! DHCP host entries of manual networks: made with the VM where they do something, gone with it, and never another's.

use serde_json::{Value, json};

use crate::networks_host::OwnNetwork;
use crate::sandbox::{Answer, Sandbox, virsh};

fn with_dhcp(sandbox: &Sandbox) -> OwnNetwork {
    OwnNetwork::new(sandbox, "b", |n| {
        format!(
            "<ip address='{}' netmask='255.255.255.0'><dhcp><range start='{}' end='{}'/>\
             <host mac='00:16:3e:01:02:03' name='printer' ip='{}'/></dhcp></ip>\
             <ip family='ipv6' address='{}' prefix='64'><dhcp><range start='{}' end='{}'/></dhcp></ip>",
            n.v4(1),
            n.v4(200),
            n.v4(220),
            n.v4(90),
            n.v6(1),
            n.v6(0x200),
            n.v6(0x2ff)
        )
    })
}

fn networks(network: &OwnNetwork, addresses: &[&str]) -> Value {
    let each = addresses.iter().enumerate().map(|(number, ip)| {
        let value = json!({"type": "manual", "ip": ip, "netmask": "255.255.255.0", "dns": [], "default": [],
            "cloud_properties": {"name": network.name}});
        (format!("n{number}"), value)
    });
    Value::Object(each.collect())
}

fn create(sandbox: &Sandbox, stemcell: &str, networks: &Value) -> Answer {
    sandbox.call(
        "create_vm",
        json!(["a", stemcell, {"memory": 64}, networks, [], {}]),
    )
}

fn created(answer: Answer) -> String {
    answer.result()[0].as_str().unwrap().to_owned()
}

#[test]
fn twenty_vms_come_and_go_and_leave_the_network_as_it_was() {
    let sandbox = Sandbox::new();
    let stemcell = sandbox.stemcell();
    let network = with_dhcp(&sandbox);
    let before = network.xml();
    // Four at a time, as the Director has several workers.
    std::thread::scope(|scope| {
        for worker in 0..4u8 {
            let (sandbox, stemcell, network) = (&sandbox, &stemcell, &network);
            scope.spawn(move || {
                let (first, second) = (network.v4(200 + worker), network.v4(210 + worker));
                let v6 = network.v6(0x210 + u16::from(worker));
                for _ in 0..5 {
                    let vm = created(create(
                        sandbox,
                        stemcell,
                        &networks(network, &[&first, &v6, &second]),
                    ));
                    let expected = [
                        format!("name='{vm}' ip='{first}'/>"),
                        format!("<host name='{vm}' ip='{v6}'/>"),
                        // Names differ within one DHCP service.
                        format!("name='{vm}-2' ip='{second}'/>"),
                    ];
                    let (live, persistent) = network.xml();
                    for xml in [&live, &persistent] {
                        for expected in &expected {
                            assert!(xml.contains(expected), "{expected} is not in {xml}");
                        }
                    }
                    sandbox.call("delete_vm", json!([vm])).result();
                }
            });
        }
    });
    assert_eq!(network.xml(), before);
}

#[test]
fn entries_go_when_create_vm_fails_and_when_only_they_are_left_of_a_vm() {
    let sandbox = Sandbox::new();
    let stemcell = sandbox.stemcell();
    let network = with_dhcp(&sandbox);
    let before = network.dhcp_hosts();
    let wanted = networks(&network, &[&network.v4(210)]);

    // It is defined, and its entry made, but the start fails: that is no bridge.
    let mut no_bridge = wanted.clone();
    no_bridge["lo"] = json!({"type": "dynamic", "cloud_properties": {"bridge": "lo"}});
    let answer = create(&sandbox, &stemcell, &no_bridge);
    assert!(
        answer.stderr.contains("rolled back: DHCP host entries"),
        "{}",
        answer.stderr
    );
    answer.error("VMCreationFailed", false);
    assert_eq!(network.dhcp_hosts(), before);

    let vm = created(create(&sandbox, &stemcell, &wanted));
    assert_ne!(network.dhcp_hosts(), before);
    virsh(&["destroy", &vm]);
    virsh(&["undefine", &vm]);
    for volume in sandbox.volumes() {
        if volume.starts_with(&vm) {
            virsh(&["vol-delete", &volume, "--pool", &sandbox.name]);
        }
    }
    sandbox.call("delete_vm", json!([vm])).result();
    assert_eq!(network.dhcp_hosts(), before);
    sandbox.call("delete_vm", json!([vm])).error("VMNotFound", false);
}

/// Names and addresses of the entries in the running network, the operator's own aside; the persistent one has the same.
#[track_caller]
fn entries(network: &OwnNetwork) -> Vec<(String, String)> {
    let [live, persistent] = network.dhcp_hosts().map(|hosts| {
        let attribute = |line: &str, name: &str| {
            let (_, value) = line.split_once(&format!("{name}='")).unwrap();
            value.split('\'').next().unwrap().to_owned()
        };
        hosts
            .lines()
            .filter(|line| !line.contains("printer"))
            .map(|line| (attribute(line, "name"), attribute(line, "ip")))
            .collect::<Vec<_>>()
    });
    assert_eq!(live, persistent);
    live
}

#[test]
fn only_addresses_that_the_networks_dhcp_gives_away_get_entries() {
    let mut sandbox = Sandbox::new();
    let stemcell = sandbox.stemcell();
    let network = with_dhcp(&sandbox);
    let before = network.xml();
    // What each setting makes of addresses outside and inside the ranges. The two that are no names are of earlier versions.
    let (outside, inside) = (network.v4(10), network.v4(205));
    let (outside_v6, inside_v6) = (network.v6(0x10), network.v6(0x205));
    let all = [&*outside, &inside, &outside_v6, &inside_v6];
    for (setting, expected) in [
        (json!("auto"), vec![&inside, &inside_v6]),
        (json!("always"), vec![&outside, &inside, &outside_v6, &inside_v6]),
        (json!("never"), vec![]),
        (json!(true), vec![&outside, &inside, &outside_v6, &inside_v6]),
        (json!(false), vec![]),
    ] {
        sandbox.configure(json!({"settings": {"network_dhcp": setting}}));
        let answer = create(&sandbox, &stemcell, &networks(&network, &all));
        assert_eq!(
            answer.stderr.contains("making DHCP host entries"),
            !expected.is_empty(),
            "{setting}: {}",
            answer.stderr
        );
        let vm = created(answer);
        let mut found = entries(&network);
        assert!(found.iter().all(|(name, _)| name.starts_with(&vm)), "{found:?}");
        let mut addresses: Vec<String> = found.drain(..).map(|(_, address)| address).collect();
        let mut expected: Vec<String> = expected.into_iter().cloned().collect();
        addresses.sort();
        expected.sort();
        assert_eq!(addresses, expected, "{setting}");
        // Entries that are there go with their VM, whatever is configured by then.
        sandbox.configure(json!({"settings": {"network_dhcp": "never"}}));
        sandbox.call("delete_vm", json!([vm])).result();
        assert_eq!(network.xml(), before, "{setting}");
    }

    // Of two addresses on one NIC the one that others could get; a NIC that asks by DHCP is told its own.
    sandbox.configure(json!({"settings": {"network_dhcp": "auto"}}));
    let mut shared = networks(&network, &[&outside, &inside]);
    let mut asking = networks(&network, &[&outside]);
    asking["asks"] = json!({"type": "dynamic", "cloud_properties": {"name": network.name}});
    for (networks, address) in [(&mut shared, &inside), (&mut asking, &outside)] {
        for network in networks.as_object_mut().unwrap().values_mut() {
            network["nic_group"] = json!("1");
        }
        let vm = created(create(&sandbox, &stemcell, networks));
        assert_eq!(entries(&network), [(vm.clone(), address.clone())]);
        sandbox.call("delete_vm", json!([vm])).result();
    }
    assert_eq!(network.xml(), before);
}

#[test]
fn entries_of_the_dead_are_replaced_and_those_of_the_living_respected() {
    let mut sandbox = Sandbox::with_config(json!({"settings": {
        "network_dhcp": "always",
        // The seed's template.
        "network_dhcp_ip": "<host mac='{{.MacAddress}}' name='{{.VmName}}' ip='{{.IpAddress}}'/>",
    }}));
    let stemcell = sandbox.stemcell();
    let network = with_dhcp(&sandbox);
    let dead = "vm-00000000-0000-4000-8000-000000000000";
    for (ip, changes) in [(network.v4(10), "--live"), (network.v4(11), "--config")] {
        let host = format!(
            "<host mac='52:54:00:00:00:{}' name='{dead}' ip='{ip}'/>",
            &ip[ip.len() - 2..]
        );
        virsh(&["net-update", &network.name, "add", "ip-dhcp-host", &host, changes]);
    }
    let vm = created(create(
        &sandbox,
        &stemcell,
        &networks(&network, &[&network.v4(10), &network.v4(11)]),
    ));
    for hosts in network.dhcp_hosts() {
        assert!(!hosts.contains(dead), "{hosts}");
        assert_eq!(hosts.matches(&vm).count(), 2, "{hosts}");
    }

    let before = (sandbox.state(), network.dhcp_hosts());
    // Also where the address itself would get no entry.
    for setting in ["always", "auto"] {
        sandbox.configure(json!({"settings": {"network_dhcp": setting}}));
        for (address, expected) in [
            (network.v4(11), format!("is VM {vm}'s")),
            (network.v4(90), "'printer'".to_owned()),
        ] {
            let message = create(&sandbox, &stemcell, &networks(&network, &[&address]))
                .error("VMCreationFailed", false);
            assert!(
                message.contains(&expected) && message.contains(&address),
                "{message}"
            );
        }
    }
    assert_eq!((sandbox.state(), network.dhcp_hosts()), before);
    sandbox.configure(json!({"settings": {"network_dhcp": "always"}}));

    // An address that the network does not serve needs no entry.
    let elsewhere = created(create(&sandbox, &stemcell, &networks(&network, &["10.9.9.9"])));
    assert_eq!(network.dhcp_hosts(), before.1);
    sandbox.call("delete_vm", json!([elsewhere])).result();
}
