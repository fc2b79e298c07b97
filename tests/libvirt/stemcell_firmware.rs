//! What starts a VM, by what its stemcell's disk is made for: disks as sfdisk and mkfs.fat make them, in every format, and
//! what an `.ovf` says.

use std::fs;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use crate::sandbox::{Sandbox, run, virsh};

/// What is in the first sector of a disk that GRUB starts, and what tools that write partition tables leave there.
const GRUB: &[u8] = b"\xeb\x63\x90\x00 GRUB \x00Geom\x00Hard Disk\x00Read\x00 Error";
const GENERIC: &[u8] = b"\xfa\xb8\x00\x10\x8e\xd0\xbc\x00\xb0";

/// GUIDs of an EFI system partition and of a BIOS boot partition, as sfdisk knows them.
const ESP: &str = "C12A7328-F81F-11D2-BA4B-00A0C93EC93B";
const BIOS_BOOT: &str = "21686148-6449-6E6F-744E-656564454649";

struct Disks<'a> {
    sandbox: &'a Sandbox,
    count: u32,
}

impl Disks<'_> {
    /// A raw disk of 8 MiB with this boot code and partition table, whose first partition of 4 MiB is a FAT with a file.
    fn make(&mut self, code: &[u8], table: &str) -> PathBuf {
        self.count += 1;
        let directory = self.sandbox.directory();
        let disk = directory.join(format!("disk-{}.raw", self.count));
        let (path, script, readme) = (
            disk.to_str().unwrap(),
            directory.join("table"),
            directory.join("readme"),
        );
        run("truncate", &["-s", "8M", path]).unwrap();
        fs::write(&script, table).unwrap();
        let sfdisk = format!("sfdisk -q {path} <{}", script.display());
        run("sh", &["-c", &sfdisk]).unwrap();
        fs::write(&readme, "hello").unwrap();
        run("mkfs.vfat", &["-F", "12", "--offset", "2048", path, "4096"]).unwrap();
        let partition = format!("{path}@@1M");
        run("mcopy", &["-i", &partition, readme.to_str().unwrap(), "::"]).unwrap();
        let mut bytes = fs::read(&disk).unwrap();
        bytes[..code.len()].copy_from_slice(code);
        fs::write(&disk, bytes).unwrap();
        disk
    }

    /// A stemcell with this disk as qemu-img writes it, under this name, and an `.ovf` if there is one.
    fn stemcell(
        &mut self,
        disk: &Path,
        format: &[&str],
        name: &str,
        ovf: Option<&str>,
        properties: &Value,
    ) -> String {
        self.count += 1;
        let directory = self.sandbox.directory().join(format!("packed-{}", self.count));
        fs::create_dir(&directory).unwrap();
        let (from, to) = (disk.to_str().unwrap(), directory.join(name));
        run(
            "qemu-img",
            &[
                &["convert", "-f", "raw", "-O"],
                format,
                &[from, to.to_str().unwrap()],
            ]
            .concat(),
        )
        .unwrap();
        let mut files = vec![name];
        if let Some(firmware) = ovf {
            let text = format!(
                "<?xml version=\"1.0\"?><Envelope xmlns:vmw=\"http://www.vmware.com/schema/ovf\"><VirtualSystem>\
                 <VirtualHardwareSection><vmw:Config vmw:key=\"cpuHotAddEnabled\" vmw:value=\"true\"/>{firmware}\
                 </VirtualHardwareSection></VirtualSystem></Envelope>"
            );
            fs::write(directory.join("image.ovf"), text).unwrap();
            // Before the disk, or behind it.
            files.insert(self.count as usize % 2, "image.ovf");
        }
        let image = directory.with_extension("image");
        let tar = ["-C", directory.to_str().unwrap(), "-czf", image.to_str().unwrap()];
        run("tar", &[&tar[..], &files].concat()).unwrap();
        let arguments = json!([image, properties]);
        self.sandbox.call("create_stemcell", arguments).text()
    }
}

fn record(sandbox: &Sandbox, stemcell: &str) -> PathBuf {
    sandbox.directory().join(format!("pool/{stemcell}.record"))
}

fn recorded(sandbox: &Sandbox, stemcell: &str) -> Value {
    let text = fs::read_to_string(record(sandbox, stemcell)).unwrap();
    serde_json::from_str::<Value>(text.trim_end_matches('\0')).unwrap()["firmware"].clone()
}

/// The firmware of a VM of this stemcell with these cloud properties.
fn rendered(sandbox: &Sandbox, stemcell: &str, properties: Value) -> &'static str {
    let arguments = json!(["a", stemcell, properties, sandbox.manual_network(10), [], {}]);
    let request = sandbox.directory().join("request.json");
    let content = json!({"method": "create_vm", "arguments": arguments, "api_version": 2});
    fs::write(&request, content.to_string()).unwrap();
    let command = format!(
        "exec {} render create_vm --config {} <{}",
        env!("CARGO_BIN_EXE_cpi"),
        sandbox.config_path().display(),
        request.display()
    );
    let xml = run("sh", &["-c", &command]).unwrap();
    let os = xml.split("</os>").next().unwrap();
    if os.contains("firmware=\"efi\"") || os.contains("firmware='efi'") || os.contains("<loader") {
        "efi"
    } else {
        "bios"
    }
}

#[test]
fn partitions_and_boot_code_decide_and_no_name_does() {
    let sandbox = Sandbox::new();
    let mut disks = Disks {
        sandbox: &sandbox,
        count: 0,
    };
    let gpt = |types: &[&str]| {
        let sizes = ["4M", "1M"];
        let lines: Vec<String> = types
            .iter()
            .zip(sizes)
            .map(|(kind, size)| format!("size={size}, type={kind}\n"))
            .collect();
        format!("label: gpt\n{}", lines.concat())
    };
    let dos = |flags: &str| format!("label: dos\nstart=2048, size=8192, type={flags}\nsize=2M, type=83\n");
    for (what, code, table, firmware) in [
        ("GRUB", GRUB, dos("83"), "bios"),
        (
            "code and an active partition",
            GENERIC,
            dos("83, bootable"),
            "bios",
        ),
        ("an ESP alone", b"", dos("ef, bootable"), "efi"),
        ("an ESP, and parted's code", GENERIC, dos("ef"), "efi"),
        (
            "an active ESP of mkfs.fat, and parted's code",
            GENERIC,
            dos("ef, bootable"),
            "efi",
        ),
        ("an ESP and GRUB", GRUB, dos("ef"), "bios"),
        ("GPT: a BIOS boot partition", b"", gpt(&[BIOS_BOOT]), "bios"),
        ("GPT: an ESP alone", b"", gpt(&[ESP]), "efi"),
        ("GPT: both", GRUB, gpt(&[ESP, BIOS_BOOT]), "bios"),
    ] {
        let disk = disks.make(code, &table);
        for name in ["bosh-vsphere-esxi-ubuntu-noble", "anything"] {
            let properties = json!({"infrastructure": "vsphere", "name": name});
            let stemcell = disks.stemcell(&disk, &["raw"], "disk.raw", None, &properties);
            assert_eq!(recorded(&sandbox, &stemcell), firmware, "{what}");
            assert_eq!(rendered(&sandbox, &stemcell, json!({})), firmware, "{what}");
        }
    }
}

#[test]
fn every_format_is_looked_into_and_an_ovf_goes_before_the_disk() {
    let sandbox = Sandbox::new();
    let mut disks = Disks {
        sandbox: &sandbox,
        count: 0,
    };
    let efi_alone = disks.make(b"", "label: gpt\nsize=4M, type=uefi\n");
    let for_bios = disks.make(GRUB, "label: dos\nstart=2048, type=83\n");
    let qcow2 = |options: &[&'static str]| [&["qcow2"], options].concat();
    for (format, name) in [
        (vec!["raw"], "disk.raw"),
        (qcow2(&[]), "root.img"),
        (qcow2(&["-c", "-o", "compat=0.10"]), "root.img"),
        (qcow2(&["-c", "-o", "cluster_size=2M"]), "root.img"),
        (qcow2(&["-o", "cluster_size=512"]), "root.img"),
        (qcow2(&["-o", "extended_l2=on,cluster_size=128k"]), "root.img"),
        (vec!["vmdk", "-o", "subformat=streamOptimized"], "image.vmdk"),
        (vec!["vpc", "-o", "subformat=fixed,force_size"], "root.vhd"),
        (vec!["vpc", "-o", "subformat=dynamic,force_size"], "root.vhd"),
    ] {
        for (disk, firmware) in [(&efi_alone, "efi"), (&for_bios, "bios")] {
            let stemcell = disks.stemcell(disk, &format, name, None, &json!({}));
            assert_eq!(recorded(&sandbox, &stemcell), firmware, "{format:?}");
        }
    }
    // One that cannot be read is for a BIOS, which the log tells of.
    let zstd = qcow2(&["-c", "-o", "compression_type=zstd"]);
    let stemcell = disks.stemcell(&efi_alone, &zstd, "root.img", None, &json!({}));
    assert_eq!(recorded(&sandbox, &stemcell), Value::Null);
    assert_eq!(rendered(&sandbox, &stemcell, json!({})), "bios");
    assert_eq!(rendered(&sandbox, &stemcell, json!({"firmware": "efi"})), "efi");
    let arguments = json!(["a", stemcell, {"memory": 64}, {}, [], {}]);
    let answer = sandbox.call("create_vm", arguments);
    assert!(
        answer
            .stderr
            .contains("cannot be read, so VMs are started by a BIOS"),
        "{}",
        answer.stderr
    );
    let vm = answer.result()[0].clone();
    sandbox.call("delete_vm", json!([vm])).result();

    let config = |value: &str| {
        format!("<vmw:Config ovf:required=\"false\" vmw:key=\"firmware\" vmw:value=\"{value}\"/>")
    };
    let vmdk = ["vmdk", "-o", "subformat=streamOptimized"];
    for (disk, says, firmware) in [
        (&efi_alone, config("bios"), "bios"),
        (&for_bios, config("efi"), "efi"),
        (&for_bios, config("efi"), "efi"),
        (&efi_alone, config("odd"), "efi"),
        (&efi_alone, String::new(), "efi"),
        (&for_bios, "<broken".to_owned(), "bios"),
    ] {
        let properties = json!({"infrastructure": "vsphere"});
        let stemcell = disks.stemcell(disk, &vmdk, "image-disk1.vmdk", Some(&says), &properties);
        assert_eq!(recorded(&sandbox, &stemcell), firmware, "{says}");
    }
}

#[test]
fn stemcells_of_earlier_versions_and_light_ones_are_looked_at_too() {
    let mut sandbox = Sandbox::new();
    let mut disks = Disks {
        sandbox: &sandbox,
        count: 0,
    };
    let efi_alone = disks.make(b"", "label: dos\nstart=2048, size=8192, type=ef, bootable\n");
    let properties = json!({"infrastructure": "vsphere", "name": "bosh-vsphere-esxi-ubuntu-jammy"});
    let stemcell = disks.stemcell(&efi_alone, &["qcow2", "-c"], "root.img", None, &properties);
    // As it was recorded before.
    let path = record(&sandbox, &stemcell);
    let length = fs::metadata(&path).unwrap().len() as usize;
    let mut old = json!({"properties": properties, "tags": {}})
        .to_string()
        .into_bytes();
    old.resize(length.max(old.len()), b' ');
    fs::write(&path, old).unwrap();
    assert_eq!(recorded(&sandbox, &stemcell), Value::Null);

    let pool = sandbox.name.clone();
    let light_path = sandbox.directory().join("pool/operators.raw");
    fs::copy(&efi_alone, &light_path).unwrap();
    virsh(&["pool-refresh", &pool]);
    let light = json!({"volume": "operators.raw", "pool": pool});
    let light = sandbox.call("create_stemcell", json!(["/none", light])).text();
    assert_eq!(recorded(&sandbox, &light), "efi");

    for stemcell in [&stemcell, &light] {
        assert_eq!(rendered(&sandbox, stemcell, json!({})), "efi");
        let shown = sandbox.operator_json(&["show", stemcell]);
        assert_eq!(shown["firmware"], recorded(&sandbox, stemcell));
        // What is asked for wins.
        assert_eq!(rendered(&sandbox, stemcell, json!({"firmware": "bios"})), "bios");
        sandbox.configure(json!({"settings": {"firmware": "bios"}}));
        assert_eq!(rendered(&sandbox, stemcell, json!({})), "bios");
        assert_eq!(rendered(&sandbox, stemcell, json!({"firmware": "auto"})), "efi");
        sandbox.configure(json!({"settings": {"firmware": "auto"}}));
        let arguments = json!(["a", stemcell, {"memory": 64}, {}, [], {}]);
        let vm = sandbox.call("create_vm", arguments).result()[0].clone();
        let xml = virsh(&["dumpxml", vm.as_str().unwrap()]);
        assert!(xml.contains("<nvram"), "{xml}");
        sandbox.call("delete_vm", json!([vm])).result();
    }
}
