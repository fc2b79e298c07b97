//! Sidecar records and markers are beside the volume they are about, and are found whatever the settings say now.

use std::fs;
use std::path::PathBuf;

use serde_json::json;

use crate::defined_pool::{DefinedPool, SharedPool};
use crate::sandbox::{Sandbox, virsh};

/// `<cid>.record`, as a file of this pool's directory.
fn record(directory: &std::path::Path, disk: &str) -> PathBuf {
    directory.join(format!("{disk}.record"))
}

#[test]
fn a_record_is_beside_its_disk_and_found_with_other_settings() {
    let mut sandbox = Sandbox::new();
    let pool = DefinedPool::new(&sandbox);
    let stopped = sandbox.vm_without_system(10);
    virsh(&["destroy", &stopped]);
    let properties = json!({"format": "qcow2", "cache": "none", "storage_pool": pool.name});
    let disk = sandbox.call("create_disk", json!([8, properties])).text();
    let own = record(&pool.directory, &disk);
    assert!(own.exists());
    // The pool of stemcells and disks is another one from here on.
    let files = sandbox.directory().join("pool");
    sandbox.configure(json!({"settings": {"storage_pool_name": pool.name}}));
    for settings in [pool.name.clone(), sandbox.name.clone()] {
        sandbox.configure(json!({"settings": {"storage_pool_name": settings}}));
        sandbox.call("attach_disk", json!([stopped, disk])).result();
        let xml = virsh(&["dumpxml", &stopped, "--inactive"]);
        assert!(xml.contains("type='qcow2' cache='none'"), "{xml}");
        sandbox.call("detach_disk", json!([stopped, disk])).result();
        sandbox
            .call("set_disk_metadata", json!([disk, {"deployment": settings}]))
            .result();
        assert!(fs::read_to_string(&own).unwrap().contains(&settings));
        assert!(!record(&files, &disk).exists());
    }
    sandbox.call("resize_disk", json!([disk, 16])).result();
    let snapshot = sandbox.call("snapshot_disk", json!([disk, {}])).text();
    assert!(record(&pool.directory, &snapshot).exists());

    // Where an earlier version kept it: found, and beside the disk once it is written again.
    let old = record(&files, &disk);
    fs::copy(&own, &old).unwrap();
    fs::remove_file(&own).unwrap();
    for pool in [&pool.name, &sandbox.name] {
        virsh(&["pool-refresh", pool]);
    }
    sandbox.call("resize_disk", json!([disk, 24])).result();
    sandbox
        .call("set_disk_metadata", json!([disk, {"deployment": "moved"}]))
        .result();
    assert!(fs::read_to_string(&own).unwrap().contains("moved"));
    assert!(!old.exists());

    for (method, cid) in [("delete_snapshot", &snapshot), ("delete_disk", &disk)] {
        sandbox.call(method, json!([cid])).result();
    }
    assert_eq!(pool.files(), 0);
    sandbox.call("delete_vm", json!([stopped])).result();
}

#[test]
fn an_unreadable_record_is_an_error_and_is_never_overwritten() {
    let sandbox = Sandbox::new();
    let vm = sandbox.vm_without_system(10);
    virsh(&["destroy", &vm]);
    let properties = json!({"format": "qcow2"});
    let disk = sandbox.call("create_disk", json!([8, properties])).text();
    let own = record(&sandbox.directory().join("pool"), &disk);
    let good = fs::read(&own).unwrap();
    for content in [&b"{\"format\": \"qco"[..], b"[1]", b"{\"format\": \"vmdk\"}"] {
        fs::write(&own, content).unwrap();
        for (method, arguments) in [
            ("attach_disk", json!([vm, disk])),
            ("resize_disk", json!([disk, 16])),
            ("snapshot_disk", json!([disk, {}])),
            ("update_disk", json!([disk, 16, properties])),
            ("set_disk_metadata", json!([disk, {"deployment": "d"}])),
        ] {
            let message = sandbox.call(method, arguments).error("CloudError", false);
            assert!(
                message.contains(&format!("record {disk}.record")),
                "{method}: {message}"
            );
            assert_eq!(fs::read(&own).unwrap(), content, "{method}");
        }
    }
    // Nobody takes the disk for raw because its record is lost.
    fs::remove_file(&own).unwrap();
    sandbox.refresh_pool();
    sandbox
        .call("set_disk_metadata", json!([disk, {"deployment": "d"}]))
        .result();
    assert!(!fs::read_to_string(&own).unwrap().contains("raw"));
    let message = sandbox
        .call("attach_disk", json!([vm, disk]))
        .error("CloudError", false);
    assert!(message.contains("is unknown"), "{message}");
    // As docs/STORAGE.md says.
    fs::write(&own, r#"{"format": "qcow2"}"#).unwrap();
    sandbox.call("attach_disk", json!([vm, disk])).result();
    fs::write(&own, good).unwrap();
    sandbox.call("delete_vm", json!([vm])).result();
    // A disk can be deleted whatever is in its record.
    fs::write(&own, "x").unwrap();
    sandbox.call("delete_disk", json!([disk])).result();
    assert!(!own.exists());
}

#[test]
fn claims_are_beside_the_disk_and_those_of_earlier_versions_count() {
    let sandbox = Sandbox::new();
    let pool = DefinedPool::new(&sandbox);
    let vm = sandbox.vm_without_system(10);
    virsh(&["destroy", &vm]);
    let disk = sandbox
        .call("create_disk", json!([8, {"storage_pool": pool.name}]))
        .text();
    let marker = format!("{disk}.deleting");
    for place in [&pool.name, &sandbox.name] {
        virsh(&["vol-create-as", place, &marker, "1"]);
        let message = sandbox
            .call("attach_disk", json!([vm, disk]))
            .error("CloudError", false);
        let remedy = format!("virsh vol-delete {marker} {place}");
        assert!(message.contains(&remedy), "{message}");
        assert!(!virsh(&["dumpxml", &vm]).contains(&disk));
        virsh(&["vol-delete", &marker, place]);
    }
    virsh(&["vol-create-as", &pool.name, &marker, "1"]);
    // A killed call's claim is taken over.
    sandbox.call("delete_disk", json!([disk])).result();
    assert_eq!(pool.files(), 0);
    sandbox.call("delete_vm", json!([vm])).result();
}

/// Hosts that share a pool see each other's claims, whatever their libvirt has read of the pool.
#[test]
fn a_claim_of_another_host_is_seen_in_a_shared_pool() {
    let mut sandbox = Sandbox::new();
    let vm = sandbox.vm_without_system(10);
    virsh(&["destroy", &vm]);
    let shared = SharedPool::new(&sandbox);
    sandbox.configure(
        json!({"settings": {"storage_pool_name": shared.name, "stemcell_pool_name": sandbox.name}}),
    );
    let disk = sandbox.call("create_disk", json!([8, {}])).text();
    // Another host's libvirt makes a file, of which this one does not know.
    let marker = shared.directory.join(format!("{disk}.deleting"));
    fs::write(&marker, "").unwrap();
    let listed = virsh(&["vol-list", &shared.name]);
    assert!(!listed.contains("deleting"), "{listed}");
    let message = sandbox
        .call("attach_disk", json!([vm, disk]))
        .error("CloudError", false);
    assert!(
        message.contains("a delete or an update of it is in progress"),
        "{message}"
    );
    virsh(&["vol-delete", &format!("{disk}.deleting"), &shared.name]);
    sandbox.call("attach_disk", json!([vm, disk])).result();
    assert!(!marker.exists());
    sandbox.call("delete_vm", json!([vm])).result();
    sandbox.call("delete_disk", json!([disk])).result();
}
