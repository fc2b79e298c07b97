//! delete_stemcell never deletes what something is based on, wherever that is and whoever has made it.

use std::fs;

use serde_json::{Value, json};

use crate::hosts_daemon::Host;
use crate::sandbox::{Sandbox, image_without_system, run, try_virsh, virsh};

/// On a host of its own: a stopped pool with such a VM keeps every stemcell of the host from being deleted.
#[test]
fn a_stemcell_stays_while_a_vm_in_a_stopped_pool_is_based_on_it() {
    let host = Host::new();
    let second = host.directory().join("second");
    fs::create_dir(&second).unwrap();
    let second = second.to_str().unwrap();
    host.virsh(&["pool-define-as", "second", "dir", "--target", second]);
    host.virsh(&["pool-start", "second"]);
    let call = |method: &str, arguments: Value| host.call(&host.libvirt(), method, arguments);
    let image = image_without_system(host.directory());
    let stemcell = call("create_stemcell", json!([image, {}])).text();
    let networks = json!({"default": {"type": "manual", "ip": "10.77.0.10", "netmask": "255.255.255.0"}});
    let arguments = json!(["a", stemcell, {"memory": 64, "storage_pool": "second"}, networks, [], {}]);
    let vm = call("create_vm", arguments).result()[0].clone();
    let vm = vm.as_str().unwrap();
    let refused = |says: &str| {
        let message = call("delete_stemcell", json!([stemcell])).error("CloudError", false);
        assert!(message.contains(says), "{message}");
        let files = host.files();
        assert!(files.contains(&stemcell), "{files:?}");
        // Nothing of the refused call keeps VMs from being made.
        assert!(!files.iter().any(|name| name.ends_with(".deleting")), "{files:?}");
    };
    refused(&format!("{vm}-boot"));
    host.virsh(&["pool-destroy", "second"]);
    refused(vm);
    // Stopped or saved, too.
    host.virsh(&["managedsave", vm]);
    refused(vm);
    host.virsh(&["managedsave-remove", vm]);
    refused(vm);
    // A domain of an earlier version, whose XML does not tell what its disk is based on.
    let xml = host.virsh(&["dumpxml", vm, "--inactive"]);
    let begin = xml.find("<backingStore type").unwrap();
    let end = xml.find("<target dev='vda'").unwrap();
    let old = format!("{}{}", &xml[..begin], &xml[end..]);
    let described = host.directory().join("old.xml");
    for source in [None, Some(format!("<source pool='second' volume='{vm}-boot'/>"))] {
        let mut old = old.clone();
        if let Some(source) = source {
            let path = format!("<source file='{second}/{vm}-boot'/>");
            old = old
                .replacen("<disk type='file'", "<disk type='volume'", 1)
                .replacen(&path, &source, 1);
        }
        fs::write(&described, &old).unwrap();
        host.virsh(&["define", described.to_str().unwrap()]);
        refused("pool second is inactive");
    }
    host.virsh(&["pool-start", "second"]);
    refused(&format!("{vm}-boot"));
    call("delete_vm", json!([vm])).result();
    assert_eq!(fs::read_dir(second).unwrap().count(), 0);
    // A stopped pool that no VM has a disk in is no reason, unless libvirt should have started it.
    host.virsh(&["pool-autostart", "second"]);
    host.virsh(&["pool-destroy", "second"]);
    refused("pool second is inactive");
    host.virsh(&["pool-autostart", "second", "--disable"]);
    call("delete_stemcell", json!([stemcell])).result();
    assert_eq!(host.files(), [""; 0]);
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
