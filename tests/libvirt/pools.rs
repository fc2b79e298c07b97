//! Storage pools of every kind that this machine can have: what they make possible, and what is said where they
//! don't.

use std::fs;
use std::time::Duration;

use serde_json::{Value, json};

use crate::guest::shell;
use crate::hosts_daemon::Host;
use crate::loop_pool::LoopPool;
use crate::sandbox::{Sandbox, run, stemcell_image, virsh, wait_for};

const MIB: u64 = 1 << 20;

/// A sandbox whose stemcells, disks and settings drives are in this pool.
fn sandbox_on(pool: &LoopPool) -> Sandbox {
    Sandbox::with_config(json!({"settings": {"storage_pool_name": pool.name}}))
}

#[test]
fn a_vm_and_its_disks_live_on_xfs_where_snapshots_share_blocks() {
    let xfs = LoopPool::xfs(512);
    let sandbox = sandbox_on(&xfs);
    let vm = sandbox.vm(&sandbox.stemcell(), 10);
    let guest = sandbox.address(10);
    let disk = sandbox.call("create_disk", json!([96, {}])).text();
    sandbox.wait_until_ready(&vm, 1);
    sandbox.call("attach_disk", json!([vm, disk])).result();
    sandbox.wait_for_console(&vm, &format!("GUEST: disk-added virtio-{disk}"), 1);
    shell(
        &guest,
        &format!("disk-init {disk}; head -c 60000000 /dev/urandom > /mnt/{disk}/data"),
    );
    let sum = shell(&guest, &format!("md5sum < /mnt/{disk}/data; disk-umount {disk}"));
    sandbox.call("detach_disk", json!([vm, disk])).result();

    let before = xfs.free();
    let snapshot = sandbox.call("snapshot_disk", json!([disk, {}])).text();
    let taken = before.saturating_sub(xfs.free());
    assert!(taken < 4 * MIB, "the snapshot of 60 MB took {taken} bytes");
    let extents = run("filefrag", &["-v", &xfs.file(&snapshot)]).unwrap();
    assert!(extents.contains("shared"), "{extents}");

    // Written to after, the disk leaves its snapshot alone.
    run(
        "dd",
        &[
            "if=/dev/zero",
            &format!("of={}", xfs.file(&disk)),
            "bs=1M",
            "count=96",
            "conv=notrunc",
        ],
    )
    .unwrap();
    sandbox.call("attach_disk", json!([vm, snapshot])).result();
    sandbox.wait_for_console(&vm, &format!("GUEST: disk-added virtio-{snapshot}"), 1);
    let restored = shell(
        &guest,
        &format!("disk-mount {snapshot}; md5sum < /mnt/{snapshot}/data; disk-umount {snapshot}"),
    );
    assert!(restored.contains(sum.trim()), "{restored} has no {sum}");
    sandbox.call("detach_disk", json!([vm, snapshot])).result();
    sandbox.call("delete_snapshot", json!([snapshot])).result();
    sandbox.call("delete_disk", json!([disk])).result();
    sandbox.call("delete_vm", json!([vm])).result();
    assert_eq!(
        xfs.files().len(),
        2,
        "only the stemcell and its record are left: {:?}",
        xfs.files()
    );
}

#[test]
fn a_full_pool_says_so_and_keeps_nothing_incomplete() {
    let small = LoopPool::ext4(24);
    let sandbox = Sandbox::new();
    let stemcell = sandbox.stemcell();
    let in_small = |extra: Value| {
        let mut properties = json!({"storage_pool": small.name});
        properties
            .as_object_mut()
            .unwrap()
            .extend(extra.as_object().unwrap().clone());
        properties
    };
    let resident = sandbox
        .call("create_disk", json!([20, in_small(json!({}))]))
        .text();
    let content = fs::read(stemcell_image("qcow2")).unwrap()[..8 * MIB as usize].to_vec();
    fs::write(small.file(&resident), &content).unwrap();
    let (files, free) = (small.files(), small.free());
    let state = sandbox.state();
    let fails = |sandbox: &Sandbox, method: &str, arguments: Value| {
        let message = sandbox.call(method, arguments).error("NoDiskSpace", false);
        assert!(
            message.contains("No space left on device") || message.contains(" free in pool "),
            "{message}"
        );
        assert_eq!(small.files(), files, "after: {message}");
        // libvirt's process for an upload that was ended may have the deleted file open for a moment.
        wait_for(&format!("room after: {message}"), Duration::from_secs(30), || {
            small.free() == free
        });
    };

    fails(
        &sandbox,
        "create_disk",
        json!([64, in_small(json!({"preallocation": "full"}))]),
    );
    fails(
        &sandbox,
        "create_disk",
        json!([64, in_small(json!({"format": "qcow2", "preallocation": "full"}))]),
    );
    let other = sandbox.call("create_disk", json!([32, {}])).text();
    let path = format!("{}/pool/{other}", sandbox.directory().display());
    let random = [
        "if=/dev/urandom",
        &format!("of={path}"),
        "bs=1M",
        "count=32",
        "conv=notrunc",
    ];
    run("dd", &random).unwrap();
    let sum = run("md5sum", &[&path]).unwrap();
    fails(&sandbox, "update_disk", json!([other, 32, in_small(json!({}))]));
    assert_eq!(run("md5sum", &[&path]).unwrap(), sum);
    sandbox.call("delete_disk", json!([other])).result();

    let network = sandbox.manual_network(10);
    let mut full = Sandbox::new();
    full.configure(json!({"settings": {"boot_disk_clone": "full", "storage_pool_name": sandbox.name}}));
    fails(
        &full,
        "create_vm",
        json!(["a", stemcell, in_small(json!({})), network, [], {}]),
    );
    let mut stemcells = Sandbox::new();
    stemcells.configure(json!({"settings": {"stemcell_pool_name": small.name}}));
    for format in ["qcow2", "raw"] {
        fails(
            &stemcells,
            "create_stemcell",
            json!([stemcell_image(format), {"disk": 1024}]),
        );
    }
    assert_eq!(sandbox.state(), state);

    // Not a block left: nothing more fits, not even what is small.
    let _ = run(
        "dd",
        &["if=/dev/zero", &format!("of={}", small.file("filler")), "bs=4k"],
    );
    let (files, free) = (small.files(), small.free());
    assert!(free < 8 * 4096, "{free} bytes are left");
    stemcells.configure(json!({"settings": {"storage_pool_name": sandbox.name}}));
    for (method, arguments) in [
        ("create_vm", json!(["a", stemcell, {}, network, [], {}])),
        ("snapshot_disk", json!([resident, {}])),
        (
            "set_disk_metadata",
            json!([resident, {"deployment": "x".repeat(100_000)}]),
        ),
    ] {
        stemcells.call(method, arguments).error("NoDiskSpace", false);
        assert_eq!(small.files(), files, "after {method}");
    }
    assert_eq!(fs::read(small.file(&resident)).unwrap(), content);
    fs::remove_file(small.file("filler")).unwrap();
    stemcells
        .call("set_disk_metadata", json!([resident, {"deployment": "cf"}]))
        .result();
}

#[test]
fn a_boot_disk_of_its_own_boots_and_is_as_large_as_asked_for() {
    let mut sandbox = Sandbox::new();
    sandbox.configure(json!({"settings": {"boot_disk_clone": "full"}}));
    let stemcell = sandbox.stemcell();
    let create = |properties: Value, host: u8| {
        let arguments = json!(["a", stemcell, properties, sandbox.manual_network(host), [], {}]);
        sandbox.call("create_vm", arguments)
    };
    let message = create(json!({"memory": 192, "boot_disk": 8}), 10).error("VMCreationFailed", false);
    assert!(
        message.contains("boot_disk is smaller than the stemcell"),
        "{message}"
    );
    let as_large = create(json!({"memory": 64}), 11).result()[0].clone();
    let boot = format!("{}-boot", as_large.as_str().unwrap());
    let sizes = [&stemcell, &boot].map(|volume| {
        let info = virsh(&["vol-info", "--bytes", "--pool", &sandbox.name, volume]);
        info.lines()
            .find(|line| line.starts_with("Capacity"))
            .map(str::to_owned)
    });
    assert!(sizes[0].is_some() && sizes[0] == sizes[1], "{sizes:?}");
    sandbox.call("delete_vm", json!([as_large])).result();
    let vm = create(json!({"memory": 192, "boot_disk": 1500}), 10).result()[0]
        .as_str()
        .unwrap()
        .to_owned();
    let boot = format!("{}/pool/{vm}-boot", sandbox.directory().display());
    let info = run("qemu-img", &["info", "-U", &boot]).unwrap();
    assert!(!info.contains("backing file"), "{info}");
    // The stemcell is not needed any more.
    sandbox.call("delete_stemcell", json!([stemcell])).result();
    sandbox.wait_until_ready(&vm, 1);
    let size = shell(
        &sandbox.address(10),
        "blockdev --getsize64 /dev/disk/by-id/virtio-boot",
    );
    assert_eq!(size.trim(), (1500 * MIB).to_string());
    sandbox.call("delete_vm", json!([vm])).result();
    assert_eq!(sandbox.volumes(), [""; 0]);
}

#[test]
fn a_disk_is_found_in_whichever_pool_it_lives() {
    let elsewhere = LoopPool::ext4(64);
    let sandbox = Sandbox::new();
    let vm = sandbox.vm(&sandbox.stemcell(), 10);
    let created = sandbox.call(
        "create_disk",
        json!([16, {"storage_pool": elsewhere.name, "cache": "none"}]),
    );
    let disk = created.text();
    assert_eq!(elsewhere.files(), [disk.clone(), format!("{disk}.record")]);
    assert_eq!(sandbox.call("has_disk", json!([disk])).result(), true);
    virsh(&["destroy", &vm]);
    sandbox.call("attach_disk", json!([vm, disk])).result();
    assert!(virsh(&["dumpxml", &vm]).contains("cache='none'"));
    assert_eq!(sandbox.call("get_disks", json!([vm])).result(), json!([disk]));
    sandbox
        .call("set_disk_metadata", json!([disk, {"deployment": "cf"}]))
        .result();
    sandbox.call("detach_disk", json!([vm, disk])).result();
    sandbox.call("resize_disk", json!([disk, 20])).result();
    let snapshot = sandbox.call("snapshot_disk", json!([disk, {}])).text();
    assert_eq!(sandbox.call("has_disk", json!([snapshot])).result(), true);
    assert_eq!(
        fs::metadata(elsewhere.file(&snapshot)).unwrap().len(),
        20 * MIB,
        "a snapshot is beside its disk"
    );
    sandbox.call("delete_snapshot", json!([snapshot])).result();

    sandbox.call("delete_disk", json!([disk])).result();
    assert_eq!(elsewhere.files(), [""; 0]);
    assert_eq!(sandbox.call("has_disk", json!([disk])).result(), false);
}

/// On a host of its own: an inactive pool that libvirt should have started keeps every stemcell of the host.
#[test]
fn a_pool_that_libvirt_should_have_started_is_started() {
    let host = Host::new();
    let second = host.directory().join("second");
    fs::create_dir(&second).unwrap();
    host.virsh(&[
        "pool-define-as",
        "second",
        "dir",
        "--target",
        second.to_str().unwrap(),
    ]);
    host.virsh(&["pool-start", "second"]);
    let call = |method: &str, arguments: Value| host.call(&host.libvirt(), method, arguments);
    let disk = call("create_disk", json!([16, {"storage_pool": "second"}])).text();
    host.virsh(&["pool-autostart", "second"]);
    host.virsh(&["pool-destroy", "second"]);
    assert_eq!(call("has_disk", json!([disk])).result(), true);
    host.virsh(&["pool-destroy", "second"]);
    call("delete_disk", json!([disk])).result();
    assert_eq!(fs::read_dir(second).unwrap().count(), 0);
    assert_eq!(call("has_disk", json!([disk])).result(), false);
}

#[test]
fn a_pool_that_does_not_start_is_named_with_the_reason() {
    let mut sandbox = Sandbox::new();
    let name = format!("{}-broken", sandbox.name);
    virsh(&["pool-define-as", &name, "dir", "--target", "/no/such/directory"]);
    let answer = sandbox.call("create_disk", json!([16, {"storage_pool": name}]));
    sandbox.configure(json!({"settings": {"storage_pool_name": name}}));
    let stemcell = sandbox.call("create_stemcell", json!([stemcell_image("qcow2"), {}]));
    virsh(&["pool-undefine", &name]);
    for answer in [answer, stemcell] {
        let message = answer.error("CloudError", false);
        assert!(
            message.contains(&format!("starting storage pool {name}, which is inactive"))
                && message.contains("/no/such/directory"),
            "{message}"
        );
    }
}

#[test]
fn a_pool_of_partitions_takes_neither_stemcells_nor_disks_and_says_what_does() {
    let mut sandbox = Sandbox::new();
    let image = sandbox.directory().join("disk");
    fs::File::create(&image).unwrap().set_len(16 * MIB).unwrap();
    let device = run("losetup", &["-f", "--show", image.to_str().unwrap()]).unwrap();
    let device = device.trim();
    let name = format!("{}-disk", sandbox.name);
    virsh(&[
        "pool-define-as",
        &name,
        "disk",
        "--source-dev",
        device,
        "--source-format",
        "dos",
        "--target",
        "/dev",
    ]);
    virsh(&["pool-build", &name]);
    let disk = sandbox.call("create_disk", json!([4, {"storage_pool": name}]));
    let network = sandbox.manual_network(10);
    let image = sandbox.image_without_system();
    let uploaded = sandbox.call("create_stemcell", json!([image, {}])).text();
    let boot_disks = ["auto", "overlay"].map(|how| {
        sandbox.configure(json!({"settings": {"boot_disk_clone": how}}));
        let arguments = json!(["a", uploaded, {"storage_pool": name}, network, [], {}]);
        (how, sandbox.call("create_vm", arguments))
    });
    sandbox.configure(json!({"settings": {"storage_pool_name": name}}));
    let stemcell = sandbox.call("create_stemcell", json!([stemcell_image("qcow2"), {}]));
    let vm = sandbox.call("create_vm", json!(["a", "sc-1", {}, network, [], {}]));
    virsh(&["pool-destroy", &name]);
    virsh(&["pool-undefine", &name]);
    run("losetup", &["-d", device]).unwrap();
    for (how, answer) in boot_disks {
        let message = answer.error("VMCreationFailed", false);
        let reason = match how {
            "overlay" => {
                "does not hold files, which overlays are; set settings.boot_disk_clone to auto or full"
            }
            _ => "is of type disk: its volumes are partitions",
        };
        assert!(message.contains(&format!("pool {name} {reason}")), "{message}");
    }
    let message = disk.error("CloudError", false);
    assert!(
        message.contains("is of type disk") && message.contains("logical"),
        "{message}"
    );
    for (answer, error_type) in [(stemcell, "CloudError"), (vm, "VMCreationFailed")] {
        let message = answer.error(error_type, false);
        assert!(
            message.contains("is of type disk") && message.contains("settings.stemcell_pool_name"),
            "{message}"
        );
    }
}

#[test]
fn many_storage_calls_at_once_wait_for_each_other() {
    let sandbox = Sandbox::new();
    std::thread::scope(|scope| {
        for worker in 0..6 {
            let sandbox = &sandbox;
            scope.spawn(move || {
                for round in 0..3 {
                    let disk = sandbox.call("create_disk", json!([8, {"cache": "none"}])).text();
                    let metadata = json!({"worker": worker, "round": round});
                    sandbox
                        .call("set_disk_metadata", json!([disk, metadata]))
                        .result();
                    let snapshot = sandbox.call("snapshot_disk", json!([disk, metadata])).text();
                    sandbox.call("delete_snapshot", json!([snapshot])).result();
                    sandbox.call("resize_disk", json!([disk, 9])).result();
                    sandbox.call("delete_disk", json!([disk])).result();
                }
            });
        }
    });
    assert_eq!(sandbox.volumes(), [""; 0]);
}
