//! What other tools do to a persistent disk (virsh, backup tools, qemu-img): never is old content taken for the disk's.

use std::fs;
use std::path::PathBuf;

use serde_json::{Value, json};

use crate::sandbox::{Sandbox, run, virsh};
use crate::tiny_guest;

struct Host {
    sandbox: Sandbox,
    stemcell: String,
}

impl Host {
    fn new() -> Self {
        let sandbox = Sandbox::new();
        let image = tiny_guest::image(sandbox.directory());
        let stemcell = sandbox.call("create_stemcell", json!([image, {}])).text();
        Self { sandbox, stemcell }
    }

    fn vm(&self, host: u8) -> String {
        let arguments = tiny_guest::vm_arguments(&json!(self.stemcell), self.sandbox.manual_network(host));
        let vm = self.sandbox.call("create_vm", arguments).result()[0].clone();
        let vm = vm.as_str().unwrap().to_owned();
        self.sandbox.wait_for_console(&vm, tiny_guest::UP, 1);
        vm
    }

    fn disk(&self, properties: Value) -> String {
        self.sandbox.call("create_disk", json!([8, properties])).text()
    }

    fn file(&self, name: &str) -> PathBuf {
        self.sandbox.directory().join("pool").join(name)
    }

    fn path(&self, name: &str) -> String {
        self.file(name).to_str().unwrap().to_owned()
    }

    #[track_caller]
    fn refused(&self, method: &str, arguments: Value) -> String {
        self.sandbox.call(method, arguments).error("CloudError", false)
    }

    /// The name (`vdd`) that the VM has the disk under.
    fn target(&self, vm: &str, disk: &str) -> String {
        let listing = virsh(&["domblklist", vm]);
        let line = listing.lines().find(|line| line.contains(disk)).unwrap();
        line.split_whitespace().next().unwrap().to_owned()
    }

    /// The guest writes these bytes at the begin of its disk.
    fn guest_writes(&self, vm: &str, disk: &str, pattern: &str) {
        let xml = virsh(&["dumpxml", vm]);
        let of_disk = xml
            .split("<disk ")
            .find(|part| part.contains(&format!("<serial>{disk}<")))
            .unwrap();
        let alias = of_disk
            .split("<alias name='")
            .nth(1)
            .unwrap()
            .split('\'')
            .next()
            .unwrap();
        let write =
            format!("qemu-io -d /machine/peripheral/{alias}/virtio-backend \"write -P {pattern} 0 64k\"");
        // What it says goes to QEMU's log; what it wrote is read from the disk later.
        let said = virsh(&["qemu-monitor-command", vm, "--hmp", &write]);
        assert!(!said.contains("rror"), "{said}");
    }

    /// The detached disk has these bytes at its begin.
    #[track_caller]
    fn require_content(&self, disk: &str, format: &str, pattern: &str) {
        let read = format!("read -P {pattern} 0 64k");
        let said = run("qemu-io", &["-f", format, "-c", &read, &self.path(disk)]).unwrap();
        assert!(!said.contains("Pattern verification failed"), "{said}");
    }
}

/// As backup tools make it: an overlay, or a copy that the VM is switched to.
fn snapshot(host: &Host, vm: &str, disk: &str, file: &str) {
    let target = host.target(vm, disk);
    let mut command = vec![
        "snapshot-create-as".to_owned(),
        vm.to_owned(),
        "s".to_owned(),
        "--disk-only".to_owned(),
        "--no-metadata".to_owned(),
    ];
    for line in virsh(&["domblklist", vm]).lines() {
        let Some(other) = line
            .split_whitespace()
            .next()
            .filter(|name| name.starts_with("vd"))
        else {
            continue;
        };
        command.push("--diskspec".to_owned());
        command.push(if other == target {
            format!("{other},file={file}")
        } else {
            format!("{other},snapshot=no")
        });
    }
    virsh(&command.iter().map(String::as_str).collect::<Vec<_>>());
}

/// Every call that would read or write the wrong layer refuses, and names the file and the command.
#[track_caller]
fn require_refused(host: &Host, vm: &str, other: &str, disk: &str, file: &str, command: &str) {
    let call = |method: &str, arguments| host.sandbox.call(method, arguments);
    assert_eq!(call("get_disks", json!([vm])).result(), json!([disk]));
    for (method, arguments) in [
        ("snapshot_disk", json!([disk, {}])),
        ("resize_disk", json!([disk, 16])),
        ("detach_disk", json!([vm, disk])),
        ("delete_vm", json!([vm])),
    ] {
        let message = host.refused(method, arguments);
        assert!(
            message.contains(file) && message.contains(command),
            "{method}: {message}"
        );
    }
    for (method, arguments) in [
        ("attach_disk", json!([other, disk])),
        ("update_disk", json!([disk, 16, {}])),
        ("delete_disk", json!([disk])),
    ] {
        let message = host.refused(method, arguments);
        assert!(
            message.contains(&format!("attached to {vm}")),
            "{method}: {message}"
        );
    }
    // The guest has the newest data: that is what attached means.
    let hint = call("attach_disk", json!([vm, disk])).text();
    assert_eq!(hint, format!("/dev/disk/by-id/virtio-{disk}"));
    assert_eq!(virsh(&["domstate", vm]).trim(), "running");
}

/// Once the operator has ended it, all goes on, with the newest data.
fn require_usable(host: &Host, vm: &str, other: &str, disk: &str, format: &str, pattern: &str) {
    let call = |method: &str, arguments| host.sandbox.call(method, arguments);
    let snapshot = call("snapshot_disk", json!([disk, {}])).text();
    host.require_content(&snapshot, format, pattern);
    call("resize_disk", json!([disk, 16])).result();
    call("detach_disk", json!([vm, disk])).result();
    host.require_content(disk, format, pattern);
    call("attach_disk", json!([other, disk])).result();
    call("detach_disk", json!([other, disk])).result();
    call("delete_vm", json!([vm])).result();
    call("delete_vm", json!([other])).result();
    call("delete_snapshot", json!([snapshot])).result();
    call("delete_disk", json!([disk])).result();
}

#[test]
fn an_overlay_on_a_disk_is_never_lost() {
    let host = Host::new();
    for (properties, format) in [(json!({}), "raw"), (json!({"format": "qcow2"}), "qcow2")] {
        let (vm, other) = (host.vm(10), host.vm(11));
        let disk = host.disk(properties);
        host.sandbox.call("attach_disk", json!([vm, disk])).result();
        host.guest_writes(&vm, &disk, "0x11");
        // Beside the disk and under its name, as tools do, or anywhere under any name; and one on top of another.
        let overlay = match format {
            "raw" => host.path(&format!("{disk}.bak")),
            _ => host
                .sandbox
                .directory()
                .join("nightly")
                .to_str()
                .unwrap()
                .to_owned(),
        };
        snapshot(&host, &vm, &disk, &overlay);
        host.guest_writes(&vm, &disk, "0x22");
        require_refused(&host, &vm, &other, &disk, &overlay, "virsh blockcommit");
        // After a reboot of the VM only its persistent XML tells.
        virsh(&["destroy", &vm]);
        for method in ["detach_disk", "attach_disk"] {
            host.sandbox.call(method, json!([other, disk])).response["error"]
                .as_object()
                .unwrap_or_else(|| panic!("{method} of {disk} succeeded"));
        }
        let message = host.refused("delete_vm", json!([vm]));
        assert!(
            message.contains(&overlay) && message.contains("virsh start"),
            "{message}"
        );
        virsh(&["start", &vm]);
        host.sandbox.wait_for_console(&vm, tiny_guest::UP, 2);

        let target = virsh(&["domblklist", &vm])
            .lines()
            .find(|line| line.contains(&overlay))
            .and_then(|line| line.split_whitespace().next().map(str::to_owned))
            .unwrap();
        virsh(&["blockcommit", &vm, &target, "--active", "--wait", "--pivot"]);
        fs::remove_file(&overlay).unwrap();
        require_usable(&host, &vm, &other, &disk, format, "0x22");
    }
    assert_eq!(host.sandbox.volumes(), Sandbox::stemcell_volumes(&host.stemcell));
}

#[test]
fn a_disk_that_was_moved_to_another_file_is_known_by_its_serial() {
    let host = Host::new();
    let (vm, other) = (host.vm(10), host.vm(11));
    let disk = host.disk(json!({}));
    host.sandbox.call("attach_disk", json!([vm, disk])).result();
    host.guest_writes(&vm, &disk, "0x11");
    let moved = host.sandbox.directory().join("moved.img");
    let moved = moved.to_str().unwrap();
    let target = host.target(&vm, &disk);
    virsh(&[
        "blockcopy",
        &vm,
        &target,
        moved,
        "--transient-job",
        "--wait",
        "--pivot",
    ]);
    host.guest_writes(&vm, &disk, "0x33");
    require_refused(&host, &vm, &other, &disk, moved, "virsh blockcopy");

    // The remedy that the message names, word for word.
    let message = host.refused("detach_disk", json!([vm, disk]));
    let command = message.split("(bring it back: virsh ").nth(1).unwrap();
    let command = command.split(", then").next().unwrap();
    virsh(&command.split_whitespace().collect::<Vec<_>>());
    require_usable(&host, &vm, &other, &disk, "raw", "0x33");
}

/// No VM tells of it any more, as when the VM was undefined with virsh.
#[test]
fn an_overlay_that_no_vm_has_keeps_its_base_from_being_used() {
    let host = Host::new();
    let vm = host.vm(10);
    let disk = host.disk(json!({}));
    let overlay = host.path("some-backup.qcow2");
    let base = host.path(&disk);
    run(
        "qemu-img",
        &["create", "-q", "-f", "qcow2", "-F", "raw", "-b", &base, &overlay],
    )
    .unwrap();
    // delete_disk finds out by itself.
    let message = host.refused("delete_disk", json!([disk]));
    assert!(
        message.contains(&overlay) && message.contains("qemu-img commit"),
        "{message}"
    );
    host.sandbox.refresh_pool();
    for (method, arguments) in [
        ("attach_disk", json!([vm, disk])),
        ("snapshot_disk", json!([disk, {}])),
        ("resize_disk", json!([disk, 16])),
        ("update_disk", json!([disk, 16, {"format": "qcow2"}])),
        ("delete_disk", json!([disk])),
    ] {
        let message = host.refused(method, arguments);
        assert!(message.contains(&overlay), "{method}: {message}");
    }
    assert_eq!(host.sandbox.call("get_disks", json!([vm])).result(), json!([]));
    run("qemu-io", &["-c", "write -P 0x44 0 64k", &overlay]).unwrap();
    run("qemu-img", &["commit", "-q", &overlay]).unwrap();
    fs::remove_file(&overlay).unwrap();
    host.sandbox.refresh_pool();
    host.sandbox.call("attach_disk", json!([vm, disk])).result();
    host.sandbox.call("detach_disk", json!([vm, disk])).result();
    host.require_content(&disk, "raw", "0x44");
    host.sandbox.call("delete_disk", json!([disk])).result();
}

#[test]
fn what_a_saved_vm_resumes_with_is_attached() {
    let host = Host::new();
    let (vm, other) = (host.vm(10), host.vm(11));
    let (disk, second) = (host.disk(json!({})), host.disk(json!({})));
    let call = |method: &str, arguments| host.sandbox.call(method, arguments);
    call("attach_disk", json!([vm, disk])).result();
    virsh(&["managedsave", &vm]);
    assert_eq!(call("get_disks", json!([vm])).result(), json!([disk]));
    for (method, arguments) in [
        ("detach_disk", json!([vm, disk])),
        ("attach_disk", json!([vm, second])),
        ("resize_disk", json!([disk, 16])),
    ] {
        let message = host.refused(method, arguments);
        let remedy = format!("virsh managedsave-remove {vm}");
        assert!(
            message.contains("is saved") && message.contains(&remedy),
            "{method}: {message}"
        );
    }
    for (method, arguments) in [
        ("attach_disk", json!([other, disk])),
        ("delete_disk", json!([disk])),
        ("update_disk", json!([disk, 16, {}])),
    ] {
        let message = host.refused(method, arguments);
        assert!(message.contains(&format!("{vm} (saved)")), "{method}: {message}");
    }
    // Attached it is: nothing is to be done.
    call("attach_disk", json!([vm, disk])).result();
    // The definition alone does not decide: somebody took the disk out of it, and the VM resumes with it all the same.
    let target = host.target(&vm, &disk);
    virsh(&["detach-disk", &vm, &target, "--config"]);
    assert_eq!(call("get_disks", json!([vm])).result(), json!([disk]));
    let message = host.refused("delete_disk", json!([disk]));
    assert!(message.contains(&format!("{vm} (saved)")), "{message}");
    let message = host.refused("attach_disk", json!([vm, disk]));
    assert!(message.contains("is saved"), "{message}");

    // Resumed, all goes on.
    virsh(&["start", &vm]);
    call("detach_disk", json!([vm, disk])).result();
    call("attach_disk", json!([vm, second])).result();
    virsh(&["managedsave", &vm]);
    virsh(&["managedsave-remove", &vm]);
    call("detach_disk", json!([vm, second])).result();

    // A VM that is deleted resumes no more; its disk stays.
    call("attach_disk", json!([vm, disk])).result();
    virsh(&["start", &vm]);
    virsh(&["managedsave", &vm]);
    call("delete_vm", json!([vm])).result();
    call("attach_disk", json!([other, disk])).result();
    call("delete_vm", json!([other])).result();
    for disk in [disk, second] {
        call("delete_disk", json!([disk])).result();
    }
}

/// A reboot boots: what was saved is dropped, and with it the file systems that the saved guest had open.
#[test]
fn a_saved_vm_is_rebooted_not_resumed() {
    let host = Host::new();
    let vm = host.vm(10);
    virsh(&["managedsave", &vm]);
    host.sandbox.call("reboot_vm", json!([vm])).result();
    host.sandbox.wait_for_console(&vm, tiny_guest::UP, 2);
    virsh(&["destroy", &vm]);
    assert!(!virsh(&["dominfo", &vm]).contains("Managed save:   yes"));
}

#[test]
fn a_transient_vm_has_disks_only_while_it_runs() {
    let host = Host::new();
    let vm = host.vm(10);
    let (disk, second) = (host.disk(json!({})), host.disk(json!({})));
    let call = |method: &str, arguments| host.sandbox.call(method, arguments);
    call("set_disk_metadata", json!([second, {"deployment": "d"}])).result();
    call("attach_disk", json!([vm, disk])).result();
    virsh(&["undefine", &vm]);
    assert_eq!(call("get_disks", json!([vm])).result(), json!([disk]));
    let message = host.refused("delete_disk", json!([disk]));
    assert!(message.contains(&vm), "{message}");
    call("detach_disk", json!([vm, disk])).result();
    call("detach_disk", json!([vm, disk])).error("DiskNotAttached", false);
    call("attach_disk", json!([vm, second])).result();
    assert_eq!(call("get_disks", json!([vm])).result(), json!([second]));
    call("set_vm_metadata", json!([vm, {"name": "a/0"}])).result();
    call("snapshot_disk", json!([second, {}])).text();
    call("delete_vm", json!([vm])).result();
    assert_eq!(call("has_vm", json!([vm])).result(), false);
    for disk in [disk, second] {
        call("delete_disk", json!([disk])).result();
    }
}

/// Other hosts of a shared pool, a restore: libvirt knows of it only once it has read the pool anew.
#[test]
fn a_missing_disk_is_missing_only_after_a_fresh_look() {
    let host = Host::new();
    let vm = host.vm(10);
    let call = |method: &str, arguments| host.sandbox.call(method, arguments);
    let disks = ["disk00000000restored1", "snap0000000restored2"].map(|name| name[..20].to_owned());
    for disk in &disks {
        run("qemu-img", &["create", "-q", "-f", "raw", &host.path(disk), "8M"]).unwrap();
        assert!(!host.sandbox.volumes().contains(disk));
        assert_eq!(call("has_disk", json!([disk])).result(), true);
    }
    let [disk, snapshot] = disks;
    call("attach_disk", json!([vm, disk])).result();
    call("detach_disk", json!([vm, disk])).result();
    fs::rename(host.file(&snapshot), host.sandbox.directory().join("away")).unwrap();
    assert_eq!(call("has_disk", json!([snapshot])).result(), false);
    fs::rename(host.sandbox.directory().join("away"), host.file(&snapshot)).unwrap();
    // Taken for deleted, it would stay for ever.
    call("delete_snapshot", json!([snapshot])).result();
    assert!(!host.file(&snapshot).exists());
    call("delete_disk", json!([disk])).result();
    assert!(!host.file(&disk).exists());
    call("delete_disk", json!([disk])).error("DiskNotFound", false);
    // A stemcell that another host has uploaded.
    let stemcell = "sc-00000000-0000-4000-8000-0000000000aa";
    run(
        "qemu-img",
        &["create", "-q", "-f", "qcow2", &host.path(stemcell), "8M"],
    )
    .unwrap();
    call("delete_stemcell", json!([stemcell])).result();
    assert!(!host.file(stemcell).exists());
}
