//! Persistent disks from create_disk to delete_disk.

use serde_json::{Value, json};

use crate::guest::shell;
use crate::sandbox::{Sandbox, virsh};

#[test]
fn data_survives_detach_reboot_and_attach() {
    let sandbox = Sandbox::new();
    let vm = sandbox.vm(&sandbox.stemcell(), 10);
    let guest = sandbox.address(10);
    let disk = sandbox.call("create_disk", json!([64, {}, vm])).text();
    assert_eq!(disk.len(), 20);
    sandbox.wait_until_ready(&vm, 1);

    let hint = sandbox.call("attach_disk", json!([vm, disk])).text();
    assert_eq!(hint, format!("/dev/disk/by-id/virtio-{disk}"));
    sandbox.wait_for_console(&vm, &format!("GUEST: disk-added virtio-{disk}"), 1);
    assert_eq!(sandbox.call("get_disks", json!([vm])).result(), json!([disk]));
    let size = shell(&guest, &format!("blockdev --getsize64 {hint}"));
    assert_eq!(size.trim(), (64 * 1024 * 1024).to_string());
    shell(
        &guest,
        &format!("disk-init {disk}; echo precious > /mnt/{disk}/file; disk-umount {disk}"),
    );

    // The same pair again changes nothing.
    assert_eq!(sandbox.call("attach_disk", json!([vm, disk])).text(), hint);
    assert_eq!(virsh(&["domblklist", &vm]).matches(disk.as_str()).count(), 1);

    assert_eq!(
        sandbox.call("detach_disk", json!([vm, disk])).result(),
        Value::Null
    );
    assert!(
        !virsh(&["dumpxml", &vm]).contains(&disk),
        "detach_disk returned before the disk was gone"
    );
    assert!(!virsh(&["dumpxml", &vm, "--inactive"]).contains(&disk));
    sandbox.wait_for_console(&vm, &format!("GUEST: disk-removed virtio-{disk}"), 1);
    assert!(shell(&guest, &format!("ls {hint} 2>&1")).contains("No such file"));
    assert_eq!(sandbox.call("get_disks", json!([vm])).result(), json!([]));

    sandbox.call("reboot_vm", json!([vm])).result();
    sandbox.wait_until_ready(&vm, 2);
    sandbox.call("attach_disk", json!([vm, disk])).result();
    sandbox.wait_for_console(&vm, &format!("GUEST: disk-added virtio-{disk}"), 2);
    let content = shell(&guest, &format!("disk-mount {disk}; cat /mnt/{disk}/file"));
    assert!(content.contains("precious"), "{content}");

    // Deleting the VM leaves the disk, data and all, for the next one.
    sandbox.call("delete_vm", json!([vm])).result();
    assert_eq!(sandbox.call("has_disk", json!([disk])).result(), true);
}

#[test]
fn a_disk_goes_only_by_delete_disk_and_only_when_nobody_has_it() {
    let sandbox = Sandbox::new();
    let stemcell = sandbox.stemcell();
    let vm = sandbox.vm(&stemcell, 10);
    let disk = sandbox.call("create_disk", json!([8, {}])).text();
    virsh(&["destroy", &vm]);
    sandbox.call("attach_disk", json!([vm, disk])).result();
    assert_eq!(sandbox.call("get_disks", json!([vm])).result(), json!([disk]));
    let message = sandbox
        .call("delete_disk", json!([disk]))
        .error("CloudError", false);
    assert!(message.contains(&vm), "{message}");
    let second = sandbox.vm(&stemcell, 11);
    let message = sandbox
        .call("attach_disk", json!([second, disk]))
        .error("CloudError", false);
    assert!(message.contains(&vm), "{message}");
    assert_eq!(sandbox.call("has_disk", json!([disk])).result(), true);

    sandbox.call("detach_disk", json!([vm, disk])).result();
    sandbox
        .call("detach_disk", json!([vm, disk]))
        .error("DiskNotAttached", false);
    assert_eq!(sandbox.call("delete_disk", json!([disk])).result(), Value::Null);
    sandbox
        .call("delete_disk", json!([disk]))
        .error("DiskNotFound", false);
    assert_eq!(sandbox.call("has_disk", json!([disk])).result(), false);
    sandbox
        .call("attach_disk", json!([second, disk]))
        .error("DiskNotFound", false);
    let unknown = "vm-00000000-0000-4000-8000-000000000000";
    sandbox
        .call("attach_disk", json!([unknown, disk]))
        .error("VMNotFound", false);
}

#[test]
fn disk_metadata_is_kept_wherever_the_disk_is() {
    let sandbox = Sandbox::new();
    let vm = sandbox.vm(&sandbox.stemcell(), 10);
    let disk = sandbox.call("create_disk", json!([8, {}])).text();
    let namespace = format!("https://github.com/libvirt-bosh-cpi/disk/1.0#{disk}");

    // As `bosh create-env` does: before the disk is attached anywhere.
    sandbox
        .call(
            "set_disk_metadata",
            json!([disk, {"instance_name": "db/0 <&>", "deployment": "cf"}]),
        )
        .result();
    sandbox.call("attach_disk", json!([vm, disk])).result();
    assert!(virsh(&["metadata", &vm, &namespace]).contains("db/0 &lt;&amp;&gt;"));
    // As the Director does: after.
    sandbox
        .call("set_disk_metadata", json!([disk, {"instance_name": "db/1"}]))
        .result();
    let shown = virsh(&["metadata", &vm, &namespace, "--config"]);
    assert!(shown.contains("db/1") && !shown.contains("deployment"), "{shown}");

    virsh(&["destroy", &vm]);
    sandbox.call("detach_disk", json!([vm, disk])).result();
    assert!(!virsh(&["dumpxml", &vm]).contains(&disk));
    let record = sandbox.directory().join("record");
    let name = format!("{disk}.record");
    virsh(&[
        "vol-download",
        "--pool",
        &sandbox.name,
        &name,
        record.to_str().unwrap(),
    ]);
    assert!(std::fs::read_to_string(record).unwrap().contains("db/1"));

    sandbox.call("delete_disk", json!([disk])).result();
    assert!(!sandbox.volumes().iter().any(|volume| volume.contains(&disk)));
    sandbox
        .call("set_disk_metadata", json!([disk, {}]))
        .error("DiskNotFound", false);
}

#[test]
fn a_disk_as_large_as_the_pool_is_no_problem_until_it_is_written() {
    let sandbox = Sandbox::new();
    let disk = sandbox.call("create_disk", json!([1024 * 1024, {}])).text();
    let info = virsh(&["vol-info", "--bytes", "--pool", &sandbox.name, &disk]);
    assert!(info.contains(&(1u64 << 40).to_string()), "{info}");
    sandbox.call("delete_disk", json!([disk])).result();
}
