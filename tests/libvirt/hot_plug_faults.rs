//! Attaching and detaching where something is against it: a guest that keeps the disk, a libvirt that refuses, events of
//! other devices or none. Both descriptions of the VM say the same in the end, and the messages say why.

use std::fs;
use std::time::Duration;

use serde_json::{Value, json};

use crate::rpc_proxy::{At, Fault, RpcProxy};
use crate::sandbox::{Answer, Sandbox, virsh, wait_for};
use crate::tiny_guest;

/// Procedures of libvirt's remote protocol.
const ATTACH_DEVICE_FLAGS: u32 = 160;
const DETACH_DEVICE_FLAGS: u32 = 161;
const LIST_VMS: u32 = 273;
const SET_METADATA: u32 = 264;
const WATCH_EVENTS: u32 = 316;

/// A VM with this guest, a disk that is not attached to it, and what is between the CPI and libvirtd.
struct Bench {
    sandbox: Sandbox,
    proxy: RpcProxy,
    vm: String,
    disk: String,
}

impl Bench {
    /// The guest is in its firmware, which lets go of no disk; who asks it waits for a second.
    fn stubborn() -> Self {
        Self::with(|sandbox| sandbox.vm_without_system(10))
    }

    /// The guest lets go of its disks.
    fn willing() -> Self {
        Self::with(|sandbox| {
            let image = tiny_guest::image(sandbox.directory());
            let stemcell = json!(sandbox.call("create_stemcell", json!([image, {}])).text());
            let arguments = tiny_guest::vm_arguments(&stemcell, sandbox.manual_network(10));
            let vm = sandbox.call("create_vm", arguments).result()[0]
                .as_str()
                .unwrap()
                .to_owned();
            sandbox.wait_for_console(&vm, tiny_guest::UP, 1);
            vm
        })
    }

    fn with(make_vm: impl FnOnce(&Sandbox) -> String) -> Self {
        let mut sandbox = Sandbox::with_config(json!({"settings": {"detach_timeout": 1}}));
        let vm = make_vm(&sandbox);
        let disk = sandbox.call("create_disk", json!([8, {}])).text();
        let proxy = RpcProxy::of(&mut sandbox);
        Self {
            sandbox,
            proxy,
            vm,
            disk,
        }
    }

    fn call(&self, method: &str) -> Answer {
        self.sandbox.call(method, json!([self.vm, self.disk]))
    }

    /// The call, with what the proxy was told to do, which must have happened.
    #[track_caller]
    fn call_as_planned(&self, method: &str) -> Answer {
        let answer = self.call(method);
        let (_, happened) = self.proxy.seen();
        self.proxy.plan(None);
        assert!(happened, "{}", answer.stderr);
        answer
    }

    fn refuse(&self, procedure: u32) {
        self.proxy
            .plan(Some((At::Procedure(procedure, 1), Fault::Refused)));
    }

    /// Whether the running VM and its definition have the disk.
    fn attached(&self) -> [bool; 2] {
        let has = |xml: String| xml.contains(&format!("/{}'", self.disk));
        [
            has(virsh(&["dumpxml", &self.vm])),
            has(virsh(&["dumpxml", &self.vm, "--inactive"])),
        ]
    }
}

/// Libvirt refuses either of the two steps, or does the first and cannot say so.
#[test]
fn attaching_that_fails_leaves_the_disk_in_no_description() {
    let bench = Bench::stubborn();
    for (number, fault) in [(1, Fault::Refused), (2, Fault::Refused), (1, Fault::Lost)] {
        bench
            .proxy
            .plan(Some((At::Procedure(ATTACH_DEVICE_FLAGS, number), fault)));
        let answer = bench.call_as_planned("attach_disk");
        let undone = answer.stderr.contains("rolled back: ");
        assert_eq!(
            undone,
            (number, fault) != (1, Fault::Refused),
            "{}",
            answer.stderr
        );
        answer.error("CloudError", fault == Fault::Lost);
        assert_eq!(bench.attached(), [false, false], "{fault:?} at {number}");
    }
}

/// Others' VMs come and go while it is looked who has a disk.
#[test]
fn a_vm_that_is_gone_before_it_is_looked_at_has_no_disk() {
    let mut sandbox = Sandbox::new();
    let disk = sandbox.call("create_disk", json!([8, {}])).text();
    let other = format!("{}-other", sandbox.name);
    let file = sandbox.directory().join("other.xml");
    let memory = "<memory unit='MiB'>64</memory>";
    let xml = format!("<domain type='qemu'><name>{other}</name>{memory}<os><type>hvm</type></os></domain>");
    fs::write(&file, xml).unwrap();
    virsh(&["define", file.to_str().unwrap()]);
    let proxy = RpcProxy::of(&mut sandbox);
    proxy.plan_event(At::Procedure(LIST_VMS, 1), Fault::Meanwhile, move || {
        virsh(&["undefine", &other]);
    });
    sandbox.call("delete_disk", json!([disk])).result();
    let (_, happened) = proxy.seen();
    assert!(happened);
    assert!(!sandbox.volumes().contains(&disk));
}

/// The connection is lost once libvirt has given the running VM the disk, so nobody knows that it has.
#[test]
fn a_disk_that_the_guest_keeps_when_attaching_is_undone_stays_in_both_descriptions() {
    let bench = Bench::stubborn();
    bench
        .proxy
        .plan(Some((At::Procedure(ATTACH_DEVICE_FLAGS, 2), Fault::Lost)));
    let answer = bench.call_as_planned("attach_disk");
    let log = answer.stderr.clone();
    let (disk, vm) = (&bench.disk, &bench.vm);
    for (of, says) in [
        (
            format!("disk {disk} in the running VM {vm}"),
            "did not release it within 1 s",
        ),
        (
            format!("disk {disk} in the definition of VM {vm}"),
            "still attached (live and persistent XML)",
        ),
    ] {
        let line = format!("rolling back ({of}) failed: ");
        let found = log.lines().find(|logged| logged.contains(&line));
        assert!(found.is_some_and(|found| found.contains(says)), "{says}: {log}");
    }
    let message = answer.error("CloudError", true);
    assert!(message.contains("attaching a device to"), "{message}");
    assert_eq!(bench.attached(), [true, true]);
    let before = virsh(&["dumpxml", vm]);
    assert_eq!(
        bench.call("attach_disk").result(),
        format!("/dev/disk/by-id/virtio-{disk}")
    );
    assert_eq!(virsh(&["dumpxml", vm]), before, "attached once more");
}

/// Somebody takes the disk out of the definition and stops the VM, before the CPI gives it to the running VM.
#[test]
fn undoing_is_done_where_the_definition_no_longer_has_the_disk() {
    let bench = Bench::stubborn();
    let (vm, disk) = (bench.vm.clone(), bench.disk.clone());
    bench
        .proxy
        .plan_event(At::Procedure(ATTACH_DEVICE_FLAGS, 2), Fault::Before, move || {
            virsh(&["detach-disk", &vm, &target_of(&vm, &disk), "--config"]);
            virsh(&["destroy", &vm]);
        });
    let answer = bench.call_as_planned("attach_disk");
    let says = format!("rolled back: disk {} in the definition", bench.disk);
    assert!(answer.stderr.contains(&says), "{}", answer.stderr);
    answer.error("CloudError", true);
    assert_eq!(bench.attached(), [false, false]);
}

/// As a call that was killed in between leaves it.
#[test]
fn a_disk_that_only_the_definition_has_is_given_to_the_running_vm() {
    let bench = Bench::stubborn();
    let file = bench.sandbox.directory().join("pool").join(&bench.disk);
    let file = file.to_str().unwrap();
    virsh(&[
        "attach-disk",
        &bench.vm,
        file,
        "vdx",
        "--targetbus",
        "virtio",
        "--config",
    ]);
    assert!(!virsh(&["dumpxml", &bench.vm]).contains(&bench.disk));
    bench.call("attach_disk").result();
    assert!(virsh(&["dumpxml", &bench.vm]).contains(&bench.disk));
    assert_eq!(
        virsh(&["dumpxml", &bench.vm, "--inactive"])
            .matches(&bench.disk)
            .count(),
        1
    );
}

/// What `vda` or the like the disk is in the VM's definition.
fn target_of(vm: &str, disk: &str) -> String {
    virsh(&["domblklist", vm, "--inactive"])
        .lines()
        .find(|line| line.contains(disk))
        .and_then(|line| line.split_whitespace().next())
        .unwrap()
        .to_owned()
}

#[test]
fn metadata_that_cannot_be_shown_or_hidden_is_no_failure() {
    let bench = Bench::stubborn();
    virsh(&["destroy", &bench.vm]);
    let metadata = json!([bench.disk, {"deployment": "of-this-test"}]);
    bench.sandbox.call("set_disk_metadata", metadata).result();
    let shown = || virsh(&["dumpxml", &bench.vm]).contains("of-this-test");

    bench.refuse(SET_METADATA);
    let answer = bench.call_as_planned("attach_disk");
    let warning = format!(
        "WARN  [cpi-attach_disk] showing the metadata of disk {} with VM {}: ",
        bench.disk, bench.vm
    );
    assert!(answer.stderr.contains(&warning), "{}", answer.stderr);
    answer.result();
    assert_eq!((bench.attached(), shown()), ([true, true], false));

    bench.call("detach_disk").result();
    bench.call("attach_disk").result();
    assert!(shown());
    bench.refuse(SET_METADATA);
    let answer = bench.call_as_planned("detach_disk");
    let says = format!("no longer showing the metadata of disk {}: ", bench.disk);
    assert!(answer.stderr.contains(&says), "{}", answer.stderr);
    answer.result();
    assert_eq!(bench.attached(), [false, false]);
}

/// Of volumes that a VM has, only persistent disks are for detach_disk.
#[test]
fn no_other_volume_of_the_vm_is_detached() {
    let bench = Bench::stubborn();
    let boot = format!("{}-boot", bench.vm);
    bench
        .sandbox
        .call("detach_disk", json!([bench.vm, boot]))
        .error("DiskNotAttached", false);
    assert!(virsh(&["dumpxml", &bench.vm]).contains(&boot));
}

#[test]
fn what_libvirt_says_when_it_does_not_ask_the_guest_is_told() {
    let bench = Bench::stubborn();
    bench.call("attach_disk").result();
    bench.refuse(DETACH_DEVICE_FLAGS);
    let message = bench.call_as_planned("detach_disk").error("CloudError", true);
    assert!(
        message.contains("did not release it within 1 s (settings.detach_timeout)"),
        "{message}"
    );
    let refusal = format!("refused: detaching a device from VM {}: injected fault", bench.vm);
    assert!(message.contains(&refusal), "{message}");
    assert_eq!(bench.attached(), [true, true]);
}

/// QEMU takes a USB disk out of the VM without the guest's help.
#[test]
fn another_device_that_leaves_is_not_taken_for_the_disk() {
    let mut bench = Bench::stubborn();
    let detach_timeout = json!({"settings": {"detach_timeout": 4}});
    bench.sandbox.configure(detach_timeout);
    bench.call("attach_disk").result();
    let other = bench.sandbox.directory().join("pool/other.img");
    fs::write(&other, vec![0; 1 << 20]).unwrap();
    let attach_other = ["attach-disk", &bench.vm, other.to_str().unwrap(), "sdz"];
    virsh(&[&attach_other[..], &["--targetbus", "usb", "--live"]].concat());

    let log = bench.sandbox.directory().join("cpi.log");
    let logged = |text: &str| fs::read_to_string(&log).is_ok_and(|log| log.contains(text));
    // Libvirt would wait for five seconds itself.
    bench.refuse(DETACH_DEVICE_FLAGS);
    let pair = json!([bench.vm, bench.disk]);
    let call = bench.sandbox.start_logging_to("detach_disk", pair, &log);
    wait_for("the call to wait", Duration::from_secs(20), || {
        logged("no event yet")
    });
    virsh(&["detach-disk", &bench.vm, "sdz", "--live"]);
    let output = call.wait_with_output().unwrap();
    assert!(logged(&format!("disk {}: device usb-disk", bench.disk)));
    let response: Value = serde_json::from_slice(&output.stdout).unwrap();
    let message = response["error"]["message"].to_string();
    assert!(message.contains("did not release it within 4 s"), "{response}");
    assert_eq!(bench.attached(), [true, true]);
}

#[test]
fn a_guest_lets_go_of_a_disk_where_libvirt_has_no_events_or_somebody_else_has_asked_it() {
    let bench = Bench::willing();
    bench.call("attach_disk").result();
    bench.refuse(WATCH_EVENTS);
    let answer = bench.call_as_planned("detach_disk");
    for says in ["no events of VM", "looking without events"] {
        assert!(answer.stderr.contains(says), "{says}: {}", answer.stderr);
    }
    answer.result();
    assert_eq!(bench.attached(), [false, false]);

    bench.call("attach_disk").result();
    let (vm, disk) = (bench.vm.clone(), bench.disk.clone());
    bench
        .proxy
        .plan_event(At::Procedure(WATCH_EVENTS, 1), Fault::Before, move || {
            virsh(&["detach-disk", &vm, &target_of(&vm, &disk), "--live"]);
            wait_for("the guest to release the disk", Duration::from_secs(30), || {
                !virsh(&["domblklist", &vm]).contains(&disk)
            });
        });
    let answer = bench.call_as_planned("detach_disk");
    assert!(!answer.stderr.contains("asking the guest"), "{}", answer.stderr);
    answer.result();
    assert_eq!(bench.attached(), [false, false]);
}
