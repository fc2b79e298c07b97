//! The lock file that heavy work is done under.

use std::fs::File;
use std::sync::mpsc::channel;
use std::time::Duration;

use fs2::FileExt;
use serde_json::json;

use crate::sandbox::{Sandbox, stemcell_image, wait_for};

#[test]
fn heavy_calls_wait_for_the_lock_and_light_ones_do_not() {
    let mut sandbox = Sandbox::new();
    let stemcell = sandbox.stemcell();
    let path = sandbox.directory().join("throttle.lock");
    sandbox.configure(json!({"throttle": {"name": "file-lock", "path": path}}));
    let lock = File::create(&path).unwrap();
    lock.lock_exclusive().unwrap();

    let (done, outcomes) = channel();
    std::thread::scope(|scope| {
        for (method, arguments) in [
            ("create_stemcell", json!([stemcell_image("qcow2"), {}])),
            (
                "create_vm",
                json!(["a", stemcell, {"memory": 64}, sandbox.manual_network(10), [], {}]),
            ),
        ] {
            let (done, sandbox) = (done.clone(), &sandbox);
            scope.spawn(move || done.send(sandbox.call(method, arguments).result()).unwrap());
        }
        assert_eq!(sandbox.call("has_vm", json!(["vm-x"])).result(), false);
        sandbox.call("create_disk", json!([8, {}])).result();
        assert!(
            outcomes.recv_timeout(Duration::from_secs(2)).is_err(),
            "a heavy call did not wait"
        );
        FileExt::unlock(&lock).unwrap();
        // Woken by the kernel, not by the next look of a poll.
        for _ in 0..2 {
            outcomes.recv_timeout(Duration::from_secs(20)).unwrap();
        }
    });

    // A holder that dies lets go.
    sandbox.configure(json!({"throttle": {"name": "none"}}));
    let mut holder = std::process::Command::new("flock")
        .arg(&path)
        .args(["sleep", "100"])
        .spawn()
        .unwrap();
    wait_for("flock to hold the lock", Duration::from_secs(10), || {
        lock.try_lock_exclusive().is_err() || {
            FileExt::unlock(&lock).unwrap();
            false
        }
    });
    holder.kill().unwrap();
    holder.wait().unwrap();
}

#[test]
fn a_lock_file_that_cannot_be_opened_is_an_error_that_names_it() {
    let mut sandbox = Sandbox::new();
    let stemcell = sandbox.stemcell();
    sandbox.configure(json!({"throttle": {"name": "file-lock", "path": "/no/such/directory/lock"}}));
    let before = sandbox.state();
    let arguments = json!(["a", stemcell, {}, sandbox.manual_network(10), [], {}]);
    let message = sandbox.call("create_vm", arguments).error("CpiError", false);
    assert!(
        message.contains("throttle.path /no/such/directory/lock"),
        "{message}"
    );
    assert_eq!(sandbox.state(), before);
}
