//! What a stemcell leaves behind in the pool, in the eyes of virsh and qemu-img.

use serde_json::{Value, json};

use crate::sandbox::{Sandbox, stemcell_image, virsh};

/// The stemcell's record as an operator reads it.
fn record(sandbox: &Sandbox, stemcell: &str) -> Value {
    let file = sandbox.directory().join("record");
    let name = format!("{stemcell}.record");
    virsh(&[
        "vol-download",
        "--pool",
        &sandbox.name,
        &name,
        file.to_str().unwrap(),
    ]);
    serde_json::from_slice(&std::fs::read(file).unwrap()).unwrap()
}

#[test]
fn properties_and_tags_are_kept_beside_the_stemcell_and_go_with_it() {
    let sandbox = Sandbox::new();
    let properties = json!({"name": "bosh-openstack", "version": 1.5, "infrastructure": "openstack", "disk": "1024",
        "disk_format": "qcow2", "something": {"of": ["its", "own"]}});
    let tags = json!({"owner": "me", "n": 5});
    let arguments = json!([stemcell_image("qcow2"), properties, {"tags": tags}]);
    let stemcell = sandbox.call_as(3, "create_stemcell", arguments).text();
    assert_eq!(
        record(&sandbox, &stemcell),
        json!({"properties": properties, "tags": tags, "firmware": "bios"})
    );
    assert_eq!(sandbox.volumes(), Sandbox::stemcell_volumes(&stemcell));
    sandbox.call("delete_stemcell", json!([stemcell])).result();
    sandbox.call("delete_stemcell", json!([stemcell])).result();
    assert_eq!(sandbox.volumes(), [""; 0]);

    let arguments = json!([stemcell_image("qcow2"), {}, {"tags": ["a"]}]);
    let message = sandbox
        .call("create_stemcell", arguments)
        .error("CpiError", false);
    assert!(message.contains("tags must be an object"), "{message}");
}

#[test]
fn a_light_stemcell_may_name_a_volume_of_another_pool() {
    let (sandbox, images) = (Sandbox::new(), Sandbox::new());
    virsh(&[
        "vol-create-as",
        &images.name,
        "jammy.raw",
        "64M",
        "--allocation",
        "0",
    ]);
    let properties = json!({"volume": "jammy.raw", "pool": images.name});
    let stemcell = sandbox
        .call("create_stemcell", json!(["/no/image", properties]))
        .text();
    let arguments = json!(["a", stemcell, {"memory": 64}, sandbox.manual_network(10), [], {}]);
    let result = sandbox.call("create_vm", arguments).result();
    let vm = result[0].as_str().unwrap();
    let boot = virsh(&["vol-dumpxml", "--pool", &sandbox.name, &format!("{vm}-boot")]);
    let backing = boot.split("<backingStore>").nth(1).unwrap();
    let volume = images.directory().join("pool/jammy.raw");
    assert!(
        backing.contains(&format!("<path>{}</path>", volume.display()))
            && backing.contains("<format type='raw'/>"),
        "{boot}"
    );
    sandbox.call("delete_vm", json!([vm])).result();
    sandbox.call("delete_stemcell", json!([stemcell])).result();
    assert_eq!(sandbox.volumes(), [""; 0]);
    assert_eq!(images.volumes(), ["jammy.raw"]);
}

#[test]
fn a_light_stemcell_names_a_volume_that_stays() {
    let sandbox = Sandbox::new();
    let pool = &sandbox.name;
    virsh(&["vol-create-as", pool, "jammy.qcow2", "64M", "--format", "qcow2"]);
    let create = |properties: Value| sandbox.call("create_stemcell", json!(["/no/image", properties]));
    for (properties, says) in [
        (
            json!({"volume": "absent", "pool": pool}),
            "volume absent does not exist",
        ),
        (json!({"volume": "jammy.qcow2", "pool": "absent"}), "pool absent"),
        (
            json!({"volume": "jammy.qcow2", "disk": 10}),
            "disagrees with cloud property disk",
        ),
        (json!({"volume": "disk0123456789abcdef"}), "persistent disk"),
        (json!({"pool": pool}), "needs the property volume"),
    ] {
        let message = create(properties).error("CloudError", false);
        assert!(message.contains(says), "{message}");
    }
    let properties = json!({"volume": "jammy.qcow2", "pool": pool, "infrastructure": "openstack"});
    let stemcell = create(properties.clone()).text();
    let kept = record(&sandbox, &stemcell);
    assert_eq!(kept["properties"], properties);
    assert_eq!(
        sandbox.volumes(),
        ["jammy.qcow2".to_owned(), format!("{stemcell}.record")]
    );

    let arguments = json!(["a", stemcell, {"memory": 64}, sandbox.manual_network(10), [], {}]);
    let vm = sandbox.call("create_vm", arguments.clone()).result()[0]
        .as_str()
        .unwrap()
        .to_owned();
    let boot = virsh(&["vol-dumpxml", "--pool", pool, &format!("{vm}-boot")]);
    assert!(boot.contains("/jammy.qcow2</path>"), "{boot}");
    // VMs do not need the stemcell, only what it stands for.
    sandbox.call("delete_stemcell", json!([stemcell])).result();
    let message = sandbox
        .call("create_vm", arguments)
        .error("VMCreationFailed", false);
    assert!(message.contains("upload it again"), "{message}");
    sandbox.call("delete_vm", json!([vm])).result();
    assert_eq!(sandbox.volumes(), ["jammy.qcow2"]);

    let stemcell = create(json!({"volume": "jammy.qcow2"})).text();
    virsh(&["vol-delete", "--pool", pool, "jammy.qcow2"]);
    let arguments = json!(["a", stemcell, {}, sandbox.manual_network(10), [], {}]);
    let message = sandbox
        .call("create_vm", arguments)
        .error("VMCreationFailed", false);
    assert!(message.contains("jammy.qcow2 does not exist"), "{message}");
    sandbox.call("delete_stemcell", json!([stemcell])).result();
    assert_eq!(sandbox.volumes(), [""; 0]);
}
