//! QEMU killed while a disk is attached to its VM: an error that may be retried, or a success; the disk is attached in no
//! description that would not be there at the next start, and the same call works once the VM runs again.

use std::fs;

use serde_json::json;

use crate::points;
use crate::rpc_proxy::{At, Fault, RpcProxy};
use crate::sandbox::{Sandbox, run, virsh, wait_for};

/// `virDomainAttachDeviceFlags` in libvirt's remote protocol.
const ATTACH_DEVICE_FLAGS: u32 = 160;

fn kill_qemu(vm: &str) {
    let pid = fs::read_to_string(format!("/run/libvirt/qemu/{vm}.pid")).unwrap();
    run("kill", &["-KILL", pid.trim()]).unwrap();
}

#[test]
fn a_disk_is_not_lost_with_the_qemu_that_was_to_get_it() {
    let mut sandbox = Sandbox::new();
    let proxy = RpcProxy::of(&mut sandbox);
    let vm = sandbox.vm_without_system(10);
    let disk = sandbox.call("create_disk", json!([8, {}])).text();
    let pair = json!([vm, disk]);
    // Its firmware lets go of no disk, so the VM is stopped for that.
    let detach = || {
        virsh(&["destroy", &vm]);
        sandbox.call("detach_disk", pair.clone()).result();
        sandbox.call("reboot_vm", json!([vm])).result();
    };
    proxy.plan(None);
    sandbox.call("attach_disk", pair.clone()).result();
    let (calls, _) = proxy.seen();
    detach();

    // The first is for the next start.
    let mut at_points = vec![At::Procedure(ATTACH_DEVICE_FLAGS, 2)];
    at_points.extend(points::all_of(calls).into_iter().flatten().map(At::Number));
    for at in at_points {
        for when in [Fault::Before, Fault::Meanwhile] {
            let what = format!("{at:?}, {when:?}");
            let victim = vm.clone();
            proxy.plan_event(at, when, move || kill_qemu(&victim));
            let answer = sandbox.call("attach_disk", pair.clone());
            let (_, happened) = proxy.seen();
            proxy.plan(None);
            eprintln!("{what}: {}", answer.response["error"]);
            // Other tests' VMs, which come and go, are looked at too: so many calls are not always made.
            if !happened && matches!(at, At::Number(_)) {
                answer.result();
                detach();
                continue;
            }
            assert!(happened, "{what}: {}", answer.stderr);
            wait_for("libvirt to notice", std::time::Duration::from_secs(30), || {
                virsh(&["domstate", &vm]).trim() == "shut off"
            });
            let attached = virsh(&["dumpxml", &vm]).contains(&format!("/{disk}'"));
            if answer.response["error"].is_null() {
                assert!(attached, "{what}: {}", answer.stderr);
            } else {
                answer.error("CloudError", true);
                assert!(!attached, "{what}");
                assert_eq!(sandbox.call("has_disk", json!([disk])).result(), true);
                sandbox.call("reboot_vm", json!([vm])).result();
                sandbox.call("attach_disk", pair.clone()).result();
            }
            sandbox.call("reboot_vm", json!([vm])).result();
            for further in [&[][..], &["--inactive"]] {
                let xml = virsh(&[&["dumpxml", &vm], further].concat());
                assert!(xml.contains(&format!("/{disk}'")), "{what}: {xml}");
            }
            detach();
        }
    }
}
