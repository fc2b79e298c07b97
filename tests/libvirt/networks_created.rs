//! create_network and delete_network.

use std::io::ErrorKind;
use std::net::TcpStream;

use serde_json::{Value, json};

use crate::guest::shell;
use crate::networks_host::Namespace;
use crate::sandbox::{Answer, Sandbox, run, try_virsh, virsh};

/// Networks that a test made, gone when it ends.
struct Created<'a> {
    sandbox: &'a Sandbox,
    ids: Vec<String>,
}

impl Created<'_> {
    fn call(&mut self, definition: Value) -> Answer {
        let answer = self.sandbox.call("create_network", json!([definition]));
        if let Some(id) = answer.response["result"][0].as_str() {
            self.ids.push(id.to_owned());
        }
        answer
    }
}

impl Drop for Created<'_> {
    fn drop(&mut self) {
        for id in &self.ids {
            let _ = try_virsh(&["net-destroy", id]);
            let _ = try_virsh(&["net-undefine", id]);
        }
    }
}

fn range(sandbox: &Sandbox) -> String {
    format!("10.132.{}.0/24", sandbox.subnet())
}

fn address(sandbox: &Sandbox, host: u8) -> String {
    format!("10.132.{}.{host}", sandbox.subnet())
}

#[test]
fn two_vms_on_an_isolated_network_reach_each_other_and_nothing_else() {
    let sandbox = Sandbox::new();
    let mut created = Created {
        sandbox: &sandbox,
        ids: Vec::new(),
    };
    let gateway = address(&sandbox, 1);
    let definition = json!({"type": "manual", "range": range(&sandbox), "gateway": gateway, "netmask_bits": 24,
        "cloud_properties": {"mode": "isolated", "mtu": 1400}});
    let result = created.call(definition).result();
    let id = result[0].as_str().unwrap();
    assert_eq!(
        result[1],
        json!({"range": range(&sandbox), "reserved": [gateway], "gateway": gateway})
    );
    assert_eq!(result[2], json!({"mtu": 1400, "name": id}));
    let info = virsh(&["net-info", id]);
    for line in [
        "Active:         yes",
        "Persistent:     yes",
        "Autostart:      yes",
    ] {
        assert!(info.contains(line), "{info}");
    }

    let stemcell = sandbox.stemcell();
    let vms: Vec<String> = [10, 11]
        .map(|host| {
            let networks = json!({"default": {"type": "manual", "ip": address(&sandbox, host), "netmask": "255.255.255.0",
                "gateway": gateway, "dns": [], "default": ["dns", "gateway"], "cloud_properties": result[2]}});
            let arguments = json!(["agent", stemcell, {"memory": 192}, networks, [], {}]);
            let result = sandbox.call("create_vm", arguments).result();
            result[0].as_str().unwrap().to_owned()
        })
        .to_vec();
    for vm in &vms {
        sandbox.wait_until_ready(vm, 1);
    }
    // A machine on another network of the host's, which the host reaches.
    let other_machine = sandbox.address(50);
    let _namespace = Namespace::new(&sandbox, Some(&other_machine));
    let refused = TcpStream::connect((other_machine.as_str(), 1)).unwrap_err();
    assert_eq!(
        refused.kind(),
        ErrorKind::ConnectionRefused,
        "the machine is not there"
    );

    let answers = |to: &str| {
        let command = format!("ping -c 1 -W 3 {to} >/dev/null && echo answers || echo silent");
        shell(&address(&sandbox, 10), &command)
            .lines()
            .last()
            .unwrap_or_default()
            == "answers"
    };
    assert!(answers(&address(&sandbox, 11)), "the other VM does not answer");
    assert!(!answers(&other_machine), "a machine on another network answers");
    let command = format!("echo nics | nc -w 5 {} 7000", address(&sandbox, 11));
    let nics = shell(&address(&sandbox, 10), &command);
    assert!(
        nics.contains(&address(&sandbox, 11)) && !nics.contains(&address(&sandbox, 10)),
        "{nics}"
    );

    let message = sandbox
        .call("delete_network", json!([id]))
        .error("CloudError", false);
    assert!(vms.iter().all(|vm| message.contains(vm)), "{message}");
    for vm in &vms {
        sandbox.call("delete_vm", json!([vm])).result();
    }
    assert_eq!(sandbox.call("delete_network", json!([id])).result(), Value::Null);
    assert!(try_virsh(&["net-info", id]).is_err());
    sandbox
        .call("delete_network", json!([id]))
        .error("NetworkNotFound", false);
}

#[test]
fn networks_of_every_mode_and_family() {
    let sandbox = Sandbox::new();
    let mut created = Created {
        sandbox: &sandbox,
        ids: Vec::new(),
    };
    let subnet = sandbox.subnet();
    let xml = |result: &Value| virsh(&["net-dumpxml", result[0].as_str().unwrap()]);

    let nat = json!({"range": range(&sandbox), "cloud_properties": {"dhcp": true}});
    let result = created.call(nat).result();
    let (first, last) = (address(&sandbox, 192), address(&sandbox, 254));
    assert_eq!(result[1]["gateway"], address(&sandbox, 1));
    assert_eq!(
        result[1]["reserved"],
        json!([address(&sandbox, 1), format!("{first}-{last}")])
    );
    let shown = xml(&result);
    assert!(
        shown.contains("<forward mode='nat'>")
            && shown.contains(&format!("<range start='{first}' end='{last}'/>")),
        "{shown}"
    );

    let v6 = format!("fd00:132:{subnet:x}:1::");
    let route = json!({"range": format!("{v6}/64"), "gateway": format!("{v6}1"), "cloud_properties": {"mode": "isolated"}});
    let result = created.call(route).result();
    assert_eq!(
        result[1],
        json!({"range": format!("{v6}/64"), "reserved": [format!("{v6}1")], "gateway": format!("{v6}1")})
    );
    let shown = xml(&result);
    assert!(
        shown.contains(&format!("<ip family='ipv6' address='{v6}1' prefix='64'"))
            && !shown.contains("<dhcp>"),
        "{shown}"
    );

    let free = created
        .call(json!({"netmask_bits": 28, "cloud_properties": {"mode": "route"}}))
        .result();
    assert!(free[1]["range"].as_str().unwrap().ends_with("/28"), "{free}");
    assert!(xml(&free).contains("<forward mode='route'/>"));

    let bridge = json!({"range": "10.133.0.0/24", "gateway": "10.133.0.1",
        "cloud_properties": {"mode": "bridge", "bridge": sandbox.bridge()}});
    let result = created.call(bridge).result();
    assert_eq!(
        result[1],
        json!({"range": "10.133.0.0/24", "reserved": [], "gateway": "10.133.0.1"})
    );
    assert!(xml(&result).contains(&format!("<bridge name='{}'/>", sandbox.bridge())));

    let private =
        json!({"range": "10.133.0.0/24", "cloud_properties": {"mode": "isolated", "host_address": false}});
    let result = created.call(private).result();
    assert!(!xml(&result).contains("<ip"));
    for id in created.ids.split_off(0) {
        sandbox.call("delete_network", json!([id])).result();
    }
}

#[test]
fn what_cannot_be_made_leaves_nothing_and_what_is_not_ours_stays() {
    let sandbox = Sandbox::new();
    let mut created = Created {
        sandbox: &sandbox,
        ids: Vec::new(),
    };
    let mut fails = |definition: Value, expected: &[&str]| {
        let message = created.call(definition).error("CloudError", false);
        for expected in expected {
            assert!(message.contains(expected), "{expected} is not in {message}");
        }
        if let Some(id) = message.split([' ', ':']).find(|word| word.starts_with("net-")) {
            assert!(
                try_virsh(&["net-info", id]).is_err(),
                "{id} is left over: {message}"
            );
        }
    };
    let theirs = format!("{}/24", sandbox.address(0));
    fails(
        json!({"range": theirs}),
        &["network net-", "overlaps with", &theirs, &sandbox.name],
    );
    fails(
        json!({"range": sandbox.address(128) + "/25"}),
        &["overlaps with", &sandbox.name],
    );
    fails(
        json!({"range": "10.133.0.0/24", "cloud_properties": {"mode": "bridge", "bridge": "no-such-br"}}),
        &["bridge no-such-br does not exist"],
    );
    fails(
        json!({"range": "10.133.0.0/24", "cloud_properties": {"mod": "nat"}}),
        &["did you mean mode?"],
    );

    // Not libvirt's network, so the range looks free until the start.
    let namespace = Namespace::new(&sandbox, None);
    let in_use = format!("10.132.{}.1/24", sandbox.subnet());
    run("ip", &["addr", "add", &in_use, "dev", &namespace.outer]).unwrap();
    fails(
        json!({"range": range(&sandbox)}),
        &["starting network net-", "in use"],
    );

    for id in [sandbox.name.as_str(), "net-00000000-0000-4000-8000-000000000000"] {
        let message = sandbox
            .call("delete_network", json!([id]))
            .error("NetworkNotFound", false);
        assert!(message.contains(id), "{message}");
    }
    assert!(virsh(&["net-list", "--name"]).contains(&sandbox.name));
}
