//! All or nothing: whatever fails in create_vm and create_stemcell, nothing is left behind.

use std::fs;

use serde_json::{Value, json};

use crate::sandbox::{Answer, Sandbox, stemcell_image, virsh};

/// The call fails with an error of this type that says this, and changes nothing.
fn fails(sandbox: &Sandbox, method: &str, arguments: Value, error_type: &str, says: &str) {
    let before = sandbox.state();
    let message = sandbox.call(method, arguments).error(error_type, false);
    assert!(message.contains(says), "{says:?} is not in {message:?}");
    assert_eq!(sandbox.state(), before, "after: {message}");
}

fn create_vm(sandbox: &Sandbox, stemcell: &str) -> Answer {
    let properties = json!({"memory": 64, "ephemeral_disk": 8});
    sandbox.call(
        "create_vm",
        json!(["a", stemcell, properties, sandbox.manual_network(10), [], {}]),
    )
}

#[test]
fn create_vm_fails_at_every_step_and_leaves_nothing() {
    let sandbox = Sandbox::new();
    let stemcell = sandbox.stemcell();
    let network = sandbox.manual_network(10);
    let absent = "sc-00000000-0000-4000-8000-000000000000";
    let vmdk = "sc-00000000-0000-4000-8000-0000000074dc";
    virsh(&["vol-create-as", &sandbox.name, vmdk, "1M", "--format", "vmdk"]);
    let on_absent_network =
        json!({"n": {"type": "dynamic", "cloud_properties": {"name": "no-such-network"}}});
    let cases = [
        (
            json!(["a", absent, {}, network, [], {}]),
            "VMCreationFailed",
            absent,
        ),
        (
            json!(["a", "debian.qcow2", {}, network, [], {}]),
            "VMCreationFailed",
            "debian.qcow2",
        ),
        (
            json!(["a", stemcell, {}, on_absent_network, [], {}]),
            "VMCreationFailed",
            "no-such-network",
        ),
        (
            json!(["a", vmdk, {}, network, [], {}]),
            "VMCreationFailed",
            "is neither raw nor qcow2",
        ),
        (
            json!(["a", stemcell, {"memory": 1u64 << 40}, network, [], {}]),
            "VMCreationFailed",
            "VM vm-",
        ),
        (
            json!(["a", stemcell, {"cpu": 100_000}, network, [], {}]),
            "VMCreationFailed",
            "VM vm-",
        ),
        (
            json!(["a", stemcell, {"ephemeral_disk": 1u64 << 40}, network, [], {}]),
            "VMCreationFailed",
            "ephemeral_disk is 1099511627776 MiB, but all of pool",
        ),
        (
            json!(["a", stemcell, {"memroy": 5}, network, [], {}]),
            "CloudError",
            "did you mean memory?",
        ),
        (
            json!(["a", stemcell, {}, {"n": {"type": "manual"}}, [], {}]),
            "CloudError",
            "needs an ip",
        ),
        (
            json!(["a", stemcell, {}, network, [], {"x": "y".repeat(3_000_000)}]),
            "CpiError",
            "config drive",
        ),
    ];
    for (arguments, error_type, says) in cases {
        fails(&sandbox, "create_vm", arguments, error_type, says);
    }
}

#[test]
fn create_vm_with_a_template_or_pool_that_fails_leaves_nothing() {
    let mut sandbox = Sandbox::new();
    let stemcell = sandbox.stemcell();
    let pool = sandbox.name.clone();
    let cases = [
        (
            json!({"vm_domain": "<domain>{{.Nmae}}</domain>"}),
            "CpiError",
            "{{.Nmae}}",
        ),
        (json!({"vm_domain": "<domain>"}), "CpiError", "settings.vm_domain"),
        (
            json!({"vm_domain": "<domain type='qemu'/>"}),
            "VMCreationFailed",
            "defining VM",
        ),
        (
            json!({"vm_domain": "", "disk_device": "<disk {{.Oops}}/>"}),
            "CpiError",
            "settings.disk_device",
        ),
        (
            json!({"disk_device": "", "storage_volume": "<volume>"}),
            "CpiError",
            "settings.storage_volume",
        ),
        (
            json!({"storage_volume": "", "manual_network_interface": "<interface type='odd'/>"}),
            "VMCreationFailed",
            "defining VM",
        ),
        (
            json!({"manual_network_interface": "", "machine": "no-such-machine"}),
            "VMCreationFailed",
            "no-such-machine",
        ),
        (
            json!({"machine": "", "storage_pool_name": "no-such-pool"}),
            "VMCreationFailed",
            "no-such-pool",
        ),
    ];
    for (settings, error_type, says) in cases {
        sandbox.configure(json!({ "settings": settings }));
        let before = sandbox.state();
        let message = create_vm(&sandbox, &stemcell).error(error_type, false);
        assert!(message.contains(says), "{says:?} is not in {message:?}");
        assert_eq!(sandbox.state(), before, "after: {message}");
    }
    sandbox.configure(json!({"settings": {"storage_pool_name": pool}}));
    create_vm(&sandbox, &stemcell).result();
}

#[test]
fn a_vm_that_is_defined_but_does_not_start_is_undefined_again() {
    let mut sandbox = Sandbox::new();
    let stemcell = sandbox.stemcell();
    // Libvirt only looks for the file when it starts the VM.
    sandbox.configure(json!({"settings": {"vm_domain":
        "<domain type='qemu'><memory unit='MiB'>{{.Memory}}</memory><vcpu>{{.CPU}}</vcpu>\
         <os><type>hvm</type><kernel>/no/such/kernel</kernel></os></domain>"}}));
    let before = sandbox.state();
    let message = create_vm(&sandbox, &stemcell).error("VMCreationFailed", false);
    assert!(message.contains("starting VM"), "{message}");
    assert_eq!(sandbox.state(), before);
}

#[test]
fn an_inactive_pool_and_an_inactive_network_are_started() {
    let sandbox = Sandbox::new();
    let stemcell = sandbox.stemcell();
    // Transient pools and networks vanish when stopped; these are made permanent for the test.
    for (dump, define, destroy) in [
        ("pool-dumpxml", "pool-define", "pool-destroy"),
        ("net-dumpxml", "net-define", "net-destroy"),
    ] {
        let file = sandbox.directory().join(define);
        fs::write(&file, virsh(&[dump, &sandbox.name])).unwrap();
        virsh(&[define, file.to_str().unwrap()]);
        virsh(&[destroy, &sandbox.name]);
        let vm = create_vm(&sandbox, &stemcell).result()[0]
            .as_str()
            .unwrap()
            .to_owned();
        // A VM is not deleted before its volumes are, wherever they are.
        virsh(&["pool-destroy", &sandbox.name]);
        sandbox.call("delete_vm", json!([vm])).result();
        assert!(!sandbox.volumes().iter().any(|volume| volume.starts_with(&vm)));
    }
}

#[test]
fn create_stemcell_refuses_what_is_no_stemcell_and_leaves_no_volume() {
    let sandbox = Sandbox::new();
    let good = fs::read(stemcell_image("qcow2")).unwrap();
    let mut corrupt = good.clone();
    let middle = corrupt.len() / 2;
    corrupt[middle..middle + 64].fill(0x55);
    for (name, content) in [
        ("empty", Vec::new()),
        ("text", b"this is no stemcell".to_vec()),
        ("truncated", good[..good.len() - 100_000].to_vec()),
        ("corrupt", corrupt),
    ] {
        let file = sandbox.directory().join(name);
        fs::write(&file, content).unwrap();
        fails(&sandbox, "create_stemcell", json!([file, {}]), "CloudError", name);
    }
    fails(
        &sandbox,
        "create_stemcell",
        json!(["/no/such/file", {}]),
        "CloudError",
        "/no/such/file",
    );
    fails(
        &sandbox,
        "create_stemcell",
        json!([stemcell_image("qcow2"), {"disk": 1}]),
        "CloudError",
        "disk",
    );
}

#[test]
fn bad_arguments_touch_nothing() {
    let sandbox = Sandbox::new();
    let stemcell = sandbox.stemcell();
    let vm = sandbox.vm(&stemcell, 10);
    for cid in ["../etc/passwd", "a/b", "a\nb", ".hidden", ""] {
        for method in [
            "delete_vm",
            "has_vm",
            "delete_disk",
            "has_disk",
            "delete_stemcell",
            "get_disks",
        ] {
            fails(&sandbox, method, json!([cid]), "CpiError", "argument 1 (");
        }
        fails(
            &sandbox,
            "attach_disk",
            json!([vm, cid]),
            "CpiError",
            "argument 2 (disk_cid)",
        );
    }
    for size in [
        json!(0),
        json!(-5),
        json!(null),
        json!("64"),
        json!(1.5),
        json!(u64::MAX),
    ] {
        fails(
            &sandbox,
            "create_disk",
            json!([size, {}]),
            "CpiError",
            "argument 1 (size)",
        );
    }
    fails(
        &sandbox,
        "create_disk",
        json!([8, {"sise": 1}]),
        "CloudError",
        "unknown property sise",
    );
}
