//! Disks that come and go while the guest runs, on every machine type and bus.

use std::collections::BTreeSet;
use std::fs;

use serde_json::{Value, json};

use crate::guest::shell;
use crate::sandbox::{Sandbox, virsh};

/// More than any deployment attaches, and what the built-in domain promises.
const MANY: usize = 24;

/// Creates and attaches disks; returns their cids.
fn attach_disks(sandbox: &Sandbox, vm: &str, count: usize) -> Vec<String> {
    (0..count)
        .map(|_| {
            let disk = sandbox.call("create_disk", json!([1, {}])).text();
            sandbox.call("attach_disk", json!([vm, disk])).result();
            disk
        })
        .collect()
}

/// What virsh says the VM has: (target, volume) pairs, live or at the next start.
fn block_devices(vm: &str, next_start: bool) -> BTreeSet<(String, String)> {
    let listing = if next_start {
        virsh(&["domblklist", vm, "--inactive"])
    } else {
        virsh(&["domblklist", vm])
    };
    listing
        .lines()
        .filter_map(|line| {
            let mut words = line.split_whitespace();
            let (target, source) = (words.next()?, words.next()?);
            Some((target.to_owned(), source.rsplit('/').next()?.to_owned()))
        })
        .collect()
}

fn many_disks_fit_and_are_the_same_after_a_reboot(settings: Value, link: &str) {
    let sandbox = Sandbox::with_config(json!({ "settings": settings }));
    let vm = sandbox.vm(&sandbox.stemcell(), 10);
    let guest = sandbox.address(10);
    sandbox.wait_until_ready(&vm, 1);
    let disks = attach_disks(&sandbox, &vm, MANY);
    assert_eq!(sandbox.call("get_disks", json!([vm])).result(), json!(disks));
    assert_eq!(
        block_devices(&vm, false),
        block_devices(&vm, true),
        "live and next start differ"
    );
    for disk in &disks {
        sandbox.wait_for_console(&vm, &format!("GUEST: disk-added {link}{disk}"), 1);
    }
    // From the middle, so that names (vdd, vde, ...) get free and positions change.
    for disk in &disks[3..6] {
        sandbox.call("detach_disk", json!([vm, disk])).result();
    }
    let again = attach_disks(&sandbox, &vm, 1).remove(0);
    sandbox.wait_for_console(&vm, &format!("GUEST: disk-added {link}{again}"), 1);
    assert_eq!(
        block_devices(&vm, false),
        block_devices(&vm, true),
        "live and next start differ"
    );

    // A guest boots faster with few disks. Nobody has to be asked while it is off.
    let left = [&disks[0], &disks[MANY - 1], &again];
    for (number, disk) in left.iter().enumerate() {
        let path = format!("/dev/disk/by-id/{link}{disk}");
        shell(
            &guest,
            &format!("echo content-{number} | dd of={path} conv=sync 2>/dev/null; sync"),
        );
    }
    virsh(&["destroy", &vm]);
    for disk in disks[1..3].iter().chain(&disks[6..MANY - 1]) {
        sandbox.call("detach_disk", json!([vm, disk])).result();
    }
    assert_eq!(
        sandbox
            .call("get_disks", json!([vm]))
            .result()
            .as_array()
            .unwrap()
            .len(),
        left.len()
    );
    sandbox.call("reboot_vm", json!([vm])).result();
    sandbox.wait_until_ready(&vm, 2);
    for (number, disk) in left.iter().enumerate() {
        sandbox.wait_for_console(&vm, &format!("GUEST: disk-added {link}{disk}"), 2);
        let path = format!("/dev/disk/by-id/{link}{disk}");
        let content = shell(&guest, &format!("head -c 9 {path}"));
        assert_eq!(
            content,
            format!("content-{number}"),
            "{path} is another disk after the reboot"
        );
    }
}

#[test]
fn many_disks_on_pc() {
    many_disks_fit_and_are_the_same_after_a_reboot(json!({"machine": "pc"}), "virtio-");
}

#[test]
fn many_disks_on_q35() {
    many_disks_fit_and_are_the_same_after_a_reboot(json!({"machine": "q35"}), "virtio-");
}

#[test]
fn many_disks_on_virtio_scsi() {
    let link = "scsi-0QEMU_QEMU_HARDDISK_";
    many_disks_fit_and_are_the_same_after_a_reboot(json!({"disk_bus": "scsi"}), link);
    let sandbox = Sandbox::with_config(json!({"settings": {"disk_bus": "scsi"}}));
    let stemcell = sandbox.stemcell();
    let arguments =
        json!(["a", stemcell, {"memory": 192, "ephemeral_disk": 8}, sandbox.manual_network(10), [], {}]);
    let vm = sandbox.call("create_vm", arguments).result()[0]
        .as_str()
        .unwrap()
        .to_owned();
    let disk = sandbox.call("create_disk", json!([8, {}])).text();
    let hint = sandbox.call("attach_disk", json!([vm, disk])).result();
    assert_eq!(hint, json!({"id": disk}));
    sandbox.wait_for_console(
        &vm,
        &format!("GUEST: ephemeral /dev/disk/by-id/{link}ephemeral -> "),
        1,
    );
}

#[test]
fn a_guest_finds_its_disks_whatever_their_order() {
    let sandbox = Sandbox::new();
    let stemcell = sandbox.stemcell();
    let arguments =
        json!(["a", stemcell, {"memory": 192, "ephemeral_disk": 9}, sandbox.manual_network(10), [], {}]);
    let vm = sandbox.call("create_vm", arguments).result()[0]
        .as_str()
        .unwrap()
        .to_owned();
    virsh(&["destroy", &vm]);
    let disks: Vec<String> = [3, 5]
        .iter()
        .map(|size| {
            let disk = sandbox.call("create_disk", json!([size, {}])).text();
            sandbox.call("attach_disk", json!([vm, disk])).result();
            disk
        })
        .collect();
    // The guest numbers its disks by PCI address: all but the boot disk's are turned round.
    let xml = virsh(&["dumpxml", &vm, "--inactive"]);
    let slots: Vec<&str> = xml
        .split("<disk ")
        .skip(2)
        .map(|disk| {
            disk.split("<address type='pci'")
                .nth(1)
                .unwrap()
                .split("/>")
                .next()
                .unwrap()
        })
        .collect();
    assert_eq!(slots.len(), 4);
    let mut turned = xml.clone();
    for (number, slot) in slots.iter().enumerate() {
        turned = turned.replacen(slot, &format!("@{number}@"), 1);
    }
    for (number, slot) in slots.iter().rev().enumerate() {
        turned = turned.replacen(&format!("@{number}@"), slot, 1);
    }
    let file = sandbox.directory().join("turned.xml");
    fs::write(&file, turned).unwrap();
    virsh(&["define", file.to_str().unwrap()]);

    sandbox.call("reboot_vm", json!([vm])).result();
    sandbox.wait_for_console(&vm, "GUEST: ready", 1);
    let console = sandbox.console(&vm);
    let boot = &console[console.rfind("GUEST: booted").unwrap()..];
    // The ephemeral disk comes last in the guest, and the settings are found all the same.
    assert!(boot.contains("GUEST: disk-added virtio-ephemeral vde"), "{boot}");
    let ephemeral = format!(
        "GUEST: ephemeral /dev/disk/by-id/virtio-ephemeral -> /dev/vde {}",
        9 << 20
    );
    assert!(boot.contains(&ephemeral), "{boot}");
    for (disk, size) in disks.iter().zip([3u64, 5]) {
        let command = format!("blockdev --getsize64 /dev/disk/by-id/virtio-{disk}");
        assert_eq!(
            shell(&sandbox.address(10), &command).trim(),
            (size << 20).to_string()
        );
    }
}

#[test]
fn a_guest_that_does_not_let_go_keeps_its_disk() {
    let sandbox = Sandbox::with_config(json!({"settings": {"detach_timeout": 3}}));
    let vm = sandbox.vm_without_system(10);
    let disk = sandbox.call("create_disk", json!([8, {}])).text();
    sandbox.call("attach_disk", json!([vm, disk])).result();

    let message = sandbox
        .call("detach_disk", json!([vm, disk]))
        .error("CloudError", true);
    assert!(
        message.contains("did not release") && message.contains("detach_timeout"),
        "{message}"
    );
    for next_start in [false, true] {
        assert!(
            block_devices(&vm, next_start)
                .iter()
                .any(|(_, volume)| *volume == disk)
        );
    }
    assert_eq!(sandbox.call("get_disks", json!([vm])).result(), json!([disk]));
    sandbox
        .call("delete_disk", json!([disk]))
        .error("CloudError", false);

    // Once it is off, there is nobody to ask.
    virsh(&["destroy", &vm]);
    sandbox.call("detach_disk", json!([vm, disk])).result();
    sandbox.call("delete_disk", json!([disk])).result();
}

#[test]
fn a_disk_that_only_one_description_has_is_attached_and_detached_in_both() {
    let sandbox = Sandbox::new();
    let vm = sandbox.vm(&sandbox.stemcell(), 10);
    sandbox.wait_until_ready(&vm, 1);
    let disk = sandbox.call("create_disk", json!([8, {}])).text();
    sandbox.call("attach_disk", json!([vm, disk])).result();
    let target = block_devices(&vm, true)
        .into_iter()
        .find(|(_, volume)| *volume == disk)
        .unwrap()
        .0;

    // As a crash between the two steps leaves it.
    virsh(&["detach-disk", &vm, &target, "--config"]);
    assert_eq!(sandbox.call("get_disks", json!([vm])).result(), json!([disk]));
    sandbox
        .call("delete_disk", json!([disk]))
        .error("CloudError", false);
    sandbox.call("attach_disk", json!([vm, disk])).result();
    assert_eq!(block_devices(&vm, false), block_devices(&vm, true));

    virsh(&["detach-disk", &vm, &target, "--config"]);
    sandbox.wait_for_console(&vm, &format!("GUEST: disk-added virtio-{disk}"), 1);
    sandbox.call("detach_disk", json!([vm, disk])).result();
    assert!(!virsh(&["dumpxml", &vm]).contains(&disk));

    // Defined for the next start only, by file name, as another tool may have done.
    let path = format!("{}/pool/{disk}", sandbox.directory().display());
    virsh(&["attach-disk", &vm, &path, "vdx", "--config", "--subdriver", "raw"]);
    let message = sandbox
        .call("delete_disk", json!([disk]))
        .error("CloudError", false);
    assert!(message.contains(&vm), "{message}");
    sandbox.call("detach_disk", json!([vm, disk])).result();
    sandbox.call("delete_disk", json!([disk])).result();
}
