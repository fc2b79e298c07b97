//! Replies over SSH. Libvirt's client loses sight of those that take more than a packet, and some kill the call when they
//! are found again: see `src/libvirt/reply_wait.rs`.

use std::fs;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::hosts_daemon::{Host, Setup};
use crate::hosts_transports::sshd;
use crate::sandbox::{merge, wait_for};

const VM: &str = "vm-00000000-0000-4000-8000-0000000000c1";
/// Bytes of a VM's XML, about. Packets of SSH, and what libvirt reads at once, end at different places of these.
const SIZES: [usize; 4] = [4_000, 16_000, 19_000, 28_000];

/// A host whose libvirtd sends no keepalive messages, which would find a lost reply, too.
fn host() -> (Host, Value) {
    let host = Host::with(|address, directory| Setup {
        libvirtd: "listen_tls = 0\nauth_tcp = \"none\"\nkeepalive_interval = -1\n".to_owned(),
        commands: sshd(address, directory),
    });
    let read = |name: &str| fs::read_to_string(host.directory().join(name)).unwrap();
    let libvirt = json!({"type": "ssh", "host": host.address, "port": 2222, "username": "root",
        "ssh": {"private_key": read("client_key"), "host_key": read("host_key.pub")}});
    wait_for("sshd", Duration::from_secs(10), || {
        std::net::TcpStream::connect(format!("{}:2222", host.address)).is_ok()
    });
    (host, libvirt)
}

fn define_vm_of(host: &Host, size: usize) {
    let file = host.directory().join("vm.xml");
    let xml = format!(
        "<domain type='qemu'><name>{VM}</name><uuid>{}</uuid><memory>1024</memory><os><type>hvm</type></os>\
         <description>{}</description></domain>",
        &VM["vm-".len()..],
        "x".repeat(size)
    );
    fs::write(&file, xml).unwrap();
    host.virsh(&["define", file.to_str().unwrap()]);
}

#[test]
fn long_replies_come_at_once_and_kill_no_call() {
    let (host, libvirt) = host();
    // We send a keepalive message after a sixth of the timeout. The first is soon enough to find what is lost, the
    // second is not.
    for keepalive in [6, 120] {
        let mut libvirt = libvirt.clone();
        merge(&mut libvirt, json!({"keepalive_timeout": keepalive}));
        for size in SIZES {
            define_vm_of(&host, size);
            let started = Instant::now();
            let answer = host.call(&libvirt, "get_disks", json!([VM]));
            assert_eq!(answer.result(), json!([]));
            let took = started.elapsed();
            assert!(
                took < Duration::from_secs(15),
                "XML of {size} bytes took {took:?}"
            );
        }
    }
}
