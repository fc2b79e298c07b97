//! What `reboot_vm` does with VMs that do not run, as after a reboot of the host: their pools and networks are inactive,
//! and libvirt-guests may have saved the VMs.

use std::fs;
use std::time::Duration;

use serde_json::{Value, json};

use crate::sandbox::{Sandbox, run, try_virsh, virsh, wait_for};
use crate::tiny_guest::{self, UP};

/// Makes the pool or network permanent, so that it is still known when it is inactive.
fn keep(sandbox: &Sandbox, dump: &str, define: &str, name: &str) {
    let file = sandbox.directory().join(format!("{dump}-{name}.xml"));
    fs::write(&file, virsh(&[dump, name])).unwrap();
    virsh(&[define, file.to_str().unwrap()]);
}

fn tiny_vm(sandbox: &Sandbox) -> String {
    let image = tiny_guest::image(sandbox.directory());
    let stemcell = sandbox.call("create_stemcell", json!([image, {}])).result();
    let arguments = tiny_guest::vm_arguments(&stemcell, sandbox.manual_network(10));
    sandbox.call("create_vm", arguments).result()[0]
        .as_str()
        .unwrap()
        .to_owned()
}

fn wait_until_up(sandbox: &Sandbox, vm: &str, times: usize) {
    wait_for(
        &format!("{vm} to boot the {times}. time"),
        Duration::from_secs(120),
        || sandbox.console(vm).matches(UP).count() == times,
    );
}

fn is_listed(list: &str, name: &str) -> bool {
    virsh(&[list, "--name"])
        .split_whitespace()
        .any(|active| active == name)
}

/// A pool on a file system of its own, which is mounted while the pool is active, and only then.
struct MountedPool {
    name: String,
    device: String,
}

impl MountedPool {
    fn new(sandbox: &Sandbox, kind: &str) -> Self {
        let name = format!("{}-{kind}", sandbox.name);
        let image = sandbox.directory().join(&name);
        fs::File::create(&image).unwrap().set_len(64 << 20).unwrap();
        let image = image.to_str().unwrap();
        run("mkfs.ext4", &["-q", "-m", "0", image]).unwrap();
        let device = run("losetup", &["--find", "--show", image]).unwrap();
        let pool = Self {
            name,
            device: device.trim().to_owned(),
        };
        let target = sandbox.directory().join(format!("{}-target", pool.name));
        fs::create_dir(&target).unwrap();
        virsh(&[
            "pool-define-as",
            &pool.name,
            "fs",
            "--source-dev",
            &pool.device,
            "--source-format",
            "ext4",
            "--target",
            target.to_str().unwrap(),
        ]);
        virsh(&["pool-start", &pool.name]);
        run("chmod", &["755", target.to_str().unwrap()]).unwrap();
        pool
    }
}

impl Drop for MountedPool {
    fn drop(&mut self) {
        for command in ["pool-destroy", "pool-undefine"] {
            let _ = try_virsh(&[command, &self.name]);
        }
        let _ = run("losetup", &["-d", &self.device]);
    }
}

/// Ends what a reboot of the host ends.
fn stop_everything(sandbox: &Sandbox, vm: &str, pools: &[&MountedPool]) {
    virsh(&["destroy", vm]);
    virsh(&["net-destroy", &sandbox.name]);
    for pool in pools {
        virsh(&["pool-destroy", &pool.name]);
    }
}

#[test]
fn a_vm_starts_with_the_pools_and_the_network_that_are_inactive() {
    let mut sandbox = Sandbox::new();
    keep(&sandbox, "net-dumpxml", "net-define", &sandbox.name);
    let stemcells = MountedPool::new(&sandbox, "stemcells");
    let disks = MountedPool::new(&sandbox, "disks");
    sandbox.configure(json!({"settings":
        {"stemcell_pool_name": stemcells.name, "storage_pool_name": disks.name}}));
    let image = tiny_guest::image(sandbox.directory());
    let stemcell = sandbox.call("create_stemcell", json!([image, {}])).result();
    let mut arguments = tiny_guest::vm_arguments(&stemcell, sandbox.manual_network(10));
    // The overlay is in one pool, its backing file in the other.
    arguments[2]["storage_pool"] = json!(disks.name);
    let vm = sandbox.call("create_vm", arguments).result()[0].clone();
    let vm = vm.as_str().unwrap();
    let disk = sandbox.call("create_disk", json!([8, {}, null])).text();
    wait_until_up(&sandbox, vm, 1);
    sandbox.call("attach_disk", json!([vm, disk])).result();

    stop_everything(&sandbox, vm, &[&stemcells, &disks]);
    sandbox.call("reboot_vm", json!([vm])).result();
    wait_until_up(&sandbox, vm, 2);
    assert!(is_listed("net-list", &sandbox.name));
    assert!(is_listed("pool-list", &stemcells.name) && is_listed("pool-list", &disks.name));
    assert_eq!(sandbox.call("get_disks", json!([vm])).result(), json!([disk]));

    // A domain that names volumes, and nothing of what is below them.
    let volumes = [
        (&disks.name, format!("{vm}-boot")),
        (&stemcells.name, format!("{vm}-config")),
        (&disks.name, disk.clone()),
    ];
    for (pool, volume) in &volumes {
        name_volume(&sandbox, vm, pool, volume);
    }
    let defined = virsh(&["dumpxml", "--inactive", vm]);
    assert!(!defined.contains("<source file="), "{defined}");

    stop_everything(&sandbox, vm, &[&stemcells, &disks]);
    sandbox.call("reboot_vm", json!([vm])).result();
    wait_until_up(&sandbox, vm, 3);

    sandbox.call("delete_vm", json!([vm])).result();
    sandbox.call("delete_disk", json!([disk])).result();
    sandbox.call("delete_stemcell", json!([stemcell])).result();
}

/// Has the VM's domain name a disk by its pool and volume, as earlier versions of the CPI have made it.
fn name_volume(sandbox: &Sandbox, vm: &str, pool: &str, volume: &str) {
    let defined = virsh(&["dumpxml", "--inactive", vm]);
    let path = virsh(&["vol-path", "--pool", pool, volume]);
    let by_path = format!("<source file='{}'/>", path.trim());
    let by_volume = format!("<source pool='{pool}' volume='{volume}'/>");
    let (before, mut after) = defined.split_once(&by_path).unwrap();
    let (before, disk) = before.rsplit_once("<disk type='file'").unwrap();
    if after.trim_start().starts_with("<backingStore type=") {
        after = after.split_once("</backingStore>").unwrap().1;
    }
    let file = sandbox.directory().join("by-volume.xml");
    fs::write(
        &file,
        format!("{before}<disk type='volume'{disk}{by_volume}{after}"),
    )
    .unwrap();
    virsh(&["define", file.to_str().unwrap()]);
}

#[test]
fn what_the_operator_must_do_is_said_and_not_retried() {
    let sandbox = Sandbox::new();
    let name = &sandbox.name;
    keep(&sandbox, "pool-dumpxml", "pool-define", name);
    keep(&sandbox, "net-dumpxml", "net-define", name);
    let vm = tiny_vm(&sandbox);
    virsh(&["destroy", &vm]);
    let fails_with = |says: &str| {
        let message = sandbox.call("reboot_vm", json!([vm])).error("CloudError", false);
        assert!(message.contains(&format!("starting VM {vm}: ")), "{message}");
        assert!(message.contains(name) && message.contains(says), "{message}");
        assert_eq!(virsh(&["domstate", &vm]).trim(), "shut off");
    };

    // The pool's directory is on a disk that is not there.
    virsh(&["pool-destroy", name]);
    let (pool, away) = (sandbox.directory().join("pool"), sandbox.directory().join("away"));
    fs::rename(&pool, &away).unwrap();
    fails_with("virsh pool-start");
    fs::rename(&away, &pool).unwrap();

    // A domain that names files only goes without its pool.
    virsh(&["pool-start", name]);
    name_volume(&sandbox, &vm, name, &format!("{vm}-config"));
    virsh(&["pool-destroy", name]);
    virsh(&["pool-undefine", name]);
    fails_with("virsh pool-define");
    let definition = sandbox.directory().join(format!("pool-dumpxml-{name}.xml"));
    virsh(&["pool-define", definition.to_str().unwrap()]);
    virsh(&["pool-start", name]);

    virsh(&["net-destroy", name]);
    virsh(&["net-undefine", name]);
    fails_with("virsh net-define");
    // A network that libvirt cannot start: its bridge is somebody else's.
    let definition = sandbox.directory().join(format!("net-dumpxml-{name}.xml"));
    let definition = definition.to_str().unwrap();
    virsh(&["net-define", definition]);
    run("ip", &["link", "add", &sandbox.bridge(), "type", "bridge"]).unwrap();
    fails_with("virsh net-start");
    run("ip", &["link", "del", &sandbox.bridge()]).unwrap();

    sandbox.call("reboot_vm", json!([vm])).result();
    assert_eq!(virsh(&["domstate", &vm]).trim(), "running");
}

#[test]
fn a_saved_vm_boots_and_does_not_resume() {
    let sandbox = Sandbox::new();
    let vm = tiny_vm(&sandbox);
    wait_until_up(&sandbox, &vm, 1);
    let disk = sandbox.call("create_disk", json!([8, {}, null])).text();
    sandbox.call("attach_disk", json!([vm, disk])).result();
    virsh(&["managedsave", &vm]);
    assert!(virsh(&["dominfo", &vm]).contains("Managed save:   yes"));
    // What was saved has a disk that is not there any more.
    let disks = virsh(&["domblklist", "--inactive", &vm]);
    let target = disks.lines().find(|line| line.contains(&disk)).unwrap();
    let target = target.split_whitespace().next().unwrap();
    virsh(&["detach-disk", &vm, target, "--config"]);
    run(
        "rm",
        &[sandbox.directory().join("pool").join(&disk).to_str().unwrap()],
    )
    .unwrap();

    let answer = sandbox.call("reboot_vm", json!([vm]));
    assert!(
        answer.stderr.contains("discarding the state"),
        "{}",
        answer.stderr
    );
    assert_eq!(answer.result(), Value::Null);
    wait_until_up(&sandbox, &vm, 2);
    assert!(virsh(&["dominfo", &vm]).contains("Managed save:   no"));
    assert!(!virsh(&["dumpxml", &vm]).contains(&disk));
}

#[test]
fn whether_libvirt_starts_vms_is_the_operators_choice() {
    let mut sandbox = Sandbox::new();
    for (autostart, shown) in [(true, "enable"), (false, "disable")] {
        sandbox.configure(json!({"settings": {"vm_autostart": autostart}}));
        let vm = tiny_vm(&sandbox);
        let info = virsh(&["dominfo", &vm]);
        let line = info.lines().find(|line| line.starts_with("Autostart:")).unwrap();
        assert!(line.ends_with(&format!(" {shown}")), "{line}");
        sandbox.call("delete_vm", json!([vm])).result();
    }
}
