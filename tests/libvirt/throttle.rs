//! The lock file that heavy work is done under.

use std::fs::File;
use std::io::Write;
use std::sync::mpsc::channel;
use std::time::{Duration, Instant};

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

#[test]
fn a_wait_in_vain_says_who_has_the_turn_and_since_when() {
    let mut sandbox = Sandbox::new();
    let stemcell = sandbox.stemcell();
    let path = sandbox.directory().join("throttle.lock");
    let create_vm = json!(["a", stemcell, {"memory": 32}, sandbox.manual_network(10), [], {}]);
    for limit in [1, 2] {
        sandbox.configure(
            json!({"throttle": {"name": "file-lock", "path": path, "limit": limit, "timeout": 1}}),
        );
        let slots: Vec<File> = ["", ".2"][..limit]
            .iter()
            .map(|suffix| {
                let mut name = path.clone().into_os_string();
                name.push(suffix);
                let mut file = File::create(name).unwrap();
                file.lock_exclusive().unwrap();
                let who =
                    format!("process 4711, request cpi-other{suffix}, since 2026-01-01T00:00:00.000Z\n");
                file.write_all(who.as_bytes()).unwrap();
                file
            })
            .collect();
        let before = sandbox.state();
        let started = Instant::now();
        let message = sandbox
            .call("create_vm", create_vm.clone())
            .error("VMCreationFailed", true);
        assert!(
            (1..4).contains(&started.elapsed().as_secs()),
            "{:?}",
            started.elapsed()
        );
        for says in [
            "throttle.timeout",
            "process 4711, request cpi-other",
            "since 2026-01-01T00:00:00.000Z",
        ] {
            assert!(message.contains(says), "{says:?} is not in {message:?}");
        }
        assert_eq!(message.contains("cpi-other.2"), limit == 2, "{message}");
        assert_eq!(sandbox.state(), before);

        // One free slot is enough.
        FileExt::unlock(slots.last().unwrap()).unwrap();
        let vm = sandbox.call("create_vm", create_vm.clone()).result()[0].clone();
        sandbox.call("delete_vm", json!([vm])).result();
    }
}

#[test]
fn a_holder_says_who_it_is_and_as_many_work_at_once_as_the_limit_says() {
    let mut sandbox = Sandbox::new();
    let path = sandbox.directory().join("throttle.lock");
    sandbox.configure(json!({"throttle": {"name": "file-lock", "path": path, "limit": 2}}));
    let signatures = || -> Vec<String> {
        ["throttle.lock", "throttle.lock.2", "throttle.lock.3"]
            .iter()
            .map(|name| std::fs::read_to_string(sandbox.directory().join(name)).unwrap_or_default())
            .collect()
    };
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| sandbox.stemcell());
        }
        wait_for("two calls to work at once", Duration::from_secs(20), || {
            let holders = signatures();
            holders[..2]
                .iter()
                .all(|who| who.contains(", request cpi-create_stemcell, since 20"))
        });
    });
    assert_eq!(signatures(), ["", "", ""]);
    assert!(!sandbox.directory().join("throttle.lock.3").exists());
    assert_eq!(sandbox.volumes().len(), 8);
}
