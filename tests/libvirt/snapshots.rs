//! Snapshots: copies of one moment, disks of their own.

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::guest::shell;
use crate::interrupts::interrupted;
use crate::rpc_proxy::{At, Fault, RpcProxy};
use crate::sandbox::{Sandbox, run, virsh, wait_for};

/// `virDomainGetJobStats` in libvirt's remote protocol.
const GET_JOB_STATS: u32 = 298;

#[test]
fn a_copy_that_somebody_else_ends_is_no_snapshot() {
    let mut sandbox = Sandbox::new();
    let vm = sandbox.vm_without_system(10);
    let disk = sandbox.call("create_disk", json!([512, {}])).text();
    let of = sandbox.directory().join("pool").join(&disk);
    let of = format!("of={}", of.display());
    run(
        "dd",
        &["if=/dev/urandom", &of, "bs=1M", "count=512", "conv=notrunc"],
    )
    .unwrap();
    sandbox.call("attach_disk", json!([vm, disk])).result();
    let proxy = RpcProxy::of(&mut sandbox);
    let before = sandbox.volumes();
    let copied = vm.clone();
    proxy.plan_event(At::Procedure(GET_JOB_STATS, 1), Fault::Before, move || {
        virsh(&["domjobabort", &copied]);
    });
    let answer = sandbox.call("snapshot_disk", json!([disk, {}]));
    assert!(proxy.seen().1, "{}", answer.stderr);
    proxy.plan(None);
    let message = answer.error("CloudError", true);
    assert!(message.contains("copying a disk of VM"), "{message}");
    assert_eq!(sandbox.volumes(), before);
    assert_eq!(virsh(&["domstate", &vm]).trim(), "running");
}

#[test]
fn a_snapshot_of_a_disk_in_use_is_one_moment_and_can_be_attached_again() {
    let sandbox = Sandbox::new();
    let vm = sandbox.vm(&sandbox.stemcell(), 10);
    let guest = sandbox.address(10);
    let disk = sandbox.call("create_disk", json!([48, {}])).text();
    sandbox.wait_until_ready(&vm, 1);
    sandbox.call("attach_disk", json!([vm, disk])).result();
    sandbox.wait_for_console(&vm, &format!("GUEST: disk-added virtio-{disk}"), 1);
    shell(&guest, &format!("disk-init {disk}; counter-start {disk}"));
    sandbox.wait_for_console(&vm, &format!("GUEST: counter {disk} 3"), 1);

    let uptime = || {
        shell(&guest, "cut -d. -f1 /proc/uptime")
            .trim()
            .parse::<u64>()
            .unwrap()
    };
    let before = uptime();
    let metadata = json!({"deployment": "cf", "job": "db"});
    let snapshot = sandbox.call("snapshot_disk", json!([disk, metadata])).text();
    assert_eq!(snapshot.len(), 20);
    let at_snapshot = sandbox.console(&vm);
    assert_eq!(virsh(&["domstate", &vm]).trim(), "running");
    assert!(uptime() >= before, "the guest was restarted");
    wait_for("the counter to go on", Duration::from_secs(30), || {
        sandbox
            .console(&vm)
            .matches(&format!("GUEST: counter {disk}"))
            .count()
            > at_snapshot.matches(&format!("GUEST: counter {disk}")).count()
    });

    // Restored as an operator does: the snapshot is attached like a disk.
    assert_eq!(sandbox.call("has_disk", json!([snapshot])).result(), true);
    sandbox.call("attach_disk", json!([vm, snapshot])).result();
    sandbox.wait_for_console(&vm, &format!("GUEST: disk-added virtio-{snapshot}"), 1);
    let disks = sandbox.call("get_disks", json!([vm])).result();
    assert_eq!(disks, json!([disk, snapshot]));
    let restored = shell(
        &guest,
        &format!("disk-mount {snapshot}; cat /mnt/{snapshot}/counter"),
    );
    let counted: u64 = restored
        .trim()
        .lines()
        .last()
        .unwrap()
        .parse()
        .unwrap_or_else(|_| panic!("{restored}"));
    let written = format!("GUEST: counter {disk} {counted}");
    assert!(
        sandbox
            .console(&vm)
            .lines()
            .any(|line| line.trim_end() == written),
        "{counted} was never written"
    );
    assert!(counted >= 3);

    sandbox
        .call("delete_snapshot", json!([snapshot]))
        .error("CloudError", false);
    shell(&guest, &format!("disk-umount {snapshot}"));
    sandbox.call("detach_disk", json!([vm, snapshot])).result();
    assert_eq!(
        sandbox.call("delete_snapshot", json!([snapshot])).result(),
        Value::Null
    );
    sandbox
        .call("delete_snapshot", json!([snapshot]))
        .error("DiskNotFound", false);
    assert_eq!(sandbox.call("has_disk", json!([disk])).result(), true);
}

#[test]
fn a_snapshot_of_a_detached_disk_is_a_copy() {
    let sandbox = Sandbox::new();
    for properties in [json!({}), json!({"format": "qcow2"})] {
        let disk = sandbox.call("create_disk", json!([16, properties])).text();
        let path = sandbox.directory().join("content");
        std::fs::write(&path, vec![7u8; 1 << 20]).unwrap();
        if properties == json!({}) {
            virsh(&[
                "vol-upload",
                "--pool",
                &sandbox.name,
                &disk,
                path.to_str().unwrap(),
            ]);
        }
        let snapshot = sandbox.call("snapshot_disk", json!([disk, {}])).text();
        let file = |cid: &str| {
            sandbox
                .directory()
                .join("pool")
                .join(cid)
                .to_str()
                .unwrap()
                .to_owned()
        };
        let compared = run("qemu-img", &["compare", &file(&disk), &file(&snapshot)]);
        assert!(compared.unwrap().contains("identical"));
        // Independent of each other.
        sandbox.call("delete_disk", json!([disk])).result();
        assert_eq!(sandbox.call("has_disk", json!([snapshot])).result(), true);
        sandbox.call("delete_snapshot", json!([snapshot])).result();
        assert!(!sandbox.volumes().iter().any(|name| name.contains(&snapshot)));
    }
    sandbox
        .call("snapshot_disk", json!(["disk0123456789abcdef", {}]))
        .error("DiskNotFound", false);
    let disk = sandbox.call("create_disk", json!([8, {}])).text();
    sandbox
        .call("delete_snapshot", json!([disk]))
        .error("DiskNotFound", false);
    assert_eq!(sandbox.call("has_disk", json!([disk])).result(), true);
}

#[test]
fn a_snapshot_that_is_killed_or_fails_leaves_the_disk_unharmed() {
    let sandbox = Sandbox::new();
    let vm = sandbox.vm(&sandbox.stemcell(), 10);
    let guest = sandbox.address(10);
    // Written in full, zeros too, and so much that the copy takes long enough to be met in the middle.
    let disk = sandbox.call("create_disk", json!([2048, {}])).text();
    let output = format!("of={}/pool/{disk}", sandbox.directory().display());
    run(
        "dd",
        &["if=/dev/zero", &output, "bs=1M", "count=2048", "conv=notrunc"],
    )
    .unwrap();
    run(
        "dd",
        &[
            "if=/dev/urandom",
            &output,
            "bs=1M",
            "count=4",
            "seek=400",
            "conv=notrunc",
        ],
    )
    .unwrap();
    sandbox.wait_until_ready(&vm, 1);
    let hint = sandbox.call("attach_disk", json!([vm, disk])).text();
    sandbox.wait_for_console(&vm, &format!("GUEST: disk-added virtio-{disk}"), 1);
    let sum_of = format!("dd if={hint} bs=1M count=4 skip=400 2>/dev/null | md5sum");
    let sum = shell(&guest, &sum_of);

    let mut killed = sandbox.start("snapshot_disk", json!([disk, {}]));
    wait_for_copy_job(&vm);
    killed.kill().unwrap();
    killed.wait().unwrap();
    // Libvirt goes on copying; the next snapshot waits for that and succeeds.
    let snapshot = sandbox.call("snapshot_disk", json!([disk, {}])).text();
    assert_eq!(shell(&guest, &sum_of), sum);
    assert!(!virsh(&["domjobinfo", &vm]).contains("Backup"));
    sandbox.call("delete_snapshot", json!([snapshot])).result();

    // Told to end in the middle: it ends the copy, takes back the snapshot, and answers.
    let volumes_before = sandbox.volumes();
    let told = sandbox.start("snapshot_disk", json!([disk, {}]));
    wait_for_copy_job(&vm);
    interrupted(told, "TERM", "CloudError");
    assert!(!virsh(&["domjobinfo", &vm]).contains("Backup"));
    assert_eq!(sandbox.volumes(), volumes_before);

    // QEMU dies in the middle: an error, no snapshot, the disk still there and attached.
    let failing = sandbox.start("snapshot_disk", json!([disk, {}]));
    wait_for_copy_job(&vm);
    virsh(&["destroy", &vm]);
    let output = failing.wait_with_output().unwrap();
    let response: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_ne!(
        response["error"],
        Value::Null,
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    assert_eq!(sandbox.volumes(), volumes_before);
    assert_eq!(sandbox.call("get_disks", json!([vm])).result(), json!([disk]));
    sandbox.call("reboot_vm", json!([vm])).result();
    sandbox.wait_until_ready(&vm, 2);
    assert_eq!(shell(&guest, &sum_of), sum);
}

/// Looks without a pause: the job may be short.
fn wait_for_copy_job(vm: &str) {
    let started = Instant::now();
    while !virsh(&["domjobinfo", vm]).contains("Backup") {
        assert!(
            started.elapsed() < Duration::from_secs(60),
            "no copy job was seen"
        );
    }
}
