//! A host of a test's own, where nobody else has pools, for `cpi prune` and what happens meanwhile.

use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;
use std::process::Output;

use serde_json::{Value, json};

use crate::hosts_daemon::Host;
use crate::operator_command::operator_command;
use crate::rpc_proxy::{At, Fault, RpcProxy};
use crate::sandbox::run;

const CREATING: &str = "https://github.com/libvirt-bosh-cpi/creating/1.0";
pub const HALF: &str = "vm-00000000-0000-4000-8000-0000000bea7e";
pub const KEYS: &str = "libvirt-bosh-cpi-pki-killed";

/// What becomes of a leftover that nothing spares.
pub const GOES: &str = "it goes";

pub struct Bench {
    pub proxy: RpcProxy,
    config: PathBuf,
    pub host: Host,
}

impl Bench {
    pub fn new() -> Self {
        let host = Host::new();
        let proxy = RpcProxy::to(&host.socket(), &host.directory().join("proxy-sock"));
        let config = host.directory().join("cpi.json");
        let socket = json!({"libvirt": {"type": "socket", "socket": proxy.socket}});
        fs::write(&config, socket.to_string()).unwrap();
        Self { proxy, config, host }
    }

    /// A further pool of the kind `dir`, which is no more once it is stopped.
    pub fn passing_pool(&self, name: &str) {
        let directory = self.host.directory().join(name);
        fs::create_dir_all(&directory).unwrap();
        self.host.virsh(&[
            "pool-create-as",
            name,
            "dir",
            "--target",
            directory.to_str().unwrap(),
        ]);
    }

    /// A file system within the host.
    pub fn mount(&self, source: &str, name: &str) -> String {
        let directory = self.host.directory().join(name);
        fs::create_dir(&directory).unwrap();
        let path = directory.to_str().unwrap().to_owned();
        self.host
            .inside(&["mount", "-t", "tmpfs", source, &path])
            .unwrap();
        path
    }

    /// A volume that was written to then.
    pub fn make(&self, pool: &str, name: &str, when: &str) {
        self.host.virsh(&["vol-create-as", pool, name, "1M"]);
        let path = self.host.virsh(&["vol-path", "--pool", pool, name]);
        self.host.inside(&["touch", "-d", when, path.trim()]).unwrap();
    }

    pub fn volumes(&self, pool: &str) -> Vec<String> {
        let listing = self.host.virsh(&["vol-list", pool]);
        let names = listing.lines().filter_map(|line| line.split_whitespace().next());
        names.map(str::to_owned).collect()
    }

    /// A domain that is marked as not complete, with this disk.
    pub fn define_half_vm(&self, disk: &str) {
        let disk = self.host.pool().join(disk).display().to_string();
        let xml = format!(
            "<domain type='qemu'><name>{HALF}</name><uuid>{}</uuid><memory unit='MiB'>16</memory><os><type>hvm</type></os>\
             <metadata><creating:vm xmlns:creating='{CREATING}'/></metadata><devices><disk type='file'>\
             <source file='{disk}'/><target dev='vda' bus='virtio'/></disk></devices></domain>",
            HALF.trim_start_matches("vm-")
        );
        let file = self.host.directory().join("domain.xml");
        fs::write(&file, xml).unwrap();
        self.host.virsh(&["define", file.to_str().unwrap()]);
    }

    /// A domain that does not run, with these files as its disks.
    pub fn define(&self, name: &str, files: &[String]) {
        let disks: Vec<String> = files.iter().map(|file| raw_disk(file)).collect();
        self.define_with(name, &disks);
    }

    /// A domain that does not run, with these `<disk>` elements without target.
    pub fn define_with(&self, name: &str, disks: &[String]) {
        let place = |(number, disk): (usize, &String)| {
            let letter = char::from(b'a' + u8::try_from(number).unwrap());
            disk.replace(
                "</disk>",
                &format!("<target dev='vd{letter}' bus='virtio'/></disk>"),
            )
        };
        let disks: String = disks.iter().enumerate().map(place).collect();
        // The same again, it replaces the definition.
        let uuid = name
            .strip_prefix("vm-")
            .unwrap_or("00000000-0000-4000-8000-00000000e15e");
        let xml = format!(
            "<domain type='qemu'><name>{name}</name><uuid>{uuid}</uuid><memory unit='MiB'>16</memory><os><type>hvm</type></os>\
             <devices>{disks}</devices></domain>"
        );
        let file = self.host.directory().join("domain.xml");
        fs::write(&file, xml).unwrap();
        self.host.virsh(&["define", file.to_str().unwrap()]);
    }

    /// Whether an operator's command was content, its output, and what it said on stderr.
    pub fn says(&self, arguments: &[&str]) -> (bool, String, String) {
        let tmpdir = self.host.directory().join("tmp");
        let output = operator_command(&self.config, &tmpdir, arguments)
            .output()
            .unwrap();
        let text = |bytes| String::from_utf8(bytes).unwrap();
        (output.status.success(), text(output.stdout), text(output.stderr))
    }

    /// A directory of keys that was written to long ago.
    pub fn leave_keys(&self) -> PathBuf {
        let keys = self.host.directory().join("tmp").join(KEYS);
        fs::create_dir(&keys).unwrap();
        run("touch", &["-d", "2 hours ago", keys.to_str().unwrap()]).unwrap();
        keys
    }

    pub fn command(&self, arguments: &[&str]) -> Output {
        let arguments = [&["prune", "--json"], arguments].concat();
        let tmpdir = self.host.directory().join("tmp");
        operator_command(&self.config, &tmpdir, &arguments)
            .output()
            .unwrap()
    }

    /// Whether `cpi prune` was content, and why each leftover stays.
    pub fn prune(&self, arguments: &[&str]) -> (bool, BTreeMap<String, String>) {
        let output = self.command(arguments);
        let log = String::from_utf8_lossy(&output.stderr);
        let report: Value = serde_json::from_slice(&output.stdout).unwrap_or_else(|e| panic!("{e}: {log}"));
        let fate = |leftover: &Value| {
            let name = leftover["name"].as_str().unwrap().to_owned();
            (name, leftover["spared"].as_str().unwrap_or(GOES).to_owned())
        };
        let fates = report.as_array().unwrap().iter().map(fate).collect();
        (output.status.success(), fates)
    }

    /// As `prune`, while this happens once, before libvirtd hears of this message.
    #[track_caller]
    pub fn prune_while(
        &self,
        at: At,
        arguments: &[&str],
        event: impl FnOnce() + Send + 'static,
    ) -> (bool, BTreeMap<String, String>) {
        self.proxy.plan_event(at, Fault::Before, event);
        let pruned = self.prune(arguments);
        let (_, happened) = self.proxy.seen();
        self.proxy.plan(None);
        assert!(happened, "{pruned:?}");
        pruned
    }

    /// Runs virsh within the host, later.
    pub fn virsh_later(&self, arguments: &[&str]) -> impl FnOnce() + Send + 'static {
        let mut command = self.host.enter();
        command.extend(
            ["virsh", "-q"]
                .iter()
                .chain(arguments)
                .map(|&word| word.to_owned()),
        );
        move || {
            let words: Vec<&str> = command.iter().map(String::as_str).collect();
            run(words[0], &words[1..]).unwrap_or_else(|e| panic!("{words:?}: {e}"));
        }
    }
}

pub fn raw_disk(file: &str) -> String {
    format!("<disk type='file'><driver name='qemu' type='raw'/><source file='{file}'/></disk>")
}
