//! A boot disk larger than its stemcell, in a pool of its own.

use serde_json::{Value, json};

use crate::guest::shell;
use crate::sandbox::{Sandbox, run};

/// As an agent grows its root partition; here a second one takes the room.
const GROW: &str = "disk=$(readlink -f /dev/disk/by-id/virtio-boot)
printf 'n\\np\\n2\\n131072\\n\\nw\\n' | fdisk $disk >/dev/null
partprobe $disk; mkfs.ext4 -q -F ${disk}2 && modprobe -a crc32c_generic ext4 && mkdir /mnt/new && mount ${disk}2 /mnt/new &&
echo kept > /mnt/new/file && df -m /mnt/new | awk 'END { print $2 }'; umount /mnt/new";

#[test]
fn a_guest_grows_into_the_room_behind_its_stemcell() {
    let (sandbox, other) = (Sandbox::new(), Sandbox::new());
    let stemcell = sandbox.stemcell();
    let properties =
        json!({"memory": 192, "boot_disk": 200, "ephemeral_disk": 8, "storage_pool": other.name});
    let arguments = json!(["a", stemcell, properties, sandbox.manual_network(10), [], {}]);
    let result = sandbox.call("create_vm", arguments).result();
    let vm = result[0].as_str().unwrap();
    assert_eq!(other.volumes(), [format!("{vm}-boot"), format!("{vm}-ephemeral")]);
    let mut beside = Sandbox::stemcell_volumes(&stemcell).to_vec();
    beside.push(format!("{vm}-config"));
    assert_eq!(sandbox.volumes(), beside);
    let boot = format!("{}/pool/{vm}-boot", other.directory().display());
    let info = run("qemu-img", &["info", "-U", "--output=json", &boot]).unwrap();
    let info: Value = serde_json::from_str(&info).unwrap();
    assert_eq!(info["virtual-size"], 200 << 20);
    let stored = sandbox.directory().join("pool").join(&stemcell);
    assert_eq!(info["backing-filename"], stored.to_str().unwrap());

    sandbox.wait_until_ready(vm, 1);
    let guest = sandbox.address(10);
    let size = shell(&guest, "blockdev --getsize64 /dev/disk/by-id/virtio-boot");
    assert_eq!(size.trim(), (200 << 20).to_string());
    let grown = shell(&guest, GROW);
    let mib: u64 = grown.trim().parse().unwrap_or_else(|_| panic!("{grown}"));
    assert!((100..136).contains(&mib), "{grown}");
    sandbox.call("reboot_vm", json!([vm])).result();
    sandbox.wait_until_ready(vm, 2);
    let mounted = "modprobe -a crc32c_generic ext4; mkdir /mnt/new
        mount $(readlink -f /dev/disk/by-id/virtio-boot)2 /mnt/new && cat /mnt/new/file";
    assert_eq!(shell(&guest, mounted).trim(), "kept");

    sandbox.call("delete_vm", json!([vm])).result();
    assert_eq!(other.volumes(), [""; 0]);
    assert_eq!(sandbox.volumes(), Sandbox::stemcell_volumes(&stemcell));
}
