//! Every method of the CPI contract once, with the effect as virsh, qemu-img and the guest show it.

use serde_json::{Value, json};

use crate::cpi::{CONSOLES, Cpi};
use crate::guest::wait_until_up;
use crate::host::Host;

pub fn over_tls(host: &Host) {
    every_method(&Cpi::over(host, "tls"));
}

pub fn over_ssh(host: &Host) {
    let cpi = Cpi::over(host, "ssh");
    let checked = cpi.operator(&["check"]);
    assert!(checked.contains("OK      QEMU"), "{checked}");
    a_vm_and_its_disk(&cpi, "bosh");
}

pub fn within_the_host(host: &Host) {
    let cpi = Cpi::over(host, "socket");
    let checked = cpi.operator(&["check"]);
    assert!(checked.contains("OK      QEMU"), "{checked}");
    a_vm_and_its_disk(&cpi, "bosh");
}

/// What virsh prints of a running VM.
fn live_xml(host: &Host, vm: &str) -> String {
    host.run(&format!("virsh -q dumpxml {vm}"))
}

/// Nothing of ours is on the host.
#[track_caller]
pub fn assert_clean(host: &Host, pool: &str) {
    let left = host.run(&format!("virsh -q list --all --name; virsh -q vol-list {pool}"));
    assert_eq!(left.trim(), "", "left behind");
}

fn every_method(cpi: &Cpi<'_>) {
    let host = cpi.host;
    assert_eq!(cpi.call("info", json!([])).result()["api_version"], 3);
    let stemcell = cpi.stemcell();

    let vm = cpi.vm(&stemcell, 10, json!({}));
    wait_until_up(host, &vm, 1);
    assert_eq!(cpi.call("has_vm", json!([vm])).result(), true);
    let metadata = json!({"name": "db/0", "deployment": "cf", "job": "db", "index": "0"});
    cpi.call("set_vm_metadata", json!([vm, metadata])).result();
    assert_eq!(host.run(&format!("virsh -q desc --title {vm}")).trim(), "db/0");
    let wanted = json!([{"ram": 64, "cpu": 1, "ephemeral_disk_size": 8}]);
    let properties = cpi.call("calculate_vm_cloud_properties", wanted).result();
    assert_eq!(properties["memory"], 64);

    let disk = cpi.call("create_disk", json!([8, {}, vm])).text();
    assert_eq!(cpi.call("has_disk", json!([disk])).result(), true);
    cpi.call("set_disk_metadata", json!([disk, {"deployment": "cf"}]))
        .result();
    let hint = cpi.call("attach_disk", json!([vm, disk])).text();
    assert_eq!(hint, format!("/dev/disk/by-id/virtio-{disk}"));
    assert!(live_xml(host, &vm).contains(&format!("<serial>{disk}</serial>")));
    assert_eq!(cpi.call("get_disks", json!([vm])).result(), json!([disk]));
    let live = cpi.call("snapshot_disk", json!([disk, {}])).text();
    cpi.call("detach_disk", json!([vm, disk])).result();
    assert!(!live_xml(host, &vm).contains(&disk));

    cpi.call("resize_disk", json!([disk, 16])).result();
    assert_eq!(bytes(host, &disk), 16 << 20);
    let still = cpi.call("snapshot_disk", json!([disk, {}])).text();
    for (snapshot, size) in [(&live, 8 << 20), (&still, 16 << 20)] {
        assert_eq!(bytes(host, snapshot), size);
    }
    let copy = cpi
        .call("update_disk", json!([disk, 16, {"format": "qcow2"}]))
        .text();
    assert!(image_info(host, &copy).contains("file format: qcow2"));
    cpi.call("attach_disk", json!([vm, copy])).result();
    cpi.call("reboot_vm", json!([vm])).result();
    wait_until_up(host, &vm, 2);
    let moment = cpi.call("snapshot_disk", json!([copy, {}])).text();

    cpi.call("delete_vm", json!([vm])).result();
    assert_eq!(cpi.call("has_vm", json!([vm])).result(), false);
    assert_eq!(cpi.call("has_disk", json!([copy])).result(), true);
    for snapshot in [live, still, moment] {
        cpi.call("delete_snapshot", json!([snapshot])).result();
    }
    cpi.call("delete_disk", json!([copy])).result();
    assert_eq!(cpi.call("has_disk", json!([disk])).result(), false);

    a_vm_in_a_network_of_the_cpi(cpi, &stemcell);
    a_vm_with_a_settings_cdrom(cpi);
    cpi.call("delete_stemcell", json!([stemcell])).result();
    for method in ["configure_networks", "current_vm_id"] {
        cpi.call(method, json!([])).error("NotSupported", false);
    }
    assert_clean(host, "bosh");
}

fn a_vm_in_a_network_of_the_cpi(cpi: &Cpi<'_>, stemcell: &str) {
    let (network, properties) = a_network(cpi, "10.144.0");
    let vm = cpi.vm_at(stemcell, "10.144.0.10", properties, json!({})).result()[0]
        .as_str()
        .unwrap()
        .to_owned();
    assert!(live_xml(cpi.host, &vm).contains(&format!("network='{network}'")));
    wait_until_up(cpi.host, &vm, 1);
    cpi.call("delete_vm", json!([vm])).result();
    cpi.call("delete_network", json!([network])).result();
    assert!(!cpi.host.run("virsh -q net-list --all --name").contains(&network));
}

/// A network of create_network, and the cloud properties for its VMs.
pub fn a_network(cpi: &Cpi<'_>, subnet: &str) -> (String, Value) {
    let definition = json!({"type": "manual", "range": format!("{subnet}.0/24"), "gateway": format!("{subnet}.1"),
        "netmask_bits": 24, "cloud_properties": {"mode": "isolated"}});
    let created = cpi.call("create_network", json!([definition])).result();
    (created[0].as_str().unwrap().to_owned(), created[2].clone())
}

/// What a stemcell for vSphere gets: its settings on a CD-ROM, and disks on SCSI.
fn a_vm_with_a_settings_cdrom(cpi: &Cpi<'_>) {
    let properties = json!({"disk": 1, "infrastructure": "vsphere", "hypervisor": "esxi"});
    let stemcell = cpi.call("create_stemcell", json!([cpi.image, properties])).text();
    let vm = cpi.vm(&stemcell, 11, json!({}));
    assert!(live_xml(cpi.host, &vm).contains("device='cdrom'"));
    with_a_disk(cpi, &vm, json!({}));
    cpi.call("delete_vm", json!([vm])).result();
    cpi.call("delete_stemcell", json!([stemcell])).result();
}

/// A disk's virtual size.
fn bytes(host: &Host, volume: &str) -> u64 {
    let info = image_info(host, volume);
    let (_, rest) = info.split_once("virtual size:").unwrap();
    let (_, rest) = rest.split_once('(').unwrap();
    rest.split_whitespace().next().unwrap().parse().unwrap()
}

fn image_info(host: &Host, volume: &str) -> String {
    host.run(&format!(
        "qemu-img info -U \"$(virsh -q vol-path {volume} --pool bosh)\""
    ))
}

/// The life of a VM whose persistent disk is in this pool.
pub fn a_vm_and_its_disk(cpi: &Cpi<'_>, disk_pool: &str) {
    let stemcell = cpi.stemcell();
    let vm = cpi.vm(&stemcell, 12, json!({}));
    with_a_disk(cpi, &vm, json!({"storage_pool": disk_pool}));
    cpi.call("delete_vm", json!([vm])).result();
    cpi.call("delete_stemcell", json!([stemcell])).result();
    assert_clean(cpi.host, disk_pool);
}

/// Attaches a new disk to the running VM, copies it, starts the VM with it again, and deletes it.
pub fn with_a_disk(cpi: &Cpi<'_>, vm: &str, cloud_properties: Value) {
    let disk = cpi.call("create_disk", json!([8, cloud_properties])).text();
    cpi.call("attach_disk", json!([vm, disk])).result();
    let snapshot = cpi.call("snapshot_disk", json!([disk, {}])).text();
    // Not a reset: a new QEMU, confined anew.
    cpi.host
        .run(&format!("virsh -q destroy {vm}; : >{CONSOLES}/{vm}.log"));
    cpi.call("reboot_vm", json!([vm])).result();
    wait_until_up(cpi.host, vm, 1);
    assert_eq!(cpi.call("get_disks", json!([vm])).result(), json!([disk]));
    cpi.call("detach_disk", json!([vm, disk])).result();
    cpi.call("delete_disk", json!([disk])).result();
    cpi.call("delete_snapshot", json!([snapshot])).result();
}
