use super::*;
use proptest::prelude::*;

fn settings(networks: Value, macs: &[(&str, &str)], ephemeral: Option<Value>, env: Value) -> Settings {
    Settings {
        agent_id: "agent-1".into(),
        vm_cid: "vm-9f31".into(),
        mbus: "nats://mbus:4222".into(),
        ntp: vec!["10.0.0.5".into(), "time.example".into()],
        blobstore: Blobstore {
            provider: "dav".into(),
            options: json!({"endpoint": "http://b:25250"}).as_object().unwrap().clone(),
        },
        networks: networks.as_object().unwrap().clone(),
        macs: macs.iter().map(|(k, v)| (k.to_string(), v.to_string())).collect(),
        disks: Disks {
            system: "/dev/vda".into(),
            ephemeral,
            persistent: Map::new(),
        },
        env,
    }
}

#[test]
fn the_whole_document() {
    let ephemeral = json!({"path": "/dev/disk/by-id/virtio-ephemeral"});
    let env = json!({"bosh": {"mbus": {"urls": ["nats://other"]}, "blobstores": [{"provider": "local"}]}});
    let mut settings = settings(
        json!({"default": {"type": "manual", "ip": "10.0.1.6"}}),
        &[("default", "52:54:00:00:00:01")],
        Some(ephemeral.clone()),
        env.clone(),
    );
    settings
        .disks
        .persistent
        .insert("disk0123456789abcdef".into(), json!({"path": "/dev/vdc"}));
    assert_eq!(
        settings.to_json(),
        json!({
            "agent_id": "agent-1",
            "vm": {"name": "vm-9f31", "id": "vm-9f31"},
            "mbus": "nats://mbus:4222",
            "ntp": ["10.0.0.5", "time.example"],
            "blobstore": {"provider": "dav", "options": {"endpoint": "http://b:25250"}},
            "networks": {"default": {"type": "manual", "ip": "10.0.1.6", "mac": "52:54:00:00:00:01"}},
            "disks": {
                "system": "/dev/vda",
                "ephemeral": ephemeral,
                "persistent": {"disk0123456789abcdef": {"path": "/dev/vdc"}},
            },
            "env": env,
        })
    );
}

#[test]
fn networks_by_type() {
    for (name, sent, mac, expected) in [
        (
            "manual keeps what it came with",
            json!({"type": "manual", "ip": "10.0.1.6", "prefix": "32", "nic_group": "1", "new_key": [1, null],
                   "cloud_properties": {"name": "lan"}}),
            Some("52:54:00:AB:CD:EF"),
            json!({"type": "manual", "ip": "10.0.1.6", "prefix": "32", "nic_group": "1", "new_key": [1, null],
                   "cloud_properties": {"name": "lan"}, "mac": "52:54:00:ab:cd:ef"}),
        ),
        (
            "no type is manual",
            json!({"ip": "10.0.1.6"}),
            Some("m"),
            json!({"ip": "10.0.1.6", "mac": "m"}),
        ),
        (
            "dynamic goes by DHCP",
            json!({"type": "dynamic", "dns": []}),
            Some("m"),
            json!({"type": "dynamic", "dns": [], "mac": "m", "use_dhcp": true}),
        ),
        (
            "vip has no NIC",
            json!({"type": "vip", "ip": "1.2.3.4"}),
            Some("m"),
            json!({"type": "vip", "ip": "1.2.3.4"}),
        ),
        (
            "a stale MAC is replaced",
            json!({"type": "manual", "mac": "old"}),
            Some("new"),
            json!({"type": "manual", "mac": "new"}),
        ),
        (
            "no MAC known",
            json!({"type": "manual"}),
            None,
            json!({"type": "manual"}),
        ),
    ] {
        let macs: Vec<_> = mac.map(|mac| ("net", mac)).into_iter().collect();
        let document = settings(json!({"net": sent}), &macs, None, json!({})).to_json();
        assert_eq!(document["networks"]["net"], expected, "{name}");
    }
}

#[test]
fn networks_keep_the_directors_order() {
    let document = settings(json!({"zulu": {}, "alpha": {}, "mike": {}}), &[], None, json!({})).to_json();
    let names: Vec<_> = document["networks"].as_object().unwrap().keys().collect();
    assert_eq!(names, ["zulu", "alpha", "mike"]);
}

#[test]
fn no_ephemeral_disk_means_no_key() {
    let document = settings(json!({}), &[], None, Value::Null).to_json();
    let disks = document["disks"].as_object().unwrap();
    assert!(!disks.contains_key("ephemeral"));
    assert_eq!(disks["persistent"], json!({}));
}

proptest! {
    #[test]
    fn env_and_network_keys_come_through_untouched(env in crate::external_tools::any_json(),
                                                   extra in crate::external_tools::any_json()) {
        let document = settings(json!({"net": {"type": "manual", "extra": extra}}), &[], None, env.clone()).to_json();
        prop_assert_eq!(&document["env"], &env);
        prop_assert_eq!(&document["networks"]["net"]["extra"], &extra);
    }
}
