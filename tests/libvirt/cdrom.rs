//! Settings on a CD-ROM, with disks on SCSI: what vSphere stemcells want.

use serde_json::{Value, json};

use crate::guest::shell;
use crate::sandbox::{Sandbox, run, stemcell_image, virsh};

#[test]
fn a_guest_of_a_vsphere_stemcell_reads_its_cdrom_ejects_it_and_finds_it_again() {
    let key = "ssh-ed25519 AAAAC3 operator";
    let sandbox = Sandbox::with_config(json!({"vm_ssh_key": {"public_key": format!("{key}\n")}}));
    let stemcell = sandbox
        .call(
            "create_stemcell",
            json!([stemcell_image("qcow2"), {"infrastructure": "vsphere", "hypervisor": "esxi"}]),
        )
        .text();
    let properties = json!({"memory": 192, "ephemeral_disk": 12});
    let arguments =
        json!(["a", stemcell, properties, sandbox.manual_network(10), [], {"bosh": {"password": "s"}}]);
    let vm = sandbox.call("create_vm", arguments).result()[0]
        .as_str()
        .unwrap()
        .to_owned();

    let drive = sandbox.directory().join("pool").join(format!("{vm}-config"));
    let drive = drive.to_str().unwrap();
    let env = run("isoinfo", &["-R", "-i", drive, "-x", "/env"]).unwrap();
    let settings: Value = serde_json::from_str(&env).unwrap();
    assert_eq!(settings["agent_id"], "a");
    // There is no metadata for the operator's key, so the agent gets it with those of the manifest.
    let bosh = json!({"password": "s", "authorized_keys": [key]});
    assert_eq!(settings["env"]["bosh"], bosh);
    let tags = run("blkid", &["-p", "-o", "export", drive]).unwrap();
    for tag in ["TYPE=iso9660", "LABEL=config-2"] {
        assert!(tags.lines().any(|line| line == tag), "{tags}");
    }

    sandbox.wait_until_ready(&vm, 1);
    let console = sandbox.console(&vm);
    assert!(console.contains("GUEST: settings from /dev/sr0"), "{console}");
    assert!(
        console.contains(&format!("\"authorized_keys\":[\"{key}\"]")),
        "{console}"
    );
    let ephemeral = console
        .lines()
        .find_map(|line| line.strip_prefix("GUEST: ephemeral ephemeral -> "))
        .unwrap();
    assert!(ephemeral.ends_with(&format!(" {}", 12 << 20)), "{ephemeral}");
    // Agents that go by numbers find the disks on these targets, whatever the guest calls them.
    let guest = sandbox.address(10);
    for (target, serial) in ["boot", "ephemeral"].iter().enumerate() {
        let by = |how: &str, what: &str| shell(&guest, &format!(". /lib/guest.sh; find_disk {how} {what}"));
        let found = by("volume_id", &target.to_string());
        assert!(found.starts_with("/dev/sd"), "{found}");
        assert_eq!(found, by("serial", serial));
    }
    let tray_is_open = || virsh(&["dumpxml", &vm]).contains("tray='open'");
    assert!(tray_is_open() && !console.contains("eject failed"), "{console}");

    // A disk plugged in goes to the bus of the VM, and the hint is one for that bus.
    let disk = sandbox.call("create_disk", json!([8, {}])).text();
    let hint = sandbox.call("attach_disk", json!([vm, disk])).result();
    assert_eq!(hint, json!({ "id": disk }));
    sandbox.wait_for_console(
        &vm,
        &format!("GUEST: disk-added scsi-0QEMU_QEMU_HARDDISK_{disk}"),
        1,
    );

    // Its settings are there again.
    sandbox.call("reboot_vm", json!([vm])).result();
    sandbox.wait_until_ready(&vm, 2);
    let found = sandbox
        .console(&vm)
        .matches("GUEST: settings from /dev/sr0")
        .count();
    assert_eq!(found, 2, "{}", sandbox.console(&vm));
    assert!(tray_is_open());

    sandbox.call("delete_vm", json!([vm])).result();
    let mut left = Sandbox::stemcell_volumes(&stemcell).to_vec();
    left.push(disk);
    left.sort();
    assert_eq!(sandbox.volumes(), left);
}
