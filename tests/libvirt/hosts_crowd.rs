//! Many calls at once against one libvirtd: no failure, nothing left.
//!
//! Four workers by default, and the 32 with `CPI_TEST_CROWD=32`.

use serde_json::{Value, json};

use crate::sandbox::{Sandbox, virsh};

fn workers() -> u8 {
    match std::env::var("CPI_TEST_CROWD") {
        Ok(number) => number.parse().expect("CPI_TEST_CROWD is a number from 1 to 200"),
        Err(_) => 4,
    }
}

/// The life of one worker's VM, with a disk that comes and goes.
fn live(sandbox: &Sandbox, stemcell: &str, worker: u8) {
    let arguments = json!([format!("agent-{worker}"), stemcell, {"memory": 32, "ephemeral_disk": 8},
        sandbox.manual_network(20 + worker), [], {}]);
    let vm = sandbox.call("create_vm", arguments).result()[0]
        .as_str()
        .unwrap()
        .to_owned();
    // A guest in its firmware does not let go of a disk; a stopped one needs not be asked.
    virsh(&["destroy", &vm]);
    let disk = sandbox.call("create_disk", json!([8, {}, vm])).text();
    sandbox.call("attach_disk", json!([vm, disk])).result();
    assert_eq!(sandbox.call("get_disks", json!([vm])).result(), json!([disk]));
    sandbox.call("detach_disk", json!([vm, disk])).result();
    sandbox.call("delete_disk", json!([disk])).result();
    sandbox.call("delete_vm", json!([vm])).result();
    assert_eq!(sandbox.call("has_vm", json!([vm])).result(), false);
}

fn crowd(throttle: impl FnOnce(&Sandbox) -> Value) {
    let mut sandbox = Sandbox::new();
    let throttle = throttle(&sandbox);
    sandbox.configure(json!({ "throttle": throttle }));
    let stemcell = sandbox.stemcell();
    let before = sandbox.state();
    std::thread::scope(|scope| {
        for worker in 0..workers() {
            let (sandbox, stemcell) = (&sandbox, &stemcell);
            scope.spawn(move || live(sandbox, stemcell, worker));
        }
    });
    assert_eq!(sandbox.state(), before);
}

#[test]
fn a_crowd_without_throttle() {
    crowd(|_| json!({"name": "noop"}));
}

#[test]
fn a_crowd_three_at_a_time() {
    crowd(|sandbox| json!({"name": "file-lock", "limit": 3, "path": sandbox.directory().join("lock")}));
}

#[test]
fn a_crowd_one_at_a_time() {
    crowd(|sandbox| json!({"name": "file-lock", "path": sandbox.directory().join("lock")}));
}
