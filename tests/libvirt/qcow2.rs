//! The version of qcow2 that volumes get, and what it is for: discards that free space, and incremental backups. The
//! other party is virsh, qemu-img and qemu-io.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::time::Duration;

use serde_json::{Value, json};

use crate::guest::shell;
use crate::sandbox::{Sandbox, run, virsh, wait_for};

const MIB: u64 = 1 << 20;

/// Path of a volume in the sandbox's pool.
fn path(sandbox: &Sandbox, volume: &str) -> String {
    let path = sandbox.directory().join("pool").join(volume);
    path.to_str().unwrap().to_owned()
}

fn info(path: &str) -> Value {
    serde_json::from_str(&run("qemu-img", &["info", "-U", "--output=json", path]).unwrap()).unwrap()
}

/// `compat` of a qcow2 file, in qemu-img's words.
fn compat(sandbox: &Sandbox, volume: &str) -> String {
    let info = info(&path(sandbox, volume));
    assert_eq!(info["format"], "qcow2", "{volume}");
    let compat = &info["format-specific"]["data"]["compat"];
    compat.as_str().unwrap().to_owned()
}

fn allocated(path: &str) -> u64 {
    fs::metadata(path).unwrap().blocks() * 512
}

#[test]
fn every_qcow2_volume_is_of_version_1_1() {
    let mut sandbox = Sandbox::new();
    let stemcell = sandbox.stemcell();
    // The operator's template asks for the old version.
    let template = "<volume><name>{{.Name}}</name><capacity unit='{{.Unit}}'>{{.Size}}</capacity>\
                    <target><format type='raw'/><compat>0.10</compat></target></volume>";
    for (storage_volume, properties) in [
        ("", json!({"format": "qcow2"})),
        ("", json!({"format": "qcow2", "preallocation": "metadata"})),
        (template, json!({"format": "qcow2"})),
    ] {
        sandbox.configure(json!({"settings": {"storage_volume": storage_volume}}));
        let disk = sandbox.call("create_disk", json!([8, properties])).text();
        assert_eq!(compat(&sandbox, &disk), "1.1", "{storage_volume} {properties}");
        let snapshot = sandbox.call("snapshot_disk", json!([disk, {}])).text();
        assert_eq!(compat(&sandbox, &snapshot), "1.1");
        sandbox.call("resize_disk", json!([disk, 16])).result();
        assert_eq!(compat(&sandbox, &disk), "1.1");
    }
    // Copies by libvirt into another format.
    let raw = sandbox.call("create_disk", json!([8, {}])).text();
    let copy = sandbox
        .call("update_disk", json!([raw, 8, {"format": "qcow2"}]))
        .text();
    assert_eq!(compat(&sandbox, &copy), "1.1");

    // Overlays and full copies, the latter of a stemcell of the old version too, which stays as it was uploaded.
    let old = path(&sandbox, "old.qcow2");
    run(
        "qemu-img",
        &["create", "-q", "-f", "qcow2", "-o", "compat=0.10", &old, "8M"],
    )
    .unwrap();
    sandbox.refresh_pool();
    let light = sandbox
        .call("create_stemcell", json!(["/no/image", {"volume": "old.qcow2"}]))
        .text();
    for clone in ["overlay", "full"] {
        sandbox.configure(json!({"settings": {"boot_disk_clone": clone}}));
        for stemcell in [&stemcell, &light] {
            let vm = sandbox.vm(stemcell, 10);
            assert_eq!(compat(&sandbox, &format!("{vm}-boot")), "1.1", "{clone}");
            sandbox.call("delete_vm", json!([vm])).result();
        }
    }
    assert_eq!(compat(&sandbox, "old.qcow2"), "0.10");
}

#[test]
fn a_discard_in_an_overlay_frees_its_space() {
    let sandbox = Sandbox::new();
    let vm = sandbox.vm_without_system(10);
    let boot = path(&sandbox, &format!("{vm}-boot"));
    virsh(&["destroy", &vm]);
    virsh(&[
        "vol-resize",
        &format!("{vm}-boot"),
        "64M",
        "--pool",
        &sandbox.name,
    ]);
    let before = allocated(&boot);
    let qemu_io =
        |command: &str| run("qemu-io", &["-f", "qcow2", "-d", "unmap", "-c", command, &boot]).unwrap();
    qemu_io("write -P 0x5a 8M 40M");
    assert!(allocated(&boot) >= before + 40 * MIB);
    qemu_io("discard 8M 40M");
    let after = allocated(&boot);
    assert!(after < before + MIB, "{} of 40 MiB stay", (after - before) / MIB);
    assert!(!qemu_io("read -P 0 8M 40M").contains("failed"));
}

#[test]
fn backup_tools_copy_what_changed_since_their_checkpoint() {
    let sandbox = Sandbox::new();
    let vm = sandbox.vm(&sandbox.stemcell(), 10);
    let guest = sandbox.address(10);
    let disk = sandbox
        .call("create_disk", json!([64, {"format": "qcow2"}]))
        .text();
    sandbox.wait_until_ready(&vm, 1);
    sandbox.call("attach_disk", json!([vm, disk])).result();
    sandbox.wait_for_console(&vm, &format!("GUEST: disk-added virtio-{disk}"), 1);
    let write = |serial: &str, byte: &str, at: u64| {
        let command = format!(
            "head -c 1048576 /dev/zero | tr '\\0' {byte} >/run/data; \
             dd if=/run/data of=/dev/disk/by-id/virtio-{serial} bs=1M seek={at} conv=fsync,notrunc 2>&1"
        );
        let said = shell(&guest, &command);
        assert!(said.contains("1+0 records out"), "{said}");
    };
    write(&disk, "a", 1);
    let target = |serial: &str| {
        let xml = virsh(&["dumpxml", &vm]);
        let before = &xml[..xml.find(&format!("<serial>{serial}</serial>")).unwrap()];
        let at = before.rfind("<target dev='").unwrap() + "<target dev='".len();
        before[at..].split('\'').next().unwrap().to_owned()
    };
    let disks = [
        (target("boot"), format!("{vm}-boot")),
        (target(&disk), disk.clone()),
    ];

    let back_up = |name: &str, since: Option<&str>| {
        let directory = sandbox.directory();
        let chosen: String = disks
            .iter()
            .map(|(target, _)| {
                let file = path(&sandbox, &format!("{name}-{target}"));
                format!(
                    "<disk name='{target}' type='file'><target file='{file}'/><driver type='qcow2'/></disk>"
                )
            })
            .collect();
        let tracked: String = disks
            .iter()
            .map(|(target, _)| format!("<disk name='{target}' checkpoint='bitmap'/>"))
            .collect();
        let all = virsh(&["domblklist", &vm]);
        let others: Vec<&str> = all
            .lines()
            .filter_map(|line| line.split_whitespace().next())
            .filter(|target| disks.iter().all(|(own, _)| own != target))
            .collect();
        let none = |attribute: &str| -> String {
            others
                .iter()
                .map(|target| format!("<disk name='{target}' {attribute}='no'/>"))
                .collect()
        };
        let since = since.map_or(String::new(), |since| {
            format!("<incremental>{since}</incremental>")
        });
        let backup = format!(
            "<domainbackup>{since}<disks>{chosen}{}</disks></domainbackup>",
            none("backup")
        );
        let checkpoint = format!(
            "<domaincheckpoint><name>{name}</name><disks>{tracked}{}</disks></domaincheckpoint>",
            none("checkpoint")
        );
        let files = [directory.join("backup.xml"), directory.join("checkpoint.xml")];
        fs::write(&files[0], backup).unwrap();
        fs::write(&files[1], checkpoint).unwrap();
        virsh(&[
            "backup-begin",
            &vm,
            files[0].to_str().unwrap(),
            files[1].to_str().unwrap(),
        ]);
        wait_for("the backup to end", Duration::from_secs(60), || {
            virsh(&["domjobinfo", &vm]).contains("None")
        });
        let ended = virsh(&["domjobinfo", &vm, "--completed"]);
        assert!(ended.contains("Completed") && ended.contains("Backup"), "{ended}");
    };
    back_up("full", None);
    write(&disk, "b", 3);
    let boot_size = info(&path(&sandbox, &disks[0].1))["virtual-size"]
        .as_u64()
        .unwrap();
    write("boot", "c", boot_size / MIB - 2);
    back_up("changes", Some("full"));

    // Nothing but what has changed, and together with the first copy all there is.
    virsh(&["suspend", &vm]);
    for (target, volume) in &disks {
        let (full, changes) = (
            path(&sandbox, &format!("full-{target}")),
            path(&sandbox, &format!("changes-{target}")),
        );
        let copied = allocated(&changes);
        assert!((MIB..3 * MIB).contains(&copied), "{target}: {copied} bytes");
        run(
            "qemu-img",
            &[
                "rebase", "-u", "-f", "qcow2", "-F", "qcow2", "-b", &full, &changes,
            ],
        )
        .unwrap();
        run("qemu-img", &["compare", "-U", &changes, &path(&sandbox, volume)]).unwrap();
    }
    virsh(&["resume", &vm]);

    // The CPI goes on with disks that have bitmaps, and VMs that have checkpoints.
    shell(&guest, "sync");
    let snapshot = sandbox.call("snapshot_disk", json!([disk, {}])).text();
    sandbox.call("detach_disk", json!([vm, disk])).result();
    sandbox.call("resize_disk", json!([disk, 80])).result();
    sandbox.call("attach_disk", json!([vm, disk])).result();
    sandbox.call("delete_vm", json!([vm])).result();
    let bitmaps = &info(&path(&sandbox, &disk))["format-specific"]["data"]["bitmaps"];
    println!("bitmaps of the disk after all: {bitmaps}");
    sandbox.call("delete_snapshot", json!([snapshot])).result();
    sandbox.call("delete_disk", json!([disk])).result();
    for name in sandbox.volumes() {
        assert!(
            !name.contains(&vm) && !name.contains(&disk),
            "{name} is still there"
        );
    }
}
