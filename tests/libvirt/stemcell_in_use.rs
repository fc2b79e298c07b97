//! delete_stemcell never deletes what something is based on, wherever that is and whoever has made it.

use std::fs;

use serde_json::json;

use crate::defined_pool::DefinedPool;
use crate::sandbox::{Sandbox, run, try_virsh, virsh};

#[test]
fn a_stemcell_stays_while_a_vm_in_a_stopped_pool_is_based_on_it() {
    let sandbox = Sandbox::new();
    let pool = DefinedPool::new(&sandbox);
    let image = sandbox.image_without_system();
    let stemcell = sandbox.call("create_stemcell", json!([image, {}])).text();
    let arguments =
        json!(["a", stemcell, {"memory": 64, "storage_pool": pool.name}, sandbox.manual_network(10), [], {}]);
    let vm = sandbox.call("create_vm", arguments).result()[0].clone();
    let vm = vm.as_str().unwrap();
    let file = sandbox.directory().join("pool").join(&stemcell);
    let refused = |says: &str| {
        let message = sandbox
            .call("delete_stemcell", json!([stemcell]))
            .error("CloudError", false);
        assert!(message.contains(says), "{message}");
        assert!(file.exists());
        // Nothing of the refused call keeps VMs from being made.
        assert_eq!(
            fs::read_dir(file.parent().unwrap())
                .unwrap()
                .filter(|entry| {
                    entry
                        .as_ref()
                        .unwrap()
                        .file_name()
                        .to_str()
                        .unwrap()
                        .ends_with(".deleting")
                })
                .count(),
            0
        );
    };
    refused(&format!("{vm}-boot"));
    virsh(&["pool-destroy", &pool.name]);
    refused(vm);
    // Stopped or saved, too.
    virsh(&["managedsave", vm]);
    refused(vm);
    virsh(&["managedsave-remove", vm]);
    refused(vm);
    // A domain of an earlier version, whose XML does not tell what its disk is based on.
    let xml = virsh(&["dumpxml", vm, "--inactive"]);
    let begin = xml.find("<backingStore type").unwrap();
    let end = xml.find("<target dev='vda'").unwrap();
    let old = format!("{}{}", &xml[..begin], &xml[end..]);
    let described = sandbox.directory().join("old.xml");
    for source in [
        None,
        Some(format!("<source pool='{}' volume='{vm}-boot'/>", pool.name)),
    ] {
        let mut old = old.clone();
        if let Some(source) = source {
            let path = format!("<source file='{}/{vm}-boot'/>", pool.directory.display());
            old = old
                .replacen("<disk type='file'", "<disk type='volume'", 1)
                .replacen(&path, &source, 1);
        }
        fs::write(&described, &old).unwrap();
        virsh(&["define", described.to_str().unwrap()]);
        refused(&format!("pool {} is inactive", pool.name));
    }
    virsh(&["pool-start", &pool.name]);
    refused(&format!("{vm}-boot"));
    sandbox.call("delete_vm", json!([vm])).result();
    assert_eq!(pool.files(), 0);
    // A stopped pool that no VM has a disk in is no reason.
    virsh(&["pool-destroy", &pool.name]);
    sandbox.call("delete_stemcell", json!([stemcell])).result();
    assert!(!file.exists());
    assert_eq!(sandbox.volumes(), [""; 0]);
}

/// Another host of a shared pool, or an operator, makes an overlay, and libvirt has not read the pool since.
#[test]
fn a_stemcell_stays_while_an_overlay_is_on_it_that_libvirt_does_not_know_of() {
    let sandbox = Sandbox::new();
    let image = sandbox.image_without_system();
    let stemcell = sandbox.call("create_stemcell", json!([image, {}])).text();
    let directory = sandbox.directory().join("pool");
    let (base, overlay) = (directory.join(&stemcell), directory.join("by-hand"));
    let (base, overlay) = (base.to_str().unwrap(), overlay.to_str().unwrap());
    run(
        "qemu-img",
        &["create", "-q", "-f", "qcow2", "-F", "raw", "-b", base, overlay],
    )
    .unwrap();
    let message = sandbox
        .call("delete_stemcell", json!([stemcell]))
        .error("CloudError", false);
    assert!(message.contains("by-hand"), "{message}");
    // The image of somebody's VM, in no pool: only the running VM tells what it is based on.
    let elsewhere = sandbox.directory().join("elsewhere.qcow2");
    let elsewhere = elsewhere.to_str().unwrap();
    fs::rename(overlay, elsewhere).unwrap();
    let name = format!("{}-foreign", sandbox.name);
    let xml = format!(
        "<domain type='qemu'><name>{name}</name><memory unit='MiB'>32</memory><os><type>hvm</type></os><devices>\
         <disk type='file'><driver type='qcow2'/><source file='{elsewhere}'/><target dev='vda'/></disk></devices></domain>"
    );
    let described = sandbox.directory().join("foreign.xml");
    fs::write(&described, xml).unwrap();
    virsh(&["create", described.to_str().unwrap()]);
    let answer = sandbox.call("delete_stemcell", json!([stemcell]));
    let _ = try_virsh(&["destroy", &name]);
    let message = answer.error("CloudError", false);
    assert!(message.contains(&name), "{message}");
    fs::remove_file(elsewhere).unwrap();
    sandbox.call("delete_stemcell", json!([stemcell])).result();
    assert_eq!(sandbox.volumes(), [""; 0]);
}
