//! A request on stdin: whatever it is, one well-formed response.

use bosh_cpi::rpc::Request;
use cpi_config::Config;
use serde_json::{Map, Value, json};

const NOWHERE: &str = "/nonexistent/libvirt-sock";

const ERROR_TYPES: [&str; 10] = [
    "CpiError",
    "NotSupported",
    "NotImplemented",
    "CloudError",
    "VMNotFound",
    "NetworkNotFound",
    "NoDiskSpace",
    "DiskNotAttached",
    "DiskNotFound",
    "VMCreationFailed",
];

/// Good is what gets as far as connecting, or needs no connection.
pub fn run(bytes: &[u8]) -> bool {
    let response = libvirt_bosh_cpi::respond(bytes, configuration);
    assert!(!response.contains('\n'), "more than one line: {response}");
    let response: Value = serde_json::from_str(&response).expect("a response that is JSON");
    let fields = response.as_object().expect("a response that is an object");
    assert_eq!(fields.keys().collect::<Vec<_>>(), ["result", "error", "log"]);
    assert!(fields["log"].is_string());
    let Value::Object(error) = &fields["error"] else {
        assert!(fields["error"].is_null());
        return true;
    };
    assert!(fields["result"].is_null());
    assert_eq!(
        error.keys().collect::<Vec<_>>(),
        ["type", "message", "ok_to_retry"]
    );
    let kind = error["type"]
        .as_str()
        .and_then(|kind| kind.strip_prefix("Bosh::Clouds::"));
    assert!(kind.is_some_and(|kind| ERROR_TYPES.contains(&kind)), "{response}");
    assert!(error["ok_to_retry"].is_boolean());
    let message = error["message"].as_str().expect("a message that is a string");
    assert!(
        !message.is_empty() && !message.starts_with("internal error"),
        "{message}"
    );
    message.contains(NOWHERE)
}

/// The request's context is read as always, but no input says what is connected to, or where a lock file is.
fn configuration(request: &Request) -> bosh_cpi::rpc::Result<Config> {
    let file = json!({"libvirt": {"socket": NOWHERE}});
    let nowhere = Config::from_value("cpi.json", file.clone(), &Map::new())?;
    let mut config = Config::from_value("cpi.json", file, &request.context)?;
    config.libvirt = nowhere.libvirt;
    config.throttle = nowhere.throttle;
    Ok(config)
}

pub fn seeds() -> Vec<Vec<u8>> {
    const VM: &str = "vm-00000000-0000-4000-8000-000000000000";
    const DISK: &str = "disk0123456789abcdef";
    const STEMCELL: &str = "sc-00000000-0000-4000-8000-000000000000";
    let networks = json!({
        "default": {"type": "manual", "ip": "10.0.1.6", "netmask": "255.255.255.0", "gateway": "10.0.1.1",
            "dns": ["10.0.1.1"], "default": ["dns", "gateway"], "nic_group": "1",
            "cloud_properties": {"name": "n", "mtu": 1400, "queues": 2, "filter": "clean-traffic",
                "bandwidth": {"inbound": {"average": 1000, "peak": 2000, "burst": 100}}}},
        "six": {"type": "manual", "ip": "fd00::6", "nic_group": "2", "cloud_properties": {"bridge": "br0", "vlan": 7}},
        "second": {"type": "dynamic", "cloud_properties": {"direct": {"device": "eth0", "mode": "bridge"}}},
        "float": {"type": "vip", "ip": "173.1.2.3", "cloud_properties": {}},
    });
    let properties = json!({"cpu": 2, "memory": 512, "ephemeral_disk": 1024, "boot_disk": 4096, "storage_pool": "p",
        "firmware": "efi", "machine": "q35", "cpu_mode": "host-model", "hugepages": 2,
        "devices": "<hostdev mode='subsystem'/><memballoon model='none'/>"});
    let network = json!({"type": "manual", "range": "10.9.0.0/24", "gateway": "10.9.0.1",
        "cloud_properties": {"mode": "nat", "dhcp": true}});
    let metadata = json!({"name": "a/0", "n": 1, "deep": {"x": [null, true, "\u{1f600}"]}});
    let calls = [
        ("info", json!([])),
        ("has_vm", json!([VM])),
        (
            "create_vm",
            json!(["agent", STEMCELL, properties, networks, [DISK], {"bosh": {"mbus": {}}}]),
        ),
        ("delete_vm", json!([VM])),
        ("set_vm_metadata", json!([VM, metadata])),
        (
            "calculate_vm_cloud_properties",
            json!([{"ram": 512, "cpu": 2, "ephemeral_disk_size": 2048}]),
        ),
        (
            "create_disk",
            json!([64, {"storage_pool": "p", "cache": "none", "iotune": {"total_iops_sec": 100}}, VM]),
        ),
        ("attach_disk", json!([VM, DISK])),
        ("update_disk", json!([DISK, 128, {"discard": "unmap"}])),
        ("resize_disk", json!([DISK, 128])),
        ("snapshot_disk", json!([DISK, metadata])),
        ("create_network", json!([network])),
        (
            "delete_network",
            json!(["net-00000000-0000-4000-8000-000000000000"]),
        ),
        (
            "create_stemcell",
            json!(["/nonexistent", {"name": "s", "version": 1.5, "disk": 3072,
            "infrastructure": "openstack"}, {"tags": {"a": "b"}}]),
        ),
        (
            "create_stemcell",
            json!(["/nonexistent", {"volume": "jammy.qcow2", "pool": "p"}]),
        ),
    ];
    calls
        .into_iter()
        .map(|(method, arguments)| {
            let context = json!({"director_uuid": "d", "request_id": "cpi-1", "vm": {"stemcell": {"api_version": 3}},
                "settings": {"network_name": "n2"}});
            json!({"method": method, "arguments": arguments, "api_version": 2, "context": context})
                .to_string()
                .into_bytes()
        })
        .collect()
}
