//! VMs that libvirt says neither run nor are off: after a reset QEMU would not go on with them.

use std::time::Duration;

use serde_json::{Value, json};

use crate::sandbox::{Sandbox, virsh, wait_for};
use crate::tiny_guest::{CRASH, SLEEP, UP, image_of};

/// A VM whose guest gets into this state by itself each time it is up.
fn restarted_and_deleted(sandbox: &Sandbox, guest: &[u8], properties: Value, state: &str) {
    let image = image_of(sandbox.directory(), guest);
    let stemcell = sandbox.call("create_stemcell", json!([image, {}])).text();
    let arguments = json!(["a", stemcell, properties, sandbox.manual_network(10), [], {}]);
    let vm = sandbox.call("create_vm", arguments).result()[0]
        .as_str()
        .unwrap()
        .to_owned();
    let wait_until_up = |times: usize| {
        let limit = Duration::from_secs(120);
        wait_for(&format!("{state} the {times}. time"), limit, || {
            sandbox.console(&vm).matches(UP).count() == times && virsh(&["domstate", &vm]).trim() == state
        });
    };
    wait_until_up(1);
    let listed = sandbox.operator_json(&["list", "vms"]);
    let own = listed["vms"]
        .as_array()
        .unwrap()
        .iter()
        .find(|other| other["cid"] == json!(vm));
    assert_eq!(own.unwrap()["state"], state);
    sandbox.call("reboot_vm", json!([vm])).result();
    wait_until_up(2);
    sandbox.call("delete_vm", json!([vm])).result();
    assert_eq!(sandbox.domains(), [""; 0]);
    assert_eq!(sandbox.volumes(), Sandbox::stemcell_volumes(&stemcell));
}

#[test]
fn a_vm_that_has_crashed_is_restarted_and_deleted() {
    let sandbox = Sandbox::new();
    let template = format!(
        "<domain><memory unit='MiB'>{{{{.Memory}}}}</memory><os><type>hvm</type></os><on_crash>preserve</on_crash>\
         <devices><panic model='isa'/><serial type='pty'>\
         <log file='{}/console/{{{{.Name}}}}.log' append='on'/></serial></devices></domain>",
        sandbox.directory().display()
    );
    let properties = json!({"memory": 64, "machine": "pc", "vm_domain": template});
    restarted_and_deleted(&sandbox, &CRASH, properties, "crashed");
}

#[test]
fn a_vm_whose_guest_sleeps_is_restarted_and_deleted() {
    let properties = json!({"memory": 64, "machine": "pc"});
    restarted_and_deleted(&Sandbox::new(), &SLEEP, properties, "pmsuspended");
}
