//! A host with a libvirt pool of type `logical`, on machines without a device mapper, as most test machines are. Libvirtd,
//! QEMU and the CPI are real, and so are the block devices that they have to do with. Only LVM's commands, which libvirtd
//! runs for such a pool, are stand-ins (`lvm_stand_in.sh`): they answer in LVM's format and keep logical volumes as files
//! behind loop devices.
//!
//! The commands and a /dev of its own are in the host's mount namespace only. A loop device is held by a process of the
//! host, and detaches itself when that ends: with the host, also when a test panics or is killed.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use crate::hosts_daemon::{Host, Setup};
use crate::sandbox::{Answer, merge, run};

/// The volume group, whose volumes are at `/dev/bosh/<volume>` within the host.
const GROUP: &str = "bosh";

/// Extents of 4 MiB in the volume group.
pub const EXTENTS: u64 = 64;

/// The libvirt pool of the volume group.
pub const POOL: &str = "blocks";

/// All that libvirtd calls.
const COMMANDS: [&str; 8] = [
    "lvchange", "lvcreate", "lvremove", "lvs", "pvs", "vgchange", "vgs", "vgscan",
];

/// Its own /dev has all that QEMU needs, and nodes for loop devices, whatever their number will be.
const DEVICES: &str = r#"
mount -t overlay overlay -o "lowerdir=$directory/lvm/commands:/usr/sbin" /usr/sbin
mkdir "$directory/dev"
mount -t tmpfs -o mode=755 dev "$directory/dev"
for node in full kvm loop-control net null ptmx random tty urandom zero; do
  [ ! -e /dev/$node ] || cp -a /dev/$node "$directory/dev/"
done
for number in {0..127}; do
  mknod -m 600 "$directory/dev/loop$number" b 7 "$number"
done
ln -s /proc/self/fd "$directory/dev/fd"
mkdir "$directory/dev/pts" "$directory/dev/shm"
mount --move /dev/pts "$directory/dev/pts"
mount -t tmpfs -o mode=1777 shm "$directory/dev/shm"
# Libvirt moves what is mounted below /dev into each VM's, and must not find anything there twice.
umount --lazy --recursive /dev || true
mount --move "$directory/dev" /dev
"#;

pub struct LvmHost {
    pub host: Host,
}

impl LvmHost {
    pub fn new() -> Self {
        let host = Host::with(|_, directory| {
            put_commands(&directory.join("lvm"));
            Setup {
                libvirtd: "listen_tls = 0\nauth_tcp = \"none\"\n".to_owned(),
                commands: DEVICES.to_owned(),
            }
        });
        let target = format!("/dev/{GROUP}");
        host.virsh(&[
            "pool-define-as",
            POOL,
            "logical",
            "--source-name",
            GROUP,
            "--target",
            &target,
        ]);
        host.virsh(&["pool-start", POOL]);
        Self { host }
    }

    /// The block device of a volume, as the host sees it.
    pub fn device(volume: &str) -> String {
        format!("/dev/{GROUP}/{volume}")
    }

    /// Names of the logical volumes, libvirt's idea aside.
    pub fn volumes(&self) -> Vec<String> {
        names_in(&self.store().join("volumes"))
    }

    /// The blocks that a volume had, as they are since it was deleted.
    pub fn freed(&self, volume: &str) -> Vec<u8> {
        fs::read(self.store().join("freed").join(volume)).unwrap()
    }

    /// Runs shell commands within the host.
    #[track_caller]
    pub fn shell(&self, commands: &str) -> String {
        self.host
            .inside(&["bash", "-ec", commands])
            .unwrap_or_else(|message| panic!("{commands}: {message}"))
    }

    /// Calls the CPI of a host whose stemcells are in the pool `default`, with these settings.
    pub fn call_with(&self, settings: Value, method: &str, arguments: Value) -> Answer {
        let mut context = json!({"settings": {"console_log_dir": self.host.directory().join("log")}});
        merge(&mut context, json!({ "settings": settings }));
        self.host
            .call_with(&self.host.libvirt(), &context, method, arguments)
    }

    pub fn call(&self, method: &str, arguments: Value) -> Answer {
        self.call_with(json!({}), method, arguments)
    }

    /// The JSON that an operator's command prints, with everything that it was asked for done.
    #[track_caller]
    pub fn operator(&self, arguments: &[&str]) -> Value {
        let config = self.host.directory().join("operator.json");
        fs::write(&config, json!({"libvirt": self.host.libvirt()}).to_string()).unwrap();
        let config = ["--config", config.to_str().unwrap()];
        let printed = run(
            env!("CARGO_BIN_EXE_cpi"),
            &[&config, arguments, &["--json"]].concat(),
        );
        serde_json::from_str(&printed.unwrap()).unwrap()
    }

    fn store(&self) -> PathBuf {
        self.host.directory().join("lvm")
    }
}

/// LVM's commands, and where they keep volumes.
fn put_commands(store: &Path) {
    for name in ["commands", "volumes", "holders", "freed"] {
        fs::create_dir_all(store.join(name)).unwrap();
    }
    let script = include_str!("lvm_stand_in.sh")
        .replace("@GROUP@", GROUP)
        .replace("@STORE@", store.to_str().unwrap())
        .replace("@EXTENTS@", &EXTENTS.to_string());
    for command in COMMANDS {
        let path = store.join("commands").join(command);
        fs::write(&path, &script).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
    }
}

fn names_in(directory: &Path) -> Vec<String> {
    let mut names: Vec<String> = fs::read_dir(directory)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    names
}
