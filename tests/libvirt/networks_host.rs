//! What tests of networks need of the host beside the sandbox: libvirt networks of their own, and a machine that is
//! none of libvirt's.

use std::fs;

use crate::sandbox::{Sandbox, run, try_virsh, virsh};

/// A permanent libvirt network in 10.132.0.0/16 and fd00:132::/32, gone when it is dropped. It leads nowhere.
pub struct OwnNetwork {
    pub name: String,
    subnet: u8,
}

impl OwnNetwork {
    /// `ips` writes the network's `<ip>` elements. A sandbox has at most one network of each tag.
    #[track_caller]
    pub fn new(sandbox: &Sandbox, tag: &str, ips: impl Fn(&Self) -> String) -> Self {
        let network = Self {
            name: format!("{}-{tag}", sandbox.name),
            subnet: sandbox.subnet(),
        };
        let xml = format!(
            "<network><name>{}</name><bridge name='cpi{tag}{}' stp='off' delay='0'/><dns enable='no'/>{}</network>",
            network.name,
            network.subnet,
            ips(&network)
        );
        let file = sandbox.directory().join(format!("network-{tag}.xml"));
        fs::write(&file, xml).unwrap();
        virsh(&["net-define", file.to_str().unwrap()]);
        virsh(&["net-start", &network.name]);
        network
    }

    pub fn v4(&self, host: u8) -> String {
        format!("10.132.{}.{host}", self.subnet)
    }

    pub fn v6(&self, host: u16) -> String {
        format!("fd00:132:{:x}::{host:x}", self.subnet)
    }

    /// The running network and what is started next time, byte for byte.
    pub fn xml(&self) -> (String, String) {
        (
            virsh(&["net-dumpxml", &self.name]),
            virsh(&["net-dumpxml", &self.name, "--inactive"]),
        )
    }

    /// The DHCP host entries of the running network and of what is started next time.
    pub fn dhcp_hosts(&self) -> [String; 2] {
        let hosts = |xml: String| {
            let lines: Vec<&str> = xml.lines().filter(|line| line.contains("<host")).collect();
            lines.join("\n")
        };
        let (live, persistent) = self.xml();
        [hosts(live), hosts(persistent)]
    }
}

impl Drop for OwnNetwork {
    fn drop(&mut self) {
        for command in ["net-destroy", "net-undefine"] {
            let _ = try_virsh(&[command, &self.name]);
        }
    }
}

/// A network namespace at the end of a veth pair: another machine, as far as guests can tell.
pub struct Namespace {
    name: String,
    /// The end of the pair that is the host's.
    pub outer: String,
}

impl Namespace {
    /// With an address, the machine is plugged into the sandbox's network.
    #[track_caller]
    pub fn new(sandbox: &Sandbox, address: Option<&str>) -> Self {
        let namespace = Self {
            name: sandbox.name.clone(),
            outer: format!("cpiv{}", sandbox.subnet()),
        };
        let (name, outer) = (namespace.name.as_str(), namespace.outer.as_str());
        let ip =
            |arguments: &[&str]| run("ip", arguments).unwrap_or_else(|e| panic!("ip {arguments:?}: {e}"));
        ip(&["netns", "add", name]);
        ip(&[
            "link", "add", outer, "type", "veth", "peer", "name", "eth0", "netns", name,
        ]);
        ip(&["link", "set", outer, "up"]);
        if let Some(address) = address {
            ip(&["link", "set", outer, "master", &sandbox.bridge()]);
            ip(&["-n", name, "link", "set", "eth0", "up"]);
            ip(&["-n", name, "addr", "add", &format!("{address}/24"), "dev", "eth0"]);
            ip(&["-n", name, "route", "add", "default", "via", &sandbox.address(1)]);
        }
        namespace
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        let _ = run("ip", &["link", "del", &self.outer]);
        let _ = run("ip", &["netns", "del", &self.name]);
    }
}
