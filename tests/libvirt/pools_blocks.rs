//! Disks in a pool of raw blocks, of type `logical`; stemcells and records in a pool of files beside it.

use std::fs;
use std::time::Duration;

use serde_json::{Value, json};

use crate::lvm_host::{LvmHost, POOL};
use crate::rpc_proxy::{At, Fault, RpcProxy};
use crate::sandbox::{merge, run, wait_for};
use crate::tiny_guest;

const MIB: usize = 1 << 20;

#[test]
fn disks_and_their_snapshots_live_in_raw_blocks() {
    let lvm = LvmHost::new();
    refusals(&lvm);
    let disk = create_disk(&lvm, 10);
    assert_eq!(lvm.volumes(), [disk.as_str()]);
    fill(&lvm, &disk, 10);

    let copy = lvm.call("snapshot_disk", json!([disk, {}])).text();
    require_same(&lvm, &disk, &copy);
    assert_eq!(lvm.call("has_disk", json!([copy])).result(), true);
    fill(&lvm, &disk, 10);
    require_growth_refused(&lvm, &disk);

    let vm = create_vm(&lvm, json!({}));
    lvm.call("attach_disk", json!([vm, disk])).result();
    let xml = lvm.host.virsh(&["dumpxml", &vm]);
    let source = format!("<source dev='/dev/bosh/{disk}'");
    assert!(xml.contains(&source), "{xml}");
    let live = lvm.call("snapshot_disk", json!([disk, {}])).text();
    require_same(&lvm, &disk, &live);
    let message = lvm.call("delete_disk", json!([disk])).error("CloudError", false);
    assert!(message.contains(&vm), "{message}");
    require_growth_refused(&lvm, &disk);
    lvm.call("detach_disk", json!([vm, disk])).result();

    // A snapshot is as good as a disk, and goes with what is in it.
    lvm.call("attach_disk", json!([vm, live])).result();
    lvm.call("detach_disk", json!([vm, live])).result();
    lvm.call("delete_snapshot", json!([live])).result();
    assert_eq!(lvm.freed(&live), vec![0; 12 * MIB]);
    lvm.call_with(
        json!({"wipe_block_volumes": false}),
        "delete_snapshot",
        json!([copy]),
    )
    .result();
    assert_ne!(lvm.freed(&copy)[..10 * MIB], vec![0; 10 * MIB]);
    lvm.call("delete_disk", json!([disk])).result();
    assert_eq!(lvm.freed(&disk), vec![0; 12 * MIB]);
    assert_eq!(lvm.volumes(), [""; 0]);
}

/// `virStorageVolWipe` in libvirt's remote protocol, and what it answers of a volume that is gone.
const WIPE_VOLUME: u32 = 165;
const NO_STORAGE_VOLUME: u32 = 50;

#[test]
fn a_disk_that_cannot_be_wiped_stays_and_one_that_is_gone_is_not_wiped() {
    let lvm = LvmHost::new();
    let disk = create_disk(&lvm, 10);
    let proxy = RpcProxy::to(&lvm.host.socket(), &lvm.host.directory().join("proxy-sock"));
    let delete = |fault| {
        proxy.plan(Some((At::Procedure(WIPE_VOLUME, 1), fault)));
        let through = json!({"type": "socket", "socket": proxy.socket});
        let answer = lvm
            .host
            .call_with(&through, &json!({}), "delete_disk", json!([disk]));
        assert!(proxy.seen().1, "{}", answer.stderr);
        answer
    };
    let message = delete(Fault::Refused).error("CloudError", false);
    assert!(message.contains("wiping volume"), "{message}");
    assert_eq!(lvm.volumes(), [disk.as_str()]);
    delete(Fault::RefusedAs(NO_STORAGE_VOLUME, "Storage volume not found")).result();
    assert_eq!(lvm.volumes(), [""; 0]);
}

#[test]
fn a_disk_moves_from_files_to_blocks_and_back() {
    let lvm = LvmHost::new();
    let in_file = lvm.call("create_disk", json!([9, {"format": "qcow2"}])).text();
    let file = lvm.host.pool().join(&in_file);
    let content = lvm.host.directory().join("content");
    let (file, content) = (file.to_str().unwrap(), content.to_str().unwrap());
    lvm.shell(&format!(
        "head -c 9M /dev/urandom >{content}; qemu-img convert -n -O qcow2 {content} {file}"
    ));

    // Grown on the way: afterwards, libvirt could not.
    let arguments = json!([in_file, 14, {"storage_pool": POOL}]);
    let in_blocks = lvm.call("update_disk", arguments).text();
    assert_eq!(lvm.volumes(), [in_blocks.as_str()]);
    let device = LvmHost::device(&in_blocks);
    // LVM's extents have 4 MiB.
    assert_eq!(
        lvm.shell(&format!("blockdev --getsize64 {device}")).trim(),
        (16 * MIB).to_string()
    );
    lvm.shell(&format!("cmp -n {} {content} {device}", 9 * MIB));
    let unchanged = json!([in_blocks, 14, {"storage_pool": POOL, "cache": "none"}]);
    assert_eq!(lvm.call("update_disk", unchanged).result(), Value::Null);
    lvm.call("update_disk", json!([in_blocks, 12, {}]))
        .error("NotSupported", false);

    let back = lvm.call("update_disk", json!([in_blocks, 14, {}])).text();
    let file = lvm.host.pool().join(&back);
    let file = file.to_str().unwrap();
    assert_eq!(fs::metadata(file).unwrap().len(), 16 * MIB as u64);
    lvm.shell(&format!("cmp -n {} {content} {file}", 9 * MIB));
    assert_eq!(lvm.volumes(), [""; 0]);
    assert_eq!(lvm.freed(&in_blocks), vec![0; 16 * MIB]);
    lvm.call("delete_disk", json!([back])).result();
    assert_eq!(lvm.host.files(), [""; 0]);
}

#[test]
fn a_vm_in_blocks_is_wiped_with_all_its_volumes_also_when_it_is_a_dead_calls() {
    let lvm = LvmHost::new();
    let in_blocks = json!({"storage_pool": POOL, "boot_disk": 8, "ephemeral_disk": 6});
    let vm = create_vm(&lvm, in_blocks.clone());
    let console = lvm.host.directory().join("log").join(format!("{vm}.log"));
    wait_for("the guest to be up", Duration::from_secs(60), || {
        fs::read_to_string(&console).is_ok_and(|said| said.contains(tiny_guest::UP))
    });
    let [boot, ephemeral] = ["boot", "ephemeral"].map(|of| format!("{vm}-{of}"));
    assert_eq!(lvm.volumes(), [boot.as_str(), &ephemeral]);
    fill(&lvm, &ephemeral, 6);
    lvm.call("delete_vm", json!([vm])).result();
    assert_eq!(lvm.volumes(), [""; 0]);
    assert_eq!(lvm.freed(&boot), vec![0; 8 * MIB]);
    assert_eq!(lvm.freed(&ephemeral), vec![0; 8 * MIB]);

    // What a call left that was killed. The settings drive beside the blocks says how old they are.
    let dead = create_vm(&lvm, in_blocks);
    lvm.host.virsh(&["destroy", &dead]);
    lvm.host.virsh(&["undefine", &dead]);
    // A half snapshot has nothing that says so: its node is old, but a QEMU may write to it through another.
    let half = "snap0123456789abcdef";
    lvm.host.virsh(&["vol-create-as", POOL, half, "4M"]);
    fill(&lvm, half, 4);
    fs::write(lvm.host.pool().join(format!("{half}.partial")), "").unwrap();
    lvm.shell("touch -d '2 hours ago' /dev/bosh/*");
    for file in lvm.host.files() {
        let path = lvm.host.pool().join(file);
        run("touch", &["-d", "2 hours ago", path.to_str().unwrap()]).unwrap();
    }
    lvm.host.virsh(&["pool-refresh", "default"]);
    lvm.host.virsh(&["pool-refresh", POOL]);
    let found = lvm.operator(&["prune", "--yes", "--older-than", "1h"]);
    let about = |name: &str| {
        let mut all = found.as_array().unwrap().iter();
        all.find(|leftover| leftover["name"] == name).unwrap().clone()
    };
    let boot = format!("{dead}-boot");
    assert_eq!(about(&boot)["deleted"], true, "{found}");
    assert_eq!(lvm.freed(&boot), vec![0; 8 * MIB]);
    assert_eq!(about(half)["deleted"], false, "{found}");
    assert_eq!(
        about(half)["spared"],
        "its last modification is unknown",
        "{found}"
    );
    assert_eq!(lvm.volumes(), [half]);
    lvm.call("delete_snapshot", json!([half])).result();
    assert_eq!(lvm.volumes(), [""; 0]);
}

/// What cannot be in blocks, each with nothing left.
fn refusals(lvm: &LvmHost) {
    let message = lvm
        .call(
            "create_disk",
            json!([8, {"storage_pool": POOL, "format": "qcow2"}]),
        )
        .error("CloudError", false);
    assert!(message.contains("leave out cloud property format"), "{message}");
    let message = lvm
        .call("create_disk", json!([10_000, {"storage_pool": POOL}]))
        .error("NoDiskSpace", false);
    assert!(message.contains(POOL), "{message}");
    assert_eq!(lvm.volumes(), [""; 0]);
}

/// The size that it has is no growth; less than an extent is not shrinking.
#[track_caller]
fn require_growth_refused(lvm: &LvmHost, disk: &str) {
    for size in [10, 12] {
        assert_eq!(lvm.call("resize_disk", json!([disk, size])).result(), Value::Null);
    }
    let message = lvm
        .call("resize_disk", json!([disk, 20]))
        .error("NotSupported", false);
    assert!(
        message.contains("cannot change the size of volumes in pool blocks"),
        "{message}"
    );
    let message = lvm
        .call("resize_disk", json!([disk, 8]))
        .error("NotSupported", false);
    assert!(message.contains("cannot shrink"), "{message}");
}

fn create_disk(lvm: &LvmHost, size: u64) -> String {
    lvm.call("create_disk", json!([size, {"storage_pool": POOL}]))
        .text()
}

/// A VM with the tiny guest and these cloud properties.
fn create_vm(lvm: &LvmHost, properties: Value) -> String {
    let image = tiny_guest::image(lvm.host.directory());
    let stemcell = lvm.call("create_stemcell", json!([image, {}])).result();
    let networks = json!({"default": {"type": "dynamic", "cloud_properties": {}}});
    let mut arguments = tiny_guest::vm_arguments(&stemcell, networks);
    merge(&mut arguments[2], properties);
    let vm = lvm.call("create_vm", arguments).result();
    lvm.call("delete_stemcell", json!([stemcell]));
    vm[0].as_str().unwrap().to_owned()
}

/// Writes something to these first MiB of a volume.
fn fill(lvm: &LvmHost, volume: &str, size: u64) {
    let device = LvmHost::device(volume);
    lvm.shell(&format!(
        "dd if=/dev/urandom of={device} bs=1M count={size} conv=fsync 2>&1"
    ));
}

#[track_caller]
fn require_same(lvm: &LvmHost, one: &str, other: &str) {
    let [one, other] = [one, other].map(LvmHost::device);
    lvm.shell(&format!("cmp {one} {other}"));
}
