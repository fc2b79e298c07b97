//! What `cpi list` and `cpi show` say of VMs and disks that are not as BOSH left them: virsh, other programs and full
//! storage did that.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::time::Duration;

use serde_json::{Value, json};

use crate::guest::shell;
use crate::loop_pool::LoopPool;
use crate::prune_bench::Bench;
use crate::sandbox::{Sandbox, virsh, wait_for};

/// What `list` has of this cid, and that `show` says the same.
fn listed(sandbox: &Sandbox, what: &str, cid: &str) -> Value {
    let all = sandbox.operator_json(&["list", what]);
    let found = all[what]
        .as_array()
        .unwrap()
        .iter()
        .find(|entry| entry["cid"] == cid);
    let found = found.unwrap_or_else(|| panic!("{cid} is not in {all}")).clone();
    let shown = sandbox.operator_json(&["show", cid]);
    for key in ["state", "reason", "transient", "job", "notes"] {
        assert_eq!(shown[key], found[key], "{key}: {shown}");
    }
    found
}

/// State, reason and notes of this VM.
fn vm(sandbox: &Sandbox, cid: &str) -> (String, Option<String>, Vec<String>) {
    let vm = listed(sandbox, "vms", cid);
    (
        vm["state"].as_str().unwrap().to_owned(),
        vm["reason"].as_str().map(str::to_owned),
        serde_json::from_value(vm["notes"].clone()).unwrap(),
    )
}

fn state(state: &str, reason: Option<&str>, notes: &[&str]) -> (String, Option<String>, Vec<String>) {
    (
        state.to_owned(),
        reason.map(str::to_owned),
        notes.iter().map(|&note| note.to_owned()).collect(),
    )
}

/// The lines of `cpi list WHAT` about this cid, on one.
fn row(sandbox: &Sandbox, what: &str, cid: &str) -> String {
    let table = sandbox.operator_says(&["list", what]);
    let lines = table.lines().skip_while(|line| !line.starts_with(cid));
    let further = lines.clone().skip(1).take_while(|line| line.starts_with(' '));
    let all: Vec<&str> = lines
        .take(1)
        .chain(further)
        .flat_map(str::split_whitespace)
        .collect();
    all.join(" ")
}

#[test]
fn a_vm_that_virsh_stopped_saved_paused_or_undefined() {
    let sandbox = Sandbox::new();
    let cid = sandbox.vm_without_system(10);
    assert_eq!(vm(&sandbox, &cid), state("running", None, &[]));
    virsh(&["suspend", &cid]);
    assert_eq!(vm(&sandbox, &cid), state("paused", None, &[]));
    virsh(&["resume", &cid]);

    virsh(&["managedsave", &cid]);
    assert_eq!(vm(&sandbox, &cid), state("saved", None, &[]));
    assert!(row(&sandbox, "vms", &cid).starts_with(&format!("{cid} saved ")));
    assert!(
        sandbox
            .operator_says(&["show", &cid])
            .contains("\nstate: saved\n")
    );
    assert!(
        sandbox
            .operator_says(&["list", "--tree"])
            .contains(&format!("{cid}  saved"))
    );
    virsh(&["managedsave-remove", &cid]);
    assert_eq!(vm(&sandbox, &cid).0, "off");

    virsh(&["start", &cid]);
    let file = sandbox.directory().join("saved-elsewhere");
    virsh(&["save", &cid, file.to_str().unwrap()]);
    let reason = "somebody saved it to a file; virsh restore resumes it";
    assert_eq!(vm(&sandbox, &cid), state("off", Some(reason), &[]));
    virsh(&["restore", file.to_str().unwrap()]);

    let definition = sandbox.directory().join("definition.xml");
    fs::write(&definition, virsh(&["dumpxml", &cid, "--inactive"])).unwrap();
    virsh(&["undefine", &cid]);
    let transient = "transient: gone when it stops";
    assert_eq!(vm(&sandbox, &cid), state("running", None, &[transient]));
    assert!(row(&sandbox, "vms", &cid).contains(" transient"));
    assert_eq!(listed(&sandbox, "vms", &cid)["transient"], true);
    virsh(&["define", definition.to_str().unwrap()]);
    virsh(&["destroy", &cid]);
    assert_eq!(vm(&sandbox, &cid), state("off", None, &[]));
}

#[test]
fn a_vm_that_other_programs_work_on() {
    let sandbox = Sandbox::new();
    let cid = sandbox.vm_without_system(10);
    let disk = sandbox
        .call("create_disk", json!([8, {"format": "qcow2"}]))
        .text();
    sandbox.call("attach_disk", json!([cid, disk])).result();
    let blocks = virsh(&["domblklist", &cid]);
    let target = blocks.lines().find(|line| line.contains(&disk)).unwrap();
    let target = target.split_whitespace().next().unwrap();

    let others: String = blocks
        .lines()
        .filter_map(|line| line.split_whitespace().next())
        .filter(|name| *name != target)
        .map(|name| format!("<disk name='{name}' backup='no'/>"))
        .collect();
    let backup = sandbox.directory().join("backup.xml");
    let shared = sandbox.directory().join("shared");
    fs::create_dir(&shared).unwrap();
    fs::set_permissions(&shared, fs::Permissions::from_mode(0o777)).unwrap();
    let (socket, scratch) = (
        // QEMU's user makes it.
        shared.join("nbd"),
        sandbox.directory().join("scratch"),
    );
    fs::write(
        &backup,
        format!(
            "<domainbackup mode='pull'><server transport='unix' socket='{}'/><disks>\
             <disk name='{target}' backup='yes' type='file'><scratch file='{}'/></disk>{others}</disks></domainbackup>",
            socket.display(),
            scratch.display()
        ),
    )
    .unwrap();
    virsh(&["backup-begin", &cid, backup.to_str().unwrap()]);
    assert_eq!(vm(&sandbox, &cid), state("running", None, &["being backed up"]));
    assert_eq!(listed(&sandbox, "vms", &cid)["job"], "being backed up");
    virsh(&["domjobabort", &cid]);
    wait_for("the backup to end", Duration::from_secs(20), || {
        virsh(&["domjobinfo", &cid]).contains("None")
    });
    assert_eq!(vm(&sandbox, &cid), state("running", None, &[]));

    let copy = sandbox.directory().join("pool").join("copy");
    let copy = copy.to_str().unwrap();
    virsh(&["blockcopy", &cid, target, copy, "--transient-job"]);
    let ready = format!("block copy of {target}, ready to pivot");
    wait_for("the copy to be ready", Duration::from_secs(60), || {
        virsh(&["dumpxml", &cid]).contains("ready='yes'")
    });
    assert_eq!(vm(&sandbox, &cid), state("running", None, &[&ready]));
    assert!(row(&sandbox, "vms", &cid).contains(&ready));
    virsh(&["blockjob", &cid, target, "--abort"]);
    assert_eq!(vm(&sandbox, &cid), state("running", None, &[]));
}

/// Of a persistent disk and a boot disk.
#[test]
fn a_disk_whose_newest_data_is_in_another_file() {
    let sandbox = Sandbox::new();
    let cid = sandbox.vm_without_system(10);
    let disk = sandbox.call("create_disk", json!([8, {}])).text();
    sandbox.call("attach_disk", json!([cid, disk])).result();
    let boot = format!("{cid}-boot");
    let blocks = virsh(&["domblklist", &cid]);
    let target_of = |volume: &str| {
        let line = blocks.lines().find(|line| line.contains(volume)).unwrap();
        line.split_whitespace().next().unwrap().to_owned()
    };
    let pool = sandbox.directory().join("pool");
    let file = |name: &str| pool.join(name).display().to_string();
    let both = [(&disk, "of-disk"), (&boot, "of-boot")];
    let specs = both.map(|(volume, overlay)| format!("{},file={}", target_of(volume), file(overlay)));
    let mut arguments = vec!["snapshot-create-as", &cid, "s", "--disk-only", "--no-metadata"];
    for spec in &specs {
        arguments.extend(["--diskspec", spec]);
    }
    let config = format!("{},snapshot=no", target_of(&format!("{cid}-config")));
    arguments.extend(["--diskspec", &config]);
    virsh(&arguments);

    let note = |volume: &str, overlay: &str, start: &str| {
        format!(
            "the newest data of {volume} is in the overlay {} ({start}virsh blockcommit {cid} {} --active --wait --pivot)",
            file(overlay),
            target_of(volume)
        )
    };
    let notes_of = |start: &str| both.map(|(volume, overlay)| note(volume, overlay, start));
    let sorted = |mut notes: Vec<String>| {
        notes.sort();
        notes
    };
    let (name, _, notes) = vm(&sandbox, &cid);
    assert_eq!(
        (name.as_str(), sorted(notes)),
        ("running", sorted(notes_of("").to_vec()))
    );
    assert_eq!(
        listed(&sandbox, "disks", &disk)["notes"],
        json!([note(&disk, "of-disk", "")])
    );
    assert!(row(&sandbox, "disks", &disk).contains("is in the overlay"));

    // The remedy, word for word.
    for (volume, overlay) in both {
        let note = note(volume, overlay, "");
        let command = note.split_once("(virsh ").unwrap().1.trim_end_matches(')');
        virsh(&command.split(' ').collect::<Vec<_>>());
        fs::remove_file(file(overlay)).unwrap();
    }
    assert_eq!(vm(&sandbox, &cid), state("running", None, &[]));
    assert_eq!(listed(&sandbox, "disks", &disk)["notes"], json!([]));

    let moved = file("moved");
    virsh(&[
        "blockcopy",
        &cid,
        &target_of(&disk),
        &moved,
        "--transient-job",
        "--wait",
        "--pivot",
    ]);
    let note = format!("the data of {disk} is in {moved}, not in its volume");
    assert_eq!(vm(&sandbox, &cid), state("running", None, &[&note]));
    assert_eq!(listed(&sandbox, "vms", &cid)["disks"], json!([disk]));
    virsh(&["destroy", &cid]);
}

#[test]
fn a_guest_that_a_full_pool_stopped() {
    let full = LoopPool::ext4(40);
    let sandbox = Sandbox::new();
    let cid = sandbox.vm(&sandbox.stemcell(), 10);
    let arguments = json!([100, {"storage_pool": full.name}]);
    let disk = sandbox.call("create_disk", arguments).text();
    sandbox.wait_until_ready(&cid, 1);
    sandbox.call("attach_disk", json!([cid, disk])).result();
    sandbox.wait_for_console(&cid, &format!("GUEST: disk-added virtio-{disk}"), 1);
    let blocks = virsh(&["domblklist", &cid]);
    let target = blocks.lines().find(|line| line.contains(&disk)).unwrap();
    let target = target.split_whitespace().next().unwrap();
    let fill = format!(
        "(sleep 1; dd if=/dev/zero of=/dev/disk/by-id/virtio-{disk} bs=1M oflag=direct) >/dev/null 2>&1 &"
    );
    shell(&sandbox.address(10), &fill);
    wait_for("the guest to be stopped", Duration::from_secs(120), || {
        virsh(&["domstate", &cid, "--reason"]).contains("paused (I/O error)")
    });
    let reason = format!("no space on {target}");
    assert_eq!(vm(&sandbox, &cid), state("I/O error", Some(&reason), &[]));
    let row = row(&sandbox, "vms", &cid);
    assert!(row.contains(&format!("I/O error: {reason}")), "{row}");
    sandbox.call("delete_vm", json!([cid])).result();
}

#[test]
fn disks_in_pools_that_nobody_can_look_into() {
    let bench = Bench::new();
    let directory = bench.host.directory().join("second");
    fs::create_dir(&directory).unwrap();
    let target = directory.to_str().unwrap();
    bench
        .host
        .virsh(&["pool-define-as", "second", "dir", "--target", target]);
    let disk = "disk0000000000000two";
    let vm = "vm-00000000-0000-4000-8000-000000000002";
    bench.host.virsh(&["pool-start", "second"]);
    bench.host.virsh(&["vol-create-as", "second", disk, "1M"]);
    assert!(bench.says(&["list", "disks"]).1.starts_with("CID "));
    bench.host.virsh(&["pool-destroy", "second"]);

    let hidden = "pool second is inactive";
    let remedy = "pool second is inactive (virsh pool-start second)";
    assert_eq!(
        bench.says(&["list", "disks"]).1,
        format!("No disks in active pools\nNot shown: {remedy}\n")
    );
    let json: Value = serde_json::from_str(&bench.says(&["list", "--json"]).1).unwrap();
    assert_eq!(
        json["pools_not_shown"],
        json!([{"pool": "second", "cause": "inactive"}])
    );
    assert!(bench.says(&["list", "--tree"]).1.contains(remedy));
    let (content, _, log) = bench.says(&["show", disk]);
    assert!(!content && log.contains(remedy), "{log}");

    // A VM tells of the disk; of another one, whose pool is there, the volume is gone.
    let gone = "disk000000000000gone";
    let disks = [
        format!("{target}/{disk}"),
        bench.host.pool().join(gone).display().to_string(),
    ];
    bench.define(vm, &disks);
    let json: Value = serde_json::from_str(&bench.says(&["list", "--json"]).1).unwrap();
    let of = |cid: &str| {
        let disks = json["disks"].as_array().unwrap().iter();
        disks
            .clone()
            .find(|disk| disk["cid"] == cid)
            .unwrap_or_else(|| panic!("{json}"))
            .clone()
    };
    assert_eq!(
        (&of(disk)["notes"], &of(disk)["pool"], &of(disk)["virtual_bytes"]),
        (&json!([hidden]), &json!("second"), &Value::Null)
    );
    assert_eq!(of(disk)["attached_to"], json!([vm]));
    assert_eq!(
        (&of(gone)["notes"], &of(gone)["pool"]),
        (&json!(["its volume is missing"]), &Value::Null)
    );
    let notes = json!([hidden, format!("the volume of {gone} is missing")]);
    assert_eq!(json["vms"][0]["notes"], notes);
    let (content, shown, log) = bench.says(&["show", disk]);
    assert!(content && shown.contains(hidden), "{shown}{log}");
    let table = bench.says(&["list"]).1;
    assert!(table.contains(hidden) && table.contains("Not shown: "), "{table}");

    bench.host.virsh(&["pool-start", "second"]);
    let json: Value = serde_json::from_str(&bench.says(&["list", "--json"]).1).unwrap();
    assert_eq!(
        json["vms"][0]["notes"],
        json!([format!("the volume of {gone} is missing")])
    );
    assert_eq!(json["pools_not_shown"], json!([]));
}
