//! A host with a Ceph of one node of its own, and a libvirt pool `ceph` on that.

use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use serde_json::{Value, json};

use crate::guest::BOOT_LIMIT;
use crate::hosts_daemon::{Host, Setup};
use crate::sandbox::{Answer, run, wait_for};

/// Ceph's pool, which libvirt's pool `ceph` is.
pub const CEPH_POOL: &str = "bosh-disks";

/// Seconds that libvirt and QEMU wait for a Ceph that says nothing. QEMU's come from the host's `/etc/ceph/ceph.conf`.
pub const PATIENCE: u64 = 4;

pub struct CephHost {
    pub host: Host,
}

/// The process of a Ceph's monitor.
pub struct Monitor {
    /// How to get into its host's namespaces, where it has this id.
    enter: Vec<String>,
    pid: String,
}

impl Monitor {
    /// Sends it a signal: `STOP`, `CONT`.
    pub fn signal(&self, signal: &str) {
        let signal = format!("-{signal}");
        let mut command: Vec<&str> = self.enter.iter().map(String::as_str).collect();
        command.extend(["kill", &signal, &self.pid]);
        run(command[0], &command[1..]).unwrap();
    }
}

impl CephHost {
    pub fn new() -> Self {
        let script = concat!(env!("CARGO_MANIFEST_DIR"), "/scripts/ceph");
        for program in ["ceph-mon", "ceph-osd", "ceph-mgr"] {
            assert!(
                run("which", &[program]).is_ok(),
                "{program} is not installed; run `scripts/setup ceph`"
            );
        }
        let host = Host::with(|_, directory| Setup {
            libvirtd: "listen_tls = 0\nauth_tcp = \"none\"\n".to_owned(),
            // Both start at once; Ceph ends with the host.
            commands: format!(
                "mkdir {0}/etc-ceph; printf '[client]\nclient_mount_timeout = {PATIENCE}\n' >{0}/etc-ceph/ceph.conf\n\
                 mount --bind {0}/etc-ceph /etc/ceph\n\
                 sleep infinity | {script} {0}/ceph >{0}/ceph.out 2>&1 &\n",
                directory.display()
            ),
        });
        let ceph = Self { host };
        ceph.wait_until_ready();
        ceph.run("ceph", &["osd", "pool", "create", CEPH_POOL, "8"]);
        ceph.run("rbd", &["pool", "init", CEPH_POOL]);
        ceph.define_pool();
        ceph
    }

    fn wait_until_ready(&self) {
        let output = self.host.directory().join("ceph.out");
        wait_for("Ceph", Duration::from_secs(120), || {
            let said = fs::read_to_string(&output).unwrap_or_default();
            assert!(said.is_empty() || said.contains("ready"), "{said}");
            said.contains("ready")
        });
    }

    /// As an operator would: a secret with the key, and a pool that refers to it.
    fn define_pool(&self) {
        let secret = "6f6a1c1e-5a9a-4f0b-9d0e-3f9d1f4b6f11";
        let key = self.run("ceph", &["auth", "get-key", "client.admin"]);
        let monitor = fs::read_to_string(self.host.directory().join("ceph/monitor")).unwrap();
        let (address, port) = monitor.trim().split_once(':').unwrap();
        let secret_file = self.file(
            "secret.xml",
            &format!(
                "<secret ephemeral='no' private='yes'><uuid>{secret}</uuid>\
                 <usage type='ceph'><name>client.admin</name></usage></secret>"
            ),
        );
        self.host.virsh(&["secret-define", &secret_file]);
        let key_file = self.file("key", &key);
        self.host
            .virsh(&["secret-set-value", secret, "--file", &key_file]);
        // What a Ceph that is full, or says nothing, lets libvirt wait for is 30 s otherwise.
        let pool = format!(
            "<pool type='rbd' xmlns:rbd='http://libvirt.org/schemas/storagepool/rbd/1.0'><name>ceph</name>\
             <source><host name='{address}' port='{port}'/><name>{CEPH_POOL}</name>\
             <auth type='ceph' username='admin'><secret uuid='{secret}'/></auth></source>\
             <rbd:config_opts><rbd:option name='rados_osd_op_timeout' value='{PATIENCE}'/>\
             <rbd:option name='client_mount_timeout' value='{PATIENCE}'/></rbd:config_opts></pool>"
        );
        let pool_file = self.file("ceph.xml", &pool);
        self.host.virsh(&["pool-define", &pool_file]);
        self.host.virsh(&["pool-start", "ceph"]);
    }

    /// A file for virsh, which runs within the host's namespaces and sees this directory.
    fn file(&self, name: &str, content: &str) -> String {
        let path: PathBuf = self.host.directory().join(name);
        fs::write(&path, content).unwrap();
        path.to_str().unwrap().to_owned()
    }

    /// Runs one of Ceph's commands within the host.
    #[track_caller]
    pub fn run(&self, program: &str, arguments: &[&str]) -> String {
        let conf = format!("CEPH_CONF={}/ceph/ceph.conf", self.host.directory().display());
        let command = [&["env", &conf, "timeout", "60", program], arguments].concat();
        self.host
            .inside(&command)
            .unwrap_or_else(|message| panic!("{program} {arguments:?}: {message}"))
    }

    /// Its monitor, to be stopped.
    pub fn monitor(&self) -> Monitor {
        let pid = self.host.inside(&["pidof", "ceph-mon"]).expect("a monitor");
        Monitor {
            enter: self.host.enter(),
            pid: pid.trim().to_owned(),
        }
    }

    /// Images in Ceph.
    pub fn images(&self) -> Vec<String> {
        let listing = self.run("rbd", &["ls", CEPH_POOL]);
        listing.lines().map(str::to_owned).collect()
    }

    /// A network that guests can be reached in, from within the host.
    pub fn define_network(&self) {
        let network = self.file(
            "guests.xml",
            "<network><name>guests</name><bridge name='guests' stp='off' delay='0'/>\
             <ip address='10.77.0.1' netmask='255.255.255.0'/></network>",
        );
        self.host.virsh(&["net-create", &network]);
    }

    /// The `networks` argument for a VM with address 10.77.0.10.
    pub fn network() -> Value {
        json!({"default": {"type": "manual", "ip": "10.77.0.10", "netmask": "255.255.255.0", "prefix": "24",
            "gateway": "10.77.0.1", "dns": [], "default": ["dns", "gateway"], "cloud_properties": {"name": "guests"}}})
    }

    /// Runs shell commands in that VM and returns what they print.
    #[track_caller]
    pub fn shell(&self, commands: &str) -> String {
        let ask = "printf '%s\\n' \"$1\" | timeout 60 socat -t 60 - TCP:10.77.0.10:7000";
        self.host
            .inside(&["sh", "-c", ask, "ask", commands])
            .unwrap_or_else(|message| panic!("{commands}: {message}"))
    }

    /// Waits until a guest has said this on its console.
    #[track_caller]
    pub fn wait_for_console(&self, vm: &str, text: &str) {
        let console = self.host.directory().join("log").join(format!("{vm}.log"));
        wait_for(&format!("{text:?} on the console of {vm}"), BOOT_LIMIT, || {
            String::from_utf8_lossy(&fs::read(&console).unwrap_or_default()).contains(text)
        });
    }

    /// Calls the CPI of a host whose stemcells are in `default` and whose disks are where they say.
    pub fn call(&self, method: &str, arguments: Value) -> Answer {
        let settings = json!({"settings": {"console_log_dir": self.host.directory().join("log")}});
        self.host
            .call_with(&self.host.libvirt(), &settings, method, arguments)
    }
}
