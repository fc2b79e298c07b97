//! One small guest out of every kind of stemcell, started by either firmware, with its settings on every kind of drive;
//! and what else a VM's cloud properties make of its machine.

use std::fs;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use crate::points;
use crate::sandbox::{Sandbox, run, stemcell_image, try_virsh, virsh};

/// A stemcell's `image` file with the guest's disk in it as qemu-img's format `format` under this name.
fn image(sandbox: &Sandbox, format: &[&str], name: &str) -> String {
    let guest = PathBuf::from(stemcell_image("qcow2"));
    let guest = guest.ancestors().nth(2).unwrap().join("root.img");
    let directory = sandbox.directory().join(name.replace('.', "-"));
    fs::create_dir(&directory).unwrap();
    let disk = directory.join(name);
    let from_to = [guest.to_str().unwrap(), disk.to_str().unwrap()];
    run("qemu-img", &[&["convert", "-O"], format, &from_to[..]].concat()).unwrap();
    if name.ends_with(".vmdk") {
        let ovf = "<Envelope><References><File href='disk.vmdk'/></References></Envelope>";
        fs::write(directory.join("image.ovf"), ovf).unwrap();
    }
    packed(&directory)
}

fn packed(directory: &Path) -> String {
    let image = directory.with_extension("image");
    let image = image.to_str().unwrap();
    let arguments = [
        "-C",
        directory.to_str().unwrap(),
        "--use-compress-program=gzip -1",
        "-cf",
        image,
        ".",
    ];
    run("tar", &arguments).unwrap();
    image.to_owned()
}

struct Boot {
    image: String,
    stemcell: Value,
    vm: Value,
    /// What the guest says.
    says: [&'static str; 3],
}

/// The stemcell with the guest's disk as a VMDK, without the boot code that a BIOS would start.
fn for_efi_alone(sandbox: &Sandbox) -> String {
    let directory = sandbox.directory().join("efi-alone");
    fs::create_dir(&directory).unwrap();
    let guest = PathBuf::from(stemcell_image("qcow2"));
    let guest = guest.ancestors().nth(2).unwrap().join("root.img");
    let (raw, vmdk) = (sandbox.directory().join("efi.raw"), directory.join("disk.vmdk"));
    let (raw, vmdk) = (raw.to_str().unwrap(), vmdk.to_str().unwrap());
    run(
        "qemu-img",
        &["convert", "-O", "raw", guest.to_str().unwrap(), raw],
    )
    .unwrap();
    let zeros = [
        "if=/dev/zero",
        &format!("of={raw}"),
        "bs=440",
        "count=1",
        "conv=notrunc",
        "status=none",
    ];
    run("dd", &zeros).unwrap();
    let convert = [
        "convert",
        "-f",
        "raw",
        "-O",
        "vmdk",
        "-o",
        "subformat=streamOptimized",
        raw,
        vmdk,
    ];
    run("qemu-img", &convert).unwrap();
    packed(&directory)
}

fn boots(sandbox: &Sandbox) -> Vec<Boot> {
    let disk = |format: &[&str], name: &str| image(sandbox, format, name);
    vec![
        Boot {
            image: stemcell_image("raw"),
            stemcell: json!({"infrastructure": "openstack"}),
            vm: json!({"firmware": "efi"}),
            says: [
                "firmware efi",
                "settings from config-2",
                "ephemeral /dev/disk/by-id/virtio-ephemeral -> /dev/vdb",
            ],
        },
        Boot {
            // Nothing but the disk says what starts it.
            image: for_efi_alone(sandbox),
            stemcell: json!({"infrastructure": "vsphere", "name": "bosh-vsphere-esxi-ubuntu-jammy-go_agent"}),
            vm: json!({}),
            says: [
                "firmware efi",
                "settings from /dev/sr0",
                "ephemeral ephemeral -> /dev/sd",
            ],
        },
        Boot {
            image: disk(&["vpc", "-o", "subformat=fixed,force_size"], "root.vhd"),
            stemcell: json!({"infrastructure": "azure"}),
            vm: json!({"machine": "q35"}),
            says: [
                "firmware bios",
                "settings from azure_cfg_dsk",
                "ephemeral ephemeral -> /dev/sd",
            ],
        },
        Boot {
            image: disk(&["vpc", "-o", "subformat=dynamic,force_size"], "dynamic.vhd"),
            stemcell: json!({}),
            vm: json!({"machine": "pc"}),
            says: [
                "firmware bios",
                "settings from config-2",
                "ephemeral /dev/disk/by-id/virtio-ephemeral -> /dev/vdb",
            ],
        },
    ]
}

/// Every format once.
fn formats(sandbox: &Sandbox) -> [(&'static str, String); 5] {
    let disk = |format: &[&str], name: &str| image(sandbox, format, name);
    let ovf = disk(&["vmdk", "-o", "subformat=streamOptimized"], "image.vmdk");
    let ova = sandbox.directory().join("image.ova");
    let (unpacked, ova) = (format!("{ovf}.d"), ova.to_str().unwrap());
    fs::create_dir(&unpacked).unwrap();
    run("tar", &["-xf", &ovf, "-C", &unpacked]).unwrap();
    run("tar", &["-cf", ova, "-C", &unpacked, "image.ovf", "image.vmdk"]).unwrap();
    [
        ("qcow2", stemcell_image("qcow2")),
        ("raw", disk(&["raw"], "disk.raw")),
        ("OVA", ova.to_owned()),
        (
            "fixed VHD",
            disk(&["vpc", "-o", "subformat=fixed,force_size"], "root.vhd"),
        ),
        (
            "dynamic VHD",
            disk(&["vpc", "-o", "subformat=dynamic,force_size"], "dynamic.vhd"),
        ),
    ]
}

fn try_create_vm(sandbox: &Sandbox, stemcell: &str, host: u8, properties: Value) -> crate::sandbox::Answer {
    let mut all = json!({"memory": 192, "ephemeral_disk": 9});
    crate::sandbox::merge(&mut all, properties);
    let arguments = json!(["a", stemcell, all, sandbox.manual_network(host), [], {}]);
    sandbox.call("create_vm", arguments)
}

fn create_vm(sandbox: &Sandbox, stemcell: &str, host: u8, properties: Value) -> String {
    let result = try_create_vm(sandbox, stemcell, host, properties).result();
    result[0].as_str().unwrap().to_owned()
}

/// What blkid sees on the VM's settings drive.
fn blkid(sandbox: &Sandbox, vm: &str, tag: &str) -> String {
    let drive = format!("{}/pool/{vm}-config", sandbox.directory().display());
    let value = run("blkid", &["-p", "-o", "value", "-s", tag, &drive]).unwrap();
    value.trim().to_owned()
}

/// What the guest says, and what is on the host for it.
fn check(sandbox: &Sandbox, boot: &Boot, vm: &str) {
    let console = sandbox.console(vm);
    for says in boot.says {
        let says = format!("GUEST: {says}");
        assert!(console.contains(&says), "{says} is not in {console}");
    }
    let source = boot.says[1].strip_prefix("settings from ").unwrap();
    if !source.starts_with('/') {
        assert_eq!(blkid(sandbox, vm, "LABEL"), source);
    }
    let xml = virsh(&["dumpxml", vm]);
    for absent in ["<graphics", "<video", "secure='yes'"] {
        assert!(!xml.contains(absent), "{absent} is in {xml}");
    }
}

/// Where libvirt keeps the variables of this VM's EFI.
fn nvram(vm: &str) -> PathBuf {
    PathBuf::from(format!("/var/lib/libvirt/qemu/nvram/{vm}_VARS.fd"))
}

#[test]
fn stemcells_of_every_format_boot_by_either_firmware_and_find_their_settings() {
    let mut sandbox = Sandbox::new();
    let boots = boots(&sandbox);
    let mut vms = Vec::new();
    // With nothing configured, stemcells of different infrastructures run side by side. No more than two boot at once.
    for (boot, host) in boots.iter().zip(10..) {
        // The same label on the other kind of file system.
        let format = if host % 2 == 0 { "auto" } else { "iso9660" };
        sandbox.configure(json!({"stemcell": {"config_drive_format": format}}));
        let stemcell = json!([boot.image, boot.stemcell]);
        let stemcell = sandbox.call("create_stemcell", stemcell).text();
        vms.push(create_vm(&sandbox, &stemcell, host, boot.vm.clone()));
        if let [.., before_last, _] = &vms[..] {
            sandbox.wait_until_ready(before_last, 1);
        }
    }
    for (boot, vm) in boots.iter().zip(&vms) {
        sandbox.wait_until_ready(vm, 1);
        check(&sandbox, boot, vm);
    }
    let kinds: Vec<String> = vms.iter().map(|vm| blkid(&sandbox, vm, "TYPE")).collect();
    assert_eq!(kinds, ["vfat", "iso9660", "iso9660", "iso9660"]);

    // A PCIe machine that EFI started has slots for disks to come.
    let disk = sandbox.call("create_disk", json!([8, {}])).text();
    sandbox.call("attach_disk", json!([vms[0], disk])).result();
    sandbox.wait_for_console(&vms[0], &format!("GUEST: disk-added virtio-{disk}"), 1);
    assert!(virsh(&["dumpxml", &vms[0]]).contains("machine='pc-q35"));

    // What EFI remembers of a VM goes with it, also when it is off.
    virsh(&["destroy", &vms[1]]);
    for vm in &vms {
        let by_efi = [&vms[0], &vms[1]].contains(&vm);
        assert_eq!(nvram(vm).exists(), by_efi, "{vm}");
        sandbox.call("delete_vm", json!([vm])).result();
        assert!(!nvram(vm).exists(), "{vm}");
    }
}

/// The kinds of drive that a format is booted from: one, chosen by `CPI_TEST_SEED`, unless `CPI_TEST_BOOTS` says `all`.
fn drives(format: usize) -> Vec<(&'static str, &'static str)> {
    let both = [("ConfigDrive", "config-2"), ("CDROM", "/dev/sr0")];
    if std::env::var("CPI_TEST_BOOTS").is_ok_and(|which| which == "all") {
        return both.to_vec();
    }
    vec![both[(format + points::seed()) % 2]]
}

/// With the drive as configured, whatever the stemcell is made for.
#[test]
fn every_format_boots_by_either_firmware_from_either_drive() {
    let mut sandbox = Sandbox::new();
    for (number, (format, image)) in formats(&sandbox).into_iter().enumerate() {
        let stemcell = json!([image, {"infrastructure": "openstack"}]);
        let stemcell = sandbox.call("create_stemcell", stemcell).text();
        for (drive, source) in drives(number) {
            sandbox.configure(json!({"stemcell": {"type": drive}}));
            let vms = ["bios", "efi"].map(|firmware| {
                let properties = json!({"memory": 192, "firmware": firmware});
                let arguments = json!(["a", stemcell, properties, {}, [], {}]);
                let result = sandbox.call("create_vm", arguments).result();
                (firmware, result[0].as_str().unwrap().to_owned())
            });
            for (firmware, vm) in &vms {
                sandbox.wait_for_console(vm, "GUEST: settings {", 1);
                let console = sandbox.console(vm);
                for says in [format!("firmware {firmware}"), format!("settings from {source}")] {
                    let says = format!("GUEST: {says}\n");
                    assert!(console.contains(&says), "{format}: {says:?} is not in {console}");
                }
                sandbox.call("delete_vm", json!([vm])).result();
            }
        }
        sandbox.call("delete_stemcell", json!([stemcell])).result();
    }
    assert_eq!(sandbox.volumes(), [""; 0]);
}

#[test]
fn cloud_properties_and_settings_shape_the_machine() {
    let mut sandbox = Sandbox::new();
    let stemcell = sandbox.stemcell();
    sandbox.configure(json!({"settings": {"graphics": "vnc", "machine": "q35", "cpu_mode": "qemu64"}}));
    let template = "<domain type='qemu'><title>of its own</title><memory unit='MiB'>{{.Memory}}</memory>\
        <vcpu>{{.CPU}}</vcpu><os><type>hvm</type></os><features><acpi/></features></domain>";
    for (properties, has) in [
        (
            json!({}),
            vec![
                "machine='pc-q35",
                "qemu64</model>",
                "<graphics type='vnc'",
                "listen='127.0.0.1'",
            ],
        ),
        (
            json!({"machine": "pc", "cpu_mode": "maximum",
                "devices": "<watchdog model='i6300esb' action='none'/><memballoon model='none'/>"}),
            vec![
                "machine='pc-i440fx",
                "<cpu mode='maximum'",
                "<watchdog model='i6300esb'",
                "<memballoon model='none'/>",
            ],
        ),
        (
            json!({"machine": "pc", "firmware": "efi"}),
            vec!["machine='pc-i440fx", "<nvram"],
        ),
        (
            json!({"vm_domain": template, "cpu": 2, "firmware": "efi"}),
            vec![
                "<title>of its own</title>",
                "<vcpu placement='static'>2<",
                "<nvram",
                "machine='pc-q35",
            ],
        ),
    ] {
        let vm = create_vm(&sandbox, &stemcell, 10, properties);
        let xml = virsh(&["dumpxml", &vm]);
        for text in has {
            assert!(xml.contains(text), "{text} is not in {xml}");
        }
        sandbox.call("delete_vm", json!([vm])).result();
        assert!(!nvram(&vm).exists());
    }
    // What the stemcell needs, whatever is configured.
    sandbox.configure(json!({"settings": {"firmware": "efi"}}));
    let vm = create_vm(&sandbox, &stemcell, 10, json!({"firmware": "auto"}));
    assert!(!virsh(&["dumpxml", &vm]).contains("<nvram"));
    sandbox.call("delete_vm", json!([vm])).result();
    sandbox.configure(json!({"settings": {"firmware": "auto"}}));

    let absent = "<hostdev mode='subsystem' type='usb'><source><vendor id='0xdead'/><product id='0xbeef'/></source></hostdev>";
    let before = sandbox.state();
    for (properties, says) in [
        // No processor has pages of this size.
        (json!({"hugepages": 3}), "hugetlbfs"),
        (json!({"firmware": "efi", "devices": absent}), "starting VM"),
        (json!({"devices": "<odd/>", "machine": "no-such"}), "no-such"),
        (json!({"vm_domain": "<network/>"}), "not to <domain>"),
        (json!({"vm_domain": "<domain>{{.Nmae}}</domain>"}), "{{.Nmae}}"),
    ] {
        let answer = try_create_vm(&sandbox, &stemcell, 10, properties);
        let message = answer.error("VMCreationFailed", false);
        assert!(message.contains(says), "{says:?} is not in {message:?}");
        assert_eq!(sandbox.state(), before, "after: {message}");
        let vm = message.split_whitespace().nth(2).unwrap().trim_end_matches(':');
        assert!(vm.starts_with("vm-") && !nvram(vm).exists(), "{message}");
        assert!(try_virsh(&["dominfo", vm]).is_err());
    }

    let google = json!([stemcell_image("qcow2"), {"infrastructure": "google"}]);
    let google = sandbox.call("create_stemcell", google).text();
    let message = try_create_vm(&sandbox, &google, 10, json!({})).error("VMCreationFailed", false);
    assert!(message.contains("metadata server"), "{message}");
}
