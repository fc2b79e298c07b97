//! What VM cloud properties do that only a guest or the host's memory can tell.

use std::fs;

use serde_json::{Value, json};

use crate::guest::shell;
use crate::hosts_daemon::{Host, Setup, stemcell_arguments};
use crate::sandbox::{Sandbox, run};

/// As an agent grows its root partition; here a second one takes the room: a Linux partition (0x83) of 278,528 sectors
/// from sector 131,072 on, written into the table, since prompts of fdisk differ between versions.
const GROW: &str = "disk=$(readlink -f /dev/disk/by-id/virtio-boot)
printf '\\0\\0\\0\\0\\203\\0\\0\\0\\0\\0\\2\\0\\0\\100\\4\\0' | dd of=$disk bs=1 seek=462 conv=notrunc 2>/dev/null
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

/// So many more huge pages of 2 MiB for the machine, which are gone when it is dropped.
struct HugePages {
    before: u64,
}

impl HugePages {
    const COUNT: &str = "/sys/kernel/mm/hugepages/hugepages-2048kB/nr_hugepages";

    fn more(count: u64) -> Self {
        let number = || {
            fs::read_to_string(Self::COUNT)
                .unwrap()
                .trim()
                .parse::<u64>()
                .unwrap()
        };
        let before = number();
        fs::write(Self::COUNT, (before + count).to_string()).unwrap();
        assert_eq!(number(), before + count, "the kernel has no memory in one piece");
        Self { before }
    }
}

impl Drop for HugePages {
    fn drop(&mut self) {
        let _ = fs::write(Self::COUNT, self.before.to_string());
    }
}

#[test]
fn memory_is_in_huge_pages() {
    let _pages = HugePages::more(40);
    let host = Host::with(|_, _| Setup {
        libvirtd: "listen_tls = 0\nauth_tcp = \"none\"\n".to_owned(),
        commands: "mkdir /run/hugepages; mount -t hugetlbfs -o pagesize=2M hugetlbfs /run/hugepages\n"
            .to_owned(),
    });
    let libvirt = host.libvirt();
    let stemcell = host
        .call(&libvirt, "create_stemcell", stemcell_arguments())
        .text();
    for (hugepages, expected_kib) in [(json!(true), 65536), (json!(2), 65536), (json!(false), 0)] {
        let properties = json!({"memory": 64, "hugepages": hugepages});
        let arguments = json!(["a", stemcell, properties, {}, [], {}]);
        let vm = host.call(&libvirt, "create_vm", arguments).result()[0].clone();
        let memory = format!("/proc/{}/smaps_rollup", host.process("qemu-system-x86"));
        let memory = fs::read_to_string(memory).unwrap();
        let kib: u64 = memory
            .lines()
            .filter(|line| line.contains("_Hugetlb:"))
            .map(|line| line.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap())
            .sum();
        assert_eq!(kib, expected_kib, "{hugepages}: {memory}");
        host.call(&libvirt, "delete_vm", json!([vm])).result();
    }
}
