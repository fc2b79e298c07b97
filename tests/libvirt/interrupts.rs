//! A call that is told to end (SIGTERM, Ctrl-C) rolls back and answers.

use std::fs::File;
use std::io::Write;
use std::process::Child;
use std::time::{Duration, Instant};

use fs2::FileExt;
use serde_json::{Value, json};

use crate::sandbox::{Sandbox, run, virsh, wait_for};

/// Sends the signal to a call, which must answer within seconds with an error of this type that names the signal.
#[track_caller]
pub fn interrupted(call: Child, signal: &str, error_type: &str) {
    run("kill", &[&format!("-{signal}"), &call.id().to_string()]).unwrap();
    let told = Instant::now();
    let output = call.wait_with_output().unwrap();
    let log = String::from_utf8_lossy(&output.stderr);
    assert!(told.elapsed() < Duration::from_secs(10), "{log}");
    assert!(output.status.success(), "{:?}: {log}", output.status);
    let response: Value = serde_json::from_slice(&output.stdout).unwrap();
    let error = &response["error"];
    assert_eq!(error["type"], format!("Bosh::Clouds::{error_type}"), "{response}");
    let message = error["message"].as_str().unwrap();
    assert!(
        message.contains(&format!("interrupted by SIG{signal}")),
        "{message}"
    );
}

#[test]
fn a_call_that_waits_for_its_turn_ends_when_told_to() {
    let mut sandbox = Sandbox::new();
    let stemcell = sandbox.stemcell();
    let path = sandbox.directory().join("throttle.lock");
    let lock = File::create(&path).unwrap();
    lock.lock_exclusive().unwrap();
    for timeout in [0, 600] {
        sandbox.configure(json!({"throttle": {"name": "file-lock", "path": path, "timeout": timeout}}));
        let before = sandbox.state();
        let arguments = json!(["a", stemcell, {"memory": 32}, sandbox.manual_network(10), [], {}]);
        let call = sandbox.start("create_vm", arguments);
        let waits = format!("/proc/{}/task", call.id());
        wait_for("the call to wait for the lock", Duration::from_secs(10), || {
            let threads = std::fs::read_dir(&waits).unwrap();
            threads
                .filter_map(|thread| std::fs::read_to_string(thread.unwrap().path().join("comm")).ok())
                .any(|name| name.trim() == "throttle")
        });
        interrupted(call, "TERM", "VMCreationFailed");
        assert_eq!(sandbox.state(), before);
    }
}

/// The stemcell's file gives a little and then nothing more, as one on a server that hangs.
#[test]
fn an_upload_that_is_told_to_end_leaves_no_volume() {
    let sandbox = Sandbox::new();
    let before = sandbox.state();
    let path = sandbox.directory().join("image");
    run("mkfifo", &[path.to_str().unwrap()]).unwrap();
    let call = sandbox.start("create_stemcell", json!([path, {"disk": 64}]));
    let mut image = File::options().write(true).open(&path).unwrap();
    let mut header = tar::Header::new_gnu();
    header.set_path("root.img").unwrap();
    header.set_size(64 << 20);
    header.set_cksum();
    image.write_all(header.as_bytes()).unwrap();
    image.write_all(&vec![b'x'; 8 << 20]).unwrap();
    wait_for("the upload to begin", Duration::from_secs(20), || {
        sandbox.volumes().iter().any(|volume| volume.starts_with("sc-"))
    });
    interrupted(call, "TERM", "CloudError");
    assert_eq!(sandbox.state(), before);
}

/// The guest is in its firmware, which lets go of no disk.
#[test]
fn a_detach_that_is_told_to_end_leaves_the_disk_attached() {
    let sandbox = Sandbox::new();
    let vm = sandbox.vm_without_system(10);
    let disk = sandbox.call("create_disk", json!([8, {}])).text();
    sandbox.call("attach_disk", json!([vm, disk])).result();
    let log = sandbox.directory().join("cpi.log");
    let call = sandbox.start_logging_to("detach_disk", json!([vm, disk]), &log);
    wait_for("the call to ask the guest", Duration::from_secs(20), || {
        std::fs::read_to_string(&log)
            .unwrap_or_default()
            .contains("asking the guest to let go")
    });
    interrupted(call, "TERM", "CloudError");
    assert_eq!(sandbox.call("get_disks", json!([vm])).result(), json!([disk]));
    assert!(virsh(&["dumpxml", &vm]).contains(&disk));
}
