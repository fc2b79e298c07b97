//! A pool whose file system turned read-only, as Linux does after an error of the disk below: nothing is lost, every error
//! says what to do, and all works once it is mounted read-write again.

use serde_json::{Value, json};

use crate::loop_pool::LoopPool;
use crate::sandbox::{Sandbox, run, virsh};

fn remount(pool: &LoopPool, how: &str) {
    let path = pool.path();
    run(
        "mount",
        &["-o", &format!("remount,{how}"), path.to_str().unwrap()],
    )
    .unwrap();
}

#[test]
fn a_pool_that_turned_read_only_takes_and_loses_nothing() {
    let pool = LoopPool::ext4(96);
    let sandbox = Sandbox::with_config(json!({"settings": {"storage_pool_name": pool.name}}));
    let image = sandbox.image_without_system();
    let stemcell = sandbox.call("create_stemcell", json!([image, {}])).text();
    let create_vm = |host: u8| {
        let properties = json!({"memory": 64, "ephemeral_disk": 8});
        let network = sandbox.manual_network(host);
        sandbox.call("create_vm", json!(["a", stemcell, properties, network, [], {}]))
    };
    let vm = create_vm(10).result()[0].as_str().unwrap().to_owned();
    let disk = sandbox.call("create_disk", json!([8, {"cache": "none"}])).text();
    let copied = sandbox.call("create_disk", json!([8, {}])).text();
    let qcow2 = sandbox
        .call("create_disk", json!([8, {"format": "qcow2"}]))
        .text();
    let snapshot = sandbox.call("snapshot_disk", json!([disk, {}])).text();
    // With files that QEMU writes to, Linux would not be told to.
    virsh(&["destroy", &vm]);
    sandbox.call("attach_disk", json!([vm, qcow2])).result();
    remount(&pool, "ro");
    let (files, state) = (pool.files(), sandbox.state());

    let attempts: Vec<(&str, Value)> = vec![
        ("create_stemcell", json!([image, {}])),
        ("create_disk", json!([8, {}])),
        ("create_disk", json!([8, {"format": "qcow2"}])),
        ("create_disk", json!([8, {"preallocation": "full"}])),
        ("resize_disk", json!([disk, 16])),
        ("set_disk_metadata", json!([disk, {"job": "db"}])),
        ("update_disk", json!([disk, 16, {}])),
        ("update_disk", json!([copied, 8, {"format": "qcow2"}])),
        ("snapshot_disk", json!([disk, {}])),
        ("delete_snapshot", json!([snapshot])),
        ("delete_disk", json!([disk])),
        ("delete_stemcell", json!([stemcell])),
    ];
    let says_what_to_do = |method: &str, message: String| {
        assert!(
            message.contains("Read-only file system") && message.contains("mount it read-write"),
            "{method}: {message}"
        );
        assert_eq!(pool.files(), files, "{method}");
    };
    says_what_to_do("create_vm", create_vm(11).error("VMCreationFailed", false));
    for (method, arguments) in &attempts {
        if *method == "delete_stemcell" {
            // Refused for its VM, which goes first.
            continue;
        }
        let answer = sandbox.call(method, arguments.clone());
        says_what_to_do(method, answer.error("CloudError", false));
    }
    assert_eq!(sandbox.domains(), state.1);
    assert_eq!(sandbox.call("get_disks", json!([vm])).result(), json!([qcow2]));
    let answer = sandbox.call("delete_vm", json!([vm]));
    says_what_to_do("delete_vm", answer.error("CloudError", false));
    let answer = sandbox.call("delete_vm", json!([vm]));
    says_what_to_do("delete_vm again", answer.error("CloudError", false));

    remount(&pool, "rw");
    sandbox.call("delete_vm", json!([vm])).result();
    sandbox.call("delete_vm", json!([vm])).error("VMNotFound", false);
    let vm = create_vm(11).result()[0].as_str().unwrap().to_owned();
    sandbox.call("delete_vm", json!([vm])).result();
    for (method, arguments) in attempts {
        let result = sandbox.call(method, arguments).result();
        match method {
            "create_stemcell" => drop(sandbox.call("delete_stemcell", json!([result])).result()),
            "create_disk" | "update_disk" if result.is_string() => {
                drop(sandbox.call("delete_disk", json!([result])).result())
            }
            "snapshot_disk" => drop(sandbox.call("delete_snapshot", json!([result])).result()),
            _ => {}
        }
    }
    sandbox.call("delete_disk", json!([qcow2])).result();
    assert_eq!(pool.files(), [""; 0]);
}
