//! Two calls that attach the same disk to two VMs at the same moment: one of them at most does, and says so.

use serde_json::json;

use crate::sandbox::{Sandbox, virsh};

/// Not every pair of calls meets.
const ATTEMPTS: usize = 8;

#[test]
fn a_disk_is_never_attached_to_two_vms_that_ask_for_it_at_once() {
    let sandbox = Sandbox::new();
    let image = sandbox.image_without_system();
    let stemcell = sandbox.call("create_stemcell", json!([image, {}])).text();
    let vms = [10, 11].map(|host| sandbox.vm(&stemcell, host));
    for vm in &vms {
        // A guest in its firmware does not let go of a disk; a stopped one needs not be asked.
        virsh(&["destroy", vm]);
    }
    let disk = sandbox.call("create_disk", json!([8, {}])).text();
    for _ in 0..ATTEMPTS {
        let calls = vms
            .each_ref()
            .map(|vm| sandbox.start("attach_disk", json!([vm, disk])));
        let attached: Vec<bool> = calls
            .into_iter()
            .map(|call| {
                let output = call.wait_with_output().unwrap();
                let response: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
                let message = &response["error"]["message"];
                let refused = message
                    .as_str()
                    .is_some_and(|message| message.contains("it is attached to vm-"));
                assert!(refused || message.is_null(), "{response}");
                !refused
            })
            .collect();
        assert_ne!(attached, [true, true]);
        for (vm, attached) in vms.iter().zip(attached) {
            let says = virsh(&["dumpxml", vm, "--inactive"]).contains(&format!("/{disk}'"));
            assert_eq!(says, attached, "{vm}");
            if attached {
                sandbox.call("detach_disk", json!([vm, disk])).result();
            }
        }
    }
    sandbox.call("delete_disk", json!([disk])).result();
}
