//! The CPI as it is called: by a Director that reaches the host by network, or on the host.

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use serde_json::{Value, json};

use crate::host::{Host, output};
use crate::install;
use crate::sandbox::{Answer, merge};
use crate::tiny_guest;

/// Where the CPI and a stemcell are on the host.
const WITHIN: &str = "/opt/cpi";

/// Where the host logs consoles.
pub const CONSOLES: &str = "/var/log/libvirt/consoles";

/// How a CPI reaches the host's libvirt.
pub struct Cpi<'a> {
    pub host: &'a Host,
    over: &'static str,
    /// What the cpi-config of a Director would have for this host.
    context: Value,
    /// The path of the tiny guest's `image`, where this CPI runs.
    pub image: String,
}

/// Puts the CPI, and a stemcell for it, where both kinds of caller find them.
pub fn install(host: &Host, bundle: &Path) {
    host.copy(bundle, WITHIN);
    host.run(&format!("mkdir -p {CONSOLES}"));
    let image = PathBuf::from(tiny_guest::image_of(host.directory(), &crate::guest::OBEDIENT));
    host.copy(&image, WITHIN);
}

fn bundle(host: &Host) -> PathBuf {
    host.directory().join("checkout/src/cpi_bundle/bin/cpi")
}

impl<'a> Cpi<'a> {
    /// One that reaches the host over `tls`, `ssh` or, on the host itself, `socket`.
    pub fn over(host: &'a Host, over: &'static str) -> Self {
        let context = json!({"director_uuid": "d", "request_id": "cpi-1", "settings": {"storage_pool_name": "bosh",
            "network_name": "bosh", "console_log_dir": CONSOLES}});
        let image = if over == "socket" {
            format!("{WITHIN}/image")
        } else {
            host.directory().join("tiny/image").to_str().unwrap().to_owned()
        };
        let cpi = Self {
            host,
            over,
            context,
            image,
        };
        let config = json!({"log_level": "DEBUG", "libvirt": install::libvirt(host, over)}).to_string();
        fs::write(cpi.config(), &config).unwrap();
        if over == "socket" {
            host.copy(&cpi.config(), WITHIN);
        }
        cpi
    }

    /// The same with its own pool.
    pub fn with_pool(mut self, pool: &str) -> Self {
        merge(
            &mut self.context,
            json!({"settings": {"storage_pool_name": pool}}),
        );
        self
    }

    fn config(&self) -> PathBuf {
        self.host.directory().join(format!("{}.json", self.over))
    }

    /// What a Director gives its CPIs and nothing else; the arguments of `cpi` follow.
    fn command(&self) -> Command {
        let environment = [
            "env",
            "-i",
            "PATH=/usr/sbin:/usr/bin:/sbin:/bin",
            "TMPDIR=/tmp",
            "HOME=/root",
        ];
        let mut words: Vec<String> = environment.map(str::to_owned).to_vec();
        if self.over == "socket" {
            words.insert(0, "--host".to_owned());
            words.push(format!("{WITHIN}/cpi_bundle/bin/cpi"));
            words.extend(["--config".to_owned(), format!("{WITHIN}/socket.json")]);
        } else {
            words.push(bundle(self.host).to_str().unwrap().to_owned());
            words.extend(["--config".to_owned(), self.config().to_str().unwrap().to_owned()]);
        }
        self.host
            .enter(&words.iter().map(String::as_str).collect::<Vec<_>>())
    }

    pub fn call(&self, method: &str, arguments: Value) -> Answer {
        let request =
            json!({"method": method, "arguments": arguments, "api_version": 2, "context": self.context});
        let mut child = self
            .command()
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        child
            .stdin
            .take()
            .unwrap()
            .write_all(request.to_string().as_bytes())
            .unwrap();
        let output = child.wait_with_output().unwrap();
        let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(
            output.status.success(),
            "{method} exits with {:?}: {stderr}",
            output.status
        );
        let response =
            serde_json::from_slice(&output.stdout).unwrap_or_else(|e| panic!("{method}: {e}: {stderr}"));
        Answer { response, stderr }
    }

    /// What an operator's command prints, whether or not it finds fault.
    pub fn operator(&self, arguments: &[&str]) -> String {
        let config =
            json!({"libvirt": install::libvirt(self.host, self.over), "settings": self.context["settings"]});
        fs::write(self.config(), config.to_string()).unwrap();
        let mut command = self.command();
        command.args(arguments);
        output(command).unwrap_or_else(|said| said)
    }

    /// The tiny guest's stemcell, uploaded.
    #[track_caller]
    pub fn stemcell(&self) -> String {
        self.call("create_stemcell", json!([self.image, {"disk": 1}]))
            .text()
    }

    /// A small VM in the network `bosh`, with this last byte of its address and these cloud properties.
    #[track_caller]
    pub fn vm(&self, stemcell: &str, address: u8, cloud_properties: Value) -> String {
        let ip = format!("192.168.123.{address}");
        self.vm_at(stemcell, &ip, json!({}), cloud_properties).result()[0]
            .as_str()
            .unwrap()
            .to_owned()
    }

    /// The answer of create_vm for a small VM with this address in the network of these cloud properties.
    pub fn vm_at(&self, stemcell: &str, ip: &str, network: Value, cloud_properties: Value) -> Answer {
        let mut properties = json!({"memory": 64, "machine": "pc", "ephemeral_disk": 8});
        merge(&mut properties, cloud_properties);
        let gateway = format!("{}.1", ip.rsplit_once('.').unwrap().0);
        let networks = json!({"default": {"type": "manual", "ip": ip, "netmask": "255.255.255.0", "gateway": gateway,
            "dns": [gateway], "default": ["dns", "gateway"], "cloud_properties": network}});
        self.call(
            "create_vm",
            json!(["agent", stemcell, properties, networks, [], {}]),
        )
    }
}
