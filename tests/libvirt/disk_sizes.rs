//! resize_disk and update_disk: disks grow, move and change, and never lose data.

use std::path::PathBuf;

use serde_json::{Value, json};

use crate::guest::shell;
use crate::sandbox::{Sandbox, run, virsh};

const MIB: u64 = 1024 * 1024;

fn virtual_size(sandbox: &Sandbox, disk: &str) -> u64 {
    let info = run(
        "qemu-img",
        &[
            "info",
            "-U",
            "--output=json",
            file(sandbox, disk).to_str().unwrap(),
        ],
    )
    .unwrap();
    serde_json::from_str::<Value>(&info).unwrap()["virtual-size"]
        .as_u64()
        .unwrap()
}

fn file(sandbox: &Sandbox, disk: &str) -> PathBuf {
    sandbox.directory().join("pool").join(disk)
}

#[test]
fn a_detached_disk_grows_and_never_shrinks() {
    let sandbox = Sandbox::new();
    for properties in [json!({}), json!({"format": "qcow2"})] {
        let disk = sandbox.call("create_disk", json!([16, properties])).text();
        let before = std::fs::read(file(&sandbox, &disk)).unwrap();
        assert_eq!(
            sandbox.call("resize_disk", json!([disk, 16])).result(),
            Value::Null
        );
        assert_eq!(
            std::fs::read(file(&sandbox, &disk)).unwrap(),
            before,
            "the same size is no change"
        );
        let message = sandbox
            .call("resize_disk", json!([disk, 15]))
            .error("NotSupported", false);
        assert!(message.contains("16 MiB"), "{message}");
        assert_eq!(
            sandbox.call("resize_disk", json!([disk, 40])).result(),
            Value::Null
        );
        assert_eq!(virtual_size(&sandbox, &disk), 40 * MIB);
        sandbox
            .call("resize_disk", json!([disk, 39]))
            .error("NotSupported", false);
    }
    sandbox
        .call("resize_disk", json!(["disk0123456789abcdef", 40]))
        .error("DiskNotFound", false);
}

#[test]
fn a_disk_grows_under_a_running_guest_which_sees_it() {
    let sandbox = Sandbox::new();
    let vm = sandbox.vm(&sandbox.stemcell(), 10);
    let guest = sandbox.address(10);
    let disk = sandbox.call("create_disk", json!([16, {}])).text();
    sandbox.wait_until_ready(&vm, 1);
    let path = sandbox.call("attach_disk", json!([vm, disk])).text();
    sandbox.wait_for_console(&vm, &format!("GUEST: disk-added virtio-{disk}"), 1);
    sandbox.call("resize_disk", json!([disk, 32])).result();
    assert_eq!(
        shell(&guest, &format!("blockdev --getsize64 {path}")).trim(),
        (32 * MIB).to_string()
    );
    sandbox
        .call("resize_disk", json!([disk, 20]))
        .error("NotSupported", false);
    sandbox
        .call("update_disk", json!([disk, 64, {}]))
        .error("CloudError", false);
    sandbox.call("detach_disk", json!([vm, disk])).result();
    // Libvirt's own idea of the size must not let a later call cut it off.
    sandbox
        .call("resize_disk", json!([disk, 20]))
        .error("NotSupported", false);
    sandbox.call("resize_disk", json!([disk, 48])).result();
    assert_eq!(virtual_size(&sandbox, &disk), 48 * MIB);
}

#[test]
fn update_disk_changes_in_place_what_needs_no_copy() {
    let sandbox = Sandbox::new();
    let vm = sandbox.vm(&sandbox.stemcell(), 10);
    let disk = sandbox.call("create_disk", json!([16, {"cache": "none"}])).text();
    let properties = json!({"cache": "writeback", "io": "threads", "discard": "ignore",
        "iotune": {"read_iops_sec": 100, "write_bytes_sec": 1_000_000}});
    assert_eq!(
        sandbox
            .call("update_disk", json!([disk, 24, properties]))
            .result(),
        Value::Null
    );
    assert_eq!(virtual_size(&sandbox, &disk), 24 * MIB);
    virsh(&["destroy", &vm]);
    sandbox.call("attach_disk", json!([vm, disk])).result();
    let xml = virsh(&["dumpxml", &vm]);
    for expected in [
        "cache='writeback'",
        "io='threads'",
        "discard='ignore'",
        "<read_iops_sec>100</read_iops_sec>",
        "<write_bytes_sec>1000000</write_bytes_sec>",
    ] {
        assert!(xml.contains(expected), "{expected} is not in {xml}");
    }
    sandbox
        .call("update_disk", json!([disk, 24, {}]))
        .error("CloudError", false);
    sandbox.call("detach_disk", json!([vm, disk])).result();
    sandbox
        .call("update_disk", json!([disk, 10, {}]))
        .error("NotSupported", false);
    assert_eq!(virtual_size(&sandbox, &disk), 24 * MIB);
}

#[test]
fn update_disk_moves_the_data_to_another_format_or_pool() {
    let sandbox = Sandbox::new();
    let other = Sandbox::new();
    let disk = sandbox.call("create_disk", json!([16, {}])).text();
    let content = sandbox.directory().join("content");
    std::fs::write(
        &content,
        (0..16 * MIB).map(|n| (n % 251) as u8).collect::<Vec<u8>>(),
    )
    .unwrap();
    virsh(&[
        "vol-upload",
        "--pool",
        &sandbox.name,
        &disk,
        content.to_str().unwrap(),
    ]);
    sandbox
        .call("set_disk_metadata", json!([disk, {"deployment": "cf"}]))
        .result();

    let qcow2 = sandbox
        .call("update_disk", json!([disk, 16, {"format": "qcow2"}]))
        .text();
    assert_eq!(qcow2.len(), 20);
    assert_ne!(qcow2, disk);
    assert_eq!(sandbox.call("has_disk", json!([disk])).result(), false);
    let same = |path: PathBuf| {
        let compared = run(
            "qemu-img",
            &[
                "compare",
                "-f",
                "raw",
                content.to_str().unwrap(),
                path.to_str().unwrap(),
            ],
        );
        compared.unwrap_or_else(|e| e)
    };
    assert!(same(file(&sandbox, &qcow2)).contains("identical"));

    let moved = sandbox
        .call("update_disk", json!([qcow2, 20, {"storage_pool": other.name}]))
        .text();
    assert_eq!(virtual_size(&other, &moved), 20 * MIB);
    run("truncate", &["-s", "20M", content.to_str().unwrap()]).unwrap();
    assert!(same(file(&other, &moved)).contains("identical"));
    assert_eq!(
        sandbox.call("has_disk", json!([moved])).result(),
        true,
        "a disk is found in whichever pool it is"
    );
    let volumes = sandbox.volumes();
    assert_eq!(volumes, [""; 0], "nothing is left where the disk was");
    let listed = virsh(&["vol-list", &other.name]);
    assert!(
        listed.contains(&format!("{moved}.record")),
        "metadata moves along: {listed}"
    );

    let message = sandbox.call(
        "update_disk",
        json!([moved, 20, {"storage_pool": "no-such-pool"}]),
    );
    assert!(message.error("CloudError", false).contains("no-such-pool"));
    assert_eq!(sandbox.call("has_disk", json!([moved])).result(), true);
    sandbox.call("delete_disk", json!([moved])).result();
    assert_eq!(sandbox.volumes(), [""; 0]);
}

#[test]
fn disk_cloud_properties_make_the_volume_they_ask_for() {
    let sandbox = Sandbox::new();
    let allocated = |disk: &str| {
        let info = virsh(&["vol-info", "--bytes", "--physical", "--pool", &sandbox.name, disk]);
        assert!(info.contains("Type"), "{info}");
        let blocks = run("stat", &["-c", "%b", file(&sandbox, disk).to_str().unwrap()]).unwrap();
        blocks.trim().parse::<u64>().unwrap() * 512
    };
    let raw = sandbox.call("create_disk", json!([16, {}])).text();
    assert!(allocated(&raw) < MIB);
    let full = sandbox
        .call("create_disk", json!([16, {"preallocation": "full"}]))
        .text();
    assert!(allocated(&full) >= 16 * MIB);
    let qcow2 = sandbox
        .call(
            "create_disk",
            json!([16, {"format": "qcow2", "preallocation": "metadata"}]),
        )
        .text();
    let info = run("qemu-img", &["info", file(&sandbox, &qcow2).to_str().unwrap()]).unwrap();
    assert!(info.contains("file format: qcow2"), "{info}");
    let before = sandbox.volumes();
    for (properties, says) in [
        (json!({"format": "vmdk"}), "raw, qcow2"),
        (json!({"storage_pool": "no-such-pool"}), "no-such-pool"),
        (json!({"chache": "none"}), "did you mean cache?"),
    ] {
        let message = sandbox
            .call("create_disk", json!([16, properties]))
            .error("CloudError", false);
        assert!(message.contains(says), "{message}");
    }
    assert_eq!(sandbox.volumes(), before);
}
