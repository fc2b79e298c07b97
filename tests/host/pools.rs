//! Pools of every kind that a Debian host has from its own packages, in every place that operators put them.

use serde_json::json;

use crate::contract::{assert_clean, with_a_disk};
use crate::cpi::Cpi;
use crate::host::Host;

/// Makes a volume group of a file, and a pool of it.
const LOGICAL: &str = "truncate -s 256M /var/lib/lvm.img
device=$(losetup --find --show /var/lib/lvm.img)
vgcreate -q bosh-group $device
virsh -q pool-define-as blocks logical --source-name bosh-group --target /dev/bosh-group
virsh -q pool-start blocks";

/// Exports a directory by NFS, and makes a pool that mounts it.
const NFS: &str = "mkdir -p /srv/exported
chown libvirt-qemu /srv/exported
echo '/srv/exported 127.0.0.1(rw,no_root_squash)' >/etc/exports
systemctl -q restart nfs-server
virsh -q pool-define-as nfs netfs --source-host 127.0.0.1 --source-path /srv/exported --target /var/lib/libvirt/nfs
virsh -q pool-build nfs
virsh -q pool-start nfs";

/// A directory that operators reach by another name.
const LINKED: &str = "mkdir -p /data/images
ln -sfn /data/images /var/lib/libvirt/linked
virsh -q pool-define-as linked dir --target /var/lib/libvirt/linked
virsh -q pool-start linked";

pub fn in_directories(host: &Host) {
    let directory = |name: &str, path: &str| {
        host.run(&format!(
            "virsh -q pool-define-as {name} dir --target {path}; virsh -q pool-build {name}; virsh -q pool-start {name}"
        ));
    };
    directory("default", "/var/lib/libvirt/images");
    directory("srv", "/srv/bosh");
    host.run(LINKED);
    for pool in ["default", "srv", "linked"] {
        everything_in(host, pool);
    }
}

pub fn on_nfs(host: &Host) {
    host.run(NFS);
    everything_in(host, "nfs");
}

/// A VM with all that it has in this pool.
fn everything_in(host: &Host, pool: &str) {
    println!("{}: pool {pool}", host.release);
    let cpi = Cpi::over(host, "tls").with_pool(pool);
    let stemcell = cpi.stemcell();
    let vm = cpi.vm(&stemcell, 20, json!({}));
    with_a_disk(&cpi, &vm, json!({}));
    cpi.call("delete_vm", json!([vm])).result();
    cpi.call("delete_stemcell", json!([stemcell])).result();
    assert_clean(host, pool);
}

pub fn on_lvm(host: &Host) {
    host.run(LOGICAL);
    let cpi = Cpi::over(host, "tls");
    let stemcell = cpi.stemcell();
    let vm = cpi.vm(&stemcell, 20, json!({"storage_pool": "blocks"}));
    assert!(host.run("lvs --noheadings -o lv_name bosh-group").contains(&vm));
    with_a_disk(&cpi, &vm, json!({"storage_pool": "blocks"}));
    cpi.call("delete_vm", json!([vm])).result();
    cpi.call("delete_stemcell", json!([stemcell])).result();
    assert_clean(host, "blocks");
    assert_eq!(host.run("lvs --noheadings -o lv_name bosh-group").trim(), "");
}

/// A NIC in a VLAN: on a bridge that the host has for it, and where libvirt can, on one that knows VLANs.
pub fn vlans(host: &Host) {
    host.run(
        "ip link add link eth0 name eth0.5 type vlan id 5
ip link add vlan5 type bridge
ip link set eth0.5 master vlan5
ip link set eth0.5 up
ip link set vlan5 up
ip link add trunk type bridge vlan_filtering 1
ip link set trunk up",
    );
    let cpi = Cpi::over(host, "tls");
    let stemcell = cpi.stemcell();
    let on = |network: serde_json::Value| cpi.vm_at(&stemcell, "10.145.0.10", network, json!({}));
    let delete = |answer: crate::sandbox::Answer| {
        let vm = answer.result()[0].as_str().unwrap().to_owned();
        cpi.call("delete_vm", json!([vm])).result();
    };
    let vm = on(json!({"bridge": "vlan5"}));
    assert!(host.run("ip -o link show master vlan5").contains("vnet"));
    delete(vm);

    let vm = on(json!({"bridge": "trunk", "vlan": 42, "openvswitch": false}));
    if host.release == "bookworm" {
        let message = vm.error("VMCreationFailed", false);
        println!("{}: {message}", host.release);
    } else {
        let vlans = host.run("bridge vlan show");
        assert!(
            vlans
                .lines()
                .any(|line| line.contains("vnet") && line.contains("42")),
            "{vlans}"
        );
        delete(vm);
    }
    cpi.call("delete_stemcell", json!([stemcell])).result();
    host.run("ip link del vlan5; ip link del eth0.5; ip link del trunk");
}
