//! Persistent disks in Ceph, stemcells and boot disks in files beside it: the pool `ceph` is all that an operator names.

use serde_json::{Value, json};

use crate::ceph_host::{CEPH_POOL, CephHost};
use crate::hosts_daemon::stemcell_arguments;
use crate::sandbox::{stemcell_image, wait_for};

const MIB: u64 = 1 << 20;

#[test]
fn persistent_disks_live_in_ceph() {
    let ceph = CephHost::new();
    ceph.define_network();
    let stemcell = ceph.call("create_stemcell", stemcell_arguments()).text();
    let vm = create_vm(&ceph, &stemcell);
    refusals(&ceph, &stemcell);
    let disk = ceph
        .call(
            "create_disk",
            json!([64, {"storage_pool": "ceph", "cache": "writeback"}]),
        )
        .text();
    assert_eq!(ceph.images(), [disk.as_str()]);
    assert_eq!(ceph.call("has_disk", json!([disk])).result(), true);
    ceph.wait_for_console(&vm, "GUEST: ready");

    let hint = ceph.call("attach_disk", json!([vm, disk])).text();
    assert_eq!(hint, format!("/dev/disk/by-id/virtio-{disk}"));
    ceph.wait_for_console(&vm, &format!("GUEST: disk-added virtio-{disk}"));
    assert_eq!(ceph.call("get_disks", json!([vm])).result(), json!([disk]));
    for description in [
        ceph.host.virsh(&["dumpxml", &vm]),
        ceph.host.virsh(&["dumpxml", &vm, "--inactive"]),
    ] {
        let source = format!("<source protocol='rbd' name='{CEPH_POOL}/{disk}'");
        assert!(description.contains(&source), "{description}");
    }
    let message = ceph.call("delete_disk", json!([disk])).error("CloudError", false);
    assert!(message.contains(&vm), "{message}");

    let size = || {
        ceph.shell(&format!("blockdev --getsize64 {hint}"))
            .trim()
            .to_owned()
    };
    assert_eq!(size(), (64 * MIB).to_string());
    ceph.call("resize_disk", json!([disk, 80])).result();
    assert_eq!(size(), (80 * MIB).to_string(), "grown under the guest");
    ceph.shell(&format!("disk-init {disk}; echo first > /mnt/{disk}/file; sync"));

    // Copied within Ceph while the guest goes on.
    let snapshot = ceph.call("snapshot_disk", json!([disk, {"job": "db"}])).text();
    ceph.shell(&format!("echo second > /mnt/{disk}/file; disk-umount {disk}"));
    assert_eq!(ceph.call("has_disk", json!([snapshot])).result(), true);
    ceph.call("attach_disk", json!([vm, snapshot])).result();
    ceph.wait_for_console(&vm, &format!("GUEST: disk-added virtio-{snapshot}"));
    let file = |disk: &str| {
        ceph.shell(&format!(
            "disk-mount {disk} >/dev/null; cat /mnt/{disk}/file; disk-umount {disk}"
        ))
    };
    assert_eq!(file(&snapshot).trim(), "first");
    assert_eq!(file(&disk).trim(), "second");
    ceph.call("detach_disk", json!([vm, snapshot])).result();
    ceph.call("detach_disk", json!([vm, disk])).result();
    assert_eq!(ceph.call("get_disks", json!([vm])).result(), json!([]));

    ceph.call("resize_disk", json!([disk, 96])).result();
    ceph.call("resize_disk", json!([disk, 80]))
        .error("NotSupported", false);
    assert!(
        ceph.run("rbd", &["info", &format!("{CEPH_POOL}/{disk}")])
            .contains("size 96 MiB")
    );
    updates(&ceph, &disk);
    ceph.call("attach_disk", json!([vm, disk])).result();
    assert_eq!(file(&disk).trim(), "second");
    ceph.call("detach_disk", json!([vm, disk])).result();

    // A claim that another host has made in Ceph, of which this host's libvirt does not know.
    let claim = format!("{CEPH_POOL}/{disk}.deleting");
    ceph.run("rbd", &["create", "--size", "1M", &claim]);
    let message = ceph
        .call("attach_disk", json!([vm, disk]))
        .error("CloudError", false);
    assert!(
        message.contains("a delete or an update of it is in progress"),
        "{message}"
    );
    assert_eq!(ceph.call("get_disks", json!([vm])).result(), json!([]));
    ceph.run("rbd", &["rm", "--no-progress", &claim]);
    ceph.host.virsh(&["pool-refresh", "ceph"]);

    // A copy shares what it has not changed with its origin.
    let message = ceph.call("delete_disk", json!([disk])).error("CloudError", false);
    assert!(message.contains("snapshots taken of it"), "{message}");
    assert_eq!(ceph.call("has_disk", json!([disk])).result(), true);
    ceph.call("delete_snapshot", json!([snapshot])).result();
    ceph.call("delete_disk", json!([disk])).result();
    ceph.call("delete_disk", json!([disk]))
        .error("DiskNotFound", false);
    assert_eq!(ceph.images(), [""; 0]);

    a_full_ceph_takes_nothing(&ceph);
    ceph.call("delete_vm", json!([vm])).result();
    ceph.call("delete_stemcell", json!([stemcell])).result();
    assert_eq!(ceph.host.files(), [""; 0]);
}

fn create_vm(ceph: &CephHost, stemcell: &str) -> String {
    let arguments = json!(["a", stemcell, {"memory": 192}, CephHost::network(), [], {}]);
    ceph.call("create_vm", arguments).result()[0]
        .as_str()
        .unwrap()
        .to_owned()
}

/// What cannot be in Ceph, each with what to do instead.
fn refusals(ceph: &CephHost, stemcell: &str) {
    let before = ceph.host.state();
    let in_ceph = |extra: Value| {
        let mut properties = json!({"storage_pool": "ceph"});
        properties
            .as_object_mut()
            .unwrap()
            .extend(extra.as_object().unwrap().clone());
        properties
    };
    let network = CephHost::network();
    for (method, arguments, error_type, says) in [
        (
            "create_vm",
            json!(["a", stemcell, in_ceph(json!({})), network, [], {}]),
            "VMCreationFailed",
            "cloud property storage_pool",
        ),
        (
            "create_disk",
            json!([16, in_ceph(json!({"format": "qcow2"}))]),
            "CloudError",
            "leave out cloud property format",
        ),
        (
            "create_disk",
            json!([16, in_ceph(json!({"preallocation": "full"}))]),
            "CloudError",
            "leave out cloud property preallocation",
        ),
        (
            "create_disk",
            json!([1u64 << 32, in_ceph(json!({}))]),
            "NoDiskSpace",
            "does not fit in pool ceph",
        ),
    ] {
        let message = ceph.call(method, arguments).error(error_type, false);
        assert!(message.contains(says), "{message}");
    }
    let stemcells_in_ceph = json!({"settings": {"stemcell_pool_name": "ceph"}});
    let answer = ceph.host.call_with(
        &ceph.host.libvirt(),
        &stemcells_in_ceph,
        "create_stemcell",
        json!([stemcell_image("qcow2"), {}]),
    );
    let message = answer.error("CloudError", false);
    assert!(
        message.contains("ceph is of type rbd") && message.contains("settings.stemcell_pool_name"),
        "{message}"
    );
    assert_eq!(ceph.images(), [""; 0]);
    assert_eq!(ceph.host.state(), before);
}

/// In place what can be; libvirt copies nothing out of Ceph, so that is left to the Director.
fn updates(ceph: &CephHost, disk: &str) {
    let properties = json!({"storage_pool": "ceph", "cache": "none"});
    let answer = ceph.call("update_disk", json!([disk, 100, properties]));
    assert_eq!(answer.result(), Value::Null);
    let message = ceph
        .call("update_disk", json!([disk, 100, {}]))
        .error("NotSupported", false);
    assert!(message.contains("from pool ceph to pool default"), "{message}");
    let local = ceph.call("create_disk", json!([16, {}])).text();
    ceph.call("update_disk", json!([local, 16, {"storage_pool": "ceph"}]))
        .error("NotSupported", false);
    ceph.call("delete_disk", json!([local])).result();
    let answer = ceph.call(
        "update_disk",
        json!([disk, 100, {"storage_pool": "ceph", "format": "qcow2"}]),
    );
    answer.error("CloudError", false);
}

/// A full Ceph lets writers wait, and libvirt has no proper words for it.
fn a_full_ceph_takes_nothing(ceph: &CephHost) {
    let disk = ceph
        .call("create_disk", json!([16, {"storage_pool": "ceph"}]))
        .text();
    let image = format!("{CEPH_POOL}/{disk}");
    let write = [
        "bench",
        "--io-type",
        "write",
        "--io-size",
        "1M",
        "--io-total",
        "4M",
        &image,
    ];
    ceph.run("rbd", &write);
    ceph.run(
        "ceph",
        &["osd", "pool", "set-quota", CEPH_POOL, "max_bytes", "1000000"],
    );
    wait_for(
        "the quota to be noticed",
        std::time::Duration::from_secs(60),
        || {
            ceph.run("ceph", &["health", "detail"])
                .contains("running out of quota")
        },
    );
    for (method, arguments) in [
        ("create_disk", json!([16, {"storage_pool": "ceph"}])),
        ("resize_disk", json!([disk, 32])),
    ] {
        let message = ceph.call(method, arguments).error("NoDiskSpace", false);
        assert!(message.contains("ceph health detail"), "{method}: {message}");
    }
    ceph.run("ceph", &["osd", "pool", "set-quota", CEPH_POOL, "max_bytes", "0"]);
    wait_for("the quota to be gone", std::time::Duration::from_secs(60), || {
        !ceph
            .run("ceph", &["health", "detail"])
            .contains("running out of quota")
    });
    assert_eq!(ceph.images(), [disk.as_str()], "nothing half made is left");
    ceph.call("delete_disk", json!([disk])).result();
    assert_eq!(ceph.images(), [""; 0]);
}
