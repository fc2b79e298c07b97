//! The job's properties are the CPI's configuration keys: same names, same defaults, same words.

use std::fmt::Write;
use std::path::Path;

use cpi_config::schema::KEYS;
use serde_json::Value;

/// What has no default in the job: there is nothing that would work.
const REQUIRED: &[&str] = &["agent.mbus"];

/// Every property that a manifest made for the CPI this one replaces may set.
const OF_THE_CPI_REPLACED: &[&str] = &[
    "log_level",
    "stemcell.formats",
    "stemcell.type",
    "stemcell.label",
    "stemcell.metadata_path",
    "stemcell.userdata_path",
    "stemcell.filename",
    "settings.disk_device",
    "settings.manual_network_interface",
    "settings.network_name",
    "settings.network_dhcp_ip",
    "settings.storage_pool_name",
    "settings.storage_volume",
    "settings.vm_domain",
    "libvirt.type",
    "libvirt.socket",
    "libvirt.host",
    "libvirt.port",
    "libvirt.client.certificate",
    "libvirt.client.private_key",
    "libvirt.server_ca.certificate",
    "agent.mbus",
    "agent.ntp",
    "agent.blobstore.provider",
    "agent.blobstore.options",
    "throttle.name",
    "vm_ssh_key.public_key",
];

fn wanted_properties() -> String {
    let mut text = String::new();
    for key in KEYS {
        let description = Value::from(key.description);
        writeln!(
            text,
            "  libvirt_cpi.{}:\n    description: {description}",
            key.path
        )
        .unwrap();
        if !REQUIRED.contains(&key.path) {
            writeln!(text, "    default: {}", key.default).unwrap();
        }
    }
    text
}

#[test]
fn properties_are_the_keys_of_cpi_json() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("jobs/libvirt_cpi/spec");
    let spec = std::fs::read_to_string(&path).unwrap();
    let (head, properties) = spec
        .split_once("\nproperties:\n")
        .expect("the spec has properties");
    let wanted = wanted_properties();
    if properties == wanted {
        return;
    }
    if std::env::var_os("CPI_TEST_WRITE").is_some() {
        std::fs::write(&path, format!("{head}\nproperties:\n{wanted}")).unwrap();
        return;
    }
    let missing: Vec<&str> = wanted.lines().filter(|line| !properties.contains(line)).collect();
    let surplus: Vec<&str> = properties.lines().filter(|line| !wanted.contains(line)).collect();
    panic!(
        "jobs/libvirt_cpi/spec differs from crates/cpi-config/src/schema.rs; `CPI_TEST_WRITE=1 cargo test --test release job_spec` \
         writes what is wanted.\nTo add:\n{}\nTo remove:\n{}\nAll properties as wanted:\n{wanted}",
        missing.join("\n"),
        surplus.join("\n"),
    );
}

#[test]
fn what_is_named_here_is_a_key() {
    for path in REQUIRED.iter().chain(OF_THE_CPI_REPLACED) {
        assert!(KEYS.iter().any(|key| key.path == *path), "{path}");
    }
}
