//! Disks that are not what is remembered of them, and copies that fail: nothing is done by guess.

use std::fs;

use serde_json::json;

use crate::loop_pool::LoopPool;
use crate::sandbox::{Sandbox, run, virsh};

/// A stopped VM's disk is copied as a detached one.
#[test]
fn a_disk_of_a_stopped_vm_can_be_copied() {
    let sandbox = Sandbox::new();
    let vm = sandbox.vm_without_system(10);
    virsh(&["destroy", &vm]);
    let disk = sandbox.call("create_disk", json!([8, {}])).text();
    sandbox.call("attach_disk", json!([vm, disk])).result();
    let snapshot = sandbox.call("snapshot_disk", json!([disk, {}])).text();
    sandbox.call("delete_snapshot", json!([snapshot])).result();
    // No QEMU has to be told of its size.
    sandbox.call("resize_disk", json!([disk, 9])).result();
    let file = sandbox.directory().join("pool").join(&disk);
    assert_eq!(fs::metadata(file).unwrap().len(), 9 << 20);
    let qcow2 = sandbox
        .call("create_disk", json!([8, {"format": "qcow2"}]))
        .text();
    // One that is based on another file by now could have the host read that.
    let file = sandbox.directory().join("pool").join(&qcow2);
    let rebase = ["rebase", "-u", "-f", "qcow2", "-F", "raw", "-b", "/etc/passwd"];
    run("qemu-img", &[&rebase[..], &[file.to_str().unwrap()]].concat()).unwrap();
    // Libvirt looks when it reads the pool.
    sandbox.refresh_pool();
    for (method, arguments) in [
        ("attach_disk", json!([vm, qcow2])),
        ("snapshot_disk", json!([qcow2, {}])),
        ("resize_disk", json!([qcow2, 16])),
        ("update_disk", json!([qcow2, 8, {}])),
    ] {
        let message = sandbox.call(method, arguments).error("CloudError", false);
        assert!(
            message.contains("or is an overlay on another file"),
            "{method}: {message}"
        );
    }
    assert!(!virsh(&["dumpxml", &vm]).contains(&qcow2));
    sandbox.call("delete_disk", json!([qcow2])).result();
}

/// Libvirt takes it for a VMDK, and would copy what it thinks is in that.
#[test]
fn a_disk_that_its_guest_has_made_an_unknown_image_of_is_not_copied() {
    let sandbox = Sandbox::new();
    let disk = sandbox.call("create_disk", json!([8, {}])).text();
    let file = sandbox.directory().join("pool").join(&disk);
    let mut content = fs::read(&file).unwrap();
    content[..8].copy_from_slice(b"KDMV\x01\0\0\0");
    content[12..20].copy_from_slice(&(16_u64 << 10).to_le_bytes());
    fs::write(&file, &content).unwrap();
    sandbox.refresh_pool();
    let before = sandbox.volumes();
    for (method, arguments) in [
        ("snapshot_disk", json!([disk, {}])),
        ("resize_disk", json!([disk, 16])),
        ("update_disk", json!([disk, 16, {}])),
    ] {
        let message = sandbox.call(method, arguments).error("CloudError", false);
        assert!(message.contains("that is neither raw nor qcow2"), "{message}");
    }
    assert_eq!(sandbox.volumes(), before);
    assert_eq!(fs::read(&file).unwrap(), content);
    sandbox.call("delete_disk", json!([disk])).result();
}

/// QEMU meets the full file system; the guest goes on with its disk.
#[test]
fn a_snapshot_of_a_disk_in_use_that_finds_no_room_leaves_nothing() {
    let pool = LoopPool::ext4(24);
    let sandbox = Sandbox::new();
    let vm = sandbox.vm_without_system(10);
    let disk = sandbox
        .call("create_disk", json!([16, {"storage_pool": pool.name}]))
        .text();
    let of = format!("of={}", pool.file(&disk));
    run(
        "dd",
        &["if=/dev/urandom", &of, "bs=1M", "count=16", "conv=notrunc"],
    )
    .unwrap();
    sandbox.call("attach_disk", json!([vm, disk])).result();
    let (files, volumes) = (pool.files(), sandbox.volumes());
    let message = sandbox
        .call("snapshot_disk", json!([disk, {}]))
        .error("NoDiskSpace", false);
    assert!(message.contains("No space left on device"), "{message}");
    assert_eq!(pool.files(), files);
    assert_eq!(sandbox.volumes(), volumes);
    assert_eq!(virsh(&["domstate", &vm]).trim(), "running");
    assert!(virsh(&["dumpxml", &vm]).contains(&disk));
}
