//! The ops files on a manifest of bosh.yml's shape, each variant, and the job rendered for both of its places.

use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::{Value, json};

use crate::bosh::{bosh, render_job, response};
use crate::deployment::{fixture, interpolate, manifest};

fn manifests(names: &[&str]) -> Vec<PathBuf> {
    names.iter().map(|name| manifest(name)).collect()
}

/// bosh.yml with libvirt-cpi.yml and these, as `bosh create-env` would take it.
#[track_caller]
fn with_ops(ops: &[&str], variables: &Path) -> Value {
    let mut files = manifests(&["libvirt-cpi.yml"]);
    files.extend(manifests(ops));
    let variables = [
        manifest("bosh-vars.yml"),
        variables.to_owned(),
        fixture("site.yml"),
    ];
    interpolate(&fixture("bosh.yml"), &files, &variables).unwrap_or_else(|error| panic!("{ops:?}: {error}"))
}

fn director(manifest: &Value) -> &Value {
    &manifest["instance_groups"][0]["properties"]
}

/// cpi.json as rendered for the machine that makes the Director, and for the Director; the CPI takes both.
#[track_caller]
fn configurations(manifest: &Value) -> [Value; 2] {
    [&manifest["cloud_provider"]["properties"], director(manifest)].map(|properties| {
        let directory = tempfile::tempdir().unwrap();
        render_job(properties, directory.path()).unwrap();
        let path = directory.path().join("config/cpi.json");
        let mut command = Command::new(env!("CARGO_BIN_EXE_cpi"));
        let info = json!({"method": "info", "arguments": []});
        let answer = response(command.arg("--config").arg(&path).env_clear(), &info);
        assert_eq!(answer["error"], Value::Null);
        let config: Value = serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap();
        assert_eq!(
            answer["result"]["stemcell_formats"],
            config["stemcell"]["formats"]
        );
        config
    })
}

#[test]
fn every_connection() {
    let vars = manifest("libvirt-kvm-vars.yml");
    for (ops, expected) in [
        (
            vec!["libvirt-socket.yml", "openstack-stemcell.yml"],
            json!({"type": "socket", "socket": "/run/libvirt/libvirt-sock", "host": ""}),
        ),
        (
            vec!["libvirt-tcp.yml", "openstack-stemcell.yml", "throttle-noop.yml"],
            json!({"type": "tcp", "host": "192.168.123.1", "port": "16514", "username": ""}),
        ),
        (
            vec!["libvirt-tcp.yml", "libvirt-sasl.yml", "openstack-stemcell.yml"],
            json!({"type": "tcp", "username": "bosh", "password": "secret"}),
        ),
        (
            vec![
                "libvirt-tls.yml",
                "openstack-stemcell.yml",
                "openstack-stemcell-jammy.yml",
            ],
            json!({
                "type": "tls",
                "client": {
                    "certificate": "-----BEGIN CERTIFICATE-----\nclient\n-----END CERTIFICATE-----\n",
                    "private_key": "-----BEGIN PRIVATE KEY-----\nclient\n-----END PRIVATE KEY-----\n",
                },
                "server_ca": {"certificate": "-----BEGIN CERTIFICATE-----\nauthority\n-----END CERTIFICATE-----\n"},
            }),
        ),
        (
            vec!["libvirt-ssh.yml", "openstack-stemcell.yml"],
            json!({"type": "ssh", "username": "bosh", "ssh": {
                "private_key": "-----BEGIN OPENSSH PRIVATE KEY-----\nbosh\n-----END OPENSSH PRIVATE KEY-----\n",
                "host_key": "ssh-ed25519 AAAA", "jump_host": "",
            }}),
        ),
    ] {
        for config in configurations(&with_ops(&ops, &vars)) {
            for (key, value) in expected.as_object().unwrap() {
                assert_eq!(config["libvirt"][key], *value, "{ops:?}: {key}");
            }
        }
    }
}

#[test]
fn stemcells_throttles_and_domain_types() {
    let ops = [
        "libvirt-tcp.yml",
        "vsphere-stemcell.yml",
        "throttle-file-lock.yml",
        "libvirt-domain-type.yml",
    ];
    for (vars, domain_type) in [("libvirt-kvm-vars.yml", "kvm"), ("libvirt-qemu-vars.yml", "qemu")] {
        let deployed = with_ops(&ops, &manifest(vars));
        let url = deployed["resource_pools"][0]["stemcell"]["url"].as_str().unwrap();
        assert!(url.contains("vsphere"), "{url}");
        for config in configurations(&deployed) {
            assert_eq!(config["settings"]["domain_type"], domain_type);
            assert_eq!(config["settings"]["storage_pool_name"], "bosh");
            assert_eq!(config["settings"]["vm_domain"], "");
            assert_eq!(config["throttle"]["name"], "file-lock");
        }
    }
    for (ops, ubuntu) in [
        (vec!["openstack-stemcell.yml"], "noble"),
        (
            vec!["openstack-stemcell.yml", "openstack-stemcell-jammy.yml"],
            "jammy",
        ),
    ] {
        let deployed = with_ops(
            &[&["libvirt-tcp.yml"], &ops[..]].concat(),
            &manifest("libvirt-kvm-vars.yml"),
        );
        let stemcell = &deployed["resource_pools"][0]["stemcell"];
        assert!(
            stemcell["url"]
                .as_str()
                .unwrap()
                .contains(&format!("openstack-kvm-ubuntu-{ubuntu}")),
            "{stemcell}"
        );
        configurations(&deployed);
    }
}

/// One by one, on top of what every operator needs; a new file is in this test by being there.
#[test]
fn every_ops_file_does_something_and_renders() {
    let vars = manifest("libvirt-kvm-vars.yml");
    let base = ["libvirt-tcp.yml", "openstack-stemcell.yml"];
    let without = with_ops(&base, &vars);
    let mut tried = Vec::new();
    for entry in std::fs::read_dir(manifest("")).unwrap() {
        let name = entry.unwrap().file_name().into_string().unwrap();
        let is_ops_file = std::fs::read_to_string(manifest(&name))
            .unwrap()
            .lines()
            .any(|line| line.starts_with("- type: "));
        // Of the cloud-config: `the_cpi_config` has it.
        let on_another_manifest = name == "cloud-config-hosts.yml";
        if !is_ops_file || on_another_manifest || name == "libvirt-cpi.yml" || base.contains(&name.as_str()) {
            continue;
        }
        let with = with_ops(&[&base[..], &[&name]].concat(), &vars);
        assert_ne!(with, without, "{name} changes nothing");
        configurations(&with);
        tried.push(name);
    }
    assert!(tried.len() > 8, "{tried:?}");
}

#[test]
fn what_is_around_the_properties() {
    let ops = ["libvirt-tls.yml", "openstack-stemcell.yml"];
    let deployed = with_ops(&ops, &manifest("libvirt-kvm-vars.yml"));
    let job = json!({"name": "libvirt_cpi", "release": "libvirt-bosh-cpi"});
    assert_eq!(deployed["cloud_provider"]["template"], job);
    assert_eq!(
        deployed["instance_groups"][0]["jobs"].as_array().unwrap().last(),
        Some(&job)
    );
    assert_eq!(director(&deployed)["director"]["cpi_job"], "libvirt_cpi");
    assert_eq!(
        deployed["releases"][2]["url"],
        "https://example.com/libvirt-bosh-cpi-1.tgz"
    );
    let [creating, serving] = configurations(&deployed);
    assert_eq!(
        creating["agent"]["mbus"],
        "https://mbus:generated-mbus_bootstrap_password@0.0.0.0:6868"
    );
    assert_eq!(serving["agent"]["mbus"], "nats://192.168.123.7:4222");
    for config in [creating, serving] {
        assert_eq!(config["vm_ssh_key"]["public_key"], "ssh-rsa AAAA vm_ssh_key");
        assert_eq!(config["log_level"], "INFO");
    }

    // A release made here takes the place of the published one, and then its variables are not needed.
    let dev = manifests(&[
        "libvirt-cpi.yml",
        "libvirt-cpi-dev.yml",
        "libvirt-socket.yml",
        "openstack-stemcell.yml",
    ]);
    let variables = manifests(&["bosh-vars.yml", "libvirt-kvm-vars.yml"]);
    let deployed = interpolate(&fixture("bosh.yml"), &dev, &variables).unwrap();
    assert_eq!(deployed["releases"].as_array().unwrap().len(), 3);
    let release = json!({"name": "libvirt-bosh-cpi", "url": "file:///var/tmp/libvirt-bosh-cpi.tgz"});
    assert_eq!(deployed["releases"][2], release);

    // Without them, what is missing is named.
    let error = interpolate(
        &fixture("bosh.yml"),
        &manifests(&["libvirt-cpi.yml", "libvirt-tls.yml"]),
        &variables,
    );
    let error = error.unwrap_err();
    assert!(
        error.contains("libvirt_client_key") && error.contains("libvirt_cpi_url"),
        "{error}"
    );
}

/// Operators have variables of their own, in the words of the CPI this one replaces.
#[test]
fn templates_of_an_operator_get_through() {
    let vars = fixture("older-vars.yml");
    let deployed = with_ops(&["libvirt-tcp.yml", "openstack-stemcell.yml"], &vars);
    for config in configurations(&deployed) {
        for (key, variable) in [
            ("vm_domain", "libvirt_vm_domain"),
            ("disk_device", "libvirt_disk_device"),
            ("storage_volume", "libvirt_storage_volume"),
            ("manual_network_interface", "libvirt_manual_network_interface"),
            ("network_dhcp_ip", "libvirt_network_dhcp_ip"),
        ] {
            let template = bosh(&["path", vars.to_str().unwrap(), &format!("/{variable}")]).unwrap();
            assert_eq!(
                config["settings"][key].as_str().unwrap().trim(),
                template.trim(),
                "{key}"
            );
            assert!(template.contains("{{."), "{key}");
        }
    }
}

/// The CPI takes each of the cpi-config's property sets on top of a job's configuration.
#[test]
fn the_cpi_config() {
    let cpis = interpolate(&manifest("cpi-config.yml"), &[], &[fixture("site.yml")]).unwrap();
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("cpi.json");
    std::fs::write(&path, "{}").unwrap();
    let cpis = cpis["cpis"].as_array().unwrap();
    for cpi in cpis {
        assert_eq!(cpi["type"], "libvirt");
        // In the file they would be errors if they were unknown; in the context they would be passed over.
        std::fs::write(&path, cpi["properties"].to_string()).unwrap();
        let mut command = Command::new(env!("CARGO_BIN_EXE_cpi"));
        let request = json!({"method": "info", "arguments": [], "context": cpi["properties"]});
        let answer = response(command.arg("--config").arg(&path).env_clear(), &request);
        assert_eq!(answer["error"], Value::Null, "{}", cpi["name"]);
    }
    let clouds = interpolate(
        &manifest("cloud-config.yml"),
        &manifests(&["cloud-config-hosts.yml"]),
        &[],
    )
    .unwrap();
    for az in clouds["azs"].as_array().unwrap() {
        assert!(cpis.iter().any(|cpi| cpi["name"] == az["cpi"]), "{az}");
    }
}

/// Every cloud property is one that create_vm knows: all it lacks is a libvirtd.
#[test]
fn the_cloud_config() {
    let clouds = interpolate(&manifest("cloud-config.yml"), &[], &[]).unwrap();
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("cpi.json");
    std::fs::write(&path, r#"{"libvirt": {"socket": "/no/such/libvirt-sock"}}"#).unwrap();
    let network = |properties: &Value| {
        json!({"default": {"type": "manual", "ip": "192.168.123.11", "netmask": "255.255.255.0",
            "gateway": "192.168.123.1", "dns": [], "default": ["dns", "gateway"], "cloud_properties": properties}})
    };
    let subnet = &clouds["networks"][0]["subnets"][0]["cloud_properties"];
    let mut checked = 0;
    for section in ["vm_types", "vm_extensions"] {
        for vm in clouds[section].as_array().unwrap() {
            let properties = match &vm["cloud_properties"] {
                Value::Null => json!({}),
                properties => properties.clone(),
            };
            let stemcell = "sc-00000000-0000-4000-8000-000000000000";
            let arguments = json!(["agent", stemcell, properties, network(subnet), [], {}]);
            let request = json!({"method": "create_vm", "arguments": arguments, "api_version": 2});
            let mut command = Command::new(env!("CARGO_BIN_EXE_cpi"));
            let answer = response(command.arg("--config").arg(&path).env_clear(), &request);
            let message = answer["error"]["message"].as_str().unwrap();
            assert!(message.contains("/no/such/libvirt-sock"), "{vm}: {message}");
            checked += 1;
        }
    }
    assert!(checked > 5);
}
