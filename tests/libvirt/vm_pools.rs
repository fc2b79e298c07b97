//! A VM is not gone before its volumes are, in whatever state their pools are by then.

use std::fs;

use serde_json::json;

use crate::defined_pool::DefinedPool;
use crate::rpc_proxy::{At, Fault, RpcProxy};
use crate::sandbox::{Sandbox, virsh};

/// `virDomainGetXMLDesc` in libvirt's remote protocol: delete_vm reads where the VM's volumes are before it does anything.
const READ_DOMAIN: u32 = 14;

/// `virStorageVolLookupByName`: it looks for volumes when the domain is gone.
const LOOK_UP_VOLUME: u32 = 95;

/// A VM with a boot disk and an ephemeral disk in this pool, and settings in the sandbox's.
fn vm_in(pool: &DefinedPool, sandbox: &Sandbox, stemcell: &str) -> String {
    let properties = json!({"memory": 64, "ephemeral_disk": 8, "storage_pool": pool.name});
    let arguments = json!(["a", stemcell, properties, sandbox.manual_network(10), [], {}]);
    let vm = sandbox.call("create_vm", arguments).result()[0].clone();
    assert_eq!(pool.files(), 2);
    vm.as_str().unwrap().to_owned()
}

#[test]
fn a_vm_whose_pool_does_not_start_is_deleted_when_it_does() {
    let sandbox = Sandbox::new();
    let pool = DefinedPool::new(&sandbox);
    let image = sandbox.image_without_system();
    let stemcell = sandbox.call("create_stemcell", json!([image, {}])).text();
    let vm = vm_in(&pool, &sandbox, &stemcell);
    let away = sandbox.directory().join("away");
    virsh(&["pool-destroy", &pool.name]);
    fs::rename(&pool.directory, &away).unwrap();
    for _ in 0..2 {
        let message = sandbox.call("delete_vm", json!([vm])).error("CloudError", false);
        let expected = format!("starting storage pool {}, which is inactive", pool.name);
        assert!(message.contains(&expected), "{message}");
        // What could be deleted is. Where the rest is, only the VM tells.
        assert_eq!(sandbox.volumes(), Sandbox::stemcell_volumes(&stemcell));
        assert_eq!(virsh(&["domstate", &vm]).trim(), "shut off");
    }
    fs::rename(&away, &pool.directory).unwrap();
    sandbox.call("delete_vm", json!([vm])).result();
    assert_eq!(pool.files(), 0);
    sandbox.call("delete_vm", json!([vm])).error("VMNotFound", false);

    // A pool that nobody knows any more will not be back: that is said once.
    let vm = vm_in(&pool, &sandbox, &stemcell);
    virsh(&["pool-destroy", &pool.name]);
    virsh(&["pool-undefine", &pool.name]);
    let message = sandbox.call("delete_vm", json!([vm])).error("CloudError", false);
    assert!(
        message.contains("no storage pool has the directory")
            && message.contains(pool.directory.to_str().unwrap()),
        "{message}"
    );
    sandbox.call("delete_vm", json!([vm])).error("VMNotFound", false);
    assert_eq!(sandbox.volumes(), Sandbox::stemcell_volumes(&stemcell));
}

#[test]
fn a_pool_that_stops_while_a_vm_is_deleted_matters_only_if_the_vm_had_volumes_there() {
    let mut sandbox = Sandbox::new();
    let pool = DefinedPool::new(&sandbox);
    let image = sandbox.image_without_system();
    let stemcell = sandbox.call("create_stemcell", json!([image, {}])).text();
    let proxy = RpcProxy::of(&mut sandbox);
    let delete = |vm: &str| {
        let name = pool.name.clone();
        let at = At::Procedure(LOOK_UP_VOLUME, 1);
        proxy.plan_event(at, Fault::Before, move || {
            virsh(&["pool-destroy", &name]);
        });
        let answer = sandbox.call("delete_vm", json!([vm]));
        assert!(proxy.seen().1);
        proxy.plan(None);
        virsh(&["pool-start", &pool.name]);
        answer
    };
    let elsewhere = sandbox.vm(&stemcell, 11);
    delete(&elsewhere).result();
    assert_eq!(sandbox.volumes(), Sandbox::stemcell_volumes(&stemcell));

    let vm = vm_in(&pool, &sandbox, &stemcell);
    let message = delete(&vm).error("CloudError", true);
    assert!(message.contains(&pool.name), "{message}");
    sandbox.call("delete_vm", json!([vm])).result();
    assert_eq!(pool.files(), 0);
    assert_eq!(sandbox.volumes(), Sandbox::stemcell_volumes(&stemcell));
}

#[test]
fn a_vm_that_another_call_deletes_is_deleted_and_one_that_cannot_be_read_is_left_alone() {
    let mut sandbox = Sandbox::new();
    let vm = sandbox.vm_without_system(10);
    let proxy = RpcProxy::of(&mut sandbox);
    let before = sandbox.state();
    let at = At::Procedure(READ_DOMAIN, 1);
    proxy.plan(Some((at, Fault::Refused)));
    let message = sandbox.call("delete_vm", json!([vm])).error("CloudError", false);
    assert!(message.contains("injected fault"), "{message}");
    assert_eq!(sandbox.state(), before);
    assert_eq!(virsh(&["domstate", &vm]).trim(), "running");

    let other = vm.clone();
    proxy.plan_event(at, Fault::Before, move || {
        virsh(&["destroy", &other]);
        virsh(&["undefine", &other]);
    });
    sandbox.call("delete_vm", json!([vm])).result();
    assert!(proxy.seen().1);
    proxy.plan(None);
    assert_eq!(sandbox.domains(), [""; 0]);
    assert!(!sandbox.volumes().iter().any(|volume| volume.starts_with(&vm)));
    // Names that are no cids of VMs have no volumes.
    sandbox
        .call("delete_vm", json!(["web"]))
        .error("VMNotFound", false);
}
