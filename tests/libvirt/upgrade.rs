//! An operator puts this CPI in the place of the seed's, under a Director that runs. What that CPI makes is made here
//! with virsh, by its templates: full clones in raw volumes, disks by path and without serials, a config drive of
//! 35 MiB with a partition table.

use std::fs;
use std::net::TcpStream;
use std::path::PathBuf;
use std::time::Duration;

use serde_json::{Value, json};

use crate::guest::{BOOT_LIMIT, shell};
use crate::sandbox::{Sandbox, run, stemcell_image, virsh, wait_for};
use crate::templates::{DHCP, DISK, DOMAIN, NIC, VOLUME};

const UUID: &str = "0c5d4f6a-7a53-4a60-8f0e-2f7a1d9b3c11";
const MAC: &str = "52:54:00:5e:ed:01";
const MIB: u64 = 1024 * 1024;

/// What the seed's CPI has left in a sandbox.
struct Seed {
    sandbox: Sandbox,
    stemcell: String,
    vm: String,
    disk: String,
    address: String,
}

impl Seed {
    fn new() -> Self {
        let sandbox = Sandbox::with_config(json!({
            "settings": {"vm_domain": DOMAIN.replace("'kvm'", "'qemu'"), "disk_device": DISK, "storage_volume": VOLUME,
                "manual_network_interface": NIC, "network_dhcp_ip": DHCP, "domain_type": "auto"},
            "stemcell": {"type": "ConfigDrive", "label": "config-2", "formats": ["openstack-qcow2", "openstack-raw"]},
        }));
        let seed = Self {
            stemcell: format!("5{}", &UUID[1..]),
            vm: format!("vm-{UUID}"),
            disk: format!("pdisk-7{}", &UUID[1..]),
            address: sandbox.address(10),
            sandbox,
        };
        seed.make_stemcell();
        seed.make_vm();
        seed
    }

    fn make_stemcell(&self) {
        let directory = self.sandbox.directory();
        let (archive, root) = (stemcell_image("qcow2"), directory.to_str().unwrap());
        run("tar", &["-xzf", &archive, "-C", root, "root.img"]).unwrap();
        let properties = directory.join("properties");
        fs::write(&properties, r#"{"disk": 1024, "infrastructure": "openstack"}"#).unwrap();
        let volume = format!("sc-{}", self.stemcell);
        self.upload(&format!("{volume}.json"), &properties);
        self.upload(&volume, &directory.join("root.img"));
    }

    fn make_vm(&self) {
        let pool = &self.sandbox.name;
        let clone = self.file("clone.xml", &volume_xml(&format!("bdisk-{UUID}"), 0));
        let stemcell = format!("sc-{}", self.stemcell);
        virsh(&[
            "vol-create-from",
            "--pool",
            pool,
            &clone,
            &stemcell,
            "--inputpool",
            pool,
        ]);
        // A copy, and raw, whatever the stemcell's image is.
        let boot = virsh(&["vol-dumpxml", "--pool", pool, &format!("bdisk-{UUID}")]);
        assert!(
            boot.contains("<format type='raw'/>") && !boot.contains("<backingStore>"),
            "{boot}"
        );
        self.make_volume(&format!("edisk-{UUID}"), 16 * MIB);
        self.make_volume(&self.disk, 16 * MIB);
        self.upload(&format!("cdisk-{UUID}"), &self.config_drive());

        let domain = DOMAIN.replace("'kvm'", "'qemu'");
        let domain = fill(
            &domain,
            &[
                ("Name", &self.vm),
                ("UUID", UUID),
                ("Memory", "192"),
                ("CPU", "1"),
            ],
        );
        virsh(&["define", &self.file("domain.xml", &domain)]);
        let volumes = ["bdisk", "edisk", "cdisk"].map(|kind| format!("{kind}-{UUID}"));
        for (volume, target) in volumes
            .iter()
            .chain([&self.disk])
            .zip(["vda", "vdb", "vdc", "vdd"])
        {
            let path = virsh(&["vol-path", "--pool", pool, volume]);
            let disk = fill(
                DISK,
                &[
                    ("Device", "disk"),
                    ("TargetPath", path.trim()),
                    ("TargetDevice", target),
                    ("TargetBus", "virtio"),
                ],
            );
            virsh(&[
                "attach-device",
                &self.vm,
                &self.file("disk.xml", &disk),
                "--config",
            ]);
        }
        let nic = [
            ("NetworkName", &**pool),
            ("MacAddress", MAC),
            ("IpAddress", &self.address),
            ("VmName", &self.vm),
        ];
        virsh(&[
            "attach-device",
            &self.vm,
            &self.file("nic.xml", &fill(NIC, &nic)),
            "--config",
        ]);
        virsh(&[
            "net-update",
            pool,
            "add",
            "ip-dhcp-host",
            &fill(DHCP, &nic),
            "--live",
        ]);
        virsh(&["start", &self.vm]);
    }

    /// As the seed's: one FAT32 partition at 1 MiB, and settings that name devices, without a MAC.
    fn config_drive(&self) -> PathBuf {
        let image = self.sandbox.directory().join("config-drive");
        let settings = json!({
            "agent_id": "a", "vm": {"name": self.vm, "id": self.vm}, "mbus": "https://m:p@0.0.0.0:6868", "ntp": [],
            "blobstore": {"provider": "local", "options": {}}, "env": {},
            "networks": {"default": {"type": "manual", "ip": self.address, "netmask": "255.255.255.0",
                "gateway": self.sandbox.address(1), "default": ["dns", "gateway"], "dns": []}},
            "disks": {"system": "/dev/vda", "ephemeral": "/dev/vdb", "persistent": {}},
        });
        let (settings, metadata) = (
            self.file("user-data", &settings.to_string()),
            self.file("meta-data.json", "{}"),
        );
        let path = image.to_str().unwrap();
        run("truncate", &["-s", "35M", path]).unwrap();
        let table = self.file("table", "label: dos\nstart=2048, size=68000, type=c\n");
        run("sh", &["-c", &format!("sfdisk -q {path} < {table}")]).unwrap();
        run(
            "mkfs.vfat",
            &["-F", "32", "-n", "config-2", "--offset", "2048", path, "34000"],
        )
        .unwrap();
        let partition = format!("{path}@@1M");
        run("mmd", &["-i", &partition, "::ec2", "::ec2/latest"]).unwrap();
        run("mcopy", &["-i", &partition, &settings, &metadata, "::ec2/latest"]).unwrap();
        image
    }

    fn file(&self, name: &str, text: &str) -> String {
        let path = self.sandbox.directory().join(name);
        fs::write(&path, text).unwrap();
        path.to_str().unwrap().to_owned()
    }

    fn make_volume(&self, name: &str, bytes: u64) {
        let definition = self.file("volume.xml", &volume_xml(name, bytes));
        virsh(&["vol-create", &self.sandbox.name, &definition]);
        virsh(&["pool-refresh", &self.sandbox.name]);
    }

    fn upload(&self, name: &str, file: &std::path::Path) {
        self.make_volume(name, fs::metadata(file).unwrap().len());
        virsh(&[
            "vol-upload",
            "--pool",
            &self.sandbox.name,
            name,
            file.to_str().unwrap(),
        ]);
        virsh(&["pool-refresh", &self.sandbox.name]);
    }

    fn call(&self, method: &str, arguments: Value) -> Value {
        self.sandbox.call(method, arguments).result()
    }

    fn wait_for_guest(&self) {
        let port = format!("{}:7000", self.address).parse().unwrap();
        wait_for("the guest on the network", BOOT_LIMIT, || {
            TcpStream::connect_timeout(&port, Duration::from_secs(1)).is_ok()
        });
    }

    fn capacity(&self, volume: &str) -> u64 {
        let info = virsh(&["vol-info", "--bytes", "--pool", &self.sandbox.name, volume]);
        let line = info.lines().find(|line| line.starts_with("Capacity:")).unwrap();
        line.split_whitespace().nth(1).unwrap().parse().unwrap()
    }
}

fn fill(template: &str, values: &[(&str, &str)]) -> String {
    values.iter().fold(template.to_owned(), |text, (name, value)| {
        text.replace(&format!("{{{{.{name}}}}}"), value)
    })
}

fn volume_xml(name: &str, bytes: u64) -> String {
    fill(
        VOLUME,
        &[("Name", name), ("Unit", "bytes"), ("Size", &bytes.to_string())],
    )
}

#[test]
fn what_the_seeds_cpi_has_made_goes_through_every_method() {
    let seed = Seed::new();
    let Seed {
        sandbox,
        stemcell,
        vm,
        disk,
        address,
    } = &seed;
    seed.wait_for_guest();
    assert_eq!(seed.call("has_vm", json!([vm])), true);
    assert_eq!(seed.call("has_disk", json!([disk])), true);
    assert_eq!(seed.call("get_disks", json!([vm])), json!([disk]));
    seed.call("set_vm_metadata", json!([vm, {"deployment": "cf", "job": "db"}]));
    seed.call("set_disk_metadata", json!([disk, {"instance_name": "db/0"}]));
    let write = "mkfs.ext4 -q -F -J size=4 /dev/vdd; mkdir /mnt/d; mount /dev/vdd /mnt/d; echo precious >/mnt/d/file; \
                 sync; cat /mnt/d/file";
    assert_eq!(shell(address, write).trim(), "precious");

    // It is attached already, where the seed's CPI said: without a serial, there is nothing else to find it by.
    assert_eq!(seed.call("attach_disk", json!([vm, disk])), "/dev/vdd");

    // Point in time: taken while the guest has it mounted.
    let snapshot = seed.call("snapshot_disk", json!([disk, {}]));
    shell(address, "echo more >>/mnt/d/file; umount /mnt/d");
    seed.call("detach_disk", json!([vm, disk]));
    assert_eq!(seed.call("get_disks", json!([vm])), json!([]));
    assert_eq!(shell(address, "ls /dev/vdd 2>&1 >/dev/null | wc -l").trim(), "1");
    seed.call("resize_disk", json!([disk, 20]));
    assert_eq!(seed.capacity(disk), 20 * MIB);
    assert_eq!(seed.call("update_disk", json!([disk, 24, {}])), Value::Null);
    assert_eq!(seed.capacity(disk), 24 * MIB);

    let read = |hint: &Value| {
        let hint = hint.as_str().unwrap();
        let command = format!(
            "for i in 1 2 3 4 5 6 7 8 9; do [ -e {hint} ] && break; sleep 1; done; \
             blockdev --getsize64 {hint}; mkdir -p /mnt/d; mount {hint} /mnt/d; cat /mnt/d/file"
        );
        shell(address, &command)
    };
    let hint = seed.call("attach_disk", json!([vm, disk]));
    assert_eq!(seed.call("attach_disk", json!([vm, disk])), hint);
    assert_eq!(read(&hint), format!("{}\nprecious\nmore\n", 24 * MIB));
    shell(address, "umount /mnt/d");

    let snapshot_hint = seed.call("attach_disk", json!([vm, snapshot]));
    assert_eq!(read(&snapshot_hint), format!("{}\nprecious\n", 16 * MIB));
    shell(address, "umount /mnt/d; touch /run/before");
    seed.call("detach_disk", json!([vm, snapshot]));

    seed.call("reboot_vm", json!([vm]));
    std::thread::sleep(Duration::from_secs(1));
    seed.wait_for_guest();
    assert_eq!(
        shell(address, "ls /run/before 2>&1 >/dev/null | wc -l").trim(),
        "1"
    );
    let log = shell(address, "cat /run/guest.log");
    assert!(log.contains("settings from config-2"), "{log}");
    assert!(log.contains("ephemeral /dev/vdb -> /dev/vdb 16777216"), "{log}");
    assert_eq!(read(&hint), format!("{}\nprecious\nmore\n", 24 * MIB));

    // The Director goes on to make VMs of the stemcell that it has.
    let arguments = json!(["b", stemcell, {"memory": 192}, sandbox.manual_network(11), [], {}]);
    let successor = seed.call("create_vm", arguments)[0].clone();
    let message = sandbox
        .call("delete_stemcell", json!([stemcell]))
        .error("CloudError", false);
    assert!(message.contains(successor.as_str().unwrap()), "{message}");
    seed.call("delete_vm", json!([successor]));

    // The seed's VM has a copy of the stemcell, and lives on without it.
    seed.call("delete_stemcell", json!([stemcell]));
    assert!(!sandbox.volumes().iter().any(|volume| volume.contains(stemcell)));
    assert_eq!(shell(address, "cat /mnt/d/file"), "precious\nmore\n");

    // Its persistent disk is still attached: the Director's way with a VM whose agent is gone.
    seed.call("delete_vm", json!([vm]));
    assert_eq!(seed.call("has_vm", json!([vm])), false);
    assert!(!virsh(&["net-dumpxml", &sandbox.name]).contains(MAC));
    let left = sandbox.volumes();
    assert!(!left.iter().any(|volume| volume.contains(UUID)), "{left:?}");
    assert_eq!(seed.call("has_disk", json!([disk])), true);
    seed.call("delete_disk", json!([disk]));
    seed.call("delete_snapshot", json!([snapshot]));
    // What it answers to every snapshot_disk, without making one.
    seed.call("delete_snapshot", json!(["snap-cid"]));
    assert_eq!(sandbox.volumes(), [""; 0]);
}
