//! What becomes of a VM, and of calls about it, when others or libvirt itself are in the way.

use serde_json::{Value, json};

use crate::rpc_proxy::{At, Fault, RpcProxy};
use crate::sandbox::{Answer, Sandbox, try_virsh, virsh};

/// Procedures of libvirt's remote protocol.
const DESTROY: u32 = 12;
const GET_XML: u32 = 14;
const RESUME: u32 = 28;
const IS_ACTIVE: u32 = 150;
const GET_STATE: u32 = 212;
const UNDEFINE_FLAGS: u32 = 231;
const RESET: u32 = 245;
const BLOCK_RESIZE: u32 = 251;
const SET_METADATA: u32 = 264;

/// `VIR_ERR_INVALID_ARG` and `VIR_ERR_OPERATION_INVALID`.
const INVALID_ARG: u32 = 8;
const OPERATION_INVALID: u32 = 55;

/// `VIR_DOMAIN_UNDEFINE_CHECKPOINTS_METADATA`.
const CHECKPOINTS: u32 = 16;

struct Bench {
    sandbox: Sandbox,
    proxy: RpcProxy,
    stemcell: String,
}

impl Bench {
    fn new() -> Self {
        let mut sandbox = Sandbox::new();
        let proxy = RpcProxy::of(&mut sandbox);
        let image = sandbox.image_without_system();
        let stemcell = sandbox.call("create_stemcell", json!([image, {}])).text();
        Self {
            sandbox,
            proxy,
            stemcell,
        }
    }

    fn vm(&self) -> String {
        self.sandbox.vm(&self.stemcell, 10)
    }

    /// A call about the VM in which what was planned happens.
    #[track_caller]
    fn call(&self, method: &str, vm: &str) -> Answer {
        let arguments = match method {
            "set_vm_metadata" => json!([vm, {"job": "db"}]),
            _ => json!([vm]),
        };
        self.call_with(method, arguments)
    }

    #[track_caller]
    fn call_with(&self, method: &str, arguments: Value) -> Answer {
        let answer = self.sandbox.call(method, arguments);
        let (_, happened) = self.proxy.seen();
        self.proxy.plan(None);
        assert!(happened, "{}", answer.stderr);
        answer
    }

    #[track_caller]
    fn nothing_is_left(&self) {
        assert_eq!(self.sandbox.domains(), [""; 0]);
        assert_eq!(self.sandbox.volumes(), Sandbox::stemcell_volumes(&self.stemcell));
    }
}

fn forget(vm: &str) {
    // It may have been stopped before.
    let _ = try_virsh(&["destroy", vm]);
    virsh(&["undefine", vm]);
}

#[test]
fn a_vm_goes_where_libvirt_knows_no_checkpoints() {
    let bench = Bench::new();
    let vm = bench.vm();
    let does_not_know = Fault::RefusedAs(
        INVALID_ARG,
        "invalid argument: unsupported flags (0x10) in function qemuDomainUndefineFlags",
    );
    bench
        .proxy
        .plan(Some((At::Flags(UNDEFINE_FLAGS, CHECKPOINTS), does_not_know)));
    bench.call("delete_vm", &vm).result();
    bench.nothing_is_left();
}

#[test]
fn a_vm_that_libvirt_does_not_stop_stays_as_it_is() {
    let bench = Bench::new();
    let vm = bench.vm();
    let before = bench.sandbox.state();
    let refused = Fault::RefusedAs(
        OPERATION_INVALID,
        "Requested operation is not valid: not at this time",
    );
    bench.proxy.plan(Some((At::Procedure(DESTROY, 1), refused)));
    let message = bench.call("delete_vm", &vm).error("CloudError", false);
    assert!(
        message.contains(&format!("stopping VM {vm}")) && message.contains("not at this time"),
        "{message}"
    );
    assert_eq!(bench.sandbox.state(), before);
    assert_eq!(virsh(&["domstate", &vm]).trim(), "running");
    bench.sandbox.call("delete_vm", json!([vm])).result();
    bench.nothing_is_left();
}

#[test]
fn what_libvirt_refuses_is_told_with_what_was_being_done() {
    let bench = Bench::new();
    let vm = bench.vm();
    let disk = bench.sandbox.call("create_disk", json!([8, {}])).text();
    bench.sandbox.call("attach_disk", json!([vm, disk])).result();
    let refused = |method: &str, arguments: Value, procedure: u32, doing: &str| {
        let before = (bench.sandbox.state(), virsh(&["domstate", &vm]));
        bench
            .proxy
            .plan(Some((At::Procedure(procedure, 1), Fault::Refused)));
        let message = bench.call_with(method, arguments).error("CloudError", false);
        assert!(
            message.contains(doing) && message.contains("injected fault"),
            "{method}: {message}"
        );
        if procedure != UNDEFINE_FLAGS {
            let after = (bench.sandbox.state(), virsh(&["domstate", &vm]));
            assert_eq!(after, before, "{method}, {doing}");
        }
    };
    refused("delete_vm", json!([vm]), GET_XML, "reading VM");
    refused("reboot_vm", json!([vm]), GET_STATE, "looking at VM");
    refused("reboot_vm", json!([vm]), RESET, "resetting VM");
    refused(
        "set_vm_metadata",
        json!([vm, {}]),
        SET_METADATA,
        "setting metadata of VM",
    );
    refused(
        "resize_disk",
        json!([disk, 16]),
        BLOCK_RESIZE,
        "resizing a disk of VM",
    );
    virsh(&["suspend", &vm]);
    refused("reboot_vm", json!([vm]), RESET, "resetting VM");
    refused("reboot_vm", json!([vm]), RESUME, "resuming VM");
    // It is stopped by then, and the same call again ends it.
    refused("delete_vm", json!([vm]), UNDEFINE_FLAGS, "undefining VM");
    assert_eq!(bench.sandbox.domains(), [vm.as_str()]);
    bench.sandbox.call("delete_vm", json!([vm])).result();
    bench.sandbox.call("delete_disk", json!([disk])).result();
    bench.nothing_is_left();
}

/// As by another delete_vm at exactly that message.
#[test]
fn a_vm_that_goes_meanwhile_is_gone() {
    let bench = Bench::new();
    for procedure in [GET_XML, DESTROY, UNDEFINE_FLAGS] {
        let vm = bench.vm();
        let gone = vm.clone();
        bench
            .proxy
            .plan_event(At::Procedure(procedure, 1), Fault::Before, move || forget(&gone));
        bench.call("delete_vm", &vm).result();
        bench.nothing_is_left();
    }

    // It is stopped first, and forgotten when this call looks why it cannot stop it.
    let vm = bench.vm();
    let (proxy, gone) = (bench.proxy.clone(), vm.clone());
    bench
        .proxy
        .plan_event(At::Procedure(DESTROY, 1), Fault::Before, move || {
            virsh(&["destroy", &gone]);
            proxy.plan_event(At::Procedure(IS_ACTIVE, 1), Fault::Before, move || forget(&gone));
        });
    bench.call("delete_vm", &vm).result();
    bench.nothing_is_left();

    for (method, procedure) in [
        ("reboot_vm", GET_STATE),
        ("reboot_vm", RESET),
        ("set_vm_metadata", IS_ACTIVE),
    ] {
        let vm = bench.vm();
        let gone = vm.clone();
        bench
            .proxy
            .plan_event(At::Procedure(procedure, 1), Fault::Before, move || forget(&gone));
        let message = bench.call(method, &vm).error("VMNotFound", false);
        assert!(message.contains(&vm), "{method}: {message}");
        bench.sandbox.call("delete_vm", json!([vm])).result();
        bench.nothing_is_left();
    }
}
