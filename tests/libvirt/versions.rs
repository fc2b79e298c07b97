//! The whole contract once, on this machine's libvirt and on those of other Debian releases: `make test-versions`, or
//! CPI_TEST_VERSIONS=trixie,sid. Their root directories are made by scripts/other-libvirt.

use std::fs;
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use serde_json::{Value, json};

use crate::hosts_daemon::{Host, Setup};
use crate::sandbox::{Answer, cache, call_cpi, run, stemcell_image, wait_for};
use crate::tiny_guest::{self, UP};

/// A bridge, and a pool without room.
const SET_UP: &str = r#"
# Libvirt looks for bridges in /sys, among this host's.
mkdir "$directory/cgroup"
mount --rbind /sys/fs/cgroup "$directory/cgroup"
mount -t sysfs sysfs "$root/sys"
mount --rbind "$directory/cgroup" "$root/sys/fs/cgroup"
ip link add br-own type bridge
ip link set br-own up
mkdir "$directory/console" "$directory/full"
mount -t tmpfs -o size=8m,mode=755 tmpfs "$root$directory/full"
"#;

struct Release {
    name: String,
    host: Host,
}

impl Release {
    fn new(name: &str) -> Self {
        let set_up = |_: &str, _: &std::path::Path| Setup {
            libvirtd: "listen_tls = 0\nauth_tcp = \"none\"\n".to_owned(),
            commands: SET_UP.to_owned(),
        };
        let host = if name == OWN {
            Host::with(set_up)
        } else {
            let root = cache().join("roots").join(name);
            assert!(
                root.is_dir(),
                "{} is missing; run `scripts/other-libvirt {name}`",
                root.display()
            );
            Host::of_system(root, set_up)
        };
        let release = Self {
            name: name.to_owned(),
            host,
        };
        release.pool("full");
        release
    }

    fn pool(&self, name: &str) {
        let target = self.host.directory().join(name);
        let target = target.to_str().unwrap();
        self.host
            .virsh(&["pool-define-as", name, "dir", "--target", target]);
        self.host.virsh(&["pool-start", name]);
    }

    fn config(&self, settings: Value) -> PathBuf {
        let path = self.host.directory().join("cpi.json");
        let mut all =
            json!({"domain_type": "qemu", "console_log_dir": self.host.directory().join("console")});
        crate::sandbox::merge(&mut all, settings);
        let config = json!({"log_level": "DEBUG", "settings": all,
            "libvirt": {"type": "socket", "socket": self.host.socket()}});
        fs::write(&path, config.to_string()).unwrap();
        path
    }

    fn call_with(&self, settings: Value, method: &str, arguments: Value) -> Answer {
        let request = json!({"method": method, "arguments": arguments, "api_version": 2});
        let tmp = self.host.directory().join("tmp");
        call_cpi(&self.config(settings), &tmp, &request.to_string())
    }

    fn call(&self, method: &str, arguments: Value) -> Answer {
        self.call_with(json!({}), method, arguments)
    }

    /// What `cpi check` finds, by the name of the check.
    fn check(&self) -> Vec<(String, String, String)> {
        let output = Command::new(env!("CARGO_BIN_EXE_cpi"))
            .arg("--config")
            .arg(self.config(json!({})))
            .args(["check", "--json"])
            .output()
            .unwrap();
        let report: Value = serde_json::from_slice(&output.stdout).unwrap();
        let text = |finding: &Value, key: &str| finding[key].as_str().unwrap().to_owned();
        report["checks"]
            .as_array()
            .unwrap()
            .iter()
            .map(|finding| {
                (
                    text(finding, "check"),
                    text(finding, "state"),
                    text(finding, "says"),
                )
            })
            .collect()
    }

    fn console(&self, vm: &str) -> String {
        let path = self.host.directory().join("console").join(format!("{vm}.log"));
        String::from_utf8_lossy(&fs::read(path).unwrap_or_default()).into_owned()
    }

    #[track_caller]
    fn wait_for_console(&self, vm: &str, text: &str, times: usize) {
        wait_for(
            &format!("{text} on {}, {times} times", self.name),
            // EFI takes its time where it is emulated on a busy machine.
            Duration::from_secs(900),
            || self.console(vm).matches(text).count() >= times,
        );
    }

    fn vm(&self, arguments: Value) -> String {
        self.call("create_vm", arguments).result()[0]
            .as_str()
            .unwrap()
            .to_owned()
    }

    /// Whether this libvirt copies disks in use.
    fn has_live_snapshots(&self) -> bool {
        self.name != "bullseye"
    }
}

/// This machine's own libvirt.
const OWN: &str = "own";

fn releases() -> Vec<String> {
    let wanted = std::env::var("CPI_TEST_VERSIONS").unwrap_or_else(|_| OWN.to_owned());
    wanted.split(',').map(str::to_owned).collect()
}

/// Networks argument: one NIC with these cloud properties.
fn nic(cloud_properties: Value) -> Value {
    json!({"default": {"type": "dynamic", "default": ["dns", "gateway"], "cloud_properties": cloud_properties}})
}

#[test]
fn the_contract_once_on_each_libvirt() {
    for name in releases() {
        let release = Release::new(&name);
        let found = release.check();
        for (check, state, says) in &found {
            eprintln!("{name}: {state} {check}: {says}");
        }
        let of = |check: &str| found.iter().find(|(name, ..)| name == check).unwrap();
        assert_eq!((of("connection").1.as_str(), of("QEMU").1.as_str()), ("ok", "ok"));
        let versions = of("versions");
        assert_eq!(versions.1 == "ok", release.has_live_snapshots(), "{versions:?}");
        let clean = release.host.state();
        vms_and_disks(&release);
        snapshots_of_disks_in_use(&release);
        networks(&release);
        uploads_that_do_not_fit(&release);
        uefi(&release);
        assert_eq!(release.host.state(), clean, "{name}");
        eprintln!("{name}: all of it works");
    }
}

fn tiny_stemcell(release: &Release) -> Value {
    let image = tiny_guest::image(release.host.directory());
    release.call("create_stemcell", json!([image, {}])).result()
}

fn vms_and_disks(release: &Release) {
    release.call("info", json!([])).result();
    let stemcell = tiny_stemcell(release);
    let vm = release.vm(tiny_guest::vm_arguments(&stemcell, nic(json!({}))));
    assert_eq!(release.call("has_vm", json!([vm])).result(), true);
    release.wait_for_console(&vm, UP, 1);
    for properties in [json!({}), json!({"format": "qcow2"})] {
        let disk = release.call("create_disk", json!([8, properties, vm])).text();
        assert_eq!(release.call("has_disk", json!([disk])).result(), true);
        let hint = release.call("attach_disk", json!([vm, disk])).result();
        assert_eq!(hint, format!("/dev/disk/by-id/virtio-{disk}"));
        assert_eq!(release.call("get_disks", json!([vm])).result(), json!([disk]));
        release
            .call("set_disk_metadata", json!([disk, {"deployment": "d"}]))
            .result();
        release.call("detach_disk", json!([vm, disk])).result();
        assert_eq!(release.call("get_disks", json!([vm])).result(), json!([]));
        release.call("resize_disk", json!([disk, 16])).result();
        let info = release.host.virsh(&["vol-info", "--pool", "default", &disk]);
        assert!(info.contains("16.00 MiB"), "{info}");
        let snapshot = release.call("snapshot_disk", json!([disk, {}])).text();
        release.call("delete_snapshot", json!([snapshot])).result();
        release.call("delete_disk", json!([disk])).result();
    }
    release
        .call("set_vm_metadata", json!([vm, {"name": "db/0"}]))
        .result();
    assert_eq!(release.host.virsh(&["desc", "--title", &vm]).trim(), "db/0");
    release.call("reboot_vm", json!([vm])).result();
    release.wait_for_console(&vm, UP, 2);
    // As after a reboot of the host.
    release.host.virsh(&["managedsave", &vm]);
    release.host.virsh(&["pool-destroy", "default"]);
    release.call("reboot_vm", json!([vm])).result();
    release.wait_for_console(&vm, UP, 3);
    release.call("delete_vm", json!([vm])).result();
    assert_eq!(release.call("has_vm", json!([vm])).result(), false);
    release.call("delete_stemcell", json!([stemcell])).result();
}

fn snapshots_of_disks_in_use(release: &Release) {
    let stemcell = tiny_stemcell(release);
    let vm = release.vm(tiny_guest::vm_arguments(&stemcell, nic(json!({}))));
    release.wait_for_console(&vm, UP, 1);
    let disk = release.call("create_disk", json!([8, {}, vm])).text();
    release.call("attach_disk", json!([vm, disk])).result();
    let files = release.host.files();
    let answer = release.call("snapshot_disk", json!([disk, {}]));
    if release.has_live_snapshots() {
        let snapshot = answer.text();
        release.call("delete_snapshot", json!([snapshot])).result();
    } else {
        let message = answer.error("NotSupported", false);
        assert!(
            message.contains("libvirt 7.6") && message.contains("QEMU 6.1"),
            "{message}"
        );
    }
    assert_eq!(release.host.files(), files);
    release.call("delete_vm", json!([vm])).result();
    release.call("delete_disk", json!([disk])).result();
    release.call("delete_stemcell", json!([stemcell])).result();
}

fn networks(release: &Release) {
    let stemcell = tiny_stemcell(release);
    for bridged in [json!({"bridge": "br-own"}), json!({"name": "default"})] {
        let vm = release.vm(tiny_guest::vm_arguments(&stemcell, nic(bridged)));
        release.call("delete_vm", json!([vm])).result();
    }
    let arguments = tiny_guest::vm_arguments(&stemcell, nic(json!({"bridge": "br-none"})));
    let message = release
        .call("create_vm", arguments)
        .error("VMCreationFailed", false);
    assert!(message.contains("br-none"), "{message}");
    let made = release
        .call(
            "create_network",
            json!([{"type": "manual", "range": "10.133.1.0/28", "gateway": "10.133.1.1",
                "cloud_properties": {"mode": "nat", "dhcp": true}}]),
        )
        .result();
    let vm = release.vm(tiny_guest::vm_arguments(&stemcell, nic(made[2].clone())));
    release.call("delete_vm", json!([vm])).result();
    release.call("delete_network", json!([made[0]])).result();
    release.call("delete_stemcell", json!([stemcell])).result();
}

/// libvirtd 11.3 crashes when an upload finds no room.
fn uploads_that_do_not_fit(release: &Release) {
    let libvirtd = release.host.process("libvirtd");
    let directory = release.host.directory();
    // Of one kind: how much it takes shows on the way only.
    fs::write(directory.join("root.img"), vec![b'x'; 24 << 20]).unwrap();
    let image = directory.join("large");
    let (image, directory) = (image.to_str().unwrap(), directory.to_str().unwrap());
    run("tar", &["-czf", image, "-C", directory, "root.img"]).unwrap();
    for image in [image, &stemcell_image("qcow2")] {
        let message = release
            .call_with(
                json!({"stemcell_pool_name": "full"}),
                "create_stemcell",
                json!([image, {}]),
            )
            .error("NoDiskSpace", false);
        assert!(message.contains("free in pool full"), "{message}");
        let left = release.host.virsh(&["vol-list", "full"]);
        assert_eq!(left.trim(), "");
    }
    assert_eq!(release.host.process("libvirtd"), libvirtd, "libvirtd has crashed");
}

fn uefi(release: &Release) {
    let image = stemcell_image("qcow2");
    let stemcell = release
        .call("create_stemcell", json!([image, {"disk": 1024}]))
        .result();
    let properties = json!({"memory": 256, "firmware": "efi"});
    let arguments = json!(["a", stemcell, properties, nic(json!({})), [], {}]);
    let vm = release.vm(arguments.clone());
    release.wait_for_console(&vm, "GUEST: booted", 1);
    release.call("delete_vm", json!([vm])).result();

    for directory in ["/usr/share/qemu/firmware", "/usr/share/OVMF"] {
        release
            .host
            .inside(&["mount", "-t", "tmpfs", "tmpfs", directory])
            .unwrap();
    }
    let message = release
        .call("create_vm", arguments)
        .error("VMCreationFailed", false);
    assert!(message.contains("package ovmf or edk2-ovmf"), "{message}");
    release.call("delete_stemcell", json!([stemcell])).result();
}
